"""The campaign's properties, on a few hundred cases."""

import pytest
import torch
from torture import properties
from torture._properties.ranks import on_ranks


def test_no_property_fails():
    (outcome,) = properties.run(quick=True)
    assert outcome.tried >= 300
    assert not outcome.failures


def test_a_property_that_fails_is_told_with_its_case(monkeypatch):
    def holds(case):
        assert case.k < 3, "three are a crowd"

    wrong = properties.Property(holds, 50)
    monkeypatch.setitem(properties.PROPERTIES, "wrong", wrong)
    held, told = properties.check("wrong", 50)
    assert held > 0
    assert "k=3" in told  # the simplest that fails
    assert "three are a crowd" in told


def test_threads_that_play_processes_add_and_send_as_these_do():
    def work(group):
        sums = [torch.tensor([group.rank, 1.0]), torch.tensor(2)]
        group.add(sums)
        own = torch.full((group.rank + 1,), group.rank)
        return (
            sums[0].tolist(), int(sums[1]), group.total(group.rank, 1.0), group.gather(group.rank),
            group.collect(own).tolist(), group.brought(own).tolist(), group.said(group.rank + 7),
        )  # fmt: skip

    first, second = on_ranks(2, work)
    assert first == ([1.0, 2.0], 4, [1.0, 2.0], [0, 1], [0, 1, 1], [0, 1, 1], 7)
    assert second == (*first[:5], [1, 1], 7)

    def fails(group):
        if group.first:
            raise ValueError("lost")
        group.total(1.0)

    with pytest.raises(ValueError, match="lost"):
        on_ranks(2, fails)
