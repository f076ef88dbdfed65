"""Saves that are killed: what the file then holds."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from unittest import mock

import torch

from mogul import Checkpoint, GaussianMixture, InputError, load_model, save_model
from mogul.compute.checkpoint import remove_stale
from mogul.data import ArraySource
from mogul.protocols import Saved
from torture._faults.children import Lines, child
from torture.outcome import Outcome

_MOST = 100_000  # saves of a child, which is killed long before
_WAIT = 60.0  # seconds for the first save
_PART = ".part"


def _model(version: int) -> GaussianMixture:
    """Return a model of about 300 kB whose centres all are a number."""
    model = GaussianMixture(20, 60)
    with torch.no_grad():
        model.centres.fill_(version)
    return model


def _saving(path: Path, lines: Lines, begin: int) -> None:
    """Save one version after the other, and tell of each before and after."""
    for version in range(begin, begin + _MOST):
        lines.tell(f"before {version}")
        save_model(path, _model(version), {"version": version})
        lines.tell(f"after {version}")


def _keeping(path: Path, lines: Lines, begin: int) -> None:
    """Keep a fit that makes one pass after the other."""
    kept, source = Checkpoint(path, resume=True), ArraySource(torch.zeros(2, 60))
    for version in range(begin, begin + _MOST):
        lines.tell(f"before {version}")
        history = [{"version": version}]
        kept.save(_model(version), source, Saved(history, {"version": torch.tensor(version)}))
        lines.tell(f"after {version}")


def _version_of_model(path: Path) -> int:
    model, extra = load_model(path)
    version = extra["version"] if "version" in extra else extra["history"][0]["version"]
    if not bool((model.centres == version).all()):
        raise ValueError(f"version {version} holds other numbers")
    return version


def _version_of_checkpoint(path: Path) -> int:
    found = Checkpoint(path, resume=True).held()
    version = _version_of_model(path)
    if found is None or found["history"][0]["version"] != version:
        raise ValueError(f"the checkpoint of version {version} tells of {found}")
    return version


_KINDS: dict[str, tuple[Callable[[Path, Lines, int], None], Callable[[Path], int]]] = {
    "save_model": (_saving, _version_of_model),
    "Checkpoint": (_keeping, _version_of_checkpoint),
}


def places() -> dict[str, tuple[Path | None, Path | None]]:
    """Return file systems to save to, and where other programs keep temporary files, by name."""
    shared, disk = Path("/dev/shm"), Path(tempfile.gettempdir())
    found: dict[str, tuple[Path | None, Path | None]] = {"the disk": (None, None)}
    if os.access(shared, os.W_OK) and shared.stat().st_dev != disk.stat().st_dev:
        found["memory"] = (shared, None)
        found["the disk, TMPDIR in memory"] = (None, shared)
        found["memory, TMPDIR on the disk"] = (shared, disk)
    return found


def killed_saves(n: int, seed: int = 0) -> list[Outcome]:
    """Kill savers at random moments, and read what they leave."""
    found = []
    cases = [(place, kind) for place in places() for kind in _KINDS]
    for number, (place, kind) in enumerate(cases):
        share = n // len(cases) + (number < n % len(cases))
        found.append(_killed(place, kind, share, random.Random(f"{seed} {place} {kind}")))
    return found


def _killed(place: str, kind: str, n: int, draw: random.Random) -> Outcome:
    outcome = Outcome(f"SIGKILL while {kind} writes to {place}")
    save, read = _KINDS[kind]
    where, temporary = places()[place]
    within = parts = 0
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=where)))
        if temporary is not None:
            elsewhere = stack.enter_context(tempfile.TemporaryDirectory(dir=temporary))
            stack.enter_context(mock.patch.dict(os.environ, TMPDIR=elsewhere))
            stack.enter_context(mock.patch.object(tempfile, "tempdir", elsewhere))
        path, held, seconds = folder / "m.mogul", 0, 0.01
        for i in range(n):
            lines = Lines()
            since = time.monotonic()
            with child(partial(save, path, lines, held + 1)) as number:
                told = lines.wait("after", _WAIT)
                seconds = 0.5 * seconds + 0.5 * (time.monotonic() - since)
                time.sleep(draw.uniform(0, min(2 * seconds, 0.1)))
                os.kill(number, signal.SIGKILL)
            told += lines.new()
            lines.close()
            outcome.tried += 1
            last = max((int(t.split()[1]) for t in told if t.startswith("after")), default=held)
            begun = max((int(t.split()[1]) for t in told if t.startswith("before")), default=held)
            within += begun > last
            parts += len(list(folder.glob(f"*{_PART}")))
            try:
                held = read(path)
            except (InputError, ValueError) as error:
                outcome.failures.append(f"kill {i}: {error}")
                break
            if not last <= held <= begun:
                outcome.failures.append(f"kill {i}: holds {held}, {last} was saved")
            remove_stale(path)
            left = {p.name for p in folder.iterdir()} - {"m.mogul", "m.mogul.before"}
            left -= {".m.mogul.before.part"}  # a second name of a whole file, replaced at the next
            if left or (temporary is not None and any(Path(elsewhere).iterdir())):
                outcome.failures.append(f"kill {i}: {left} was left")
    outcome.note = (
        f"{within} within a save; {parts} unfinished files, each beside its target, and removed"
    )
    return outcome
