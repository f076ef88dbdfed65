"""What a part of the campaign found."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Outcome:
    """One line of the table: how many inputs were tried or faults injected, and what went wrong.

    `failures` tells of each failure in a line of its own; `note` says what else was measured.
    """

    name: str
    tried: int = 0
    failures: list[str] = field(default_factory=list)
    note: str = ""


def table(outcomes: list[Outcome]) -> str:
    """Return the outcomes as a table in Markdown."""
    lines = ["| part | tried | failures | measured |", "|---|---|---|---|"]
    lines += [f"| {o.name} | {o.tried:,} | {len(o.failures)} | {o.note} |" for o in outcomes]
    return "\n".join(lines)
