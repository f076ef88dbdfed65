"""Parquet and Arrow files: their row groups, and tables of rows from them."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mogul.errors import InputError

PARQUET, ARROW = (".parquet", ".pq"), (".arrow", ".feather")


class ColumnarFile(ABC):
    """One file of row groups, opened anew for every read, so that threads share nothing."""

    def __init__(self, path: Path) -> None:
        """Remember the path."""
        self.path = path

    @abstractmethod
    def schema(self) -> Any:
        """Return the Arrow schema."""

    @abstractmethod
    def group_sizes(self) -> list[int]:
        """Return the number of rows of every row group."""

    @abstractmethod
    def tables(self, group: int, columns: Sequence[str], size: int) -> Iterator[Any]:
        """Yield record batches of at most `size` rows of a row group."""


class ParquetFile(ColumnarFile):
    """Parquet: decoded a batch at a time."""

    def _opened(self) -> Any:
        import pyarrow.parquet

        return pyarrow.parquet.ParquetFile(self.path)

    def schema(self) -> Any:
        """Return the Arrow schema."""
        with self._opened() as file:
            return file.schema_arrow

    def group_sizes(self) -> list[int]:
        """Return the number of rows of every row group."""
        with self._opened() as file:
            about = file.metadata
            return [about.row_group(i).num_rows for i in range(about.num_row_groups)]

    def tables(self, group: int, columns: Sequence[str], size: int) -> Iterator[Any]:
        """Yield record batches of at most `size` rows of a row group."""
        with self._opened() as file:
            yield from file.iter_batches(size, row_groups=[group], columns=list(columns))


class ArrowFile(ColumnarFile):
    """Arrow's own format: mapped into memory, a record batch as row group."""

    def _opened(self) -> Any:
        import pyarrow

        return pyarrow.ipc.open_file(pyarrow.memory_map(str(self.path)))

    def schema(self) -> Any:
        """Return the Arrow schema."""
        return self._opened().schema

    def group_sizes(self) -> list[int]:
        """Return the number of rows of every record batch."""
        file = self._opened()
        return [file.get_batch(i).num_rows for i in range(file.num_record_batches)]

    def tables(self, group: int, columns: Sequence[str], size: int) -> Iterator[Any]:
        """Yield slices of at most `size` rows of a record batch."""
        table = self._opened().get_batch(group).select(list(columns))
        for start in range(0, table.num_rows, size):
            yield table.slice(start, size)


def columnar_files(path: Path) -> list[ColumnarFile]:
    """Return the Parquet or Arrow files of a path, in the natural order of their names.

    Raises:
        InputError: if there are none, or pyarrow is not installed.
    """
    try:
        import pyarrow  # ruff: ignore[unused-import] - only asked whether it is there
    except ImportError as error:
        raise InputError(
            f"{path} needs pyarrow to be read; install it: pip install 'mogul[arrow]'."
        ) from error
    found = [path] if path.is_file() else [p for p in path.rglob("*") if is_columnar(p)]
    if not found:
        raise InputError(f"{path} holds no files of {', '.join((*PARQUET, *ARROW))}.")
    found.sort(key=lambda p: [int(t) if t.isdigit() else t for t in re.split(r"(\d+)", str(p))])
    return [ArrowFile(p) if p.suffix in ARROW else ParquetFile(p) for p in found]


def is_columnar(path: Path) -> bool:
    """Tell by its name whether a path is a Parquet or Arrow file."""
    return path.suffix in (*PARQUET, *ARROW)


def numbers(values: Any, name: str) -> np.ndarray:
    """Return an Arrow array as numbers; nulls become NaN.

    Raises:
        InputError: if it holds something else.
    """
    import pyarrow.types as kinds

    kind = values.type
    if kinds.is_boolean(kind) or kinds.is_decimal(kind):
        values = values.cast("float64")
    elif not (kinds.is_integer(kind) or kinds.is_floating(kind)):
        raise InputError(
            f"Column {name} holds {kind}, not numbers; choose numeric columns (columns=, or "
            "--columns of the command)."
        )
    return values.to_numpy(zero_copy_only=False)
