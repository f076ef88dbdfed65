"""Processes that are forked to be killed: begun in milliseconds, never left behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress

_LONGEST = 300  # seconds after which a child ends by itself, whatever becomes of its parent


@contextmanager
def child(work: Callable[[], object]) -> Generator[int]:
    """Fork a process that works and ends with 0, or 1 for an exception; it is killed on leaving."""
    number = os.fork()
    if number == 0:
        code = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(_LONGEST)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # killed ones complain of one another
            work()
            code = 0
        finally:
            os._exit(code)
    try:
        yield number
    finally:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(number, signal.SIGKILL)
            os.waitpid(number, 0)


def ended(number: int, seconds: float) -> int | None:
    """Wait for a child; return its exit code, negative for a signal, or None if it did not end."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found, status = os.waitpid(number, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return None


class Lines:
    """A pipe through which children tell lines."""

    def __init__(self) -> None:
        """Open it."""
        self._from, self._to = os.pipe()
        os.set_blocking(self._from, False)
        self._begun = b""

    def tell(self, line: str) -> None:
        """Write a line, from a child."""
        os.write(self._to, line.encode() + b"\n")

    def new(self) -> list[str]:
        """Return the lines that came since the last call, in the parent."""
        with suppress(BlockingIOError):
            while part := os.read(self._from, 2**16):
                self._begun += part
        *whole, self._begun = self._begun.split(b"\n")
        return [line.decode() for line in whole]

    def wait(self, begin: str, seconds: float) -> list[str]:
        """Return lines up to one that begins so; fewer if it does not come in time."""
        until, found = time.monotonic() + seconds, []
        while time.monotonic() < until:
            found += self.new()
            if any(line.startswith(begin) for line in found):
                return found
            time.sleep(0.001)
        return found

    def close(self) -> None:
        """Close both ends."""
        os.close(self._from)
        os.close(self._to)
