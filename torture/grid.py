"""Nasty inputs × models × algorithms × types: each a right result, or one clear error."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from functools import cache

import joblib
import torch

from torture._grid.inputs import Input, inputs
from torture._grid.judge import applies, tried
from torture._grid.subjects import Subject, subjects
from torture.outcome import Outcome

TYPES = (torch.float32, torch.float64)
WORKERS = 4
QUICK = 137  # every so many-th combination is made in the quick part
_SHOWN = 4  # failures of a kind that are told of by name
Found = tuple[str, str, str, str, list[str], float]


@cache
def all_inputs() -> list[Input]:
    """Return the inputs, made once."""
    return inputs()


@cache
def all_subjects() -> list[Subject]:
    """Return the subjects, made once."""
    return list(subjects())


def combinations(quick: bool) -> list[tuple[int, int, int]]:
    """Return what is tried, as indices of inputs, subjects and types."""
    every = [
        (i, s, t)
        for i, case in enumerate(all_inputs())
        for s, subject in enumerate(all_subjects())
        for t in range(len(TYPES))
        if applies(case, subject)
    ]
    if not quick:
        return every
    first: dict[int, tuple[int, int, int]] = {}
    for combination in every:  # EM of full covariances in float64, or what comes next
        first.setdefault(combination[0], (*combination[:2], 1))
    return sorted({*first.values(), *every[::QUICK]})


def attempt(combination: tuple[int, int, int]) -> Found:
    """Try one combination."""
    torch.set_num_threads(1)
    i, s, t = combination
    case, subject, dtype = all_inputs()[i], all_subjects()[s], TYPES[t]
    since = time.perf_counter()
    verdict, complaints = tried(case, subject, dtype)
    seconds = time.perf_counter() - since
    return case.name, subject.name, str(dtype)[6:], verdict, complaints, seconds


def run(quick: bool) -> list[Outcome]:
    """Try all combinations, and print what came of each input."""
    wanted = combinations(quick)
    if quick:
        found = [attempt(combination) for combination in wanted]
    else:
        found = joblib.Parallel(WORKERS, batch_size=16)(map(joblib.delayed(attempt), wanted))
    counts: dict[str, Counter] = defaultdict(Counter)
    outcome = Outcome("grid", len(found))
    for name, subject, dtype, verdict, complaints, _ in found:
        counts[name][verdict] += 1
        outcome.failures += [f"{name} × {subject} × {dtype}: {c}" for c in complaints]
    print(f"{'input':44}{'right':>8}{'refused':>9}{'failed':>8}")
    for name, count in counts.items():
        print(f"{name:44}{count['right']:8}{count['refused']:9}{count['failed']:8}")
    total = sum(counts.values(), Counter())
    outcome.note = (
        f"{len(counts)} inputs, {len({f[1] for f in found})} models by algorithms, 2 types: "
        f"{total['right']:,} right, {total['refused']:,} clearly refused"
    )
    return [outcome]
