"""Rows that come one after another, as a source: loaders, iterators, generators, CSV files."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mogul.compute.prefetch import ahead
from mogul.data.pixels import PixelScale
from mogul.data.sources import Block, check_array, tensor_of
from mogul.data.streamed import StreamedSource
from mogul.errors import InputError

_AHEAD = 2  # arrays read before they are asked for


class IteratedSource(StreamedSource):
    """Rows of arrays that come in order, once or at every call.

    Args:
        start: begins a pass: arrays of rows (b, *feature_shape), of any b.
        scale: returns how the values of such an array become continuous, or None.
        name: what to call the data in tables and reports.
        rows: their number, if it is known; or what counts them.
        limit: take the first rows only.
        repeatable: whether `start` may be called again for the same rows.
        options: JSON-like facts with which `open_source` opens the same data again.

    Raises:
        InputError: if there are no rows, or they are not numeric.
    """

    def __init__(
        self,
        start: Callable[[], Iterator[np.ndarray]],
        scale: Callable[[np.ndarray], PixelScale | None],
        name: str,
        rows: int | Callable[[], int] | None = None,
        limit: int | None = None,
        repeatable: bool = True,
        options: dict[str, Any] | None = None,
    ) -> None:
        """Read the first array, to know the shape of all.

        Raises:
            InputError: as the class says.
        """
        self.name, self.options, self.repeatable = name, options or {}, repeatable
        self._start, self._limit, self._n = start, limit, rows
        self._kept: deque[np.ndarray] = deque()  # read, and still to be yielded by the one pass
        self._once = None if repeatable else self._again()
        self._spent = False
        first = next(self._again() if self._once is None else self._once, None)
        if first is None:
            raise InputError(f"{name} has no rows; give at least one.")
        check_array(first, name)
        self._shape, self.scale = first.shape[1:], scale(first)
        if not repeatable:
            self._kept.append(first)

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Shape of one row, for example (28, 28) for an image."""
        return tuple(self._shape)

    def _counted(self) -> int | None:
        """Return the number of rows where it is known without a pass."""
        return len(self) if isinstance(self._n, int) else None

    def __len__(self) -> int:
        """Return the number of rows, which a pass may have to count.

        Raises:
            InputError: if only the one pass there is could tell.
        """
        if self._n is None and not self.repeatable:
            raise InputError(
                f"{self.name} can be read once only, and does not tell how many rows it has; say "
                "so: open_source(…, rows=N)."
            )
        if self._n is None:
            self._n = sum(len(rows) for rows in self._again())
        if callable(self._n):
            self._n = self._n()
        return self._n if self._limit is None else min(self._n, self._limit)

    def blocks(self, size: int = 8192) -> Iterator[Callable[[], Block]]:
        """Yield all rows in order as they are stored, at most `size` at a time.

        Raises:
            InputError: if they can be read once only, and were; or differ in shape.
        """
        start = 0
        for rows in _regrouped(self._checked(), size):
            block = Block(_flat(rows), None, torch.arange(start, start + len(rows)))
            yield partial(_itself, block)
            start += len(rows)

    def stored(self, index: Tensor) -> Tensor:
        """Return the rows with these numbers as they are stored, (m, D), by one pass.

        Raises:
            InputError: if they can be read once only.
        """
        if not self.repeatable:
            raise InputError(
                f"{self.name} can be read once only, in order, so that rows cannot be picked; use "
                "head(n) for the first, or write the rows to a file: mogul.data.write_store."
            )
        order = index.argsort(stable=True)
        wanted, found, start = index[order], [], 0
        last = int(wanted[-1]) if len(wanted) else -1
        if last >= 0:
            for rows in self._checked():
                low, high = torch.searchsorted(wanted, torch.tensor([start, start + len(rows)]))
                found.append(_flat(rows)[wanted[low:high] - start])
                start += len(rows)
                if start > last:
                    break
        if last >= start:
            raise InputError(f"{self.name} has {start} row(s), and row {last} was asked for.")
        picked = torch.cat(found) if found else torch.empty(0, self.n_features)
        return picked[order.argsort()]

    def order(self, generator: torch.Generator) -> Tensor:
        """Refuse a random order.

        Raises:
            InputError: always: rows come in theirs.
        """
        raise InputError(
            f"{self.name}: rows that come one after another cannot be visited in a random order; "
            "write them to a file first (`mogul convert`), or fit by EM() or OnlineEM()."
        )

    def head(self, n: int, dtype: torch.dtype = torch.float32, device: Any = "cpu") -> Tensor:
        """Return the first n rows, or all if there are fewer, (m, D).

        Where there is one pass only, they are kept, and the pass yields them too.

        Raises:
            InputError: if a value is infinite, or the one pass there is was made.
        """
        n = n if self._limit is None else min(n, self._limit)
        parts: list[Tensor] = []
        if self._once is None:
            arrays = self._checked()
        else:
            self._check_unspent()
            held = sum(map(len, self._kept))
            while held < n and (rows := next(self._once, None)) is not None:
                self._kept.append(rows)
                held += len(rows)
            arrays = iter(list(self._kept))
        held = 0
        for rows in arrays:
            parts.append(_flat(rows[: n - held]))
            held += len(parts[-1])
            if held >= n:
                break
        self._check_shapes(parts)
        x = torch.cat(parts)
        return self._values(x, torch.arange(len(x)), dtype).to(device)

    def _check_shapes(self, parts: list[Tensor]) -> None:
        """Refuse rows of unlike widths.

        Raises:
            InputError: naming them.
        """
        widths = list(dict.fromkeys(part.shape[1] for part in parts))
        if len(widths) > 1:
            raise InputError(
                f"{self.name}: rows of {widths[1]} features came after rows of {widths[0]}; all "
                "must be of one shape."
            )

    def _check_unspent(self) -> None:
        if self._spent:
            raise InputError(
                f"{self.name} can be read once only, and was; fit it in one pass (OnlineEM with "
                "passes=1), or write its rows to a file and open that: mogul.data.write_store."
            )

    def _again(self) -> Iterator[np.ndarray]:
        return (rows for rows in self._start() if len(rows))

    def _checked(self) -> Iterator[np.ndarray]:
        """Yield the arrays of a pass, up to the limit.

        Raises:
            InputError: if they can be read once only, and were; or differ in shape; or are not as
                many rows as was said.
        """
        self._check_unspent()
        self._spent = self._once is not None
        left, seen = self._limit, 0
        arrays = self._again() if self._once is None else self._rest(self._once)
        for rows in ahead(arrays, _AHEAD):
            if rows.shape[1:] != tuple(self._shape):
                raise InputError(
                    f"{self.name}: rows of shape {rows.shape[1:]} came after rows of "
                    f"{tuple(self._shape)}; all must be of one shape."
                )
            some = rows if left is None else rows[: left - seen]
            seen += len(some)
            if len(some):
                yield some
            if left is not None and seen >= left:
                return
        if isinstance(self._n, int) and self._n != seen:
            raise InputError(
                f"{self.name} was said to have {self._n} row(s), but {seen} came; give rows= as "
                "many as there are."
            )

    def _rest(self, once: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        while self._kept:
            yield self._kept.popleft()
        yield from once


def _regrouped(arrays: Iterator[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Yield the same rows, `size` at a time, the last ones fewer."""
    held: list[np.ndarray] = []
    n = 0
    for rows in arrays:
        while n + len(rows) >= size:
            held.append(rows[: size - n])
            rows = rows[size - n :]
            yield held[0] if len(held) == 1 else np.concatenate(held)
            held, n = [], 0
        if len(rows):
            held.append(rows)
            n += len(rows)
    if held:
        yield np.concatenate(held)


def _flat(rows: np.ndarray) -> Tensor:
    return tensor_of(rows).reshape(len(rows), -1)


def _itself(block: Block) -> Block:
    return block
