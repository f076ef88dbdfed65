"""CSV files, parsed block by block: memory does not depend on how many lines there are."""

from __future__ import annotations

import csv
import io
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice, repeat
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import numpy as np

from mogul.compute.prefetch import ahead, made_ahead
from mogul.data.text_columns import MISSING, is_number, text_remedy, told_names
from mogul.data.unpacked import Gunzipped
from mogul.errors import InputError

_BLOCK = 2**22  # bytes of text parsed at once
_LINE = 2**26  # bytes of a line
_RECORDS = 4096  # lines parsed at once where cells are quoted
_LOOKED_AT = 10_000  # lines, to tell which columns hold text
_CSV, _TSV = (".csv", ".csv.gz"), (".tsv", ".tsv.gz")
_SEPARATORS = [
    ("\t", "tabs", "Call it .tsv"),
    (";", "semicolons", "Save it with commas between cells, and points in numbers"),
    (",", "commas", "Call it .csv"),
]


class _Table(NamedTuple):
    """A file, the names of its columns, and the numbers of those that are wanted."""

    path: Path
    header: list[str]
    at: list[int]

    @property
    def separator(self) -> str:
        """What stands between cells."""
        return _separator(self.path)


def is_csv(name: str) -> bool:
    """Tell by its name whether a file is one of text with a line per row, .csv or .tsv."""
    return name.lower().endswith((*_CSV, *_TSV))


def _separator(path: Path) -> str:
    return "\t" if path.name.lower().endswith(_TSV) else ","


def read_csv(path: Path, columns: Sequence[str] | None = None) -> np.ndarray:
    """Read a CSV file with a header line, plain or gzipped; empty cells, NA and NaN are missing.

    Args:
        path: the file; cells are separated by commas, or, where its name ends in .tsv or .tsv.gz,
            by tabs.
        columns: names of the columns to read, in order; default all.

    Returns:
        numbers (n, D), float64, NaN where missing.

    Raises:
        InputError: if the file is damaged, lines differ in length, a column does not exist, or a
            cell is text.
    """
    blocks = list(csv_blocks(path, columns))
    out = np.empty((sum(map(len, blocks)), blocks[0].shape[1]))
    end = len(out)
    while blocks:  # each is let go once it is copied
        start = end - len(blocks[-1])
        out[start:end] = blocks.pop()
        end = start
    return out


def _check_once(path: Path, header: list[str], wanted: Sequence[str]) -> None:
    """Refuse columns that share their name.

    Raises:
        InputError: naming them.
    """
    twice = [name for name in dict.fromkeys(wanted) if header.count(name) > 1]
    if twice:
        raise InputError(
            f"{path} has several columns called {told_names(twice)}; give each a name of its own, "
            "or choose others (columns=, or --columns of the command)."
        )


def csv_header(path: Path) -> list[str]:
    """Return the names of the columns of a CSV file.

    Raises:
        InputError: if the file is damaged or has no header.
    """
    with _opened(path) as file:
        return _header(path, file)


def csv_blocks(path: Path, columns: Sequence[str] | None = None) -> Iterator[np.ndarray]:
    """Yield the lines of a CSV file as numbers (n, D), float64, a few megabytes at a time.

    A file without lines gives one block without rows.

    Raises:
        InputError: as `read_csv` does.
    """
    with _opened(path) as file:
        header = _header(path, file)
        wanted = list(header if columns is None else columns)
        _check_once(path, header, wanted)
        unknown = [name for name in wanted if name not in header]
        if unknown:
            raise InputError(
                f"{path} has no column {told_names(unknown)}; its columns are {told_names(header)}."
            )
        table = _Table(path, header, [header.index(name) for name in wanted])
        yield np.empty((0, len(wanted)))
        yield from made_ahead(ahead(_jobs(table, file), 2))


def count_lines(path: Path) -> int:
    """Return the number of rows of a CSV file, fast.

    Raises:
        InputError: if the file is damaged.
    """
    with _opened(path) as file:
        _header(path, file)
        n, ends, begun = 0, 0, False  # ends of lines after the last text, which may be blank lines
        while block := _text(path, file, _BLOCK):
            if b'"' in block:  # what ends a line is for the parser to say
                return sum(map(len, csv_blocks(path, [])))
            if text := block[: _end_of_text(block)]:
                n, ends, begun = n + ends + text.count(b"\n"), 0, True
            ends += block.count(b"\n", len(text))
        return n + begun


def _end_of_text(block: bytes) -> int:
    """Return where the line ends begin that are the last of a block."""
    return len(block.rstrip(b"\r\n"))


def _opened(path: Path) -> BinaryIO:
    return cast("BinaryIO", Gunzipped(path) if path.suffix == ".gz" else path.open("rb"))


def _text(path: Path, file: BinaryIO, size: int) -> bytes:
    """Read some bytes.

    Raises:
        InputError: if a gzip file is damaged.
    """
    try:
        return file.read(size)
    except (EOFError, OSError, zlib.error) as error:
        raise InputError(damaged(path, "a whole gzip file")) from error


def _lines(path: Path, file: BinaryIO, begun: bytes = b"") -> Iterator[str]:
    """Yield lines of text, the first of which may have begun.

    Raises:
        InputError: if the file is damaged, or not text.
    """
    try:
        while line := begun + file.readline(_LINE):
            begun = b""
            if len(line) >= _LINE:
                raise InputError(_endless(path))
            yield line.decode()
    except UnicodeDecodeError as error:
        raise InputError(_no_table(path)) from error
    except (EOFError, OSError, zlib.error) as error:
        raise InputError(damaged(path, "a whole gzip file")) from error


def _header(path: Path, file: BinaryIO) -> list[str]:
    """Read the first record.

    Raises:
        InputError: if there is none, it cannot be read, it holds numbers only, or cells seem to be
            separated otherwise than the name of the file says.
    """
    lines = (line.removeprefix("\ufeff") for line in _lines(path, file))
    try:
        header = next(csv.reader(lines, delimiter=_separator(path)), None)
    except csv.Error as error:
        raise InputError(_no_table(path)) from error
    if not header:
        raise InputError(_no_table(path))
    header = [name.strip() for name in header]
    _refuse_other_separators(path, header)
    if all(is_number(cell) for cell in header):
        raise InputError(
            f"{path} begins with a line of numbers, {', '.join(header[:4])} …, where the names "
            "of the columns are expected; add a header line."
        )
    return header


def _refuse_other_separators(path: Path, header: list[str]) -> None:
    """Refuse a file whose cells seem to be separated by something else.

    A column alone is taken for many where there is such a mark in its name; names hold no tabs.

    Raises:
        InputError: saying what seems to separate cells, and the remedy.
    """
    own, alone = _separator(path), len(header) == 1
    names = own.join(header)
    for mark, what, remedy in _SEPARATORS:
        if mark != own and mark in names and (alone or mark == "\t"):
            raise InputError(
                f"{path} seems to be separated by {what}: its first line is '{names[:80]}', and a "
                f"file of this name is read as separated by {'commas' if own == ',' else 'tabs'}. "
                f"{remedy}. If this is one column, give it a name without {what}."
            )


def _jobs(table: _Table, file: BinaryIO) -> Iterator[Callable[[], np.ndarray]]:
    """Yield what parses each block; from the first quotation mark on, line by line.

    Blank lines are left out where nothing comes after them.

    Raises:
        InputError: if a line does not end.
    """
    row, rest = 0, b""
    while True:
        read = _text(table.path, file, _BLOCK)
        block = rest + read
        if b'"' in block:
            head = io.BytesIO(block)
            yield from _records(table, _joined(table.path, head, file), row)
            return
        end = text = _end_of_text(block)
        if text and read:
            end = block.find(b"\n", text) + 1 or block.rfind(b"\n") + 1
        if end:
            whole, rest = block[:end], block[end:]
            yield partial(_parsed, table, whole, row)
            row += whole.count(b"\n")
        else:
            rest = block
            if len(rest) > _LINE:
                raise InputError(_endless(table.path))
        if not read:
            return


def _joined(path: Path, head: BinaryIO, file: BinaryIO) -> Iterator[str]:
    """Yield lines of two files, the first of which may end within one."""
    last = b""
    for line in head:
        if not line.endswith(b"\n"):
            last = line
            break
        yield from _lines(path, io.BytesIO(line))
    yield from _lines(path, file, last)


def _records(table: _Table, lines: Iterator[str], row: int) -> Iterator[Callable[[], np.ndarray]]:
    """Yield what makes numbers of some records each.

    Raises:
        InputError: if the file is damaged.
    """
    reader = _up_to_blank_end(csv.reader(lines, delimiter=table.separator))
    try:
        while some := list(islice(reader, _RECORDS)):
            yield partial(_careful, table, some, row)
            row += len(some)
    except csv.Error as error:
        raise InputError(_no_table(table.path)) from error


def _up_to_blank_end(records: Iterable[list[str]]) -> Iterator[list[str]]:
    """Yield records, without blank ones after which nothing comes."""
    blank = 0
    for cells in records:
        if cells:
            yield from repeat([], blank)
            yield cells
        blank = 0 if cells else blank + 1


def _parsed(table: _Table, block: bytes, row: int) -> np.ndarray:
    """Parse whole lines without quotation marks: fast if all is well, or else with care.

    Raises:
        InputError: naming the line at fault.
    """
    strange = block.count(b"\r") != block.count(b"\r\n") or b"\0" in block
    empty = block.startswith((b"\n", b"\r")) or b"\n\n" in block or b"\n\r" in block
    if not strange and not empty and block.isascii():
        found = _by_arrow(table, block)
        found = _by_column(table, block) if found is None else found
        if found is not None:
            return found
    try:
        records = list(csv.reader(io.StringIO(block.decode()), delimiter=table.separator))
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise InputError(_no_table(table.path)) from error
    return _careful(table, records, row)


def _by_arrow(table: _Table, block: bytes) -> np.ndarray | None:
    """Parse lines by pyarrow; None without it, or if anything is amiss."""
    try:
        import pyarrow
        from pyarrow import csv as arrow
    except ImportError:
        return None
    names = [str(j) for j in range(len(table.header))]
    wanted = [str(j) for j in table.at]
    if not wanted:
        return None
    try:
        found = arrow.read_csv(
            pyarrow.py_buffer(block),
            arrow.ReadOptions(use_threads=False, block_size=len(block) + 1, column_names=names),
            arrow.ParseOptions(
                delimiter=table.separator, quote_char=False, ignore_empty_lines=False
            ),
            arrow.ConvertOptions(
                column_types=dict.fromkeys(wanted, pyarrow.float64()),
                include_columns=list(dict.fromkeys(wanted)),
                null_values=list(MISSING),
            ),
        )
    except pyarrow.ArrowException:
        return None  # the careful parser says what is wrong, or that nothing is
    return np.stack([found.column(name).to_numpy() for name in wanted], axis=1)


def _by_column(table: _Table, block: bytes) -> np.ndarray | None:
    """Parse lines a column at a time; None if anything is amiss."""
    width = len(table.header)
    block = block.rstrip(b"\n")
    marks = np.frombuffer(block + b"\n", np.uint8)
    marks = marks[(marks == ord(table.separator)) | (marks == ord("\n"))]
    if len(marks) % width:
        return None
    ends = marks.reshape(-1, width) == ord("\n")
    if ends[:, :-1].any() or not ends[:, -1].all():
        return None
    cells = block.decode().replace("\n", table.separator).split(table.separator)
    out = np.empty((len(ends), len(table.at)))
    try:
        for k, j in enumerate(table.at):
            out[:, k] = _floats(cells[j::width])
    except ValueError:
        return None
    return out


def _floats(cells: list[str]) -> list[float]:
    try:
        return list(map(float, cells))
    except ValueError:
        return [np.nan if (text := c.strip()) in MISSING else float(text) for c in cells]


def _careful(table: _Table, records: list[list[str]], row: int) -> np.ndarray:
    """Make numbers of records, the first of which is number `row`.

    Raises:
        InputError: naming the line that is too short or long, or the cell that is no number.
    """
    width = len(table.header)
    ragged = next((i for i, cells in enumerate(records) if len(cells) != width), None)
    if ragged is not None:
        _columns(table, records[:ragged], row)  # a fault before it is told first
        raise InputError(
            f"{table.path}, line {row + ragged + 2}: {len(records[ragged])} cells came under a "
            f"header of {width}; mend the line."
        )
    return _columns(table, records, row)


def _columns(table: _Table, records: list[list[str]], row: int) -> np.ndarray:
    out = np.empty((len(records), len(table.at)))
    try:
        for k, j in enumerate(table.at):
            out[:, k] = _floats([cells[j] for cells in records])
    except ValueError:
        for i, cells in enumerate(records):
            out[i] = [_number(cells[j], table, row + i, table.header[j]) for j in table.at]
    return out


def _number(cell: str, table: _Table, row: int, column: str) -> float:
    text = cell.strip()
    if text in MISSING:
        return np.nan
    try:
        return float(text)
    except ValueError as error:
        raise InputError(
            f"{table.path}, line {row + 2}, column {column}: '{text[:40]}' is not a number; mark "
            f"what is missing as NA. {_text_remedy(table, column)}"
        ) from error


def _text_remedy(table: _Table, at_fault: str) -> str:
    """Say which of the columns that are wanted hold text, and how to take the others.

    Raises:
        InputError: if the file cannot be read as a table.
    """
    names = [table.header[j] for j in table.at]
    with _opened(table.path) as file:
        reader = csv.reader(_lines(table.path, file), delimiter=table.separator)
        whole = (cells for cells in reader if len(cells) == len(table.header))
        rows = ([cells[j] for j in table.at] for cells in whole)
        try:
            return text_remedy(islice(rows, 1, _LOOKED_AT), names, at_fault)
        except csv.Error as error:
            raise InputError(_no_table(table.path)) from error


def _endless(path: Path) -> str:
    return (
        f"{path} has a line of more than {_LINE >> 20} MiB; end lines with a line feed, or give "
        "wide tables as .npy or Parquet."
    )


def _no_table(path: Path) -> str:
    return damaged(path, "a CSV file with a header line, in UTF-8")


def damaged(path: Path, kind: str) -> str:
    """Say that a file is empty, or cannot be read as what it should be."""
    size = path.stat().st_size
    state = "is empty" if size == 0 else f"({size:,} bytes) cannot be read as {kind}"
    return f"{path} {state}; it may be cut short or of another kind: fetch or write it again."
