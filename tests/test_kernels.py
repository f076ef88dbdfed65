"""Kernels against the families' own densities and statistics, the dense twins."""

import math

import pytest
import torch

from families import random_mixture
from mogul import EM, GaussianMixture, Mixture, fit, initialise
from mogul.data import ArraySource
from mogul.distributions import Full, families
from mogul.distributions.full_kernel import PrunedKernel
from mogul.distributions.kernel import DirectKernel

NAMES = sorted(families())
FIELDS = ("count", "first", "second", "projected")


def rows_of(mixture: Mixture, n: int, seed: int = 5) -> torch.Tensor:
    """Rows of the mixture and some of no component."""
    generator = torch.Generator().manual_seed(seed)
    few = torch.randn(n // 10, mixture.n_features, generator=generator, dtype=torch.float64) * 6
    return torch.cat([mixture.sample((n - len(few),), seed=seed), few]) + mixture.origin


def twin(mixture: Mixture) -> DirectKernel:
    """The family's own arithmetic in float64."""
    return DirectKernel(
        mixture.covariance.map(torch.Tensor.double),
        mixture.centres.double(),
        mixture.log_weights.double(),
        mixture.origin.double(),
    )


def as_type(mixture: Mixture, dtype: torch.dtype) -> Mixture:
    """The mixture in another type."""
    to = lambda t: t.to(dtype)  # ruff: ignore[lambda-assignment]
    return Mixture(
        to(mixture.logits), to(mixture.centres), mixture.covariance.map(to), to(mixture.origin)
    )


def compare(mixture: Mixture, x: torch.Tensor, nats: float, relative: float) -> None:
    """Check log-densities, responsibilities and moments of two batches against the twin."""
    weight = torch.rand(len(x), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    exact, kernel = twin(mixture), mixture.kernel()
    half = len(x) // 3
    expected = exact.expect(x, weight)
    found = torch.cat([
        kernel.expect(part.to(mixture.dtype), w.to(mixture.dtype))
        for part, w in ((x[:half], weight[:half]), (x[half:], weight[half:]))
    ])
    assert float((found.double() - expected).abs().max()) < nats
    scored = kernel.score(x.to(mixture.dtype))
    assert float((scored.double() - expected).abs().max()) < nats
    resp = kernel.responsibilities(x.to(mixture.dtype)).double()
    assert float((resp - exact.responsibilities(x)).abs().max()) < nats
    for name in FIELDS:
        a, b = getattr(exact.moments, name), getattr(kernel.moments, name)
        if a is None:
            assert b is None
            continue
        if name == "second" and mixture.covariance.name in {"ppca", "isotropic"}:
            a, b = a.mean(-1), b.mean(-1)  # all that one noise variance needs
        assert float((a - b).abs().max()) < relative * float(a.abs().max())


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("n_features", [2, 7, 40, 130])
@pytest.mark.parametrize("name", NAMES)
def test_kernels_equal_the_dense_twin(name: str, n_features: int, shared: bool) -> None:
    mixture = random_mixture(name, 6, n_features, 1 if shared else 6)
    compare(mixture, rows_of(mixture, 400), 1e-9, 1e-10)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("n_features", [2, 7, 40, 130])
@pytest.mark.parametrize("name", NAMES)
def test_kernels_keep_their_digits_in_float32(name: str, n_features: int, shared: bool) -> None:
    mixture = random_mixture(name, 6, n_features, 1 if shared else 6)
    single = as_type(mixture, torch.float32)
    compare(single, rows_of(mixture, 400).float().double(), 5e-3, 5e-5)


@pytest.mark.parametrize("spread", [1e1, 1e3, 1e5])
@pytest.mark.parametrize("name", NAMES)
def test_components_far_apart_cost_no_digits_in_float32(name: str, spread: float) -> None:
    """Centres up to 1e5 standard deviations from each other."""
    base = random_mixture(name, 5, 30, 5)
    mixture = Mixture(base.logits, (base.centres * spread).float().double(), base.covariance)
    single = as_type(mixture, torch.float32)
    x = mixture.sample((300,), seed=2).float().double()
    # A row itself is rounded: what is compared is its density as it stands.
    found = single.log_prob(x.float()).double()
    expected = twin(single).score(x)
    assert float((found - expected).abs().mean()) < 0.01


@pytest.mark.parametrize("name", ["ppca", "factor-analysis"])
def test_factors_a_million_times_the_noise_in_float32(name: str) -> None:
    """Factor scale 100 over noise of standard deviation 1e-2."""
    generator = torch.Generator().manual_seed(0)
    W = 100 * torch.randn(3, 50, 4, generator=generator, dtype=torch.float64)
    raw = {"loadings": W, "log_noise": torch.full((3, 1 if name == "ppca" else 50), math.log(1e-4))}
    covariance = families()[name].from_raw({k: v.double() for k, v in raw.items()}, 50)
    centres = torch.randn(3, 50, generator=generator, dtype=torch.float64)
    single = as_type(Mixture(torch.zeros(3).double(), centres, covariance), torch.float32)
    x = as_type(single, torch.float64).sample((200,), seed=1).float()
    expected = twin(single).score(x.double())
    assert float((single.log_prob(x).double() - expected).abs().max()) < 0.01
    kernel, exact = single.kernel(), twin(single)
    kernel.expect(x)
    exact.expect(x.double())
    for name_ in FIELDS:
        a, b = getattr(exact.moments, name_), getattr(kernel.moments, name_)
        if name_ != "second" or covariance.name != "ppca":
            torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-4 * float(a.abs().max()))


@pytest.mark.parametrize("separation", [0.0, 1.0, 4.0, 40.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pruning_changes_nothing(separation: float, dtype: torch.dtype) -> None:
    """From components on top of each other, where nothing is pruned, to islands."""
    base = random_mixture("full", 12, 30, 12)
    mixture = as_type(Mixture(base.logits, base.centres * separation, base.covariance), dtype)
    kernel = mixture.kernel()
    assert isinstance(kernel, PrunedKernel)
    x = as_type(mixture, torch.float64).sample((500,), seed=3).to(dtype)
    x[::50] *= 30  # rows far from everything
    dense = kernel.joint(x).logsumexp(0)
    found = kernel.score(x)
    tolerance = 1e-12 if dtype == torch.float64 else 2e-6
    assert bool(((found - dense).abs() <= tolerance * dense.abs() + 1e-6).all())


def test_pruning_skips_most_pairs_of_islands() -> None:
    base = random_mixture("full", 12, 30, 12)
    kernel = Mixture(base.logits, base.centres * 10, base.covariance).kernel()
    assert isinstance(kernel, PrunedKernel)
    x = Mixture(base.logits, base.centres * 10, base.covariance).sample((300,), seed=3)
    parts = kernel._sparse(x)
    assert parts is not None
    assert sum(len(chosen.row) for chosen in parts[1]) < 1.2 * len(x)


def test_the_history_tells_of_float64() -> None:
    """Two clusters 1e4 standard deviations apart, in float32."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 3, generator=generator)
    x[200:] += 1e4
    model = GaussianMixture(2, 3, "full", variance_floor=1e-12)
    source = ArraySource(x)
    initialise(model, source)
    fitted = fit(model, source, EM(), passes=2, tolerance=0.0)
    assert any("computed in float64" in event for event in fitted.history[1]["events"])
    wide = GaussianMixture(2, 3, "full", variance_floor=1e-12, dtype=torch.float64)
    wide.load(as_type(model(), torch.float64))
    difference = model().log_prob(x).double() - wide().log_prob(x.double())
    assert float(difference.detach().abs().max()) < 1e-3


def test_forks_share_parameters_and_not_moments() -> None:
    mixture = random_mixture("full", 4, 5, 4)
    x, kernel = rows_of(mixture, 200), mixture.kernel()
    other = kernel.fork()
    kernel.expect(x[:90])
    other.expect(x[90:])
    whole = mixture.kernel()
    whole.expect(x)
    both = kernel.moments + other.moments
    torch.testing.assert_close(both.second, whole.moments.second, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(both.first, whole.moments.first, rtol=1e-12, atol=1e-9)


def test_a_kernel_without_rows_has_moments_of_zero() -> None:
    for name in NAMES:
        moments = random_mixture(name, 3, 4, 3).kernel().moments
        assert not bool(moments.count.any())
        assert not bool(moments.second.any())


def test_gradients_flow_where_they_are_asked_for() -> None:
    mixture = random_mixture("full", 3, 4, 3)
    centres = mixture.centres.clone().requires_grad_()
    covariance = Full(mixture.covariance.tril().clone().requires_grad_())
    Mixture(mixture.logits, centres, covariance).log_prob(
        torch.randn(7, 4).double()
    ).sum().backward()
    assert centres.grad is not None
    assert covariance.scale_tril.grad is not None
    x = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)
    mixture.log_prob(x).sum().backward()
    assert x.grad is not None


def clusters(n: int, d: int, seed: int = 0) -> torch.Tensor:
    """Two overlapping clusters in float32."""
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    x[n // 2 :] += 1.5
    return x


@pytest.mark.parametrize("n_features", [4, 30])
@pytest.mark.parametrize("name", NAMES)
def test_the_size_of_the_weights_changes_nothing(name: str, n_features: int) -> None:
    x, reached = clusters(2000, n_features), []
    for weight in (1.0, 1e-8, 1e8):
        source = ArraySource(x, weight=torch.full((2000,), weight))
        model = GaussianMixture(2, n_features, name)
        initialise(model, ArraySource(x))
        fitted = fit(model, source, EM(), passes=4, tolerance=0.0)
        reached.append([row["log_likelihood"] for row in fitted.history])
    for other in reached[1:]:
        assert other == pytest.approx(reached[0], abs=1e-4)


@pytest.mark.parametrize("n_features", [30, 40])
def test_a_faint_component_keeps_its_moments(n_features: int) -> None:
    """One whose mass is spread over rows, each with a share below the rounding of the type."""
    eye = torch.eye(n_features).expand(2, -1, -1).clone()
    mixture = Mixture(torch.tensor([0.0, math.log(5e-8)]), torch.zeros(2, n_features), Full(eye))
    x = clusters(2000, n_features)
    kernel, exact = (
        DirectKernel(mixture.covariance, mixture.centres, mixture.log_weights, mixture.origin),
        twin(mixture),
    )
    kernel.expect(x)
    exact.expect(x.double())
    pruned = mixture.kernel()
    pruned.expect(x)
    second = exact.moments.second[1]
    torch.testing.assert_close(pruned.moments.second[1], second, rtol=1e-3, atol=1e-7)


def test_collinear_features_are_no_obstacle() -> None:
    generator = torch.Generator().manual_seed(0)
    half = torch.randn(2000, 15, generator=generator)
    x = torch.cat([half, half], 1)
    x[:900] += 2
    model = GaussianMixture(3, 30, "full", variance_floor=1e-8)
    initialise(model, ArraySource(x))
    history = fit(model, ArraySource(x), EM(), passes=5, tolerance=0.0).history
    assert history[-1]["log_likelihood"] > history[0]["log_likelihood"] - 1e-3


@pytest.mark.parametrize(
    ("name", "n_features"),
    [("full", 2), ("full", 5), ("full", 30), ("diagonal", 2), ("diagonal", 5), ("isotropic", 5)],
)
def test_components_a_million_times_wider_than_others(name: str, n_features: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1500, n_features, generator=generator) * 1e-3
    x[:600] *= 1e6
    reached = {}
    for dtype in (torch.float32, torch.float64):
        model = GaussianMixture(2, n_features, name, variance_floor=1e-14, dtype=dtype)
        source = ArraySource(x.to(dtype))
        initialise(model, source, seed=0)
        reached[dtype] = fit(model, source, EM()).history[-1]["log_likelihood"]
    assert reached[torch.float32] == pytest.approx(reached[torch.float64], abs=0.01)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("n_features", [3, 30])
@pytest.mark.parametrize("name", NAMES)
def test_rows_beyond_the_squares_of_the_type_have_a_density(
    name: str, n_features: int, shared: bool
) -> None:
    mixture = as_type(random_mixture(name, 3, n_features, 1 if shared else 3), torch.float32)
    x = torch.zeros(4, n_features)
    x[1] = 1e20
    x[2] = -1e25
    expected = twin(mixture).score(x.double())
    assert float(expected.min()) < -1e38  # beyond float32 as well
    found = mixture.log_prob(x)
    assert not bool(found.isnan().any())
    torch.testing.assert_close(found[[0, 3]].double(), expected[[0, 3]], rtol=1e-5, atol=1e-4)
    resp = mixture.responsibilities(x)
    torch.testing.assert_close(resp.sum(1), torch.ones(4))


@pytest.mark.parametrize("name", NAMES)
def test_an_origin_costs_no_digits(name: str) -> None:
    base = random_mixture(name, 5, 1000, 1 if name == "full" else 5)
    origin = 0.37e4 * torch.rand(
        1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    mixture = as_type(
        Mixture(base.logits, base.centres * 1e4, base.covariance, origin), torch.float32
    )
    x = as_type(mixture, torch.float64).sample((100,), seed=3).float()
    difference = mixture.kernel().score(x).double() - twin(mixture).score(x.double())
    assert float(difference.abs().mean()) < 0.01


def test_what_a_kernel_returned_stays_as_it_was() -> None:
    mixture = random_mixture("diagonal", 2, 3, 2)
    kernel, x = mixture.kernel(), rows_of(mixture, 40)
    first = kernel.responsibilities(x[:1])
    before = first.clone()
    kernel.responsibilities(x[20:21])
    assert torch.equal(first, before)
