"""Pairs of rows and components laid out so that every component's work is one matrix product."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


class Workspace:
    """Scratch memory that is kept from tile to tile; it serves one thread."""

    def __init__(self) -> None:
        """Begin with none."""
        self._held: dict[tuple[str, torch.dtype], Tensor] = {}

    def empty(self, name: str, shape: Sequence[int], like: Tensor) -> Tensor:
        """Return uninitialised memory of this shape, the same as last time if that was enough."""
        size = math.prod(shape)
        held = self._held.get((name, like.dtype))
        if held is None or held.numel() < size or held.device != like.device:
            held = torch.empty(size, dtype=like.dtype, device=like.device)
            self._held[name, like.dtype] = held
        return held[:size].view(*shape)

    def taken(self, name: str, table: Tensor, index: Tensor) -> Tensor:
        """Return table[index] (*index, ...), for a contiguous table (m, ...)."""
        out = self.empty(name, (index.numel(), *table.shape[1:]), table)
        torch.index_select(table, 0, index.flatten(), out=out)
        return out.view(*index.shape, *table.shape[1:])


@dataclass(frozen=True)
class Tile:
    """Rows of a few components, padded to as many as the largest of them has.

    `component` (T,), `row` (T, R) numbers of rows, and `pair` (T, R) numbers of pairs; where it is
    padded, `row` is any, and `pair` the number of all pairs.
    """

    component: Tensor
    row: Tensor
    pair: Tensor


@dataclass(frozen=True)
class Span:
    """Components whose pairs are worked on by one thread, at most `height` rows of each at a time.

    `start` and `count` (T,) say where each one's pairs lie in the plan's order.
    """

    component: Tensor
    start: Tensor
    count: Tensor
    height: int


class Plan:
    """How (component, row) pairs are cut into tiles.

    Components with about as many rows stand together, so that little is padded. All pairs of a
    component are in one span, so that threads that work on unlike spans never add to the same sums.

    Args:
        component: of every pair, (p,), in any order.
        row: of every pair, (p,).
        n_components: K.
        most_rows: rows of a tile.
        most_components: components of a tile.
    """

    def __init__(
        self,
        component: Tensor,
        row: Tensor,
        n_components: int,
        most_rows: int,
        most_components: int,
    ) -> None:
        """Order the pairs by component."""
        self._order = component.argsort(stable=True)
        self._row = row
        self._counts = torch.bincount(component, minlength=n_components)
        self._starts = self._counts.cumsum(0) - self._counts
        self._most_rows, self._most_components = most_rows, most_components

    def spans(self, apart: Tensor) -> list[Span]:
        """Return all spans; the components marked in apart (K,) are never in one with others."""
        found: list[Span] = []
        for marked in (~apart, apart):
            which = (marked & (self._counts > 0)).nonzero().squeeze(-1)
            which = which[self._counts[which].argsort()]
            found += self._cut(which)
        return found[::-1]  # the largest first, so that no thread is left with one at the end

    def _cut(self, which: Tensor) -> list[Span]:
        """Cut components (m,), ordered by their number of rows, into spans."""
        counts = self._counts[which]
        ends, begun = list[int](), 0
        for i, count in enumerate(counts.tolist()):
            wide = i + 1 - begun
            if i > begun and (wide * count > self._most_rows or wide > self._most_components):
                ends.append(i)
                begun = i
        edges = [0, *ends, len(which)]
        return [
            Span(which[a:b], self._starts[which[a:b]], counts[a:b], int(counts[b - 1]))
            for a, b in zip(edges, edges[1:], strict=False)
            if b > a
        ]

    def tiles(self, span: Span) -> Iterator[Tile]:
        """Yield the tiles of a span."""
        height = max(1, self._most_rows // len(span.component))
        for low in range(0, span.height, height):
            high = min(low + height, span.height)
            place = torch.arange(low, high, device=span.start.device)
            inside = place < span.count.unsqueeze(-1)
            at = torch.where(inside, span.start.unsqueeze(-1) + place, 0)
            pair = self._order[at]
            row = self._row[pair]
            yield Tile(span.component, row, torch.where(inside, pair, len(self._row)))
