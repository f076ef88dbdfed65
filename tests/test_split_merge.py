"""Split-and-merge leaves a local optimum, and never ends lower."""

import numpy as np
import pytest
import torch

from mogul import EM, GaussianMixture, InputError, fit, initialise
from mogul.algorithms import mean_log_likelihood, split_and_merge
from mogul.data import ArraySource
from mogul.distributions import families


def _trapped(name):
    """Three far clusters, with two components on one of them and one on the other two."""
    rng = np.random.default_rng(0)
    means = np.array([[-10.0, 0, 0], [10, 0, 0], [10, 10, 0]])
    labels = rng.integers(0, 3, 900)
    source = ArraySource(means[labels] + rng.normal(size=(900, 3)))
    model = GaussianMixture(3, 3, name, 1 if families()[name].low_rank else None)
    model.start(
        source.take(range(900)), torch.tensor(np.where(labels > 0, 2, rng.integers(0, 2, 900))), 0
    )
    fit(model, source, EM(), passes=50)
    return model, source


@pytest.mark.parametrize("name", families())
def test_it_leaves_a_local_optimum(name):
    model, source = _trapped(name)
    before = mean_log_likelihood(model(), source)
    moves = split_and_merge(model, source, moves=12)
    after = mean_log_likelihood(model(), source)
    assert any(move.accepted for move in moves)
    assert after > before + 0.3
    best = GaussianMixture(3, 3, name, 1 if families()[name].low_rank else None)
    initialise(best, source, n_init=5)
    fit(best, source, EM(), passes=50)
    assert after > mean_log_likelihood(best(), source) - 0.02


def test_it_never_ends_lower_and_says_what_it_tried():
    model, source = _trapped("full")
    initialise(model, source, n_init=5)
    fit(model, source, EM(), passes=100)
    before = mean_log_likelihood(model(), source)
    moves = split_and_merge(model, source, moves=4)
    assert 1 <= len(moves) <= 4
    assert mean_log_likelihood(model(), source) >= before
    for move in moves:
        assert move.accepted == (move.log_likelihood > before + 3e-6)


def test_too_few_components_are_refused():
    with pytest.raises(InputError, match="three or more"):
        split_and_merge(GaussianMixture(2, 3), ArraySource(np.eye(3)))
