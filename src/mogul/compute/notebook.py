"""Tables as HTML for notebooks, in the colours of whatever page they stand on."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_LINE = "border-bottom:1px solid rgba(128,128,128,.35)"
_CELL = f"padding:.2em .7em;background:none;color:inherit;{_LINE}"
_TABLE = "border-collapse:collapse;font-variant-numeric:tabular-nums;color:inherit"


def html_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], note: str = ""
) -> str:
    """Return a table of text, all of it escaped; a note may follow it.

    The first column is aligned to the left, and so are cells that are no numbers.
    """
    head = "".join(_cell("th", column, left=i == 0) for i, column in enumerate(columns))
    body = "".join(
        f"<tr>{''.join(_cell('td', cell, left=not _is_number(cell)) for cell in row)}</tr>"
        for row in rows
    )
    below = f"<p>{escape(note)}</p>" if note else ""
    return (
        f'<div><p><b>{escape(title)}</b></p><table style="{_TABLE}">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}</div>"
    )


def _cell(tag: str, text: str, left: bool) -> str:
    side = "left" if left else "right"
    return f'<{tag} style="{_CELL};text-align:{side}">{escape(text)}</{tag}>'


def _is_number(text: str) -> bool:
    return text[:1].isdigit() or text[:1] in ("-", "−")
