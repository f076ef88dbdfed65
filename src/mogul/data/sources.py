"""Sources: where batches come from."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from mogul.compute.collective import Group
from mogul.data.gaps import Gaps
from mogul.data.pixels import PixelScale
from mogul.errors import InputError
from mogul.protocols import Batch


class Block(NamedTuple):
    """Rows as they are stored, (b, D) of any type, with weights (b,) or None, and their numbers."""

    rows: Tensor
    weight: Tensor | None
    index: Tensor


class DataSource(ABC):
    """What all sources of this library share.

    Subclasses set `name`, what to call the data in tables; `options`, JSON-like facts with which
    `open_source` opens the same data again; `scale`, how integer pixels become numbers, or None;
    `repeatable`, whether the rows can be read again and again, or in one pass only; `columns`,
    the names of a table's columns, or None; and `numbers`, those that the rows have in the file or
    array of which they are a split, (n,), or None where they are all of it.
    """

    name: str
    options: dict[str, Any]
    scale: PixelScale | None
    repeatable: bool = True
    columns: list[str] | None = None
    numbers: np.ndarray | None = None
    group: Group = Group()  # the processes among which the data were split
    first: int = 0  # the number, in the whole, of the first row of this share
    gaps: Gaps | None = None  # what is hidden on purpose, beside what is missing

    def __repr__(self) -> str:
        """Say what data these are, without reading any."""
        n, shape = self._counted(), self.feature_shape
        form = f" ({'×'.join(map(str, shape))})" if len(shape) > 1 else ""
        facts = {
            "name": self.name,
            "rows": "unknown" if n is None else f"{n:,}",
            "features": f"{self.n_features:,}{form}",
            "gaps": "none" if self.complete else "unknown",
        }
        if self.scale is not None:
            facts["levels"] = str(self.scale.levels)
        if not self.repeatable:
            facts["passes"] = "one"
        if self.group.world > 1:
            facts["share"] = f"{self.group.rank + 1} of {self.group.world}"
        told = ", ".join(f"{name}: {fact}" for name, fact in facts.items())
        return f"{type(self).__name__}({told})"

    def _counted(self) -> int | None:
        """Return the number of rows where it is known without a pass."""
        return len(self)

    @property
    def complete(self) -> bool:
        """Whether it is known that no value is missing, so that nobody needs to look."""
        return self.scale is not None and self.gaps is None

    def with_gaps(self, fraction: float, seed: int = 0) -> Self:
        """Return the same rows with each value hidden (NaN) with a probability.

        Pixels of colour images are hidden whole. What is hidden of a row is the same in every pass.

        Raises:
            InputError: if the fraction is not between 0 and 1.
        """
        shape = self.feature_shape
        part = copy.copy(self)
        part.gaps = Gaps(fraction, seed, shape[2] if len(shape) == 3 else 1)
        return part

    def shard(self, group: Group) -> Self:
        """Return this process's share of the rows, one contiguous part for each of the group.

        What is summed over the rows of this source is then summed over those of all processes, so
        that a fit on the shares is a fit on the whole. Batches keep the numbers of rows in the
        whole; `take` counts from zero within the share.

        Raises:
            InputError: if there are fewer rows or row groups than processes, or rows come one
                after another, so that no process could leave out those of others.
        """
        part = copy.copy(self)
        part.group = group
        if group.world > 1:
            part._keep(group.rank, group.world)
        return part

    def _keep(self, rank: int, world: int) -> None:
        """Keep the rank-th of `world` parts only.

        Raises:
            InputError: if there are too few rows, or they cannot be picked.
        """
        if len(self) < world:
            raise InputError(
                f"{self.name}: {len(self)} row(s) cannot be split among {world} processes; start "
                "fewer."
            )
        low, high = rank * len(self) // world, (rank + 1) * len(self) // world
        self.first += low
        self._cut(low, high)

    def _cut(self, low: int, high: int) -> None:
        """Keep the rows from `low` up to `high` only.

        Raises:
            InputError: if rows cannot be picked.
        """
        raise InputError(
            f"{self.name}: rows that come one after another are not split among processes; write "
            "them to a file first: `mogul convert`."
        )

    def order(self, generator: torch.Generator) -> Tensor:
        """Return the numbers of all rows (n,) in a random order, for `take`.

        Sources that read rows in groups mix those of a few groups at a time: not quite a draw
        without replacement, but it does not read every group for every batch.
        """
        return torch.randperm(len(self), generator=generator, device=generator.device).cpu()

    @property
    @abstractmethod
    def feature_shape(self) -> tuple[int, ...]:
        """Shape of one row, for example (28, 28) for an image."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of rows."""

    @abstractmethod
    def blocks(self, size: int = 8192) -> Iterator[Callable[[], Block]]:
        """Yield all rows in order as they are stored, at most `size` at a time.

        Each is still to be read by calling it, once, on any thread.
        """

    @abstractmethod
    def stored(self, index: Tensor) -> Tensor:
        """Return the rows with these numbers as they are stored, (m, D)."""

    def parts(
        self, size: int = 8192, dtype: torch.dtype = torch.float32, device: Any = "cpu"
    ) -> Iterator[Callable[[], Batch]]:
        """Yield what `batches` yields, each still to be made by calling it, on any thread.

        Raises:
            InputError: if a value is infinite, when the batch is made.
        """
        for read in self.blocks(size):
            yield partial(self._made, read, dtype, device)

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
        return self._values(self.stored(index), self.first + index, dtype).to(device)

    def head(self, n: int, dtype: torch.dtype = torch.float32, device: Any = "cpu") -> Tensor:
        """Return the first n rows, or all if there are fewer, (m, D).

        Where there is one pass only, they are kept, and the pass yields them too.

        Raises:
            InputError: if a value is infinite.
        """
        return self.take(range(min(n, len(self))), dtype, device)

    def _made(self, read: Callable[[], Block], dtype: torch.dtype, device: Any) -> Batch:
        """Read a block and make numbers of it."""
        rows, weight, index = read()
        x = self._values(rows, index, dtype)
        return Batch(x.to(device), None if weight is None else weight.to(device, dtype), index)

    def _values(self, rows: Tensor, index: Tensor, dtype: torch.dtype) -> Tensor:
        """Return stored rows (n, D) as numbers.

        Raises:
            InputError: if a value is infinite.
        """
        if self.scale is not None:
            x = self.scale.forward(rows, index, dtype)
        else:
            x = finite_rows(rows.to(dtype), index, self.name)
        return x if self.gaps is None else self.gaps.hide(x, index)

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
        check_array(array, name)
        self._array = array.detach() if isinstance(array, Tensor) else array
        self._weight = None if weight is None else _weights(weight, len(array))
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

    def blocks(self, size: int = 8192) -> Iterator[Callable[[], Block]]:
        """Yield all rows in order as they are stored, at most `size` at a time."""
        for start in range(0, len(self), size):
            yield partial(self._block, start, min(start + size, len(self)))

    def _block(self, start: int, end: int) -> Block:
        weight = None if self._weight is None else self._weight[start:end]
        index = torch.arange(self.first + start, self.first + end)
        return Block(self._rows(slice(start, end)), weight, index)

    def stored(self, index: Tensor) -> Tensor:
        """Return the rows with these numbers as they are stored, (m, D)."""
        return self._rows(index if isinstance(self._array, Tensor) else index.numpy())

    def _cut(self, low: int, high: int) -> None:
        """Keep the rows from `low` up to `high` only."""
        self._array = self._array[low:high]
        if self._weight is not None:  # a part may have weights of zero only
            self._weight = self._weight[low:high]

    def _rows(self, key: Any) -> Tensor:
        part = self._array[key]
        rows = part if isinstance(part, Tensor) else torch.from_numpy(_native(part))
        return rows.reshape(len(rows), -1)


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
            "replace it by a number, or by NaN if it is missing"
            + ("; numbers beyond its range need float64." if rows.dtype == torch.float32 else ".")
        )
    return rows


def tensor_of(array: np.ndarray) -> Tensor:
    """Return an array as a tensor, copied only where torch cannot hold it as it is."""
    held = array.dtype.isnative and array.dtype.itemsize <= 8 and array.flags.writeable
    return torch.from_numpy(array if held else _native(array))


def _native(array: np.ndarray) -> np.ndarray:
    """Copy an array into a type that torch knows: this machine's byte order, at most 64 bits."""
    native = array.dtype.newbyteorder("=")
    return np.array(array, dtype=np.float64 if array.dtype.itemsize > 8 else native)


def _weights(given: np.ndarray | Tensor, n_rows: int) -> Tensor:
    """Return the weights of rows (n,).

    Raises:
        InputError: if they are no numbers, not one for each row, negative, not finite or all zero.
    """
    array = given.detach() if isinstance(given, Tensor) else np.asarray(given)
    if array.shape != (n_rows,):
        raise InputError(
            f"Weights of shape {tuple(array.shape)} came for {n_rows} rows; give one weight per "
            "row."
        )
    _check_numbers(array, "weights")
    weight = array if isinstance(array, Tensor) else torch.from_numpy(_native(array))
    low, total = float(weight.double().min()), float(weight.double().sum())
    if not (low >= 0 and 0 < total < math.inf):
        raise InputError(
            f"Weights from {low:g} with a sum of {total:g} came; they must be finite, zero or "
            "more, and not all zero."
        )
    return weight


def check_array(array: np.ndarray | Tensor, name: str) -> None:
    """Refuse what are no rows of numbers.

    Raises:
        InputError: if the array is not numeric, has no rows or is 1-D.
    """
    shape = tuple(array.shape)
    if len(shape) < 2:
        raise InputError(
            f"{name}: an array of shape {shape} came; rows of features are needed, shape (n, D), "
            "or (n, height, width) for images: reshape it."
        )
    if math.prod(shape) == 0:
        raise InputError(f"{name}: an array of shape {shape} is empty; give at least one row.")
    _check_numbers(array, name)


def _check_numbers(array: np.ndarray | Tensor, name: str) -> None:
    """Refuse what does not hold real numbers, one for every place.

    Raises:
        InputError: if it does not.
    """
    dense = not isinstance(array, Tensor) or (
        array.layout is torch.strided and not array.is_quantized and not array.is_meta
    )
    if not dense:
        raise InputError(
            f"{name}: a tensor came that is sparse, quantised or without values; give a dense one, "
            "such as tensor.to_dense() or tensor.dequantize()."
        )
    complex_ = array.is_complex() if isinstance(array, Tensor) else array.dtype.kind == "c"
    if complex_ or (isinstance(array, np.ndarray) and array.dtype.kind not in "buif"):
        raise InputError(
            f"{name}: values of type {array.dtype} came; real numbers are needed: convert the "
            "columns to numbers, or drop those that are text."
        )
