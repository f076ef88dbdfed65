"""Pairs of rows and components that matter, gathered so that each component's rows lie together."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

_LARGE = 2**14  # values per component above which a turn for each is the faster


@dataclass(frozen=True)
class Pairs:
    """Some (component, row) pairs of a batch, ordered by component.

    `component` (p,), `row` (p,), deviations `y` (p, D) of the rows from the component's centre, and
    how many pairs each component has, `counts`.
    """

    component: Tensor
    row: Tensor
    y: Tensor
    counts: list[int]

    @classmethod
    def of(
        cls,
        x: Tensor,
        centres: Tensor,
        component: Tensor,
        row: Tensor,
        out: Tensor | None = None,
    ) -> Pairs:
        """Gather rows of x (n, D) for pairs that are ordered by component; into out (p, D)."""
        out = x.new_empty(len(row), x.shape[1]) if out is None else out
        y = torch.index_select(x, 0, row, out=out)
        counts = torch.bincount(component, minlength=len(centres)).tolist()
        pairs = cls(component, row, y, counts)
        if y.numel() < _LARGE * len(centres):
            y.sub_(centres.index_select(0, component))
        else:  # a turn per component spares a matrix as large as y
            for k, (part,) in pairs.each():
                part.sub_(centres[k])
        return pairs

    def each(self, *tensors: Tensor) -> list[tuple[int, tuple[Tensor, ...]]]:
        """Return each component that has pairs, with its part of the deviations and of tensors."""
        parts = [t.split(self.counts) for t in (self.y, *tensors)]
        return [(k, part) for k, part in enumerate(zip(*parts, strict=True)) if self.counts[k]]


@dataclass
class Chosen:
    """Some (component, row) pairs of a batch, ordered by component, and what is known of each.

    `score` (p,) is a log-joint, and then a responsibility. Deviations are gathered into memory `y`,
    once if these pairs have it to themselves (`alone`).
    """

    x: Tensor
    centres: Tensor
    component: Tensor
    row: Tensor
    y: Tensor
    alone: bool = False
    score: Tensor = field(init=False)
    _pairs: Pairs | None = None

    def gather(self) -> Pairs:
        """Return the pairs with their deviations."""
        if self._pairs is None or not self.alone:
            out = self.y[: len(self.row)]
            self._pairs = Pairs.of(self.x, self.centres, self.component, self.row, out)
        return self._pairs

    def mass(self, weight: Tensor | None) -> Tensor:
        """Return the responsibility of each pair, times the weight of its row."""
        return self.score if weight is None else self.score * weight[self.row]

    def above(self, least: float) -> Chosen:
        """Return the pairs whose score is above some value."""
        keep = self.score > least
        other = Chosen(self.x, self.centres, self.component[keep], self.row[keep], self.y)
        other.score = self.score[keep]
        return other
