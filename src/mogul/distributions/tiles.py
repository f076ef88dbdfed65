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


def tiles(
    component: Tensor, row: Tensor, apart: Tensor, most_rows: int, most_components: int
) -> Iterator[tuple[Tile, bool]]:
    """Cut (component, row) pairs into tiles.

    Components with about as many rows stand together, so that little is padded.

    Args:
        component: of every pair, (p,), in any order.
        row: of every pair, (p,).
        apart: marks components that are never in one tile with others, (K,).
        most_rows: rows of a tile.
        most_components: components of a tile.

    Yields:
        tiles, and whether their components are those set apart.
    """
    order = component.argsort(stable=True)
    counts = torch.bincount(component, minlength=len(apart))
    starts = counts.cumsum(0) - counts
    for marked in (~apart, apart):
        which = (marked & (counts > 0)).nonzero().squeeze(-1)
        which = which[counts[which].argsort()]
        for some in which.split(_together(counts[which].tolist(), most_rows, most_components)):
            count, start = counts[some].unsqueeze(-1), starts[some].unsqueeze(-1)
            longest, height = int(count[-1]), max(1, most_rows // len(some))
            for low in range(0, longest, height):
                place = torch.arange(low, min(low + height, longest), device=row.device)
                inside = place < count
                pair = order[torch.where(inside, start + place, 0)]
                tile = Tile(some, row[pair], torch.where(inside, pair, len(row)))
                yield tile, bool(marked is apart)


def _together(counts: list[int], most_rows: int, most_components: int) -> list[int]:
    """Return how many of the components with these ascending counts to take at a time."""
    sizes, wide = [], 0
    for count in counts:
        if wide and ((wide + 1) * count > most_rows or wide == most_components):
            sizes.append(wide)
            wide = 0
        wide += 1
    return [*sizes, wide] if wide else sizes
