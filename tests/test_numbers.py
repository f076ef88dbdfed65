"""Numbers that other libraries get wrong, and what a fit must recover."""

import math

import numpy as np
import pytest
import torch

from families import random_mixture
from mogul import EM, GaussianMixture, Gradient, fit, initialise
from mogul.algorithms import mean_log_likelihood
from mogul.data import ArraySource
from mogul.distributions import families
from mogul.models.gaussian_mixture import SHARINGS

PAIRS = [(name, sharing) for name in families() for sharing in SHARINGS]
ALGORITHMS = {"em": (EM(), 200), "gradient": (Gradient(0.02, batch_size=200), 60)}


def _model(name, sharing, k, d, dtype=torch.float64):
    rank = 2 if families()[name].low_rank and d > 2 else None
    return GaussianMixture(k, d, name, rank, sharing, dtype=dtype)


@pytest.mark.parametrize("name", ["full", "diagonal"])
@pytest.mark.parametrize("offset", [1e4, 1e5])
def test_three_unit_clusters_far_from_zero_in_float32(name, offset):
    rng = np.random.default_rng(0)
    means = np.array([[0, 0], [6, 0], [0, 6]])
    x = (means[rng.integers(0, 3, 900)] + rng.normal(size=(900, 2)) + offset).astype(np.float32)
    reached = []
    for dtype in (torch.float32, torch.float64):
        model = _model(name, "own", 3, 2, dtype)
        initialise(model, ArraySource(x), seed=1)
        fit(model, ArraySource(x), EM(), passes=30, tolerance=0.0)
        reached.append(mean_log_likelihood(model(), ArraySource(x)))
    assert reached[0] == pytest.approx(reached[1], abs=1e-3)


@pytest.mark.parametrize("algorithm", ["em", "gradient"])
@pytest.mark.parametrize("n_features", [1, 2, 3, 4, 5])
def test_one_gaussian_reaches_its_entropy(n_features, algorithm):
    truth = random_mixture("full", 1, n_features, 1)
    x = truth.sample((40_000,), seed=0)
    entropy = 0.5 * n_features * math.log(2 * math.pi * math.e)
    entropy += 0.5 * float(torch.logdet(truth.covariance.dense()[0]))
    model = _model("full", "own", 1, n_features)
    initialise(model, ArraySource(x))
    chosen = EM() if algorithm == "em" else Gradient(0.02, batch_size=1000)
    fit(model, ArraySource(x), chosen, passes=8)
    reached = -mean_log_likelihood(model(), ArraySource(x))
    assert reached == pytest.approx(entropy, rel=0.01)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_four_separated_components_are_recovered(algorithm, seed):
    rng = np.random.default_rng(seed)
    means = np.array([[-8.0, -8], [8, -8], [-8, 8], [8, 8]])
    weights = np.array([0.1, 0.2, 0.3, 0.4])
    labels = rng.choice(4, 8000, p=weights)
    x = means[labels] + rng.normal(size=(8000, 2))
    model = _model("full", "own", 4, 2)
    initialise(model, ArraySource(x), seed=seed)
    chosen, passes = ALGORITHMS[algorithm]
    fit(model, ArraySource(x), chosen, passes=min(passes, 40))
    found = model()
    order = torch.cdist(torch.tensor(means), found.means).argmin(1)
    assert (found.means[order] - torch.tensor(means)).abs().max() < 0.15
    assert (found.weights[order] - torch.tensor(weights)).abs().max() < 0.02


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize(("name", "sharing"), PAIRS)
def test_integer_weights_are_repeated_rows(name, sharing, gaps):
    x = random_mixture("full", 3, 4, 3).sample((150,), seed=0)
    if gaps:
        hidden = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < 0.2
        x = torch.where(hidden, torch.nan, x)
    weight = torch.randint(0, 4, (150,), generator=torch.Generator().manual_seed(0))
    repeated = ArraySource(x.repeat_interleave(weight, dim=0))
    weighted = ArraySource(x, weight=weight.double())
    start = _model(name, sharing, 2, 4)
    initialise(start, repeated)
    reached = []
    for source in (weighted, repeated):
        model = _model(name, sharing, 2, 4)
        model.load_state_dict(start.state_dict())
        history = fit(model, source, EM(batch_size=64), passes=4, tolerance=0.0).history
        reached.append((history[-1]["log_likelihood"], model().log_prob(x).detach()))
    assert reached[0][0] == pytest.approx(reached[1][0], abs=1e-10)
    torch.testing.assert_close(reached[0][1], reached[1][1], rtol=1e-9, atol=1e-9)
    assert mean_log_likelihood(model(), weighted) == pytest.approx(
        mean_log_likelihood(model(), repeated), abs=1e-10
    )


def test_columns_of_little_more_than_rounding_can_be_started() -> None:
    """Spread 0.5 about 1e6 in float32, eight steps of the type."""
    x = 1e6 + 0.5 * torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    model = GaussianMixture(2, 3)
    initialise(model, ArraySource(x))
    assert all(bool(p.isfinite().all()) for p in model.parameters())
