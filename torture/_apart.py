"""Parts, and work in a process of its own, begun from nothing: one thread, so that it may fork."""

from __future__ import annotations

import importlib
import multiprocessing
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from torture.outcome import Outcome


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function of a module returns, called in a new process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def tried(name: str, quick: bool) -> list[Outcome]:
    """Run a part; return what it found, and tell how long it took."""
    since = time.perf_counter()
    found = importlib.import_module(f"torture.{name}").run(quick)
    print(f"{name}: {time.perf_counter() - since:.0f} s", file=sys.stderr)
    return found
