"""Which columns of a table are text, and how to ask for the others."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Iterable, Sequence

MISSING = ("", "NA", "NaN", "nan", "null", "?")
_TOLD = 20  # names in a sentence, at most


def is_number(cell: str) -> bool:
    """Tell whether a cell is a number."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def joined_names(names: Sequence[str]) -> str:
    """Join names by commas as a CSV file does, with quotation marks where a name holds a comma."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(names)
    return line.getvalue()


def told_names(names: Sequence[str]) -> str:
    """Name columns in a sentence, the first of them where there are many."""
    shown = ", ".join(joined_names([name]) for name in names[:_TOLD])
    return shown if len(names) <= _TOLD else f"{shown} and {len(names) - _TOLD} more"


def text_remedy(records: Iterable[list[str]], names: Sequence[str], at_fault: str) -> str:
    """Name the columns that hold text, and the option that takes the others.

    Args:
        records: cells of some rows, as many as there are names.
        names: of the columns.
        at_fault: one that is known to hold text.
    """
    text, numeric = {at_fault}, set[str]()
    for cells in records:
        for name, cell in zip(names, cells, strict=True):
            if (cell := cell.strip()) not in MISSING:
                (numeric if is_number(cell) else text).add(name)
    return remedy([n for n in names if n in text], [n for n in names if n in numeric - text])


def remedy(text: Sequence[str], numeric: Sequence[str]) -> str:
    """Say which columns hold text, and the option that takes the numeric ones."""
    told = f"Columns that hold text: {told_names(text)}."
    if not numeric:
        return f"{told} No other holds numbers; write text as numbers first."
    option = shlex.quote(joined_names(numeric))
    return f"{told} Take the others: --columns {option} (columns= in Python)."
