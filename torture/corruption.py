"""Damaged files of every format: each is refused in words, or read whole; nothing else."""

from __future__ import annotations

import os
import shutil
import tempfile
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

from torture._apart import apart
from torture._corruption.claims import claims
from torture._corruption.files import Format, formats
from torture._corruption.workers import Found, read_all
from torture.outcome import Outcome

_MUTANTS, _QUICK = 10_000, 60  # of each format


def run(quick: bool) -> list[Outcome]:
    """Read mutants of files of every format, from a process that does nothing else."""
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # others reserve a GiB at once
    return apart(_run, _QUICK if quick else _MUTANTS)


def _run(n: int) -> list[Outcome]:
    torch.set_num_threads(1)
    return [*(mutants_of(f, n) for f in formats()), harmful()]


def harmful() -> Outcome:
    """Read files that were made to harm."""
    made = claims()
    names = list(made)

    def read(number: int) -> None:
        with _folder() as folder:
            made[names[number]](folder)
            raise AssertionError("was read")

    found = read_all(read, range(len(names)))
    return Outcome(
        "files made to harm",
        len(names),
        [f"{names[number]}: {why}" for number, why in sorted(found.failures.items())],
        f"{found.tally['refused']} refused; slowest {found.slowest:.2f} s, {_mib(found)} MiB at "
        "most, with the making of the file",
    )


def mutants_of(tried: Format, n: int) -> Outcome:
    """Read the first mutants of a format."""
    with _folder() as folder:
        found = read_all(partial(read_mutant, tried, folder), range(n))
    tally = ", ".join(f"{found.tally[k]:,} {k}" for k in ("refused", "read") if found.tally[k])
    return Outcome(
        f"mutants of {tried.name}",
        n,
        [f"seed {seed}: {why}" for seed, why in sorted(found.failures.items())],
        f"{tally}; slowest {found.slowest:.2f} s, {_mib(found)} MiB at most",
    )


def _mib(found: Found) -> int:
    return found.largest >> 20


def read_mutant(tried: Format, folder: Path, seed: int) -> None:
    """Make the mutant of a format that a seed tells, and read it."""
    which = seed % len(tried.contents)
    damaged = tried.damage(tried.contents[which], seed ^ zlib.crc32(tried.name.encode()))
    path = folder / tried.ending
    path.write_bytes(tried.wrap(damaged))
    tried.read(path, which)


@contextmanager
def _folder() -> Generator[Path]:
    """Make a folder, in memory where the system has such, and remove it at the end."""
    shared = Path("/dev/shm")
    made = tempfile.mkdtemp(dir=shared if os.access(shared, os.W_OK) else None)
    try:
        yield Path(made)
    finally:
        shutil.rmtree(made, ignore_errors=True)
