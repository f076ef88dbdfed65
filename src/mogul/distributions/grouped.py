"""Pairs of rows and components that matter, gathered so that each component's rows lie together."""

from __future__ import annotations

from dataclasses import dataclass

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

    @classmethod
    def best(cls, x: Tensor, centres: Tensor, component: Tensor, out: Tensor) -> Pairs:
        """Gather every row of x (n, D) once, for the component (n,) named for it; into out."""
        row = component.argsort(stable=True)
        return cls.of(x, centres, component[row], row, out)

    def each(self, *tensors: Tensor) -> list[tuple[int, tuple[Tensor, ...]]]:
        """Return each component that has pairs, with its part of the deviations and of tensors."""
        parts = [t.split(self.counts) for t in (self.y, *tensors)]
        return [(k, part) for k, part in enumerate(zip(*parts, strict=True)) if self.counts[k]]
