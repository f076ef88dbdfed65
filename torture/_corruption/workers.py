"""Read many damaged files in a process that may die: under a limit of memory, and of time each."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import resource
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from mogul import InputError

SECONDS, BYTES = 10, 2**30  # of work, and of memory, that reading one file may take
_BY_THE_CLOCK = 60  # seconds; what waits for ever does no work, and other jobs slow all down
_MOST = 500  # files to a process, so that little adds up in one
_ARENAS = -8  # of mallopt: threads share one arena, for each reserves 64 MiB of addresses


@dataclass
class Found:
    """What became of files: how many were refused and read, and what failed, by number."""

    tally: Counter[str] = field(default_factory=Counter)
    failures: dict[int, str] = field(default_factory=dict)
    slowest: float = 0.0
    largest: int = 0  # bytes above what the process had before

    def add(self, other: Found) -> None:
        """Take in what another process found."""
        self.tally += other.tally
        self.failures |= other.failures
        self.slowest = max(self.slowest, other.slowest)
        self.largest = max(self.largest, other.largest)


def read_all(read: Callable[[int], None], numbers: range) -> Found:
    """Read files by number in processes of their own.

    Args:
        read: makes file number i and reads it. It may raise InputError, and nothing else.
        numbers: which.

    Returns:
        what became of them; one that ends its process is told, and the next goes on after it.
    """
    found = Found()
    while numbers:
        part, done = _forked(read, numbers[:_MOST])
        found.add(part)
        numbers = numbers[done:]
    return found


def _forked(read: Callable[[int], None], numbers: range) -> tuple[Found, int]:
    """Return what one process found, and at how many files it looked."""
    place = mmap.mmap(-1, 8)  # which file it is at; outlives the process
    came, goes = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(came)
        try:
            _work(read, numbers, place, goes)
        except BaseException:
            os._exit(3)
        os._exit(0)
    os.close(goes)
    with os.fdopen(came, "rb") as pipe:
        content = pipe.read()
    _, status = os.waitpid(child, 0)
    found = Found()
    for line in content.splitlines():
        told = json.loads(line)
        found.add(Found(Counter([told["kind"]]), slowest=told["s"], largest=told["bytes"]))
        if "why" in told:
            found.failures[told["number"]] = told["why"]
    if status == 0:
        return found, len(numbers)
    at = int.from_bytes(place[:8], sys.byteorder)
    signalled = os.waitstatus_to_exitcode(status)
    hung = signalled in (-signal.SIGPROF, -signal.SIGALRM)
    kind = "hang" if hung else "crash"
    found.tally[kind] += 1
    found.failures[numbers[at]] = (
        f"took more than {SECONDS} s of work" if hung else f"ended its process ({signalled})"
    )
    return found, at + 1


def _work(read: Callable[[int], None], numbers: range, place: mmap.mmap, pipe: int) -> None:
    warnings.simplefilter("ignore")  # what decoders say of damaged files they say by thousands
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    ctypes.CDLL(None).mallopt(_ARENAS, 1)
    for kind in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(kind, signal.SIG_DFL)
    with open("/proc/self/statm") as file:
        before = int(file.read().split()[0]) * mmap.PAGESIZE
    resource.setrlimit(resource.RLIMIT_AS, (before + BYTES, before + BYTES))
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for i, number in enumerate(numbers):
        place[:8] = i.to_bytes(8, sys.byteorder)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.setitimer(signal.ITIMER_REAL, _BY_THE_CLOCK)
        told = {"number": number, "kind": "read"}
        since = time.process_time()
        try:
            read(number)
        except InputError as error:
            told["kind"] = "refused"
            if not str(error).strip():
                told |= {"kind": "odd", "why": "was refused without a word"}
        except MemoryError as error:
            told |= {"kind": "memory", "why": f"took too much memory: {_last(error)}"}
        except BaseException as error:
            told |= {"kind": "odd", "why": _last(error)}
        for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL):
            signal.setitimer(timer, 0)
        told["s"] = time.process_time() - since
        now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        told["bytes"] = (now - resident) * 1024
        os.write(pipe, json.dumps(told).encode() + b"\n")


def _last(error: BaseException) -> str:
    """Return an error in one line, with the line of ours that it came from."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/mogul/" in f.filename]
    where = f" at {frames[-1].filename.split('/mogul/')[-1]}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}: {' '.join(str(error).split())[:120]}"
