"""Rows of Parquet and Arrow files, streamed: memory does not depend on how many there are."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mogul.compute.prefetch import ahead
from mogul.data.columnar import ColumnarFile, columnar_files, numbers
from mogul.data.pixels import PixelScale
from mogul.data.sources import DataSource, finite_rows
from mogul.errors import InputError
from mogul.protocols import Batch

ABOUT = b"mogul"  # key, in a schema, of the shape of rows and of the levels of pixels
_AHEAD = 3  # batches read before they are asked for


class _Group(NamedTuple):
    """A row group: its file, its number there, its first row in all, and how many it has."""

    file: ColumnarFile
    number: int
    start: int
    rows: int


class ColumnarSource(DataSource):
    """Rows of a Parquet or Arrow file, or of a folder of them, as a source of batches.

    A feature is a numeric column; or all features are in one column of lists of one length,
    such as pixels, whose shape and levels the schema may tell under the key `mogul`. Nulls are
    missing values. No batch spans two row groups, and the
    next ones are read while one is worked on.

    Args:
        path: a file, or a folder whose files are read in the natural order of their names.
        columns: names of the columns to read; default all but the weights.
        weight: name of a column of weights, zero or more.
        dequantise: add uniform noise to integer pixels.
        seed: seed of that noise.
        limit: take the first rows only.
        options: JSON-like facts with which `open_source` opens the same data again.

    Raises:
        InputError: if there are no such files, columns or rows, or files differ in their columns.
    """

    def __init__(
        self,
        path: str | Path,
        columns: Sequence[str] | None = None,
        weight: str | None = None,
        dequantise: bool = True,
        seed: int = 0,
        limit: int | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        """Read what files tell of themselves; rows are read when they are asked for.

        Raises:
            InputError: as the class says.
        """
        self.name, self.options = str(path), options or {}
        files = columnar_files(Path(path))
        schema = files[0].schema()
        known = [name for name in schema.names if name != weight]
        self._columns = list(known if columns is None else columns)
        self._weight = weight
        self._read = [*self._columns, *([] if weight is None else [weight])]
        for file in files:
            _check_columns(file, self._read)
        self._list_size = _list_size(schema, self._columns)
        self._groups = list(_groups(files, limit))
        if not self._groups:
            raise InputError(f"{path} has no rows; give at least one.")
        about = json.loads((schema.metadata or {}).get(ABOUT, b"{}"))
        width = self._list_size or len(self._columns)
        self._shape = tuple(about.get("feature_shape", (width,)))
        levels = about.get("levels")
        self.scale = PixelScale(levels, dequantise, seed) if levels else None

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Shape of one row, for example (28, 28) for an image."""
        return self._shape

    def __len__(self) -> int:
        """Return the number of rows."""
        return sum(group.rows for group in self._groups)

    def _keep(self, rank: int, world: int) -> None:
        """Keep the rank-th of `world` parts: whole row groups, as nearly equal as these allow.

        Raises:
            InputError: if there are fewer row groups than parts.
        """
        if len(self._groups) < world:
            raise InputError(
                f"{self.name} has {len(self._groups)} row group(s) for {world} processes; write it "
                "with more and smaller ones, or start fewer processes."
            )
        ends = list(accumulate(group.rows for group in self._groups))
        cuts = [0]
        for part in range(1, world):
            wanted = part * ends[-1] / world
            allowed = range(cuts[-1] + 1, len(ends) - world + part + 1)
            cuts.append(min(allowed, key=lambda cut: abs(ends[cut - 1] - wanted)))
        cuts.append(len(ends))
        self._groups = self._groups[cuts[rank] : cuts[rank + 1]]

    def parts(
        self, size: int = 8192, dtype: torch.dtype = torch.float32, device: Any = "cpu"
    ) -> Iterator[Callable[[], Batch]]:
        """Yield what `batches` yields, read from its file and still to be converted.

        Raises:
            InputError: if a value is infinite or no number, when it is converted.
        """
        for start, table in ahead(self._tables(size), _AHEAD):
            yield partial(self._batch, start, table, dtype, device)

    def _tables(self, size: int) -> Iterator[tuple[int, Any]]:
        """Yield tables of at most `size` rows, with the number of the first."""
        for group in self._groups:
            start, end = group.start, group.start + group.rows
            even = -(-group.rows // -(-group.rows // size))  # no sliver at the end of a group
            for table in group.file.tables(group.number, self._read, even):
                rows = table.slice(0, end - start)
                if rows.num_rows:
                    yield start, rows
                start += rows.num_rows

    def _batch(self, start: int, table: Any, dtype: torch.dtype, device: Any) -> Batch:
        """Convert a table.

        Raises:
            InputError: for weights that are negative or missing, or a value that is infinite.
        """
        index = torch.arange(start, start + table.num_rows)
        weight = None
        if self._weight is not None:
            values = numbers(table.column(self._weight), self._weight)
            weight = torch.from_numpy(np.array(values)).to(device, dtype)
            if not bool((weight >= 0).all()):
                raise InputError(
                    f"{self.name}: column {self._weight} has weights that are negative or missing; "
                    "give zero or more."
                )
        return Batch(self._rows(table, index, dtype).to(device), weight, index)

    def _rows(self, table: Any, index: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the features of a table, (n, D).

        Raises:
            InputError: if a value is infinite, or a row has no list.
        """
        if self._list_size:
            name = self._columns[0]
            flat = numbers(table.column(name).flatten(), name)
            if len(flat) != table.num_rows * self._list_size:
                raise InputError(f"{self.name}: column {name} has rows without a list.")
            rows = torch.from_numpy(np.array(flat)).reshape(table.num_rows, -1)
        else:
            rows = torch.empty(table.num_rows, len(self._columns), dtype=dtype)
            for j, name in enumerate(self._columns):
                rows[:, j] = torch.from_numpy(np.array(numbers(table.column(name), name)))
        if self.scale is not None:
            return self.scale.forward(rows, index, dtype)
        return finite_rows(rows.to(dtype), index, self.name)

    def take(
        self,
        index: Tensor | np.ndarray | Sequence[int],
        dtype: torch.dtype = torch.float32,
        device: Any = "cpu",
    ) -> Tensor:
        """Return the rows with these numbers, (m, D); reads every row group that holds one.

        Raises:
            InputError: if a value is infinite or no number.
        """
        index = torch.as_tensor(index, dtype=torch.long).cpu()
        out = torch.empty(len(index), self.n_features, dtype=dtype)
        index = self._groups[0].start + index  # in the whole, of which this may be a share
        starts = torch.tensor([group.start for group in self._groups])
        which = torch.searchsorted(starts, index, right=True) - 1
        for g in which.unique().tolist():
            group, here = self._groups[g], (which == g).nonzero().squeeze(-1)
            for table in group.file.tables(group.number, self._columns, group.rows):
                some = table.take(_arrow(index[here] - group.start))
                out[here] = self._rows(some, index[here], dtype)
        return out.to(device)


def _groups(files: Sequence[ColumnarFile], limit: int | None) -> Iterator[_Group]:
    """Yield row groups with rows, in order, up to a number of rows."""
    start = 0
    for file in files:
        for number, rows in enumerate(file.group_sizes()):
            kept = rows if limit is None else min(rows, limit - start)
            if kept > 0:
                yield _Group(file, number, start, kept)
                start += kept


def _check_columns(file: ColumnarFile, wanted: Sequence[str]) -> None:
    """Refuse a file without the columns.

    Raises:
        InputError: naming those that it has.
    """
    names = file.schema().names
    missing = [name for name in wanted if name not in names]
    if missing or not wanted:
        raise InputError(
            f"{file.path} has no column {', '.join(missing) or 'to read'}; its columns are "
            f"{', '.join(names)}."
        )


def _list_size(schema: Any, columns: Sequence[str]) -> int:
    """Return the length of the lists of a single column of lists, or zero for plain columns.

    Raises:
        InputError: if lists come beside other columns, or their length is not fixed.
    """
    import pyarrow.types as kinds

    listed = [name for name in columns if kinds.is_nested(schema.field(name).type)]
    if not listed:
        return 0
    kind = schema.field(columns[0]).type
    if len(columns) > 1 or not kinds.is_fixed_size_list(kind):
        raise InputError(
            f"Column {listed[0]} holds {schema.field(listed[0]).type}; a column of lists must be "
            "the only one, and its lists of one length (fixed_size_list)."
        )
    return kind.list_size


def _arrow(index: Tensor) -> Any:
    import pyarrow

    return pyarrow.array(index.numpy())
