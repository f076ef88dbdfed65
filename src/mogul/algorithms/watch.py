"""What a pass tells while it runs, and how it is asked to save or to end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial

from torch import Tensor

from mogul.errors import InputError


def check_memory(memory: dict[str, Tensor], *names: str) -> None:
    """Refuse what another algorithm remembers.

    Raises:
        InputError: if a name is missing.
    """
    if not set(names) <= set(memory):
        raise InputError(
            "The passes before were made by another algorithm; go on with that, or begin anew."
        )


class Stopped(Exception):
    """A pass that was stopped part-way; `memory` tells how far it came, empty if it cannot."""

    def __init__(self, memory: dict[str, Tensor]) -> None:
        """Hold what the rest of the pass needs."""
        super().__init__()
        self.memory = memory


class Watch:
    """What a pass tells while it runs, and what it is asked by those who wait for it.

    Args:
        seen: called with numbers of rows.
        stop: asked whether the pass is to end.
        save: called with the memory of an unfinished pass.
        every: seconds between such saves.
    """

    def __init__(
        self,
        seen: Callable[[int], None] | None = None,
        stop: Callable[[], bool] = lambda: False,
        save: Callable[[dict[str, Tensor]], None] | None = None,
        every: float = math.inf,
    ) -> None:
        """Take whom to tell and to ask."""
        self._seen, self._stop, self._save, self._every = seen, stop, save, every
        self._saved = time.monotonic()

    def seen(self, n: int) -> None:
        """Tell of n rows; on any thread."""
        if self._seen is not None:
            self._seen(n)

    def rest(self) -> None:
        """Let a pass end between two batches.

        Raises:
            Stopped: if this was asked for.
        """
        if self._stop():
            raise Stopped({})

    def due(self, memory: Callable[[], dict[str, Tensor]]) -> Callable[[], None] | None:
        """Return what to do between two batches with the memory of what was done so far."""
        if self._stop():
            return partial(self._end, memory)
        if self._save is not None and time.monotonic() - self._saved > self._every:
            return partial(self._keep, memory)
        return None

    def _end(self, memory: Callable[[], dict[str, Tensor]]) -> None:
        raise Stopped(memory())

    def _keep(self, memory: Callable[[], dict[str, Tensor]]) -> None:
        assert self._save is not None
        self._save(memory())
        self._saved = time.monotonic()
