"""Split-and-merge leaves a local optimum, and never ends lower."""

import copy

import numpy as np
import pytest
import torch

from mogul import EM, GaussianMixture, InputError, TruncatedEM, fit, initialise
from mogul.algorithms import mean_log_likelihood, split_and_merge
from mogul.algorithms.split_merge import _move as merge_and_split
from mogul.compute.collective import Group
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


@pytest.mark.parametrize("name", families())
def test_many_components_move_together(name):
    generator = torch.Generator().manual_seed(0)
    centres = 60 * torch.rand(50, 3, generator=generator, dtype=torch.float64)
    which = torch.randint(50, (2000,), generator=generator)
    x = centres[which] + torch.randn(2000, 3, generator=generator, dtype=torch.float64)
    source, rank = ArraySource(x), 1 if families()[name].low_rank else None
    model = GaussianMixture(50, 3, name, rank, dtype=torch.float64)
    initialise(model, source, "random")
    algorithm = TruncatedEM(3, 8, dense=False)
    fit(model, source, algorithm, passes=40)
    before = mean_log_likelihood(model(), source)
    moves = split_and_merge(model, source, moves=20, passes=8, algorithm=algorithm)
    assert sum(move.accepted for move in moves) >= 3
    assert len({move.split for move in moves[:2]}) == 2  # two at a time, of unlike components
    assert mean_log_likelihood(model(), source) > before + 0.1


def test_moves_together_that_gain_nothing_are_undone():
    generator = torch.Generator().manual_seed(0)
    centres = 60 * torch.rand(40, 3, generator=generator, dtype=torch.float64)
    which = torch.arange(2000) % 40
    x = centres[which] + torch.randn(2000, 3, generator=generator, dtype=torch.float64)
    source = ArraySource(x)
    model = GaussianMixture(40, 3, "isotropic", dtype=torch.float64)
    model.start(x, which, 0)
    algorithm = TruncatedEM(3, 8, dense=False)
    fit(model, source, algorithm, passes=40)
    before = copy.deepcopy(model.state_dict())
    moves = split_and_merge(model, source, moves=4, passes=3, algorithm=algorithm)
    assert moves
    assert not any(move.accepted for move in moves)
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[key])


def test_a_share_of_the_rows_is_refused():
    source = ArraySource(np.eye(4)).shard(Group(0, 2))
    with pytest.raises(InputError, match="in one process, on the whole source"):
        split_and_merge(GaussianMixture(3, 4), source)


def test_a_move_keeps_the_weights_in_sum_and_halves_what_is_split():
    model = GaussianMixture(4, 2, "diagonal", dtype=torch.float64)
    with torch.no_grad():
        model.logits.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4]).log())
        model.centres.copy_(torch.arange(8.0).reshape(4, 2))
    merge_and_split(model, 0, 1, 3, seed=0)
    expected = torch.tensor([0.3, 0.2, 0.3, 0.2], dtype=torch.float64)
    torch.testing.assert_close(model().weights.detach(), expected)
    # The merged one lies at the mean of the two, and the halves about what was split.
    merged = torch.tensor([[0.0, 1.0], [2.0, 3.0]]).double().mT @ torch.tensor([1.0, 2.0]).double()
    torch.testing.assert_close(model.centres[0].detach(), merged / 3)
    halves = model.centres[[1, 3]].detach()
    torch.testing.assert_close(halves.mean(0), torch.tensor([6.0, 7.0], dtype=torch.float64))
    assert (halves[0] - halves[1]).norm() > 1
