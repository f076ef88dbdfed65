"""Every process makes as many steps, and rows weigh the same wherever they are."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torture._properties.ranks import on_ranks

from mogul import GaussianMixture, Gradient, InputError, fit, initialise
from mogul.algorithms.minibatches import minibatches, n_steps, pool
from mogul.compute.collective import Group
from mogul.data import ArraySource


class Others(Group):
    """A group whose processes have so many rows."""

    rows: list[int]

    def gather(self, value):
        return self.rows


def group(rank, rows):
    made = Others(rank, len(rows))
    object.__setattr__(made, "rows", rows)
    return made


@given(n=st.integers(20, 300), more=st.lists(st.integers(0, 10), min_size=1, max_size=4),
       size=st.integers(1, 200))  # fmt: skip
def test_steps_are_as_many_everywhere_and_shares_add_up_to_one(n, more, size):
    rows = [n, *(n + extra for extra in more)]
    found = [list(minibatches(torch.arange(k), size, group(r, rows))) for r, k in enumerate(rows)]
    assert len({len(steps) for steps in found}) == 1
    for step in zip(*found, strict=True):
        total = sum(len(batch.index) for batch in step)
        assert all(batch.share == pytest.approx(len(batch.index) / total) for batch in step)
    for steps, k in zip(found, rows, strict=True):
        assert torch.cat([batch.index for batch in steps]).tolist() == list(range(k))
        assert min(len(batch.index) for batch in steps) >= 2


def test_shares_too_unequal_are_refused():
    with pytest.raises(InputError, match="from 3 to 20000 rows, too unequal for 79 steps"):
        n_steps(20_000, 256, group(0, [20_000, 3]))


def test_one_process_takes_batches_of_the_size_asked_for():
    sizes = [len(batch.index) for batch in minibatches(torch.arange(101), 25, Group())]
    assert sizes == [25, 25, 25, 26]
    assert n_steps(101, 25, Group()) == 4


def test_gradients_of_unequal_shares_are_those_of_all_rows_of_a_step():
    values = torch.arange(40.0, dtype=torch.float64).square()
    shares = (torch.arange(24), torch.arange(24, 40))

    def work(group):
        found = []
        for batch in minibatches(shares[group.rank], 15, group):
            gradient = values[batch.index].mean().reshape(1)
            pool([gradient], batch.share, group)
            found.append((batch.index, float(gradient)))
        return found

    for own, other in zip(*on_ranks(2, work), strict=True):
        expected = float(values[torch.cat([own[0], other[0]])].mean())
        assert own[1] == pytest.approx(expected)
        assert other[1] == pytest.approx(expected)


def test_a_gradient_fit_on_unequal_shares_is_one_on_the_whole():
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    source = ArraySource(x, weight=torch.arange(1.0, 8))

    def work(group):
        model = GaussianMixture(2, 3, "diagonal", dtype=torch.float64)
        initialise(model, source)
        one_step = Gradient(1e-2, optimiser="sgd", batch_size=100)
        history = fit(model, source.shard(group), one_step, passes=3).history
        return model().log_prob(x).detach(), [row["log_likelihood"] for row in history]

    alone, history = work(Group())
    for log_prob, of_member in on_ranks(3, work):
        torch.testing.assert_close(log_prob, alone)
        assert of_member == pytest.approx(history)
