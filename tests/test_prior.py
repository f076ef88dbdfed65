"""Maximum a posteriori fits: pseudo-observations do what a prior's density says."""

import itertools

import numpy as np
import pytest
import torch

from families import random_mixture
from mogul import EM, GaussianMixture, Gradient, InputError, fit, initialise, load_model, save_model
from mogul.data import ArraySource
from mogul.distributions import Prior, families
from mogul.models.gaussian_mixture import SHARINGS

PAIRS = [(name, sharing) for name in families() for sharing in SHARINGS]
PRIOR = Prior(covariance_strength=5.0, covariance_scale=0.3, mean_strength=2.0, concentration=3.0)


def _model(name, sharing, k, d, prior=PRIOR):
    rank = 2 if families()[name].low_rank else None
    return GaussianMixture(k, d, name, rank, sharing, prior=prior, dtype=torch.float64)


def _data(gaps, d=4):
    x = random_mixture("full", 2, d, 2).sample((200,), seed=0)
    if gaps:
        hidden = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.3
        x = torch.where(hidden, torch.nan, x)
    return x


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize(("name", "sharing"), PAIRS)
def test_the_posterior_never_falls_and_em_ends_where_its_gradient_vanishes(name, sharing, gaps):
    x = _data(gaps)
    model = _model(name, sharing, 2, 4)
    initialise(model, ArraySource(x))
    history = fit(model, ArraySource(x), EM(), passes=1500, tolerance=1e-13).history
    values = [row["objective"] for row in history]
    for before, after in itertools.pairwise(values):
        assert after >= before - 1e-10 * abs(before)
    (-model().log_prob(x).mean() - model.log_prior() / len(x)).backward()
    for parameter in model.parameters():
        if parameter.grad is not None:
            assert parameter.grad.abs().max() < 3e-4


def test_one_full_gaussian_has_the_closed_form():
    x = _data(False)
    model = _model("full", "own", 1, 4)
    initialise(model, ArraySource(x))
    fit(model, ArraySource(x), EM(), passes=500, tolerance=1e-14)
    n, mean = len(x), x.mean(0)
    scatter = (x - mean).mT @ (x - mean)
    # The prior's mean is the data's, so the posterior mean is too.
    spread = torch.diag(x.var(0, correction=0))
    expected = (scatter + 5.0 * 0.3 * spread) / (n + 5.0 + 2.0)
    torch.testing.assert_close(model().means[0], mean)
    torch.testing.assert_close(model().covariance.dense()[0], expected, rtol=1e-6, atol=1e-8)


def test_concentration_pulls_weights_together():
    x = torch.randn(100, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[90:] += 30
    model = _model("full", "own", 2, 2, Prior(concentration=11.0))
    initialise(model, ArraySource(x))
    fit(model, ArraySource(x), EM(), passes=20)
    weights = model().weights.sort().values
    torch.testing.assert_close(weights, torch.tensor([20.0, 100.0]).double() / 120)


def test_a_prior_keeps_a_full_covariance_of_few_rows_regular():
    x = torch.randn(5, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = _model("full", "own", 1, 20, Prior(covariance_strength=2.0))
    initialise(model, ArraySource(x))
    history = fit(model, ArraySource(x), EM(), passes=5).history
    assert not any(row["events"] for row in history)
    eigenvalues = torch.linalg.eigvalsh(model().covariance.dense()[0])
    assert eigenvalues.min() > 0.02


@pytest.mark.parametrize("name", families())
@pytest.mark.parametrize("prior", [None, PRIOR])
def test_a_change_of_units_shifts_the_likelihood_exactly(name, prior):
    reached = []
    for unit in (1.0, 1e-4):
        x = _data(False) * unit
        model = _model(name, "own", 2, 4, prior)
        initialise(model, ArraySource(x))
        fit(model, ArraySource(x), EM(), passes=20, tolerance=0.0)
        reached.append(float(model().log_prob(x).detach().mean()))
    assert reached[1] - reached[0] == pytest.approx(4 * np.log(1e4), abs=1e-8)


def test_gradient_reaches_the_same_posterior():
    x = _data(False)
    values = []
    for algorithm, passes in ((EM(), 500), (Gradient(0.05, batch_size=50), 200)):
        model = _model("factor-analysis", "own", 2, 4)
        initialise(model, ArraySource(x))
        fit(model, ArraySource(x), algorithm, passes=passes, tolerance=1e-10)
        mean = float((model().log_prob(x).mean() + model.log_prior() / len(x)).detach())
        values.append(mean)
    assert values[1] > values[0] - 0.01


def test_priors_travel_with_the_file_and_are_checked(tmp_path):
    save_model(tmp_path / "m", _model("ppca", "own", 2, 4))
    assert load_model(tmp_path / "m")[0].prior == PRIOR
    with pytest.raises(InputError, match="concentration at least 1"):
        Prior(concentration=0.5)
