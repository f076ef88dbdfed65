"""Read ahead on threads of their own, so that reading and computing overlap."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

from mogul.compute.threads import usable_cores

Item = TypeVar("Item")
_MOST_READERS = 4


def ahead(items: Iterator[Item], depth: int) -> Iterator[Item]:
    """Yield items in order, up to `depth` of them made before they are asked for.

    What raises in making one is raised where it would have been yielded. A consumer that stops
    early stops the reader too.
    """
    ready: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(depth)
    stopped = threading.Event()

    def put(entry: tuple[Item | None, BaseException | None]) -> None:
        while not stopped.is_set():
            try:
                ready.put(entry, timeout=0.1)
                return
            except queue.Full:
                continue

    def read() -> None:
        end: BaseException = StopIteration()
        try:
            for item in items:
                put((item, None))
                if stopped.is_set():
                    return
        except BaseException as error:
            end = error
        put((None, end))

    threading.Thread(target=read, name="mogul-reader", daemon=True).start()
    try:
        while True:
            item, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # pyright: ignore[reportReturnType] - None only beside an error
    finally:
        stopped.set()


def n_readers() -> int:
    """Return how many threads to read on."""
    return min(_MOST_READERS, usable_cores())


def made_ahead(jobs: Iterator[Callable[[], Item]], most: int = 4) -> Iterator[Item]:
    """Yield what jobs return, in their order, on a few threads (at most `most`) and ahead of use.

    What a job raises is raised where its result would have been yielded; the jobs themselves are
    drawn in the calling thread.
    """
    waiting: deque[Future[Item]] = deque()
    number = min(most, n_readers())
    pool = _readers(number)
    try:
        for job in jobs:
            waiting.append(pool.submit(job))
            if len(waiting) > number:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
        pool.shutdown(wait=True)


def _readers(n: int) -> ThreadPoolExecutor:
    """Start threads on which torch keeps to one thread each: jobs are side by side already."""
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(n, thread_name_prefix="mogul-maker")
    begun = threading.Barrier(n + 1)

    def begin() -> None:
        torch.set_num_threads(1)
        begun.wait()

    for _ in range(n):
        pool.submit(begin)
    begun.wait()
    # The last number set by any thread is also what new threads, and MKL everywhere, go by.
    torch.set_num_threads(before)
    return pool
