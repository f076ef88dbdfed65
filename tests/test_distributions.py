"""Every family against its dense twin, numerical integration, and closed forms."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal

from families import random_covariance, random_mixture
from mogul import InputError, Mixture
from mogul.distributions import Diagonal, Full, Isotropic, families, family

FAMILIES = list(families())


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("n_features", [1, 2, 7, 50, 200])
@pytest.mark.parametrize("n_covariances", [1, 3])
def test_log_prob_equals_the_dense_twin_in_float64(name, n_features, n_covariances):
    mixture = random_mixture(name, 3, n_features, n_covariances)
    x = mixture.sample((20,), seed=1)
    dense = mixture.covariance.dense().expand(3, -1, -1)
    twin = torch.stack(
        [MultivariateNormal(m, S).log_prob(x) for m, S in zip(mixture.means, dense, strict=True)],
        -1,
    )
    torch.testing.assert_close(
        mixture.component_log_prob(x), twin + mixture.log_weights, rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("n_features", [1, 2, 7, 50, 200])
def test_float32_is_within_1e_4_nats_per_feature(name, n_features):
    mixture = random_mixture(name, 3, n_features, 3)
    x = mixture.sample((50,), seed=1)
    single = Mixture(
        mixture.logits.float(), mixture.centres.float(), mixture.covariance.map(torch.Tensor.float)
    )
    error = (single.log_prob(x.float()).double() - mixture.log_prob(x)).abs().max()
    assert error < 1e-4 * n_features


@pytest.mark.parametrize("name", ["diagonal", "isotropic", "ppca", "factor-analysis"])
def test_float32_survives_noise_far_below_the_distance_of_means(name):
    # Dark pixels: variance 1e-6 about means that lie 0.3 from the origin. Expanding the square in
    # float32 loses 1e-2 nats for each of them.
    d, generator = 60, torch.Generator().manual_seed(0)
    raw = {"log_noise": torch.full((3, d), 1e-6, dtype=torch.float64).log()}
    if name in ("isotropic", "ppca"):
        raw["log_noise"] = raw["log_noise"][:, :1]
    if families()[name].low_rank:
        raw["loadings"] = 1e-3 * torch.randn(3, d, 2, generator=generator, dtype=torch.float64)
    centres = 0.3 * torch.randn(3, d, generator=generator, dtype=torch.float64)
    raw = {key: value.float() for key, value in raw.items()}
    covariance = families()[name].from_raw(raw, d)
    single = Mixture(torch.zeros(3), centres.float(), covariance)
    double = Mixture(
        torch.zeros(3).double(), single.centres.double(), covariance.map(torch.Tensor.double)
    )
    x = double.sample((200,), seed=1).float()
    error = (single.log_prob(x).double() - double.log_prob(x.double())).abs().max()
    assert error < 1e-4 * d
    resp = torch.softmax(torch.randn(200, 3, generator=generator), -1)
    ours = single.covariance.statistics(x, resp, single.centres)
    exact = double.covariance.statistics(x.double(), resp.double(), double.centres)
    torch.testing.assert_close(ours.second, exact.second, rtol=1e-5, atol=0)
    seen = torch.rand(200, d, generator=generator) < 0.5
    hidden = torch.where(seen, x, torch.nan)
    error = (single.log_prob(hidden).double() - double.log_prob(hidden)).abs().max()
    assert error < 1e-4 * d


@pytest.mark.parametrize("name", FAMILIES)
def test_rows_of_any_type_are_scored(name):
    mixture = random_mixture(name, 2, 3, 2)
    x = mixture.sample((4,), seed=0)
    torch.testing.assert_close(mixture.log_prob(x.float()), mixture.log_prob(x.float().double()))
    assert mixture.log_prob(torch.ones(2, 3, dtype=torch.long)).dtype == torch.float64


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("n_features", [1, 2])
def test_densities_integrate_to_one(name, n_features):
    mixture = random_mixture(name, 3, n_features, 3)
    axis = torch.linspace(-30, 30, 1201, dtype=torch.float64)
    grid = torch.cartesian_prod(*[axis] * n_features).reshape(-1, n_features)
    step = float(axis[1] - axis[0]) ** n_features
    assert math.isclose(float(mixture.log_prob(grid).exp().sum() * step), 1.0, abs_tol=1e-6)


def test_weights_enter_as_logarithms():
    # With π added instead of log π, the component terms would differ from log .9 and log .1.
    mixture = Mixture(
        torch.tensor([0.9, 0.1]).log(), torch.zeros(2, 1), Isotropic.of(torch.ones(2), 1)
    )
    terms = mixture.component_log_prob(torch.zeros(1, 1))[0] + 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(terms, torch.tensor([0.9, 0.1]).log())
    assert math.isclose(
        mixture.log_prob(torch.zeros(1, 1)).item(), -0.5 * math.log(2 * math.pi), abs_tol=1e-6
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_samples_have_the_mean_and_variance_of_the_mixture(name):
    mixture = random_mixture(name, 3, 4, 3)
    x = mixture.sample((100_000,), seed=3)
    deviation = mixture.variance.sqrt()
    assert ((x.mean(0) - mixture.mean) / deviation).abs().max() < 0.02
    torch.testing.assert_close(x.var(0), mixture.variance, rtol=0.05, atol=0)


@pytest.mark.parametrize("name", FAMILIES)
def test_samples_without_noise_lie_in_the_span_of_the_factors(name):
    mixture = random_mixture(name, 1, 5, 1)
    deviation = mixture.sample((100,), noise=False, seed=0) - mixture.means[0]
    rank = 0 if mixture.loadings is None else mixture.loadings.shape[-1]
    assert torch.linalg.matrix_rank(deviation, rtol=1e-8) == rank


def test_samples_depend_on_the_seed_alone():
    mixture = random_mixture("ppca", 3, 4, 3)
    first = mixture.sample((5,), seed=7)
    torch.manual_seed(99)
    torch.testing.assert_close(first, mixture.sample((5,), seed=7), rtol=0, atol=0)
    assert not torch.equal(first, mixture.sample((5,), seed=8))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("n_covariances", [1, 3])
def test_marginal_times_conditional_is_the_joint(name, n_covariances):
    mixture = random_mixture(name, 3, 6, n_covariances)
    x = mixture.sample((8,), seed=2)
    a, b = torch.tensor([4, 1]), torch.tensor([0, 2, 3, 5])
    conditional = mixture.condition(a, x[:, a])
    assert conditional.batch_shape == (8,)
    product = mixture.marginal(a).log_prob(x[:, a]) + conditional.log_prob(x[:, b])
    torch.testing.assert_close(product, mixture.log_prob(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("n_covariances", [1, 3])
def test_completion_equals_conditioning_row_by_row(name, n_covariances):
    mixture = random_mixture(name, 3, 6, n_covariances)
    x = mixture.sample((10,), seed=2)
    observed = torch.from_numpy(np.random.default_rng(0).random((10, 6)) < 0.5)
    observed[0], observed[1] = True, False
    done = mixture.complete(torch.where(observed, x, torch.nan))
    for n in range(1, 10):
        a = observed[n].nonzero().squeeze(-1)
        b = (~observed[n]).nonzero().squeeze(-1)
        if len(a) == 0:
            mean, variance, log_prob = mixture.mean, mixture.variance, torch.tensor(0.0)
        else:
            one = mixture.condition(a, x[n, a])
            mean, variance = one.mean, one.variance
            log_prob = mixture.marginal(a).log_prob(x[n, a])
        torch.testing.assert_close(done.mean[n, b], mean)
        torch.testing.assert_close(done.variance[n, b], variance)
        torch.testing.assert_close(done.log_prob[n].logsumexp(-1), log_prob.double())
    torch.testing.assert_close(done.mean[observed], x[observed])


@pytest.mark.parametrize("name", FAMILIES)
def test_completion_samples_have_the_conditional_moments(name):
    mixture = random_mixture(name, 2, 4, 2)
    x = mixture.sample((1,), seed=5).expand(40_000, -1)
    observed = torch.tensor([True, False, True, False]).expand(40_000, -1)
    done = mixture.complete(x, observed)
    draws = done.sample(seed=1)
    scale = done.variance[0, [1, 3]].sqrt()
    assert ((draws[:, [1, 3]].mean(0) - done.mean[0, [1, 3]]) / scale).abs().max() < 0.03
    torch.testing.assert_close(draws[:, [1, 3]].var(0), done.variance[0, [1, 3]], rtol=0.05, atol=0)


@pytest.mark.parametrize("name", FAMILIES)
def test_raw_parameters_round_trip(name):
    covariance = random_covariance(name, 3, 5)
    again = type(covariance).from_raw(covariance.to_raw(), 5)
    torch.testing.assert_close(again.dense(), covariance.dense())
    shapes = type(covariance).raw_shapes(3, 5, 2)
    assert {k: tuple(v.shape) for k, v in covariance.to_raw().items()} == shapes


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("mppca", "ppca"),
        ("mfa", "factor-analysis"),
        ("diag", "diagonal"),
        ("spherical", "isotropic"),
    ],
)
def test_aliases(alias, name):
    assert family(alias) is families()[name]


def test_unknown_family_names_the_choices():
    with pytest.raises(InputError, match=r"'banana'.*ppca"):
        family("banana")


def test_wrong_width_is_refused():
    with pytest.raises(InputError, match="4 features"):
        random_mixture("full", 2, 4, 2).log_prob(torch.zeros(3, 5))


@pytest.mark.parametrize("length", [10.0, 30.0])
@pytest.mark.parametrize("z", [1.0, 10.0, 100.0])
def test_float32_scores_rows_far_along_the_factors(length, z):
    ones = torch.ones(1, 784, 1)
    covariance, centres = families()["ppca"](length * ones, torch.ones(1, 1)), torch.zeros(1, 784)
    x = length * z * torch.ones(2, 784)
    exact = covariance.map(torch.Tensor.double).log_prob(x.double(), centres.double())
    assert (covariance.log_prob(x, centres).double() - exact).abs().max() < 1e-4 * 784


def test_float32_conditional_variances_survive_far_centres():
    for covariance in (Diagonal.of(torch.full((1, 2), 0.3)), Full(0.3**0.5 * torch.eye(2)[None])):
        mixture = Mixture(torch.zeros(1), torch.full((1, 2), 9876.5), covariance)
        found = mixture.complete(torch.tensor([[9876.0, torch.nan]])).variance
        torch.testing.assert_close(found, torch.tensor([[0.0, 0.3]]), rtol=1e-4, atol=0)


def test_the_origin_is_subtracted_before_rounding():
    origin = torch.full((2,), 1e7)
    mixture = Mixture(torch.zeros(1), torch.zeros(1, 2), Isotropic.of(torch.ones(1), 2), origin)
    x = torch.tensor([[1e7 + 0.4, 1e7 - 0.3]], dtype=torch.float64)
    exact = -math.log(2 * math.pi) - 0.5 * (0.4**2 + 0.3**2)
    assert float(mixture.log_prob(x)) == pytest.approx(exact, abs=1e-5)


def test_shapes_that_make_no_sense_are_refused():
    mixture = random_mixture("ppca", 2, 3, 2)
    with pytest.raises(InputError, match="Rows"):
        mixture.complete(torch.zeros(3))
    with pytest.raises(InputError, match="each once"):
        mixture.condition(torch.tensor([1, 1]), torch.zeros(4, 2))
    with pytest.raises(InputError, match="at least one"):
        mixture.condition(torch.tensor([], dtype=torch.long), torch.zeros(4, 0))
    batch = mixture.condition(torch.tensor([0]), torch.zeros(4, 1))
    with pytest.raises(InputError, match="batch shape"):
        batch.complete(torch.zeros(4, 2))
    assert mixture.reconstruct(torch.zeros(2, 5, 3)).shape == (2, 5, 3)
    assert mixture.reconstruct(torch.zeros(3)).shape == (3,)


@pytest.mark.parametrize("name", ["full", "diagonal", "ppca"])
def test_no_samples_are_an_empty_tensor(name):
    mixture = random_mixture(name, 3, 4, 3)
    assert mixture.sample((0,), seed=0).shape == (0, 4)
    assert mixture.sample((2, 0), noise=False, seed=0).shape == (2, 0, 4)
    one = mixture.sample((1,), seed=0)
    assert torch.equal(one, mixture.sample((), seed=0).unsqueeze(0))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("batched", [False, True])
def test_a_mixture_about_an_origin_is_that_of_its_means(name, batched):
    plain = random_mixture(name, 3, 4, 3)
    if batched:
        plain = plain.condition([0, 2], torch.randn(5, 2).double())
    d = plain.n_features
    origin = torch.arange(1.0, d + 1, dtype=torch.float64)
    moved = Mixture(plain.logits, plain.centres - origin, plain.covariance, origin)
    x = plain.sample((5,) if not batched else (), seed=1)
    gaps = x.clone()
    gaps[::2, 0] = torch.nan
    found = [
        (m.means, m.mean, m.variance, m.log_prob(x), m.log_prob(gaps), m.responsibilities(x),
         m.sample((2,), seed=2), m.sample((2,), noise=False, seed=2), m.rsample((2,), seed=2),
         m.cdf(x), m.icdf(0.3), m.marginal([d - 1]).mean, m.condition([0], x[:, :1]).mean,
         m.rescaled(origin, origin[:1].expand(d)).mean, m.with_noise(0.5).log_prob(x))
        for m in (plain, moved)
    ]  # fmt: skip
    if not batched:
        found = [
            (*parts, m.complete(gaps).mean, m.complete(gaps).sample(seed=3), m.reconstruct(x),
             m.reconstruct(gaps))
            for m, parts in zip((plain, moved), found, strict=True)
        ]  # fmt: skip
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one)


@pytest.mark.parametrize(
    "covariance",
    [
        torch.ones(1, 2, 2), -torch.eye(2)[None], torch.full((1, 2, 2), torch.nan),
        torch.tensor([[[1.0, 0.9], [0.0, 1.0]]]), torch.eye(2), torch.ones(1, 2, 3),
        torch.eye(2, dtype=torch.long)[None], torch.eye(2, dtype=torch.float16)[None],
    ],
)  # fmt: skip
def test_matrices_that_are_no_covariances_are_refused(covariance):
    with pytest.raises(InputError, match=r"Covariances of"):
        Full.from_covariance(covariance)


def test_covariances_of_any_units_are_factorised():
    units = torch.tensor([1e-12, 1.0, 1e9], dtype=torch.float64)
    dense = random_covariance("full", 2, 3).dense() * units * units.unsqueeze(-1)
    dense = dense * (1 + 1e-14 * torch.ones(3, 3, dtype=torch.float64).triu(1))  # rounding
    found = Full.from_covariance(dense)
    torch.testing.assert_close(found.dense() / units / units.unsqueeze(-1),
                               dense / units / units.unsqueeze(-1))  # fmt: skip


def test_distribution_functions_at_the_ends_and_gaps_and_noise_that_is_none():
    mixture = random_mixture("full", 2, 3, 2)
    found = mixture.cdf(torch.tensor([[math.inf, -math.inf, math.nan]]))
    assert found[0, :2].tolist() == [1, 0]
    assert found[0, 2].isnan()
    for variance in (-1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="finite, and at least 0"):
            mixture.with_noise(variance)
