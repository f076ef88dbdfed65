"""Rows that live on a device for as long as a fit takes, in as few bytes as tell them apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from mogul.data.sources import Block, DataSource
from mogul.errors import InputError
from mogul.protocols import Batch

_READ = 2**22  # values read at a time
_STEPS = 256  # of noise, which is kept in a byte of its own


class ResidentSource(DataSource):
    """All rows of another source, on a device.

    Pixels take one byte, and one more for their noise, which is then rounded to 1/256 of a level.
    Other numbers take two bytes where half precision holds all of them exactly, otherwise four.

    Args:
        source: what to hold.
        device: where.
    """

    resident = True

    def __init__(self, source: DataSource, device: torch.device | str) -> None:
        """Read all rows once."""
        self.name, self.options = source.name, source.options
        self.scale = source.scale if source.complete else None  # no pixel codes a gap
        self.group = source.group
        self._shape = source.feature_shape
        self._device = torch.device(device)
        n = len(source)
        self._index = torch.empty(n, dtype=torch.long)
        self._weight: Tensor | None = None
        self._parts: list[Tensor] = []
        self._fill(source)

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return self._shape

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._index)

    @property
    def n_bytes(self) -> int:
        """Bytes on the device."""
        return sum(part.nbytes for part in self._parts)

    def blocks(self, size: int = 8192) -> Iterator[Callable[[], Block]]:
        """Yield all rows in order as they are held, at most `size` at a time."""
        for start in range(0, len(self), size):
            which = slice(start, start + size)
            weight = None if self._weight is None else self._weight[which]
            yield partial(Block, self._parts[0][which], weight, self._index[which])

    def stored(self, index: Tensor) -> Tensor:
        """Return the rows with these numbers as they are held, (m, D)."""
        return self._parts[0][index.to(self._device)]

    def parts(
        self, size: int = 8192, dtype: torch.dtype = torch.float32, device: Any = None
    ) -> Iterator[Callable[[], Batch]]:
        """Yield what `batches` yields, on the device, each still to be widened by calling it."""
        for start in range(0, len(self), size):
            yield partial(self._batch, slice(start, start + size), dtype)

    def take(
        self,
        index: Tensor | np.ndarray | Sequence[int],
        dtype: torch.dtype = torch.float32,
        device: Any = None,
    ) -> Tensor:
        """Return the rows with these numbers, (m, D), on the device."""
        return self._rows(torch.as_tensor(index, dtype=torch.long, device=self._device), dtype)

    def with_gaps(self, fraction: float, seed: int = 0) -> Self:
        """Refuse to hide what is held.

        Raises:
            InputError: always; what is to have gaps is the source that this one was read from.
        """
        raise InputError("Rows on a device are held as they are; call with_gaps before resident.")

    def _keep(self, rank: int, world: int) -> None:
        """Refuse to be split.

        Raises:
            InputError: always; what is to be split is the source that this one was read from.
        """
        raise InputError("Rows on a device are not split any more; call shard before resident.")

    def _batch(self, which: slice, dtype: torch.dtype) -> Batch:
        weight = None if self._weight is None else self._weight[which].to(dtype)
        return Batch(self._rows(which, dtype), weight, self._index[which])

    def _rows(self, key: Any, dtype: torch.dtype) -> Tensor:
        values = self._parts[0][key].to(dtype)
        if self.scale is None:
            return values
        if self.scale.whole:
            return values / (self.scale.levels - 1)
        noise = 0.5
        if self.scale.dequantise:
            noise = (self._parts[1][key].to(dtype) + 0.5) / _STEPS
        return (values + noise) / self.scale.levels

    def _fill(self, source: DataSource) -> None:
        """Read all rows, a batch at a time."""
        n, d = len(self), self.n_features
        size = max(1, _READ // d)
        kinds = self._kinds(source, size)
        self._parts = [torch.empty(n, d, dtype=kind, device=self._device) for kind in kinds]
        start = 0
        for x, weight, index in source.batches(size, torch.float32):
            here = slice(start, start + len(x))
            for part, values in zip(self._parts, self._coded(x), strict=True):
                part[here] = values.to(self._device)
            self._index[here] = index
            if weight is not None:
                if self._weight is None:
                    self._weight = torch.empty(n, device=self._device)
                self._weight[here] = weight.to(self._device)
            start += len(x)

    def _kinds(self, source: DataSource, size: int) -> list[torch.dtype]:
        """Return the types of what is kept."""
        if self.scale is not None:
            noisy = self.scale.dequantise and not self.scale.whole
            return [torch.uint8] * (2 if noisy else 1)
        exact = all(_is_half(x) for x, *_ in source.batches(size, torch.float32))
        return [torch.float16 if exact else torch.float32]

    def _coded(self, x: Tensor) -> list[Tensor]:
        """Return the values to keep of rows, one tensor for each type."""
        if self.scale is None:
            return [x]
        if self.scale.whole:
            return [(x * (self.scale.levels - 1)).round().to(torch.uint8)]
        levels = x.double() * self.scale.levels
        pixels = levels.floor().clamp_max(self.scale.levels - 1)  # rounding may have reached 1.0
        noise = ((levels - pixels) * _STEPS).floor().clamp_max(_STEPS - 1)
        return [pixels.to(torch.uint8), noise.to(torch.uint8)][: len(self._parts)]


def _is_half(x: Tensor) -> bool:
    """Whether half precision holds all values of a tensor exactly; NaN counts as held."""
    return bool(((x.half().float() == x) | x.isnan()).all())


def resident(source: DataSource, device: torch.device | str, share: float = 0.5) -> DataSource:
    """Return a source with its rows on a GPU if they fit there, otherwise the source itself.

    Args:
        source: the rows.
        device: where to put them; rows for a CPU stay where they are.
        share: of the free memory of the GPU that rows may take.
    """
    device = torch.device(device)
    if device.type != "cuda":
        return source
    free, _ = torch.cuda.mem_get_info(device)
    width = 4 if source.scale is None else 2
    fits = len(source) * math.prod(source.feature_shape) * width <= share * free
    return ResidentSource(source, device) if fits else source
