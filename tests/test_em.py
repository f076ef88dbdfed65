"""EM: one contract for every family and sharing, and agreement with scikit-learn."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.decomposition import FactorAnalysis as SklearnFactorAnalysis
from sklearn.mixture import GaussianMixture as SklearnMixture

from families import random_mixture
from mogul import EM, GaussianMixture, InputError, Mixture, fit, initialise
from mogul.algorithms import StopReason
from mogul.data import ArraySource
from mogul.distributions import Diagonal, Full, Isotropic, families
from mogul.models.gaussian_mixture import SHARINGS

PAIRS = [(name, sharing) for name in families() for sharing in SHARINGS]


def _model(name, sharing, k, d, dtype=torch.float64):
    rank = 2 if families()[name].low_rank else None
    return GaussianMixture(k, d, covariance=name, rank=rank, sharing=sharing, dtype=dtype)


@pytest.mark.parametrize(("name", "sharing"), PAIRS)
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("method", ["random", "k-means++", "k-means"])
def test_log_likelihood_never_falls(name, sharing, seed, method):
    x = random_mixture("full", 4, 6, 4, seed).sample((400,), seed=seed)
    source = ArraySource(x)
    model = _model(name, sharing, 3, 6)
    initialise(model, source, method=method, seed=seed)
    history = fit(model, source, EM(batch_size=150), passes=40, tolerance=0.0).history
    assert not any(row["events"] for row in history)
    values = np.array([row["log_likelihood"] for row in history])
    assert (np.diff(values) >= -1e-10 * np.abs(values[1:])).all()
    assert values[-1] > values[0]


@pytest.mark.parametrize(("name", "sharing"), PAIRS)
def test_batches_do_not_change_the_fit(name, sharing):
    x = random_mixture("full", 3, 5, 3).sample((300,), seed=0)
    ends = []
    for batch_size in (300, 37):
        model = _model(name, sharing, 3, 5)
        initialise(model, ArraySource(x))
        fit(model, ArraySource(x), EM(batch_size), passes=5, tolerance=0.0)
        ends.append(model().log_prob(x))
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "sharing"), PAIRS)
def test_float32_reaches_the_float64_likelihood(name, sharing):
    x = random_mixture("full", 3, 5, 3).sample((500,), seed=0)
    ends = []
    for dtype in (torch.float32, torch.float64):
        model = _model(name, sharing, 3, 5, dtype)
        initialise(model, ArraySource(x))
        fit(model, ArraySource(x), EM(), passes=10, tolerance=0.0)
        ends.append(float(model().log_prob(x.to(dtype)).detach().mean()))
    assert abs(ends[0] - ends[1]) < 1e-3


def test_constant_covariance_stays():
    x = random_mixture("full", 3, 5, 3).sample((300,), seed=0)
    model = _model("full", "constant", 3, 5)
    initialise(model, ArraySource(x))
    before = model().covariance.dense()
    fit(model, ArraySource(x), EM(), passes=5)
    torch.testing.assert_close(model().covariance.dense(), before, rtol=0, atol=0)


_SKLEARN = {
    "full": ("full", "own"),
    "tied": ("full", "shared"),
    "diag": ("diagonal", "own"),
    "spherical": ("isotropic", "own"),
}


@pytest.mark.parametrize("covariance_type", _SKLEARN)
def test_same_start_gives_scikit_learns_likelihood(covariance_type):
    name, sharing = _SKLEARN[covariance_type]
    x = random_mixture("full", 4, 5, 4).sample((2000,), seed=0).numpy()
    means = x[[3, 77, 500, 1200]]
    k, d = means.shape
    precision = {
        "full": np.stack([np.eye(d)] * k),
        "tied": np.eye(d),
        "diag": np.ones((k, d)),
        "spherical": np.ones(k),
    }[covariance_type]
    theirs = SklearnMixture(
        k,
        covariance_type=covariance_type,
        tol=0.0,
        reg_covar=0.0,
        max_iter=20,
        weights_init=np.full(k, 1 / k),
        means_init=means,
        precisions_init=precision,
    )
    with pytest.warns(Warning, match="converge"):
        theirs.fit(x)
    ones = torch.ones(k if sharing == "own" else 1, d, dtype=torch.float64)
    start = {
        "full": Full(torch.diag_embed(ones)),
        "diagonal": Diagonal.of(ones),
        "isotropic": Isotropic.of(ones[:, 0], d),
    }[name]
    model = _model(name, sharing, k, d)
    model.load(Mixture(torch.zeros(k, dtype=torch.float64), torch.tensor(means), start))
    fit(model, ArraySource(x), EM(), passes=20, tolerance=0.0)
    ours = float(model().log_prob(torch.tensor(x)).detach().mean())
    assert abs(ours - theirs.score(x)) < 1e-8


def test_one_component_reaches_scikit_learns_factor_analysis():
    x = random_mixture("factor-analysis", 1, 12, 1).sample((1000,), seed=0)
    theirs = SklearnFactorAnalysis(2, svd_method="lapack", tol=1e-10, max_iter=5000).fit(x.numpy())
    model = GaussianMixture(1, 12, covariance="mfa", rank=2, dtype=torch.float64)
    initialise(model, ArraySource(x))
    fit(model, ArraySource(x), EM(), passes=500, tolerance=1e-12)
    assert float(model().log_prob(x).detach().mean()) >= theirs.score(x.numpy()) - 1e-8


def test_one_component_ppca_reaches_the_closed_form():
    x = random_mixture("full", 1, 8, 1).sample((500,), seed=0)
    model = GaussianMixture(1, 8, covariance="ppca", rank=3, dtype=torch.float64)
    initialise(model, ArraySource(x))
    fit(model, ArraySource(x), EM(), passes=500, tolerance=1e-13)
    eigenvalues = torch.linalg.eigvalsh(torch.cov(x.T, correction=0)).flip(0)
    rest = eigenvalues[3:].mean()
    closed = -0.5 * (8 * np.log(2 * np.pi) + eigenvalues[:3].log().sum() + 5 * rest.log() + 8)
    assert abs(float(model().log_prob(x).detach().mean()) - float(closed)) < 1e-7


@pytest.mark.parametrize(("name", "sharing"), PAIRS)
def test_a_dead_component_is_restarted_and_told(name, sharing):
    x = random_mixture("full", 3, 4, 3).sample((300,), seed=0)
    model = _model(name, sharing, 3, 4)
    initialise(model, ArraySource(x))
    with torch.no_grad():
        model.centres[1] = 1e6
    history = fit(model, ArraySource(x), EM(), passes=20, tolerance=0.0).history
    assert any("restarted" in event for event in history[0]["events"])
    mixture = model()
    assert mixture.log_prob(x).isfinite().all()
    assert float(mixture.weights.detach().min()) > 1e-4
    assert history[-1]["log_likelihood"] > history[0]["log_likelihood"]


def test_far_origin_keeps_float32_accurate():
    x = random_mixture("diagonal", 3, 4, 3).sample((600,), seed=0)
    ends = []
    for offset, dtype in ((0.0, torch.float64), (1e4, torch.float32)):
        model = _model("diagonal", "own", 3, 4, dtype)
        source = ArraySource((x + offset).to(dtype))
        initialise(model, source)
        ends.append(
            fit(model, source, EM(), passes=20, tolerance=0.0).history[-1]["log_likelihood"]
        )
    assert abs(ends[0] - ends[1]) < 2e-2  # the data themselves are rounded to 1e-3 at 1e4


def test_more_starts_are_never_worse_than_the_first():
    x = random_mixture("full", 6, 4, 6).sample((500,), seed=0)
    reached = []
    for n_init in (1, 6):
        model = _model("diagonal", "own", 6, 4)
        initialise(model, ArraySource(x), method="random", n_init=n_init)
        fit(model, ArraySource(x), EM(), passes=5, tolerance=0.0)
        reached.append(float(model().log_prob(x).detach().mean()))
    assert reached[1] >= reached[0] - 1e-9


def test_fit_says_why_it_stopped():
    x = random_mixture("full", 2, 3, 2).sample((300,), seed=0)
    model = _model("full", "own", 2, 3)
    initialise(model, ArraySource(x))
    assert fit(model, ArraySource(x), EM(), passes=1).reason is StopReason.PASS_LIMIT
    done = fit(model, ArraySource(x), EM(), passes=500, validation=ArraySource(x))
    assert done.reason is StopReason.CONVERGED
    assert "nothing to do" in done.reason.advice
    assert done.history[0]["validation"] == pytest.approx(done.history[0]["log_likelihood"])


def test_bad_requests_are_refused_in_a_sentence():
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    with pytest.raises(InputError, match="only 5 row"):
        initialise(GaussianMixture(6, 3), ArraySource(x))
    with pytest.raises(InputError, match="1 to 2"):
        GaussianMixture(2, 3, covariance="ppca", rank=3)
    with pytest.raises(InputError, match="no factors"):
        GaussianMixture(2, 3, covariance="full", rank=1)
    with pytest.raises(InputError, match="own, shared, constant"):
        GaussianMixture(2, 3, sharing="mine")
    with pytest.raises(InputError, match="All rows are equal"):
        initialise(GaussianMixture(1, 3), ArraySource(torch.ones(5, 3)))


def _nasty():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 4))
    far = 8 + rng.normal(size=(3, 4))
    return {
        "constant column": np.column_stack([x, np.full(200, 1e6)]),
        "duplicates": np.repeat(x[:2], 50, axis=0),
        "fewer rows than features": rng.normal(size=(5, 20)),
        "as many components as rows": x[:3],
        "20,000 rows against 3": np.concatenate([rng.normal(size=(20_000, 4)), far]),
        "large": x * 1e15,
        "small": x * 1e-15,
        "far origin": x + 1e6,
        "outlier": np.concatenate([x, np.full((1, 4), 1e12)]),
        "collinear": x @ rng.normal(size=(4, 1)) @ rng.normal(size=(1, 6)),
        "mixed scales": x * np.array([1e-8, 1e-4, 1e4, 1e8]),
        "heavy tails": rng.standard_cauchy((200, 4)),
        "lattice": rng.integers(0, 3, (200, 4)),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", families())
@pytest.mark.parametrize("what", _nasty())
def test_nasty_data_give_finite_rising_likelihoods(what, name, dtype):
    source = ArraySource(_nasty()[what])
    model = _model(name, "own", 3, source.n_features, dtype)
    initialise(model, source)
    history = fit(model, source, EM(), passes=10, tolerance=0.0).history
    assert model().log_prob(source.take(range(len(source)), dtype)).isfinite().all()
    slack = 1e-3 if dtype == torch.float32 else 1e-9
    for row, after in itertools.pairwise(history):
        if not any("restarted" in event for event in row["events"]):
            fall = row["log_likelihood"] - after["log_likelihood"]
            assert fall <= slack * max(1.0, abs(after["log_likelihood"]))


def test_a_scale_beyond_float32_is_refused():
    x = 1e30 * torch.randn(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with pytest.raises(InputError, match="use float64"):
        initialise(_model("full", "own", 2, 2, torch.float32), ArraySource(x))
    model = _model("full", "own", 2, 2)
    initialise(model, ArraySource(x))
    assert fit(model, ArraySource(x), EM(), passes=3).history[-1]["log_likelihood"] < -100


@pytest.mark.parametrize("name", families())
def test_weights_of_any_scale_give_the_same_fit(name):
    x = random_mixture("full", 3, 4, 3).sample((200,), seed=0)
    reached = []
    for weight in (1.0, 1 / 200, 1e6):
        source = ArraySource(x, weight=torch.full((200,), weight, dtype=torch.float64))
        model = _model(name, "own", 2, 4)
        initialise(model, source)
        done = fit(model, source, EM(), passes=30)
        assert not any(row["events"] for row in done.history)
        reached.append(done.history[-1]["log_likelihood"])
    assert reached == pytest.approx([reached[0]] * 3, abs=1e-9)


def test_rows_of_no_weight_have_no_say_in_the_start():
    x = random_mixture("full", 2, 3, 2).sample((200,), seed=0)
    spoiled = torch.cat([x, torch.full((5, 3), 1e6, dtype=torch.float64)])
    weight = torch.ones(205, dtype=torch.float64)
    weight[200:] = 0
    reached = []
    for source in (ArraySource(x), ArraySource(spoiled, weight=weight)):
        model = _model("full", "own", 2, 3)
        initialise(model, source)
        reached.append(fit(model, source, EM(), passes=200).history[-1]["log_likelihood"])
    assert reached[0] == pytest.approx(reached[1], abs=1e-3)


@pytest.mark.parametrize("name", ["full", "diagonal", "factor-analysis"])
def test_columns_in_unlike_units_are_fitted_alike(name):
    x = random_mixture("full", 2, 4, 2).sample((300,), seed=0)
    units = torch.tensor([1.0, 1e5, 1e-3, 1e2], dtype=torch.float64)
    reached = []
    for scale in (torch.ones_like(units), units):
        model = _model(name, "own", 2, 4)
        source = ArraySource(x * scale)
        model.start(x * scale, torch.arange(300) % 2, seed=0)
        history = fit(model, source, EM(), passes=200, tolerance=1e-9).history
        assert not any(row["events"] for row in history)
        reached.append(history[-1]["log_likelihood"] + float(scale.log().sum()))
    assert reached[0] == pytest.approx(reached[1], abs=2e-3 if name == "factor-analysis" else 1e-6)


def test_eigenvalues_never_fall_below_the_floor_and_the_fit_converges():
    r = np.random.default_rng(2)
    q = np.linalg.qr(r.normal(size=(5, 5)))[0]
    x = r.normal(size=(200, 5)) @ np.diag(10.0 ** -np.arange(5)) @ q
    model = GaussianMixture(3, 5, variance_floor=1e-3, dtype=torch.float64)
    initialise(model, ArraySource(x), method="random", seed=2)
    done = fit(model, ArraySource(x), EM(), passes=300)
    values = [row["log_likelihood"] for row in done.history]
    assert (np.diff(values) >= -1e-9).all()
    assert done.reason is StopReason.CONVERGED
    assert done.history[-1]["events"]
    unit = model.floor.sqrt()
    scaled = model().covariance.dense().detach() / unit / unit.unsqueeze(-1)
    assert torch.linalg.eigvalsh(scaled).min() > 1 - 1e-6


@pytest.mark.parametrize("name", families())
def test_a_cluster_of_one_row_starts_with_the_prior_alone(name):
    # Shrunk by one observation of the prior, of which the deviations of one row leave half.
    prior = torch.tensor([4.0, 4.0, 4.0], dtype=torch.float64)
    zero, floor = torch.zeros(1, 3, dtype=torch.float64), 1e-6 * prior
    covariance = families()[name].from_cluster(zero, 1, floor, prior, seed=0)
    variances = covariance.noise_variances[0]
    torch.testing.assert_close(variances, prior / 2, rtol=0.02, atol=0)


def test_parameter_expansion_takes_a_few_passes_where_em_takes_hundreds():
    # Factors that explain nearly all: plain EM moves their lengths by the share that is noise.
    loadings = 10 * torch.randn(1, 8, 2, generator=torch.Generator().manual_seed(0)).double()
    truth = families()["factor-analysis"](loadings, torch.ones(1, 8).double())
    mixture = Mixture(torch.zeros(1).double(), torch.zeros(1, 8).double(), truth)
    x = mixture.sample((2000,), seed=1)
    model = _model("factor-analysis", "own", 1, 8)
    start = families()["factor-analysis"](0.1 * loadings, torch.ones(1, 8).double())
    model.load(Mixture(mixture.logits, mixture.centres, start))
    fit(model, ArraySource(x), EM(), passes=15, tolerance=0.0)
    reached = float(model().log_prob(x).detach().mean())
    best = SklearnFactorAnalysis(2, svd_method="lapack", tol=1e-10, max_iter=5000).fit(x.numpy())
    assert reached > best.score(x.numpy()) - 1e-3
