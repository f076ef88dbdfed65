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
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

Item = TypeVar("Item")

_SHARED = 2**23  # multiply-adds, above which a step is worth sharing


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
def threads_for(work: int) -> Generator[None]:
    """Keep torch to one thread where a step has too little work to share, in multiply-adds.

    Threads that wait for each other cost more than they save then, most of all beside other jobs.
    """
    before = torch.get_num_threads()
    if work < _SHARED:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def n_workers(device: torch.device) -> int:
    """Return how many batches to work on at once: torch's threads on a CPU, one elsewhere."""
    return torch.get_num_threads() if device.type == "cpu" else 1


def spread(
    items: Iterable[Item],
    workers: Sequence[Callable[[Item], None]],
    pause: Callable[[], Callable[[], None] | None] | None = None,
) -> None:
    """Give items to workers in turn, each worker on a thread of its own.

    Item i goes to worker i modulo their number, in order, so that sums do not depend on timing.

    Args:
        items: what to work on; read in the calling thread, a few ahead of the workers.
        workers: functions of an item; one that raises ends the whole.
        pause: asked after every item; what it returns, if anything, is called once all workers are
            at rest.
    """
    if len(workers) == 1 or getattr(_INSIDE, "worker", False):  # would wait for its own thread
        for number, item in enumerate(items):
            workers[number % len(workers)](item)
            _rest(pause)
        return
    before, gradients = torch.get_num_threads(), torch.is_grad_enabled()
    while len(_THREADS) < len(workers):
        _THREADS.append(ThreadPoolExecutor(1, thread_name_prefix=f"mogul-{len(_THREADS)}"))
    each = max(1, before // len(workers))
    waiting: deque[Future[None]] = deque()
    try:
        for number, item in enumerate(items):
            which = number % len(workers)
            work = partial(_as_in_caller, gradients, each, workers[which], item)
            waiting.append(_THREADS[which].submit(work))
            if len(waiting) > 2 * len(workers):
                waiting.popleft().result()
            _rest(pause, waiting)
        while waiting:
            waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
        wait(waiting)  # none may go on with a worker once this has returned
        # The last number set by any thread is also what new threads begin with.
        torch.set_num_threads(before)


def _rest(
    pause: Callable[[], Callable[[], None] | None] | None,
    waiting: deque[Future[None]] | None = None,
) -> None:
    """Ask for a pause; once all that waits is done, call what was asked for."""
    asked = None if pause is None else pause()
    if asked is not None:
        while waiting:
            waiting.popleft().result()
        asked()


# Kept from call to call: a new thread costs a millisecond, and begins with no memory of its own.
_THREADS: list[ThreadPoolExecutor] = []
_INSIDE = threading.local()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_THREADS.clear)  # a child inherits none of the threads


def _as_in_caller(
    gradients: bool, n_threads: int, worker: Callable[[Item], None], item: Item
) -> None:
    """Work on an item with gradients on or off as in the calling thread."""
    _INSIDE.worker = True
    torch.set_num_threads(n_threads)
    with torch.set_grad_enabled(gradients):
        worker(item)


limit_threads()  # a group's share of the cores is something that torch does not look at
