"""What is frozen stays, and what is not still reaches its best."""

import itertools

import pytest
import torch

from families import random_mixture
from mogul import EM, GaussianMixture, Gradient, InputError, fit, initialise
from mogul.data import ArraySource
from mogul.distributions import families
from mogul.models.gaussian_mixture import PARTS, SHARINGS

PAIRS = [(name, sharing) for name in families() for sharing in SHARINGS]


def _data(gaps):
    x = random_mixture("full", 3, 4, 3).sample((300,), seed=0)
    if gaps:
        hidden = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < 0.2
        x = torch.where(hidden, torch.nan, x)
    return ArraySource(x)


def _part(model, part, k):
    mixture = model()
    c = 0 if mixture.covariance.n_covariances == 1 else k
    tensors = {
        "weights": mixture.weights[k],
        "means": mixture.means[k],
        "covariances": mixture.covariance.dense()[c],
    }
    return tensors[part].detach().clone()


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize(("name", "sharing"), PAIRS)
@pytest.mark.parametrize("parts", [*[(p,) for p in PARTS], PARTS])
def test_em_keeps_what_is_frozen_and_never_falls(name, sharing, gaps, parts):
    rank = 2 if families()[name].low_rank else None
    model = GaussianMixture(3, 4, name, rank, sharing, dtype=torch.float64)
    source = _data(gaps)
    initialise(model, source)
    model.freeze([1], parts)
    before = {part: _part(model, part, 1) for part in parts}
    history = fit(model, source, EM(), passes=8, tolerance=0.0).history
    for part, value in before.items():
        torch.testing.assert_close(_part(model, part, 1), value, rtol=1e-12, atol=1e-12)
    for row, after in itertools.pairwise(history):
        assert after["log_likelihood"] >= row["log_likelihood"] - 1e-10
    assert history[-1]["log_likelihood"] > history[0]["log_likelihood"]
    assert float(model().weights.detach().sum()) == pytest.approx(1.0)


@pytest.mark.parametrize("name", families())
def test_gradients_keep_what_is_frozen(name):
    model = GaussianMixture(3, 4, name, 2 if families()[name].low_rank else None)
    initialise(model, _data(False))
    model.freeze([0, 2])
    before = [model.centres[k].detach().clone() for k in range(3)]
    shapes = _part(model, "covariances", 0)
    fit(model, _data(False), Gradient(0.05), passes=3)
    torch.testing.assert_close(model.centres[0], before[0], rtol=0, atol=0)
    torch.testing.assert_close(_part(model, "covariances", 0), shapes, rtol=0, atol=0)
    assert not torch.equal(model.centres[1], before[1])


def test_bad_requests_are_refused():
    with pytest.raises(InputError, match="0 to 1"):
        GaussianMixture(2, 3).freeze([2])
    with pytest.raises(InputError, match="weights, means"):
        GaussianMixture(2, 3).freeze(parts=["scales"])
