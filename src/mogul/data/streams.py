"""Rows of Parquet and Arrow files, streamed: memory does not depend on how many there are."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mogul.compute.prefetch import ahead, made_ahead
from mogul.data.columnar import ColumnarFile, columnar_files
from mogul.data.pixels import ALIGNED, PixelScale
from mogul.data.sources import Block, tensor_of
from mogul.data.streamed import StreamedSource
from mogul.data.tables import holds_bytes, numbers, row_bytes, row_type, row_width, rows_of
from mogul.errors import InputError

ABOUT = b"mogul"  # key, in a schema, of the shape of rows and of the levels of pixels
_AHEAD = 2  # tables of a large row group read before they are asked for
_WHOLE = 2**24  # bytes of a row group up to which it is read at once
_READERS = (
    2  # threads that decode row groups, which is faster than nearly all that is done with them
)
_WINDOW = 2**24  # bytes of row groups whose rows are mixed
_HELD = 3 * _WINDOW  # bytes of row groups held for those who take rows: a batch may lie in two
_TAKEN = 8192  # rows looked through at once for those that are taken


class _Group(NamedTuple):
    """A row group: its file and number there, its first row in all, rows read, and rows."""

    file: ColumnarFile
    number: int
    start: int
    rows: int
    stored: int


class ColumnarSource(StreamedSource):
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

    grouped = True  # rows are read in groups

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
        schema = files[0].schema
        about = _told(Path(path), schema)
        self._weight = weight = about.get("weight") if weight is None else weight
        known = [name for name in schema.names if name != weight]
        self.columns = self._features = list(known if columns is None else columns)
        self._read = [*self._features, *([] if weight is None else [weight])]
        for file in files:
            _check_columns(file, self._read)
        width = row_width(schema, self._features)
        self._row_bytes = row_bytes(schema, self._read)
        self._groups = list(_groups(files, limit))
        if not self._groups:
            raise InputError(f"{path} has no rows; give at least one.")
        shape = about.get("feature_shape", [width]) if columns is None else [width]
        if math.prod(shape) != width:
            raise InputError(
                _odd(path, f"rows of shape {tuple(shape)}, but they have {width} values")
            )
        self._shape = tuple(shape)
        self._held: dict[_Group, Tensor] = {}  # row groups read lately
        self._lock = threading.Lock()
        levels = about.get("levels")
        if levels and any(not holds_bytes(file.schema, self._features) for file in files):
            raise InputError(_odd(path, f"{levels} levels of pixels, but holds no bytes"))
        self._kind = row_type([file.schema for file in files], self._features, bool(levels))
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
                "with smaller ones (`mogul convert --row-group`), or start fewer processes."
            )
        ends = list(accumulate(group.rows for group in self._groups))
        cuts = [0]
        for part in range(1, world):
            wanted = part * ends[-1] / world
            allowed = range(cuts[-1] + 1, len(ends) - world + part + 1)
            cuts.append(min(allowed, key=lambda cut: abs(ends[cut - 1] - wanted)))
        cuts.append(len(ends))
        self._groups = self._groups[cuts[rank] : cuts[rank + 1]]
        self.first = self._groups[0].start
        self._held = {}

    def order(self, generator: torch.Generator) -> Tensor:
        """Return the numbers of all rows (n,) in a random order, those of some groups mixed."""
        shuffled = torch.randperm(
            len(self._groups), generator=generator, device=generator.device
        ).tolist()
        parts: list[Tensor] = []
        window: list[Tensor] = []
        size = 0
        for number in shuffled:
            group = self._groups[number]
            start = group.start - self.first
            window.append(torch.arange(start, start + group.rows))
            size += group.stored * self._row_bytes
            if size >= _WINDOW or number == shuffled[-1]:
                rows = torch.cat(window)
                mixed = torch.randperm(len(rows), generator=generator, device=generator.device)
                parts.append(rows[mixed.cpu()])
                window, size = [], 0
        return torch.cat(parts)

    def _ahead(self, blocks: Iterator[Callable[[], Block]]) -> Iterator[Callable[[], Block]]:
        """Leave blocks to be laid out where they are used: their groups are read ahead."""
        return blocks

    def blocks(self, size: int = 8192) -> Iterator[Callable[[], Block]]:
        """Yield all rows in order as they are stored, at most `size` at a time.

        Row groups are read ahead, on a few threads; each block is a part of one, still to be laid
        out in rows.
        """
        small = [g for g in self._groups if g.stored * self._row_bytes <= _WHOLE]
        tables = made_ahead((partial(g.file.group, g.number, self._read) for g in small), _READERS)
        for group in self._groups:
            if group.stored * self._row_bytes <= _WHOLE:
                table, each = next(tables), self._even(group.rows, size)
                for start in range(0, group.rows, each):
                    rows = table.slice(start, min(each, group.rows - start))
                    yield partial(self._block, group.start + start, rows)
                continue
            start, end = group.start, group.start + group.rows
            for table in ahead(group.file.tables(group.number, self._read, size), _AHEAD):
                rows = table.slice(0, end - start)
                if rows.num_rows:
                    yield partial(self._block, start, rows)
                start += rows.num_rows

    def _even(self, rows: int, size: int) -> int:
        """Return rows to a block that leave no sliver at the end of a group."""
        even = -(-rows // -(-rows // size))
        if self.scale is None or even <= ALIGNED:
            return even
        return min(size, -(-even // ALIGNED) * ALIGNED)  # noise drawn before a block is lost

    def _block(self, start: int, table: Any) -> Block:
        """Lay a table out in rows.

        Raises:
            InputError: for weights that are negative or missing.
        """
        index = torch.arange(start, start + table.num_rows)
        weight = None
        if self._weight is not None:
            values = numbers(table.column(self._weight), self._weight)
            weight = torch.from_numpy(np.array(values))
            if not bool((weight >= 0).all()):
                raise InputError(
                    f"{self.name}: column {self._weight} has weights that are negative or missing; "
                    "give zero or more."
                )
        return Block(self._rows(table.select(self._features)), weight, index)

    def _rows(self, table: Any) -> Tensor:
        return tensor_of(rows_of(table, self.name, self._kind))

    def stored(self, index: Tensor) -> Tensor:
        """Return the rows with these numbers as they are stored.

        Small row groups are held for a while, because rows in the order of `order` come from the
        same few again and again.

        Raises:
            InputError: if there is no such row.
        """
        if len(index) and not 0 <= int(index.min()) <= int(index.max()) < len(self):
            raise InputError(
                f"{self.name} has rows 0 to {len(self) - 1}, and {int(index.min())} to "
                f"{int(index.max())} came; choose among them."
            )
        index = self.first + index
        starts = torch.tensor([group.start for group in self._groups])
        which = torch.searchsorted(starts, index, right=True) - 1
        out: Tensor | None = None
        for g in which.unique().tolist():
            group, here = self._groups[g], (which == g).nonzero().squeeze(-1)
            rows = self._some(group, index[here] - group.start)
            out = rows.new_empty(len(index), self.n_features) if out is None else out
            out[here] = rows
        return torch.empty(0, self.n_features) if out is None else out

    def _some(self, group: _Group, within: Tensor) -> Tensor:
        """Return some rows of a group, from memory if it was read lately."""
        if group.stored * self._row_bytes > _WHOLE:
            return self._picked(group, within)
        with self._lock:
            rows = self._held.pop(group, None)
        if rows is None:
            rows = self._rows(group.file.group(group.number, self._features))
        with self._lock:
            self._held[group] = rows  # the latest used comes last
            while sum(r.nbytes for r in self._held.values()) > _HELD and len(self._held) > 1:
                self._held.pop(next(iter(self._held)))
        return rows[within]

    def _picked(self, group: _Group, within: Tensor) -> Tensor:
        """Return some rows of a large group, read a part at a time."""
        out: Tensor | None = None
        start = 0
        for table in group.file.tables(group.number, self._features, _TAKEN):
            mine = (within >= start) & (within < start + table.num_rows)
            if bool(mine.any()):
                rows = self._rows(table.take(_arrow(within[mine] - start)))
                out = rows.new_empty(len(within), self.n_features) if out is None else out
                out[mine] = rows
            start += table.num_rows
        assert out is not None  # the rows asked for are among those of the group
        return out


def _told(path: Path, schema: Any) -> dict[str, Any]:
    """Return what a schema tells of rows: feature_shape, levels and weight, each if it is known.

    Raises:
        InputError: if it is not of the kind that `write_store` writes.
    """
    try:
        about = json.loads((schema.metadata or {}).get(ABOUT, b"{}"))
    except (ValueError, RecursionError) as error:
        raise InputError(_odd(path, "what is no JSON")) from error
    if not isinstance(about, dict):
        raise InputError(_odd(path, f"a {type(about).__name__}"))
    shape, levels, weight = (about.get(name) for name in ("feature_shape", "levels", "weight"))
    if shape is not None and not (isinstance(shape, list) and all(_is_size(n) for n in shape)):
        raise InputError(_odd(path, f"the shape {shape}"))
    if levels is not None and not (_is_size(levels) and 2 <= levels <= 256):
        raise InputError(_odd(path, f"{levels} levels of pixels"))
    if weight is not None and not isinstance(weight, str):
        raise InputError(_odd(path, f"weights in column {weight}"))
    return {name: value for name, value in about.items() if value is not None}


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _odd(path: str | Path, what: str) -> str:
    return (
        f"{path} tells of {what:.200} in its schema, under the key '{ABOUT.decode()}'; it is "
        "damaged: write or fetch it again."
    )


def _groups(files: Sequence[ColumnarFile], limit: int | None) -> Iterator[_Group]:
    """Yield row groups with rows, in order, up to a number of rows."""
    start = 0
    for file in files:
        for number, rows in enumerate(file.group_sizes()):
            kept = rows if limit is None else min(rows, limit - start)
            if kept > 0:
                yield _Group(file, number, start, kept, rows)
                start += kept


def _check_columns(file: ColumnarFile, wanted: Sequence[str]) -> None:
    """Refuse a file without the columns.

    Raises:
        InputError: naming those that it has.
    """
    names = file.schema.names
    twice = [name for name in dict.fromkeys(wanted) if names.count(name) > 1]
    if twice:
        raise InputError(
            f"{file.path} has several columns called {', '.join(twice)}; give each a name of its "
            "own, or choose others."
        )
    missing = [name for name in wanted if name not in names]
    if missing or not wanted:
        raise InputError(
            f"{file.path} has no column {', '.join(missing) or 'to read'}; its columns are "
            f"{', '.join(names)}."
        )


def _arrow(index: Tensor) -> Any:
    import pyarrow

    return pyarrow.array(index.numpy())
