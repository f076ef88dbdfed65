"""Write rows of a source into Parquet or Arrow files, a row group at a time."""

from __future__ import annotations

import glob
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mogul.compute.prefetch import made_ahead
from mogul.compute.target import target
from mogul.data.columnar import ARROW, PARQUET, need_pyarrow
from mogul.data.pixels import ALIGNED
from mogul.data.sources import Block, DataSource
from mogul.data.streams import ABOUT
from mogul.errors import InputError

# Chosen for reading speed, on one core (60,000 images 28×28, and 2 million rows of 16 float32):
# - images as bytes (fixed_size_binary) compressed by lz4 are read at 1.8 million a second and take
#   two thirds of their size; not compressed 3.3 million; as lists of uint8, which Parquet keeps as
#   32-bit integers with levels, 0.1 million whatever the encoding;
# - floats plain and not compressed 21 million rows a second; byte_stream_split with zstd saves 8 %
#   of the space and halves the speed; dictionaries halve it too, and make files larger.
_OF_BYTES = {"compression": "lz4", "use_dictionary": False, "write_statistics": False}
_OF_NUMBERS = {"compression": "none", "use_dictionary": False, "write_statistics": False}
_GROUP_BYTES = 2**23  # of a row group
_WEIGHT = "weight"


def write_store(
    source: DataSource,
    path: str | Path,
    *,
    names: Sequence[str] | None = None,
    weight: str | None = None,
    row_group: int | None = None,
    rows_per_file: int | None = None,
    seen: Callable[[int], None] | None = None,
) -> int:
    """Write the rows of a source as they are stored; memory does not depend on how many there are.

    8-bit pixels stay what they are, and are made numbers of when they are read; tables stay float32
    if they were, and are float64 otherwise; NaN stays NaN. Files are whole or absent.

    Args:
        source: what to write; of one that can be read once only, this is the pass.
        path: a file that ends in .parquet, .pq, .arrow or .feather; or, with `rows_per_file`, a
            folder to make, of Parquet files, whose name has none of these endings.
        names: of the columns, one a feature; default those of the source, or their numbers.
        weight: which of them holds weights, so that the store is opened with these.
        row_group: rows to a row group; default what takes 8 MB.
        rows_per_file: rows to a file of a folder.
        seen: called with the number of rows after every row group.

    Returns:
        the number of rows.

    Raises:
        InputError: if rows cannot be read, or the path cannot be written.
    """
    path = Path(path)
    need_pyarrow(f"Writing {path} needs pyarrow")
    import pyarrow

    if row_group is not None and row_group < 1:
        raise InputError(f"row_group is {row_group}; it must be at least 1.")
    if rows_per_file is not None and rows_per_file < 1:
        raise InputError(f"rows_per_file is {rows_per_file}; it must be at least 1.")
    if rows_per_file is None and path.suffix not in (*PARQUET, *ARROW):
        raise InputError(
            f"Cannot write {path}: its name must end in {', '.join((*PARQUET, *ARROW))}, or "
            "rows_per_file be given, for a folder."
        )
    if rows_per_file is not None and path.suffix in (*PARQUET, *ARROW):
        raise InputError(
            f"{path} is the name of a file, and with rows_per_file a folder of Parquet files is "
            f"made; call it {path.with_suffix('')}, or leave rows_per_file out."
        )
    if rows_per_file is not None and path.exists():
        raise InputError(f"{path} exists; choose the name of a folder that does not.")
    real, temporary = target(path), None
    folder = _folder(path)
    for left in folder.glob(f".{glob.escape(real.name)}.{8 * '?'}"):  # of one that was killed
        shutil.rmtree(left, ignore_errors=True)
    try:
        temporary = Path(tempfile.mkdtemp(dir=folder, prefix=f".{real.name}."))
        tables = _tables(source, names, weight, row_group, rows_per_file, path.suffix in ARROW)
        store = temporary / "store"  # for all whom the umask lets read, unlike what is about it
        store.mkdir()
        ending = path.suffix if rows_per_file is None else ".parquet"
        n = _write_files(tables, store, ending, rows_per_file, seen)
        os.replace(store if rows_per_file else next(store.iterdir()), real)
    except InputError:
        raise
    except (pyarrow.ArrowException, ValueError) as error:
        raise InputError(
            f"Rows of {source.name} cannot be put in one table ({error}); give rows of one type."
        ) from error
    except OSError as error:
        raise InputError(
            f"Cannot write {path}: {error.strerror or error}; nothing was kept of it. Choose a "
            "place that is writable and has enough room."
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return n


def _folder(path: Path) -> Path:
    """Return the folder in which to write.

    Raises:
        InputError: if it does not exist or cannot be written.
    """
    folder = target(path).parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(
            f"Cannot write {path}: {folder} is not a writable folder; choose another place."
        )
    return folder


def _write_files(
    tables: Iterator[tuple[int, Any]],
    folder: Path,
    ending: str,
    rows_per_file: int | None,
    seen: Callable[[int], None] | None,
) -> int:
    """Write tables, each a row group, to one file or to several; return the number of rows."""
    n, number, out, sink = 0, -1, None, None
    try:
        for which, table in tables:
            if which > number:
                _close(out, sink)
                number = which
                sink = (folder / f"part-{number:05d}{ending}").open("wb")
                out = _writer(sink, table.schema, ending)
            assert out is not None
            out.write_table(table, max(1, table.num_rows))
            n += table.num_rows
            if seen is not None:
                seen(table.num_rows)
        _close(out, sink)
        out = sink = None
    finally:
        if sink is not None:
            sink.close()
    return n


def _writer(sink: Any, schema: Any, ending: str) -> Any:
    import pyarrow
    from pyarrow import parquet

    if ending in ARROW:
        return pyarrow.ipc.new_file(sink, schema)
    is_bytes = pyarrow.types.is_fixed_size_binary(schema.field(0).type)
    return parquet.ParquetWriter(sink, schema, **(_OF_BYTES if is_bytes else _OF_NUMBERS))


def _close(out: Any, sink: Any) -> None:
    """Finish a file, so that it is on the disk."""
    if out is None:
        return
    out.close()
    sink.flush()
    os.fsync(sink.fileno())
    sink.close()


def _tables(
    source: DataSource,
    names: Sequence[str] | None,
    weight: str | None,
    row_group: int | None,
    rows_per_file: int | None,
    as_lists: bool,
) -> Iterator[tuple[int, Any]]:
    """Yield a table to a row group, and the number of the file it goes to."""
    make = _Maker(source, names, weight, as_lists)
    size = row_group or max(1, _GROUP_BYTES // (source.n_features * make.item_size))
    if row_group is None and size > ALIGNED:
        size -= size % ALIGNED
    size = size if rows_per_file is None else min(size, rows_per_file)
    start = 0
    for block in _groups(made_ahead(source.blocks(size)), size, rows_per_file):
        yield 0 if rows_per_file is None else start // rows_per_file, make(block)
        start += len(block.rows)


def _groups(blocks: Iterator[Block], size: int, rows_per_file: int | None) -> Iterator[Block]:
    """Yield blocks of `size` rows where rows come in smaller ones; none spans two files."""
    held: list[Block] = []
    n = start = 0
    for block in blocks:
        while len(block.rows):
            file_left = size if rows_per_file is None else rows_per_file - start % rows_per_file
            room = min(size, file_left) - n
            some, block = _cut(block, room)
            held.append(some)
            n += len(some.rows)
            if n == min(size, file_left):
                yield _joined(held)
                start, n, held = start + n, 0, []
    if held:
        yield _joined(held)


def _cut(block: Block, at: int) -> tuple[Block, Block]:
    rows, weight, index = block
    first, second = (None, None) if weight is None else (weight[:at], weight[at:])
    return Block(rows[:at], first, index[:at]), Block(rows[at:], second, index[at:])


def _joined(blocks: list[Block]) -> Block:
    if len(blocks) == 1:
        return blocks[0]
    weights = [block.weight for block in blocks if block.weight is not None]
    rows = torch.cat([block.rows for block in blocks])
    index = torch.cat([block.index for block in blocks])
    return Block(rows, torch.cat(weights) if weights else None, index)


class _Maker:
    """Makes an Arrow table of a block of rows."""

    def __init__(
        self, source: DataSource, names: Sequence[str] | None, weight: str | None, as_lists: bool
    ) -> None:
        """Choose how rows are kept.

        Raises:
            InputError: if there are not as many names as features, or none is that of the weights.
        """
        shape = source.feature_shape
        self._pixels, self._as_lists = source.scale is not None, as_lists
        self._listed = self._pixels or len(shape) > 1
        known = source.columns if names is None and not self._listed else names
        if names is None and known is not None and len(known) == 1 < source.n_features:
            known = None  # the only column of a table holds lists, whose values have no names
        self._names = list(known or map(str, range(source.n_features)))
        if not self._listed and len(set(self._names)) != source.n_features:
            raise InputError(
                f"{len(set(self._names))} different name(s) of columns came for "
                f"{source.n_features} feature(s); give one to each."
            )
        if weight is not None and (self._listed or weight not in self._names):
            raise InputError(
                f"The data have no column {weight} of weights; choose a column of a table."
            )
        about: dict[str, Any] = {} if weight is None else {"weight": weight}
        if self._listed:
            about["feature_shape"] = list(shape)
        if source.scale is not None:
            about["levels"] = source.scale.levels
        self._about = about
        self.item_size = 1 if self._pixels else 8

    def __call__(self, block: Block) -> Any:
        """Return a table."""
        import pyarrow

        rows = _narrowed(block.rows.numpy(), self._listed)
        if self._listed:
            columns = {"row": self._lists(rows)}
        else:
            arrays = (np.ascontiguousarray(rows[:, j]) for j in range(rows.shape[1]))
            columns = dict(zip(self._names, map(pyarrow.array, arrays), strict=True))
        if block.weight is not None:
            name = next(n for n in _weight_names() if n not in columns)
            columns[name] = pyarrow.array(block.weight.double().numpy())
            self._about["weight"] = name
        # What may be null costs a level per value to read, twice the time: NaN stays NaN.
        fields = [pyarrow.field(name, c.type, nullable=False) for name, c in columns.items()]
        about = {ABOUT: json.dumps(self._about)}
        return pyarrow.table(columns, schema=pyarrow.schema(fields, about))

    def _lists(self, rows: np.ndarray) -> Any:
        import pyarrow

        flat = np.ascontiguousarray(rows).reshape(-1)
        width = rows.shape[1]
        if self._pixels and not self._as_lists:
            buffers = [None, pyarrow.py_buffer(flat)]
            return pyarrow.Array.from_buffers(pyarrow.binary(width), len(rows), buffers)
        values = pyarrow.array(flat)
        return pyarrow.FixedSizeListArray.from_arrays(values, width)


def _weight_names() -> Iterator[str]:
    """Yield names for a column of weights, of which the first that is free is taken."""
    yield _WEIGHT
    for number in count(2):
        yield f"{_WEIGHT}_{number}"


def _narrowed(rows: np.ndarray, listed: bool) -> np.ndarray:
    """Return pixels and float32 as they are, and other numbers as float64."""
    kept = rows.dtype in (np.float32, np.float64) or (listed and rows.dtype == np.uint8)
    return rows if kept else rows.astype(np.float64)
