"""Signals that ask a process to end, kept until it is at a place where it can."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

_KINDS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """While entered, notes the first Ctrl-C or SIGTERM; the second interrupts at once.

    Only the main thread of a process receives signals; elsewhere this does nothing.
    """

    def __init__(self) -> None:
        """Nothing was asked yet."""
        self.asked: str | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        """Take signals over."""
        if threading.current_thread() is threading.main_thread():
            self._before = {kind: signal.signal(kind, self._note) for kind in _KINDS}
        return self

    def __exit__(self, *error: object) -> None:
        """Give them back."""
        for kind, handler in self._before.items():
            signal.signal(kind, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        """Note a signal.

        Raises:
            KeyboardInterrupt: at the second one.
        """
        if self.asked is not None:
            raise KeyboardInterrupt
        self.asked = signal.Signals(number).name
