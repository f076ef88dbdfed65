"""Parquet and Arrow files: their row groups, and tables of rows from them."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from mogul.errors import InputError

PARQUET, ARROW = (".parquet", ".pq"), (".arrow", ".feather")
_BUFFER = 2**20  # bytes read at once of each column of a row group too large to hold


class ColumnarFile(ABC):
    """One file of row groups, opened anew for every read, so that threads share nothing."""

    def __init__(self, path: Path) -> None:
        """Remember the path."""
        self.path = path

    @property
    @abstractmethod
    def schema(self) -> Any:
        """The Arrow schema."""

    @abstractmethod
    def group_sizes(self) -> list[int]:
        """Return the number of rows of every row group."""

    @abstractmethod
    def group(self, number: int, columns: Sequence[str]) -> Any:
        """Return a row group whole, as a table."""

    @abstractmethod
    def tables(self, number: int, columns: Sequence[str], size: int) -> Iterator[Any]:
        """Yield tables of at most `size` rows of a row group, which is never held whole."""


class ParquetFile(ColumnarFile):
    """Parquet: decoded a group or a batch at a time."""

    @cached_property
    def _footer(self) -> Any:
        """What the end of the file tells, read once: with many row groups it is long."""
        import pyarrow.parquet

        with _readable(self.path):
            return pyarrow.parquet.read_metadata(self.path)

    def _opened(self, buffer: int = 0) -> Any:
        import pyarrow.parquet

        return pyarrow.parquet.ParquetFile(
            self.path, metadata=self._footer, buffer_size=buffer, memory_map=buffer == 0
        )

    @cached_property
    def schema(self) -> Any:
        """The Arrow schema."""
        footer = self._footer
        with _readable(self.path):
            return _named(footer.schema.to_arrow_schema())

    def group_sizes(self) -> list[int]:
        """Return the number of rows of every row group."""
        with _readable(self.path):
            return [self._footer.row_group(i).num_rows for i in range(self._footer.num_row_groups)]

    def group(self, number: int, columns: Sequence[str]) -> Any:
        """Return a row group whole, as a table, decoded on the calling thread alone."""
        with _readable(self.path), self._opened() as file:
            table = file.read_row_group(number, columns=list(columns), use_threads=False)
            self._check_rows(number, table.num_rows)
            return table

    def tables(self, number: int, columns: Sequence[str], size: int) -> Iterator[Any]:
        """Yield tables of at most `size` rows of a row group, which is never held whole."""
        import pyarrow

        n = 0
        with _readable(self.path), self._opened(_BUFFER) as file:
            for batch in file.iter_batches(size, row_groups=[number], columns=list(columns)):
                n += batch.num_rows
                yield pyarrow.Table.from_batches([batch])
            self._check_rows(number, n)

    def _check_rows(self, number: int, came: int) -> None:
        """Refuse a row group of another number of rows than the footer tells.

        Raises:
            OSError: which tells that the file cannot be read.
        """
        told = self._footer.row_group(number).num_rows
        if came != told:
            raise OSError(f"{came} rows came of a row group of {told}")


class ArrowFile(ColumnarFile):
    """Arrow's own format: mapped into memory, a record batch as row group."""

    def _opened(self) -> Any:
        import pyarrow

        with _readable(self.path):
            return pyarrow.ipc.open_file(pyarrow.memory_map(str(self.path)))

    @cached_property
    def schema(self) -> Any:
        """The Arrow schema."""
        file = self._opened()
        with _readable(self.path):
            return _named(file.schema)

    def group_sizes(self) -> list[int]:
        """Return the number of rows of every record batch."""
        return [self._batch(i).num_rows for i in range(self._opened().num_record_batches)]

    def _batch(self, number: int) -> Any:
        """Return a record batch whose buffers were found to be as long as it tells."""
        with _readable(self.path):
            batch = self._opened().get_batch(number)
            batch.validate()
            return batch

    def group(self, number: int, columns: Sequence[str]) -> Any:
        """Return a record batch as a table that lies in the mapped file."""
        import pyarrow

        return pyarrow.Table.from_batches([self._batch(number).select(list(columns))])

    def tables(self, number: int, columns: Sequence[str], size: int) -> Iterator[Any]:
        """Yield slices of at most `size` rows of a record batch."""
        table = self.group(number, columns)
        for start in range(0, table.num_rows, size):
            yield table.slice(start, size)


def _named(schema: Any) -> Any:
    """Return a schema whose names can be read; a damaged one may hold what is no text."""
    _ = schema.names
    return schema


def columnar_files(path: Path) -> list[ColumnarFile]:
    """Return the Parquet or Arrow files of a path, in the natural order of their names.

    Raises:
        InputError: if there are none, or pyarrow is not installed.
    """
    need_pyarrow(f"{path} needs pyarrow to be read")
    found = [path] if path.is_file() else [p for p in path.rglob("*") if is_columnar(p)]
    if not found:
        raise InputError(f"{path} holds no files of {', '.join((*PARQUET, *ARROW))}.")
    found.sort(key=lambda p: [int(t) if t.isdigit() else t for t in re.split(r"(\d+)", str(p))])
    return [ArrowFile(p) if p.suffix.lower() in ARROW else ParquetFile(p) for p in found]


def need_pyarrow(why: str) -> None:
    """Refuse to go on without pyarrow.

    Raises:
        InputError: if it is not installed.
    """
    try:
        import pyarrow  # ruff: ignore[unused-import] - only asked whether it is there
    except ImportError as error:
        raise InputError(f"{why}; install it: pip install 'mogul[arrow]'.") from error


def is_columnar(path: Path) -> bool:
    """Tell by its name whether a path is a Parquet or Arrow file."""
    return path.suffix.lower() in (*PARQUET, *ARROW)


@contextmanager
def _readable(path: Path) -> Generator[None]:
    """Tell of files that cannot be read by their names.

    Raises:
        InputError: if reading fails.
    """
    import pyarrow

    try:
        yield
    except InputError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise InputError(
            f"{path} ({path.stat().st_size:,} bytes) cannot be read as a Parquet or Arrow file; it "
            "may be cut short or damaged: write or fetch it again."
        ) from error
