"""Batches side by side: one thread a core, each with products of its own.

A product split over all cores waits for the slowest of them, thousands of times a pass; a core that
works on a batch of its own waits once. On a machine with other jobs that is the difference between
a fraction and a multiple of the time.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

Item = TypeVar("Item")


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
    before, gradients = torch.get_num_threads(), torch.is_grad_enabled()
    set_threads = partial(torch.set_num_threads, max(1, before // len(workers)))
    with ExitStack() as stack:
        # Each thread sets its own number; the last one set is also what new threads begin with.
        stack.callback(torch.set_num_threads, before)
        pools = [
            stack.enter_context(ThreadPoolExecutor(1, initializer=set_threads)) for _ in workers
        ]
        waiting: deque[Future[None]] = deque()
        for number, item in enumerate(items):
            which = number % len(workers)
            waiting.append(pools[which].submit(_with_gradients, gradients, workers[which], item))
            if len(waiting) > 2 * len(workers):
                waiting.popleft().result()
        for future in waiting:
            future.result()


def _with_gradients(enabled: bool, worker: Callable[[Item], None], item: Item) -> None:
    """Work on an item with gradients on or off as in the calling thread."""
    with torch.set_grad_enabled(enabled):
        worker(item)


limit_threads()  # a group's share of the cores is something that torch does not look at
