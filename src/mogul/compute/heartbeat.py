"""Processes that tell each other that they are alive, so that none waits for one that hangs."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Any

_EVERY = 3.0  # seconds between beats
_SILENCE = 40.0  # seconds without a beat after which a process counts as lost
LOST = 75  # exit code of a process that lost another: try again


class Heartbeat:
    """A thread that counts up a number of this process and watches those of the others.

    A process that was stopped or lost its machine answers no sum, and no error tells of it. When
    one has been silent for 40 seconds, this process says so and ends at once, whatever it waits
    for; its files are whole, because they are replaced and never changed.

    Args:
        store: numbers by name that all processes share; used by this thread alone.
        rank: this process.
        world: how many there are.
    """

    def __init__(self, store: Any, rank: int, world: int) -> None:
        """Prepare; `with` starts the thread and ends it."""
        self._store, self._rank, self._world = store, rank, world
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="mogul-heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        """Begin to beat and to watch."""
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Say farewell, so that the others do not wait for a beat."""
        self._over.set()
        self._thread.join(2 * _EVERY)

    def _watch(self) -> None:
        others = [r for r in range(self._world) if r != self._rank]
        now = time.monotonic()
        seen = {rank: (0, now) for rank in others}
        try:
            while not self._over.wait(_EVERY):
                self._store.add(f"{self._rank}", 1)
                for rank in others:
                    count, now = self._store.add(f"{rank}", 0), time.monotonic()
                    gone = self._store.add(f"{rank} ended", 0) > 0
                    if gone or count != seen[rank][0]:
                        seen[rank] = (count, now)
                    elif now - seen[rank][1] > _SILENCE:
                        self._end(rank)
            self._store.add(f"{self._rank} ended", 1)
        except RuntimeError:
            return  # the store went away with its host, which ends this process by itself

    def _end(self, rank: int) -> None:
        print(
            f"Process {rank} of {self._world} has not answered for {_SILENCE:.0f} seconds; "
            f"process {self._rank} ends, so that all can be started again.",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        os._exit(LOST)
