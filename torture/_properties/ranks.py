"""Threads that play the processes of a group, so that thousands of such fits take seconds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mogul.compute.collective import Group


class _Meeting:
    """Where the members of a group put what they send, and wait for each other."""

    def __init__(self, world: int) -> None:
        self.barrier = threading.Barrier(world)
        self.held: list[Any] = [None] * world

    def exchange(self, rank: int, value: Any) -> list[Any]:
        self.held[rank] = value
        self.barrier.wait(60)
        found = list(self.held)
        self.barrier.wait(60)
        return found


@dataclass(frozen=True)
class ThreadGroup(Group):
    """A group whose members are threads of one process."""

    meeting: _Meeting = field(default_factory=lambda: _Meeting(1))

    @torch.no_grad()
    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace every tensor, in place, by its sum over all threads."""
        sent = self.meeting.exchange(self.rank, [t.clone() for t in tensors])
        for own, parts in zip(tensors, zip(*sent, strict=True), strict=True):
            own.copy_(sum(parts[1:], parts[0]))

    def gather(self, value: Any) -> list[Any]:
        """Return what every thread gave, in the order of ranks."""
        return self.meeting.exchange(self.rank, value)

    def brought(self, tensor: Tensor) -> Tensor:
        """Return the rows of all threads' tensors to the first; to the others, their own."""
        found = self.gather(tensor)
        return torch.cat(found) if self.first else tensor

    def said(self, value: Any) -> Any:
        """Return what the first thread gave."""
        return self.gather(value)[0]


def on_ranks(world: int, work: Callable[[Group], Any]) -> list[Any]:
    """Let each of `world` threads do its part of the work; return what they return, by rank."""
    meeting = _Meeting(world)

    def member(rank: int) -> Any:
        try:
            return work(ThreadGroup(rank, world, meeting=meeting))
        except BaseException:
            meeting.barrier.abort()  # the others would wait for ever
            raise

    with ThreadPoolExecutor(world) as pool:
        return [found.result() for found in [pool.submit(member, r) for r in range(world)]]
