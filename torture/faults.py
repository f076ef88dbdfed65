"""Faults: killed saves, full disks, folders that cannot be written, killed and stopped fits."""

from __future__ import annotations

import signal

import torch

from torture._apart import apart
from torture._faults.disks import full_disk, read_only
from torture._faults.groups import by_torchrun, disturbed_groups
from torture._faults.saves import killed_saves
from torture._faults.stops import stopped_fits
from torture.outcome import Outcome

_RANKS = [(2, 0), (2, 1), (3, 0), (3, 1), (3, 2)]


def run(quick: bool) -> list[Outcome]:
    """Inject all faults, from a process that does nothing else."""
    return apart(_quick if quick else _long)


def _quick() -> list[Outcome]:
    torch.set_num_threads(1)
    return [
        *killed_saves(40),
        full_disk(4),
        read_only(),
        stopped_fits(signal.SIGTERM, 2),
        stopped_fits(signal.SIGKILL, 2),
        disturbed_groups("SIGKILL of one of 2", signal.SIGKILL, 2, 1, (2,)),
        # Of this length only so that it is quick; the campaign waits as users do.
        disturbed_groups("SIGSTOP of one of 2", signal.SIGSTOP, 1, 1, (2,), silence=4.0),
    ]


def _long() -> list[Outcome]:
    torch.set_num_threads(1)
    return [
        *killed_saves(1000),
        full_disk(40),
        read_only(),
        stopped_fits(signal.SIGTERM, 20),
        stopped_fits(signal.SIGKILL, 30),
        by_torchrun(_RANKS),
        disturbed_groups("SIGKILL of one of 2 or 3", signal.SIGKILL, 95, 2),
        disturbed_groups("SIGSTOP of one of 2 or 3", signal.SIGSTOP, 20, 10),
    ]
