"""Rows that a function returns by their numbers, as a source."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mogul.compute.prefetch import made_ahead
from mogul.data.pixels import PixelScale
from mogul.data.sources import Block, check_array, tensor_of
from mogul.data.streamed import StreamedSource

_TAKEN = 64  # rows that one thread reads at a time where some are taken


class IndexedSource(StreamedSource):
    """Rows read by number: encoded images, or a data set with random access.

    Args:
        read: returns rows of these numbers, (m, *feature_shape); called on several threads.
        n: number of rows.
        scale: how integer pixels become continuous values; None passes numbers through.
        name: what to call the data in tables and reports.
        options: JSON-like facts with which `open_source` opens the same data again.
        together: whether `read` may run on several threads at once.

    Raises:
        InputError: if there are no rows, or they are not numeric.
    """

    def __init__(
        self,
        read: Callable[[Any], np.ndarray],
        n: int,
        scale: PixelScale | None,
        name: str,
        options: dict[str, Any] | None = None,
        together: bool = True,
    ) -> None:
        """Read the first row, to know the shape of all.

        Raises:
            InputError: as the class says.
        """
        first = read(range(min(n, 1))) if n else np.empty((0, 1))
        check_array(first, name)
        self._read, self._n, self._shape = read, n, first.shape[1:]
        self._offset = 0  # of this share in what `read` reads
        self._lock = None if together else threading.Lock()
        self.scale, self.name, self.options = scale, name, options or {}

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Shape of one row, for example (28, 28) for an image."""
        return tuple(self._shape)

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._n

    def blocks(self, size: int = 8192) -> Iterator[Callable[[], Block]]:
        """Yield all rows in order as they are stored, at most `size` at a time."""
        for start in range(0, self._n, size):
            yield partial(self._block, range(start, min(start + size, self._n)))

    def _block(self, index: range) -> Block:
        start = self.first + index.start
        return Block(self._rows(index), None, torch.arange(start, start + len(index)))

    def _cut(self, low: int, high: int) -> None:
        """Keep the rows from `low` up to `high` only."""
        self._n, self._offset = high - low, self._offset + low

    def stored(self, index: Tensor) -> Tensor:
        """Return the rows with these numbers as they are stored, (m, D)."""
        jobs = (partial(self._rows, part.tolist()) for part in index.split(_TAKEN) if len(part))
        return torch.cat(list(made_ahead(jobs))) if len(index) else torch.empty(0, self.n_features)

    def _rows(self, index: Any) -> Tensor:
        index = [self._offset + i for i in index] if self._offset else index
        if self._lock is None:
            rows = self._read(index)
        else:
            with self._lock:
                rows = self._read(index)
        return tensor_of(rows).reshape(len(rows), math.prod(self._shape))
