"""Fits of one process that are asked to end, or killed: they end, and go on as if undisturbed."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from mogul import EM, Checkpoint, GaussianMixture, fit, initialise, load_model
from mogul.algorithms import StopReason
from mogul.data import ArraySource
from torture._faults.children import Lines, child, ended
from torture._faults.groups import rows
from torture.outcome import Outcome

PASSES = 8
ALLOWED = 10.0  # seconds from SIGTERM to the end
_INTERRUPTED = 130


def _fitting(path: Path, lines: Lines) -> None:
    torch.set_num_threads(2)
    source, kept = ArraySource(rows()), Checkpoint(path, resume=True, minutes=0.001)
    model = GaussianMixture(6, 8, dtype=torch.float64)
    if kept.held() is None:
        initialise(model, source)
    told = iter(["begins"])  # from when on signals are noted, and kept until a batch is done
    done = fit(model, source, EM(batch_size=500), passes=PASSES, tolerance=0.0, checkpoint=kept,
               seen=lambda n: _tell_once(lines, told))  # fmt: skip
    if done.reason is StopReason.INTERRUPTED:
        os._exit(_INTERRUPTED)


def _tell_once(lines: Lines, told: Iterator[str]) -> None:
    for line in told:
        lines.tell(line)


def stopped_fits(kind: signal.Signals, n: int, seed: int = 0) -> Outcome:
    """Send fits a signal at random moments, let them go on, and compare what they end with."""
    term = kind == signal.SIGTERM
    outcome = Outcome(f"{kind.name} in a fit of one process")
    draw, slowest, early = random.Random(f"{seed} {kind}"), 0.0, 0
    with tempfile.TemporaryDirectory() as name:
        length, expected = _whole(Path(name) / "whole.mogul")
        for i in range(n):
            path, lines = Path(name) / f"{i}.mogul", Lines()
            with child(partial(_fitting, path, lines)) as number:
                lines.wait("begins", 60)
                time.sleep(draw.uniform(0, length))
                os.kill(number, kind)
                since = time.monotonic()
                code = ended(number, 60)
                took = time.monotonic() - since
            slowest, early = max(slowest, took), early + (code == 0)
            outcome.tried += 1
            allowed = (0, _INTERRUPTED) if term else (0, -signal.SIGKILL)
            if code not in allowed or (term and took > ALLOWED):
                outcome.failures.append(f"{kind.name} {i}: ended with {code} after {took:.1f} s")
            if term and not path.exists():
                outcome.failures.append(f"{kind.name} {i}: nothing was saved")
            with child(partial(_fitting, path, lines)) as number:
                if ended(number, 120) != 0:
                    outcome.failures.append(f"{kind.name} {i}: did not go on")
                    continue
            lines.close()
            found = load_model(path)
            same = all(torch.equal(v, expected[k]) for k, v in found[0].state_dict().items())
            passes = [row["pass"] for row in found[1]["history"]]
            if not same or passes != list(range(1, PASSES + 1)):
                outcome.failures.append(f"{kind.name} {i}: went on to another end, {passes}")
    told = f"ended within {slowest:.2f} s; " if term else ""
    outcome.note = f"{told}all the same to the last bit after going on; {early} came too late"
    return outcome


def _whole(path: Path) -> tuple[float, dict[str, torch.Tensor]]:
    """Fit undisturbed.

    Returns:
        seconds from the first pass on, and the parameters.
    """
    lines = Lines()
    with child(partial(_fitting, path, lines)) as number:
        lines.wait("begins", 60)
        since = time.monotonic()
        ended(number, 120)
    lines.close()
    return time.monotonic() - since, dict(load_model(path)[0].state_dict())
