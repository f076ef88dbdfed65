"""Steps over minibatches: which rows each process takes, and how their gradients become one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mogul.compute.collective import Group
from mogul.errors import InputError


class Minibatch(NamedTuple):
    """Rows of one step: this process's, and their share of all processes' rows of the step."""

    index: Tensor
    share: float


def random_order(source: Any, generator: torch.Generator) -> Tensor:
    """Return the numbers of all rows (n,) in a random order; one that is fast to read, if known."""
    if hasattr(source, "order"):
        return source.order(generator)
    return torch.randperm(len(source), generator=generator, device=generator.device).cpu()


def minibatches(order: Tensor, size: int, group: Group) -> Iterator[Minibatch]:
    """Split an order of rows into steps of `size` rows over all processes.

    Every process makes as many steps. One alone takes `size` rows each time; a last row alone goes
    with those before it, to have statistics.
    """
    if group.world == 1:
        for index in batches_of(order, size):
            yield Minibatch(index, 1.0)
        return
    rows, steps = group.gather(len(order)), n_steps(len(order), size, group)
    for step, index in enumerate(order.tensor_split(steps)):
        together = sum(n // steps + (step < n % steps) for n in rows)
        yield Minibatch(index, len(index) / together)


def n_steps(own: int, size: int, group: Group) -> int:
    """Return the steps of a pass: batches of `size` rows over all processes, this one's `own` rows.

    Raises:
        InputError: if a process has too few rows to take part in every step.
    """
    if group.world == 1:
        return len(batches_of(torch.arange(own), size))
    rows = group.gather(own)
    steps = -(-sum(rows) // max(size, 2 * group.world))
    if min(rows) < 2 * steps and 2 * min(rows) < max(rows):
        raise InputError(
            f"The processes have from {min(rows)} to {max(rows)} rows, too unequal for {steps} "
            "steps in which each takes part; write the data with smaller row groups (`mogul "
            "convert --row-group`), or start fewer processes."
        )
    return max(1, min(steps, min(rows) // 2))


def batches_of(order: Tensor, size: int) -> list[Tensor]:
    """Split an order of rows; a last row alone goes with those before it, to have statistics."""
    parts = list(order.split(size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def pool(gradients: Sequence[Tensor], share: float, group: Group) -> None:
    """Replace gradients of means over own rows, in place, by those over all processes' rows."""
    if group.world > 1:
        for gradient in gradients:
            gradient.mul_(share)
        group.add(gradients)


def pool_statistics(module: Any, group: Group) -> None:
    """Replace what a module keeps of batches, as normalisation does, by the processes' mean."""
    if group.world > 1:
        kept = [t for m in module.modules() if isinstance(m, _KEEPING) for t in m.buffers()]
        moving = [t for t in kept if t.is_floating_point()]
        group.add(moving)
        for tensor in moving:
            tensor.div_(group.world)


_KEEPING = torch.nn.modules.batchnorm._NormBase
