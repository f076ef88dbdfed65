"""Hostility: names that are markup in reports and the explorer, and requests of strangers."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from mogul.app import Session
from mogul.opened import open_any
from torture._apart import apart
from torture._hostility.asked import nonsense, outside, strangers, too_large, uploads
from torture._hostility.browsed import browsed
from torture._hostility.pages import (
    command,
    compared,
    mixture_report,
    network_report,
    write_table,
)
from torture._hostility.payloads import PAYLOADS
from torture.outcome import Outcome


def run(quick: bool) -> list[Outcome]:
    """Try all, from a process that does nothing else."""
    return apart(_run, quick)


def _run(quick: bool) -> list[Outcome]:
    torch.set_num_threads(1)
    warnings.simplefilter("error", RuntimeWarning)  # of numbers that came out as none
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tried = PAYLOADS[::19] if quick else PAYLOADS
        sessions = _sessions(folder)
        return [
            _reports("reports of mixtures", mixture_report, folder / "mixture", tried),
            _reports("reports of networks", network_report, folder / "network", tried),
            strangers(sessions["digits"]),
            too_large(sessions["digits"]),
            outside(sessions["digits"]),
            uploads(sessions["digits"], 60 if quick else 2000),
            *(nonsense(n, s, 100 if quick else 3000) for n, s in sessions.items()),
            browsed(folder / "browsed", 6 if quick else len(PAYLOADS)),
        ]


def _sessions(folder: Path) -> dict[str, Session]:
    """Return sessions over models of a table, of images, and over a network."""
    data = write_table(folder / "table.csv", ["a", "b", "c", "d"])
    fits = {
        "a table": f"{data} --model full --components 3 --passes 3",
        "digits": "digits --model mfa --components 4 --rank 2 --passes 2 --limit 300",
        "a network": f"{data} --model mdn --target c,d --hidden 4 --components 2 --passes 2",
        "a decoder": "digits --model decoder --passes 1 --limit 100",
    }
    found = {}
    for name, asked in fits.items():
        path = folder / f"{name}.mogul"
        command("fit", *asked.split(), "-o", path)
        found[name] = Session(open_any(path, "cpu"))
    return found


def _reports(
    what: str, report: Callable[[Path, str], Path], folder: Path, tried: tuple[str, ...]
) -> Outcome:
    outcome = Outcome(f"names that are markup, in {what}")
    twin = report(folder / "twin", "name")
    for number, name in enumerate(tried):
        outcome.tried += 1
        try:
            found = compared(report(folder / str(number), name), twin)
        except Exception as error:
            found = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if found:
            outcome.failures.append(f"{name!r}: {found}")
    outcome.note = "columns, targets and paths; elements are those of a page of harmless names"
    return outcome
