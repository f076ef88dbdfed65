"""Rows of a source in a random order, a window of memory at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mogul.algorithms.minibatches import random_order
from mogul.compute.threads import spread
from mogul.protocols import Batch, Source

_BLOCK = 1024  # rows read together: single ones would be dear to find, or to decode
_WINDOW = 2**24  # values held at a time, 64 MB in float32
_PIECE = 2**22  # values read at a time


def shuffled(
    source: Source,
    size: int,
    dtype: torch.dtype,
    device: torch.device,
    draw: torch.Generator,
    weight: Tensor | None,
    cores: int,
) -> Iterator[Batch]:
    """Yield all rows once, about `size` at a time, in a random order.

    Blocks of rows are read in a random order, and their rows are mixed within a window of many
    blocks; data that fit in one are mixed wholly. Sources that can be read only once are read in
    their own order. `weight` is what `weights_of` found; rows are read on so many cores.
    """
    if not getattr(source, "repeatable", True):
        yield from source.batches(size, dtype, device)
        return
    if getattr(source, "grouped", False):
        windows = iter(random_order(source, draw).split(max(1, _WINDOW // source.n_features)))
    else:
        windows = _windows(source, draw)
    for window in windows:
        index = window.sort().values
        rows = _read(source, index, dtype, device, cores)
        order = torch.randperm(len(index), generator=draw)
        for chosen in order.tensor_split(max(1, round(len(index) / size))):
            own = index[chosen]
            of_rows = None if weight is None else weight[own].to(device, dtype)
            yield Batch(rows[chosen.to(device)], of_rows, own)


def _windows(source: Source, draw: torch.Generator) -> Iterator[Tensor]:
    """Yield the numbers of rows in blocks drawn at random, many blocks at a time."""
    n = len(source)
    blocks = torch.randperm(-(-n // _BLOCK), generator=draw)
    for some in blocks.split(max(1, _WINDOW // (_BLOCK * source.n_features))):
        index = (some.sort().values.unsqueeze(-1) * _BLOCK + torch.arange(_BLOCK)).flatten()
        yield index[index < n]


def _read(
    source: Source, index: Tensor, dtype: torch.dtype, device: torch.device, cores: int
) -> Tensor:
    """Return rows of ascending numbers (m,), (m, D), read on some cores."""
    rows = torch.empty(len(index), source.n_features, dtype=dtype, device=device)

    def read(part: tuple[Tensor, Tensor]) -> None:
        part[1].copy_(source.take(part[0], dtype, device))

    number = max(cores, -(-rows.numel() // _PIECE))
    size = max(1, -(-len(index) // number // _BLOCK)) * _BLOCK
    parts = list(zip(index.split(size), rows.split(size), strict=True))
    spread(parts, [read] * min(cores, len(parts)))
    return rows


def weights_of(source: Source) -> Tensor | None:
    """Return the weights of all rows, (n,), or None if there are none; streams bring their own."""
    if not getattr(source, "repeatable", True):
        return None
    if next(iter(source.batches(1, torch.float64))).weight is None:
        return None
    parts = (batch.weight for batch in source.batches(dtype=torch.float64))
    return torch.cat([part.cpu() for part in parts if part is not None])
