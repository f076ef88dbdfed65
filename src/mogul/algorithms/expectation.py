"""One pass's E-step: what each thread adds up, how it is put together, and how it can wait."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mogul.compute.collective import Group
from mogul.errors import InputError
from mogul.protocols import Batch, Expectation

_BEGUN = "begun/"  # before the names of what an unfinished pass has added up


@dataclass
class Worst:
    """The worst-explained rows of a pass: log-likelihoods (m,) and rows (m, D), ascending."""

    capacity: int
    log_prob: Tensor | None = None
    rows: Tensor | None = None

    def add(self, log_prob: Tensor, x: Tensor) -> None:
        """Keep the lowest of what is held and what came."""
        held = self.log_prob
        if (
            held is not None
            and len(held) == self.capacity
            and not bool((log_prob < held[-1]).any())
        ):
            return
        low, which = log_prob.topk(min(self.capacity, len(log_prob)), largest=False)
        rows = x[which]
        if self.log_prob is not None and self.rows is not None:
            low, rows = torch.cat([self.log_prob, low]), torch.cat([self.rows, rows])
        order = low.argsort()[: self.capacity]
        self.log_prob, self.rows = low[order], rows[order]


class Worker:
    """One thread's share of an E-step."""

    def __init__(self, kernel: Expectation, n_components: int, seen: Callable[[int], None]) -> None:
        """Begin without rows."""
        self.kernel, self.seen = kernel, seen
        self.total, self.mass, self.done = 0.0, 0.0, 0
        self.worst = Worst(n_components)

    @torch.no_grad()
    def __call__(self, read: Callable[[], Batch]) -> None:
        """Read a batch and add it."""
        x, weight, index = read()
        log_prob = self.kernel.expect(x, weight)
        each = log_prob if weight is None else log_prob * weight
        total = float(each.sum(dtype=torch.float64))
        if not math.isfinite(total):
            check_finite(log_prob, index)
        self.total += total
        self.mass += float(len(x) if weight is None else weight.sum(dtype=torch.float64))
        if weight is None:
            self.worst.add(log_prob, x)
        else:
            self.worst.add(log_prob[weight > 0], x[weight > 0])
        self.done += 1
        self.seen(len(x))

    def memory(self) -> dict[str, Tensor]:
        """Return all that this worker has added up, by name."""
        counted = torch.tensor([self.total, self.mass, self.done], dtype=torch.float64)
        found = {"counted": counted} | {f"sum/{k}": v for k, v in self.kernel.sums().items()}
        if self.worst.log_prob is not None and self.worst.rows is not None:
            found |= {"worst/log_prob": self.worst.log_prob, "worst/rows": self.worst.rows}
        return found

    def take_up(self, memory: dict[str, Tensor]) -> None:
        """Go on from what `memory` returned."""
        self.total, self.mass, done = memory["counted"].tolist()
        self.done = int(done)
        self.worst.log_prob = memory.get("worst/log_prob")
        self.worst.rows = memory.get("worst/rows")
        prefix = "sum/"
        self.kernel.take_up({
            k.removeprefix(prefix): v for k, v in memory.items() if k.startswith(prefix)
        })


def combined(workers: list[Worker]) -> tuple[Any, float, float, Worst]:
    """Return the moments, log-likelihood, mass and worst rows of all workers, in their order."""
    first = workers[0]
    kernel, worst = first.kernel, first.worst
    for other in workers[1:]:
        kernel.absorb(other.kernel)
        if other.worst.log_prob is not None and other.worst.rows is not None:
            worst.add(other.worst.log_prob, other.worst.rows)
    return kernel.moments, sum(w.total for w in workers), sum(w.mass for w in workers), worst


def worst_of_all(worst: Worst, group: Group) -> Worst:
    """Return the worst-explained rows of all processes."""
    found = Worst(worst.capacity)
    for log_prob, rows in group.gather((worst.log_prob, worst.rows)):
        if log_prob is not None:
            found.add(log_prob, rows)
    if found.rows is not None and worst.rows is not None:
        found.rows = found.rows.to(worst.rows.device)
    return found


def begun_pass(workers: list[Worker], plan: Tensor) -> dict[str, Tensor]:
    """Return the memory of an unfinished pass: how it was shared out, and each worker's sums."""
    each = {f"{i}/{k}": v for i, w in enumerate(workers) for k, v in w.memory().items()}
    return {_BEGUN + name: tensor for name, tensor in (each | {"plan": plan}).items()}


def of_begun_pass(memory: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return what a fit's memory has of an unfinished pass."""
    return {k: v for k, v in memory.items() if k.startswith(_BEGUN)}


def take_up(workers: list[Worker], begun: dict[str, Tensor], plan: Tensor) -> list[str]:
    """Let workers go on with an unfinished pass; tell if it was shared out otherwise."""
    if not begun:
        return []
    if not torch.equal(begun[_BEGUN + "plan"], plan):
        return ["an unfinished pass was shared out among other threads and began again"]
    for i, worker in enumerate(workers):
        prefix = f"{_BEGUN}{i}/"
        worker.take_up({
            k.removeprefix(prefix): v for k, v in begun.items() if k.startswith(prefix)
        })
    return []


def check_finite(log_prob: Tensor, index: Tensor) -> None:
    """Refuse rows of these numbers (n,) whose log-likelihood (n,) is not finite.

    Raises:
        InputError: naming the first of them.
    """
    if bool(log_prob.isfinite().all()):
        return
    row = int(index[int((~log_prob.isfinite()).nonzero()[0])])
    raise InputError(
        f"Row {row} has a log-likelihood that is not finite; its values are too far from all "
        "others for this floating-point type: use float64, or drop the row."
    )
