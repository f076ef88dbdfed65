"""Sources: where batches come from."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from mogul.compute.collective import Group
from mogul.data.pixels import PixelScale
from mogul.errors import InputError
from mogul.protocols import Batch


class DataSource(ABC):
    """Rows that can be read again and again: what all sources of this library share.

    Subclasses set `name`, what to call the data in tables; `options`, JSON-like facts with which
    `open_source` opens the same data again; and `scale`, how integer pixels become numbers, or
    None.
    """

    name: str
    options: dict[str, Any]
    scale: PixelScale | None
    group: Group = Group()  # the processes among which the data were split

    @property
    def complete(self) -> bool:
        """Whether it is known that no value is missing, so that nobody needs to look."""
        return self.scale is not None

    def shard(self, group: Group) -> Self:
        """Return this process's share of the rows, one contiguous part for each of the group.

        What is summed over the rows of this source is then summed over those of all processes, so
        that a fit on the shares is a fit on the whole. Batches keep the numbers of rows in the
        whole; `take` counts from zero within the share.

        Raises:
            InputError: if there are fewer rows, row groups or files than processes.
        """
        part = copy.copy(self)
        part.group = group
        if group.world > 1:
            part._keep(group.rank, group.world)
        return part

    @abstractmethod
    def _keep(self, rank: int, world: int) -> None:
        """Keep the rank-th of `world` parts only.

        Raises:
            InputError: if there are too few rows.
        """

    @property
    @abstractmethod
    def feature_shape(self) -> tuple[int, ...]:
        """Shape of one row, for example (28, 28) for an image."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of rows."""

    @abstractmethod
    def parts(
        self, size: int = 8192, dtype: torch.dtype = torch.float32, device: Any = "cpu"
    ) -> Iterator[Callable[[], Batch]]:
        """Yield what `batches` yields, each still to be made by calling it, on any thread.

        Raises:
            InputError: if a value is infinite, when the batch is made.
        """

    @abstractmethod
    def take(
        self,
        index: Tensor | np.ndarray | Sequence[int],
        dtype: torch.dtype = torch.float32,
        device: Any = "cpu",
    ) -> Tensor:
        """Return the rows with these numbers, (m, D).

        Raises:
            InputError: if a value is infinite.
        """

    def order(self, generator: torch.Generator) -> Tensor:
        """Return the numbers of all rows (n,) in a random order, for `take`.

        Sources that read rows in groups mix those of a few groups at a time, which is not quite a
        draw without replacement, but does not read every group for every batch.
        """
        return torch.randperm(len(self), generator=generator, device=generator.device).cpu()

    @property
    def n_features(self) -> int:
        """Number of features D, the product of `feature_shape`."""
        return math.prod(self.feature_shape)

    @property
    def is_image(self) -> bool:
        """Whether rows are pictures: (height, width) or (height, width, 3)."""
        shape = self.feature_shape
        return len(shape) == 2 or (len(shape) == 3 and shape[-1] == 3)

    def batches(
        self, size: int = 8192, dtype: torch.dtype = torch.float32, device: Any = "cpu"
    ) -> Iterator[Batch]:
        """Yield all rows in order, at most `size` at a time.

        Args:
            size: rows per batch.
            dtype: floating-point type of the rows.
            device: where to put them.

        Yields:
            batches of x (b, D), weight (b,) or None, and row numbers (b,).

        Raises:
            InputError: if a value is infinite.
        """
        for part in self.parts(size, dtype, device):
            yield part()

    def to_pixels(self, x: Tensor | np.ndarray) -> np.ndarray:
        """Return rows (n, D) as 8-bit pictures (n, *feature_shape)."""
        scale = self.scale or PixelScale(256)
        return scale.to_pixels(torch.as_tensor(x).cpu().numpy()).reshape(-1, *self.feature_shape)


class ArraySource(DataSource):
    """Rows of an array, memory map or tensor, streamed in batches; NaN means missing.

    Args:
        array: (n, *feature_shape), numeric. It is sliced, never copied whole.
        weight: one non-negative weight per row, (n,).
        scale: how integer pixels become continuous values; None passes numbers through.
        name: what to call the data in tables and reports.
        options: JSON-like facts with which `open_source` opens the same data again.

    Raises:
        InputError: if the array is not numeric, has no rows or is 1-D, or the weights do not fit.
    """

    def __init__(
        self,
        array: np.ndarray | Tensor,
        weight: np.ndarray | Tensor | None = None,
        scale: PixelScale | None = None,
        name: str = "array",
        options: dict[str, Any] | None = None,
    ) -> None:
        """Check the array's form; values are checked as they stream.

        Raises:
            InputError: as the class says.
        """
        _check_array(array, name)
        self._array = array
        self._weight = None if weight is None else torch.as_tensor(weight)
        if self._weight is not None and self._weight.shape != (len(array),):
            raise InputError(
                f"Weights of shape {tuple(self._weight.shape)} came for {len(array)} rows; give "
                "one weight per row."
            )
        if self._weight is not None:
            _check_weight(self._weight)
        self._start = 0  # the number of the first row, where this is a share
        self.scale = scale
        self.name = name
        self.options = options or {}

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Shape of one row, for example (28, 28) for an image."""
        return tuple(self._array.shape[1:])

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._array)

    def parts(
        self, size: int = 8192, dtype: torch.dtype = torch.float32, device: Any = "cpu"
    ) -> Iterator[Callable[[], Batch]]:
        """Yield what `batches` yields, each still to be read by calling it, on any thread.

        Raises:
            InputError: if a value is infinite, when it is read.
        """
        for start in range(0, len(self), size):
            yield partial(self._batch, start, min(start + size, len(self)), dtype, device)

    def _batch(self, start: int, end: int, dtype: torch.dtype, device: Any) -> Batch:
        index = torch.arange(self._start + start, self._start + end)
        x = self._rows(slice(start, end), index, dtype)
        weight = None if self._weight is None else self._weight[start:end].to(device, dtype)
        return Batch(x.to(device), weight, index)

    def take(
        self,
        index: Tensor | np.ndarray | Sequence[int],
        dtype: torch.dtype = torch.float32,
        device: Any = "cpu",
    ) -> Tensor:
        """Return the rows with these numbers, (m, D).

        Raises:
            InputError: if a value is infinite.
        """
        index = torch.as_tensor(index, dtype=torch.long).cpu()
        key = index if isinstance(self._array, Tensor) else index.numpy()
        return self._rows(key, self._start + index, dtype).to(device)

    def _keep(self, rank: int, world: int) -> None:
        """Keep the rank-th of `world` parts only.

        Raises:
            InputError: if there are fewer rows than parts.
        """
        if len(self) < world:
            raise InputError(
                f"{self.name}: {len(self)} row(s) cannot be split among {world} processes; start "
                "fewer."
            )
        low, high = rank * len(self) // world, (rank + 1) * len(self) // world
        self._array, self._start = self._array[low:high], self._start + low
        if self._weight is not None:  # a part may have weights of zero only
            self._weight = self._weight[low:high]

    def _rows(self, key: Any, index: Tensor, dtype: torch.dtype) -> Tensor:
        part = self._array[key]
        rows = part if isinstance(part, Tensor) else torch.from_numpy(_native(part))
        rows = rows.reshape(len(rows), -1)
        if self.scale is not None:
            return self.scale.forward(rows, index, dtype)
        return finite_rows(rows.to(dtype), index, self.name)


def finite_rows(rows: Tensor, index: Tensor, name: str) -> Tensor:
    """Return rows (n, D) of these numbers as they are; NaN may be among them.

    Raises:
        InputError: if a value is infinite, naming its place.
    """
    # A finite sum, one read, clears nearly all data of the slower search.
    infinite = None if bool(rows.sum().isfinite()) else rows.isinf()
    if infinite is not None and bool(infinite.any()):
        row, column = infinite.nonzero()[0].tolist()
        raise InputError(
            f"{name}: row {int(index[row])}, column {column} is infinite in {rows.dtype}; "
            "replace it by a number, or by NaN if it is missing."
        )
    return rows


def _native(array: np.ndarray) -> np.ndarray:
    """Copy an array into a type that torch knows: this machine's byte order, at most 64 bits."""
    native = array.dtype.newbyteorder("=")
    return np.array(array, dtype=np.float64 if array.dtype.itemsize > 8 else native)


def _check_weight(weight: Tensor) -> None:
    low, total = float(weight.double().min()), float(weight.double().sum())
    if not (low >= 0 and 0 < total < math.inf):
        raise InputError(
            f"Weights from {low:g} with a sum of {total:g} came; they must be finite, zero or "
            "more, and not all zero."
        )


def _check_array(array: np.ndarray | Tensor, name: str) -> None:
    shape = tuple(array.shape)
    if len(shape) < 2:
        raise InputError(
            f"{name}: an array of shape {shape} came; rows of features are needed, shape (n, D), "
            "or (n, height, width) for images: reshape it."
        )
    if math.prod(shape) == 0:
        raise InputError(f"{name}: an array of shape {shape} is empty; give at least one row.")
    complex_ = array.is_complex() if isinstance(array, Tensor) else array.dtype.kind == "c"
    if complex_ or (isinstance(array, np.ndarray) and array.dtype.kind not in "buif"):
        raise InputError(
            f"{name}: values of type {array.dtype} came; real numbers are needed: convert the "
            "columns to numbers, or drop those that are text."
        )
