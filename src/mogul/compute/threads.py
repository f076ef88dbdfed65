"""Batches side by side: one thread a core, each with products of its own.

A product split over all cores waits for the slowest of them, thousands of times a pass; a core that
works on a batch of its own waits once. On a machine with other jobs that is the difference between
a fraction and a multiple of the time.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

import torch

Item = TypeVar("Item")

_lock = threading.Lock()
_inside = 0
_threads_outside = 1


def usable_cores() -> int:
    """Return how many cores this process may use: its affinity, within its group's share."""
    known = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):
        return cores


def limit_threads() -> None:
    """Lower torch's number of threads to the cores this process may use; never raise it."""
    cores = usable_cores()
    if torch.get_num_threads() > cores:
        torch.set_num_threads(cores)


@contextmanager
def _threads_per_call(number: int) -> Generator[None]:
    """Let torch use so many threads a call, until the last caller leaves."""
    global _inside, _threads_outside
    with _lock:
        if _inside == 0:
            _threads_outside = torch.get_num_threads()
            torch.set_num_threads(number)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                torch.set_num_threads(_threads_outside)


def n_workers(device: torch.device) -> int:
    """Return how many batches to work on at once: torch's threads on a CPU, one elsewhere."""
    return torch.get_num_threads() if device.type == "cpu" else 1


def spread(items: Iterable[Item], workers: Sequence[Callable[[Item], None]]) -> None:
    """Give items to workers in turn, each worker on a thread of its own.

    Item i goes to worker i modulo their number, in order, so that sums do not depend on timing.

    Args:
        items: what to work on; read in the calling thread, a few ahead of the workers.
        workers: functions of an item; one that raises ends the whole.
    """
    if len(workers) == 1:
        for item in items:
            workers[0](item)
        return
    with ExitStack() as stack:
        each = max(1, torch.get_num_threads() // len(workers))
        stack.enter_context(_threads_per_call(each))
        pools = [stack.enter_context(ThreadPoolExecutor(1)) for _ in workers]
        waiting: deque[Future[None]] = deque()
        for number, item in enumerate(items):
            which = number % len(workers)
            waiting.append(pools[which].submit(workers[which], item))
            if len(waiting) > 2 * len(workers):
                waiting.popleft().result()
        for future in waiting:
            future.result()


limit_threads()  # a group's share of the cores is something that torch does not look at
