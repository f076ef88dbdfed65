"""Pages about data whose names are markup: they hold the elements that they would hold anyway."""

from __future__ import annotations

import csv
import io
from contextlib import redirect_stderr, redirect_stdout
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from mogul.cli.main import app
from mogul.data.text_columns import joined_names

_ROWS = 120
Element = tuple[str, tuple[str, ...]]


class _Elements(HTMLParser):
    """Collects elements and the names of their attributes, and links."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[Element] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, tuple(name for name, _ in attrs)))
        self.links += [v or "" for name, v in attrs if name in ("href", "src", "action", "style")]


def elements(path: Path) -> tuple[list[Element], list[str]]:
    """Return the elements of a page in order, and where its links lead."""
    parser = _Elements()
    parser.feed(path.read_text())
    parser.close()
    return parser.found, parser.links


def write_table(path: Path, names: list[str], seed: int = 0) -> Path:
    """Write a table of clusters with columns of these names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    shift = 3 * random.integers(0, 2, (_ROWS, 1))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows((random.normal(size=(_ROWS, len(names))) + shift).round(3).tolist())
    return path


def command(*arguments: str | Path) -> None:
    """Run a command of mogul.

    Raises:
        RuntimeError: if it fails.
    """
    out = io.StringIO()
    try:
        with redirect_stdout(out), redirect_stderr(out):
            app([str(a) for a in arguments], standalone_mode=False)
    except SystemExit as stop:
        if stop.code:
            raise RuntimeError(f"{arguments[0]}: {out.getvalue()[-300:]}") from stop


def mixture_report(folder: Path, name: str) -> Path:
    """Fit a mixture to a table that has the name in its columns and paths; return its report."""
    data = write_table(folder / f"{name}x.csv", [name, "b", f"{name} 2"])
    model, page = folder / f"{name}x.mogul", folder / f"{name}x.html"
    command("fit", data, "-o", model, "--model", "full", "--components", "2", "--passes", "3")
    command("report", model, data, "-o", page)
    return page


def network_report(folder: Path, name: str) -> Path:
    """Fit a network that predicts a column of that name from one such; return its report."""
    data = write_table(folder / f"{name}x.csv", [f"{name} 2", "b", name])
    model, page = folder / f"{name}x.mdn.mogul", folder / f"{name}x.mdn.html"
    target = joined_names([name])
    command("fit", data, "-o", model, "--model", "mdn", "--target", target, "--hidden", "4",
            "--components", "2", "--passes", "2")  # fmt: skip
    command("report", model, data, "-o", page)
    return page


def compared(page: Path, twin: Path) -> str:
    """Tell in what a page differs from its twin with harmless names; "" if in text alone."""
    (found, links), (expected, known) = elements(page), elements(twin)
    if found != expected:
        odd = next((a for a, b in zip(found, expected, strict=False) if a != b), found[-1])
        return f"its elements are others: {odd}"
    foreign = [link for link in links if link not in known and "pwned" in link]
    return f"it links to {foreign[0]}" if foreign else ""
