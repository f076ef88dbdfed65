"""Expectation–maximisation, for any model that has additive moments."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from mogul.algorithms.base import Pass
from mogul.algorithms.scoring import batch_plan, default_batch_size
from mogul.algorithms.watch import Watch
from mogul.compute.collective import Group, group_of
from mogul.compute.threads import spread
from mogul.errors import InputError
from mogul.protocols import Batch, Expectation, HasMoments, Source


@dataclass
class _Worst:
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


@dataclass(frozen=True)
class _State:
    """Whether values are missing, and what passes leave to those after them.

    `workspaces` is scratch memory of each worker; `begun` is the memory of a pass to go on with.
    """

    gaps: bool
    workspaces: list[dict[str, Tensor]] = field(default_factory=list)
    begun: dict[str, Tensor] = field(default_factory=dict)


class _Worker:
    """One thread's share of an E-step."""

    def __init__(self, kernel: Expectation, n_components: int, seen: Callable[[int], None]) -> None:
        self.kernel, self.seen = kernel, seen
        self.total, self.mass, self.done = 0.0, 0.0, 0
        self.worst = _Worst(n_components)

    @torch.no_grad()
    def __call__(self, read: Callable[[], Batch]) -> None:
        """Read a batch and add it."""
        x, weight, index = read()
        log_prob = self.kernel.expect(x, weight)
        each = log_prob if weight is None else log_prob * weight
        total = float(each.sum(dtype=torch.float64))
        if not math.isfinite(total):
            _check_finite(log_prob, index)
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


def _combined(workers: list[_Worker]) -> tuple[Any, float, float, _Worst]:
    """Return the moments, log-likelihood, mass and worst rows of all workers, in their order."""
    first = workers[0]
    kernel, worst = first.kernel, first.worst
    for other in workers[1:]:
        kernel.absorb(other.kernel)
        if other.worst.log_prob is not None and other.worst.rows is not None:
            worst.add(other.worst.log_prob, other.worst.rows)
    return kernel.moments, sum(w.total for w in workers), sum(w.mass for w in workers), worst


def _worst_of_all(worst: _Worst, group: Group) -> _Worst:
    """Return the worst-explained rows of all processes."""
    found = _Worst(worst.capacity)
    for log_prob, rows in group.gather((worst.log_prob, worst.rows)):
        if log_prob is not None:
            found.add(log_prob, rows)
    return found


class EM:
    """Expectation–maximisation (Dempster, Laird & Rubin 1977), one pass over the data per step.

    The log-likelihood never falls from one pass to the next, except where the history tells of a
    component without data, which is restarted at the worst-explained row.

    Batches are worked on side by side, one a core; see `compute.threads`.

    Args:
        batch_size: rows per batch; default: what keeps buffers near 32 MB a core.
    """

    monotone = True

    def __init__(self, batch_size: int | None = None) -> None:
        """Choose the batch size.

        Raises:
            InputError: if it is not positive.
        """
        if batch_size is not None and batch_size < 1:
            raise InputError(f"The batch size is {batch_size}; it must be at least 1.")
        self.batch_size = batch_size

    def init(self, model: HasMoments, source: Source, passes: int) -> _State:
        """Check that the model can learn from the source, and whether values are missing.

        Raises:
            InputError: if the model has no moments or was never started, there are fewer rows than
                components, or a column has no value at all.
        """
        if not hasattr(model, "expectation"):
            raise InputError(
                f"A {type(model).__name__} has no moments that EM could use; fit it by a particle "
                "algorithm such as pga(), an autoencoder by Variational(), a mixture density "
                "network by Supervised()."
            )
        group = group_of(source)
        check_enough_rows(int(group.total(len(source))[0]), model.n_components)
        model.check_started()
        if getattr(source, "complete", False):
            return _State(gaps=False)
        missing, seen = _looked_through(source, model)
        group.add([missing, seen])
        if not bool(seen.all()):
            column = int((seen == 0).nonzero()[0])
            raise InputError(
                f"Column {column} is NaN in every row, so nothing can be learned of it; remove "
                "the column."
            )
        return _State(gaps=bool(missing))

    def memory(self, state: _State) -> dict[str, Tensor]:
        """Return what a fit that goes on from a file needs beside the model."""
        return {"gaps": torch.tensor(state.gaps)}

    def resume(
        self, model: HasMoments, source: Source, passes: int, memory: dict[str, Tensor]
    ) -> _State:
        """Go on where a fit ended, also within a pass.

        Raises:
            InputError: if another algorithm made the passes before.
        """
        if "gaps" not in memory:
            raise InputError(
                "The passes before were made by another algorithm; go on with that, or begin anew."
            )
        begun = {k: v for k, v in memory.items() if k.startswith(_BEGUN)}
        return _State(bool(memory["gaps"]), begun=begun)

    def step(
        self, model: HasMoments, source: Source, state: _State, watch: Watch
    ) -> tuple[_State, Pass]:
        """E-step over all batches, then one M-step.

        Raises:
            InputError: if a row has a log-likelihood that is not finite.
        """
        group = group_of(source)
        log_prior = float(model.log_prior().detach())
        kernel = model.expectation(gaps=state.gaps)
        size, n_workers = batch_plan(
            source, model.device, model.dtype, kernel.footprint, self.batch_size
        )
        # The first worker's thread may be this one; the kernel itself holds what it adds.
        kernels = [kernel, *(kernel.fork() for _ in range(n_workers - 1))]
        for own, workspace in zip(kernels, state.workspaces, strict=False):
            own.workspace = workspace
        workers = [_Worker(k, model.n_components, watch.seen) for k in kernels]
        plan = torch.tensor([size, n_workers, group.rank, group.world])
        events = _take_up(workers, state.begun, plan)

        def memory() -> dict[str, Tensor]:
            # Processes come to rest at unlike places: what each has added is only kept alone.
            return _begun(workers, plan) if group.world == 1 else {}

        batches = source.parts(size, model.dtype, model.device)
        added = sum(worker.done for worker in workers)  # in the part of the pass made before
        turn = workers[added % n_workers :] + workers[: added % n_workers]
        spread(islice(batches, added, None), turn, lambda: watch.due(memory))
        state = _State(state.gaps, [k.workspace for k in kernels])
        moments, total, mass, worst = _combined(workers)
        counted = torch.tensor([total, mass, len(source)], dtype=torch.float64)
        group.add([counted, *moments.tensors().values()])
        total, mass, rows = counted.tolist()
        events += [] if kernel.note is None else [kernel.note]
        events += model.maximise(moments)
        dead = model.dead(moments, mass / rows)
        if len(dead):
            worst = _worst_of_all(worst, group)
        if len(dead) and worst.rows is not None:
            dead = dead[: len(worst.rows)]
            model.reseed(dead, worst.rows[: len(dead)])
            events.append(
                f"component(s) {', '.join(map(str, dead.tolist()))} held no data and were "
                "restarted at the worst-explained rows"
            )
        restarted = bool(len(dead))
        return state, Pass(total / mass, events, (total + log_prior) / mass, restarted)


_BEGUN = "begun/"  # before the names of what an unfinished pass has added up


def _begun(workers: list[_Worker], plan: Tensor) -> dict[str, Tensor]:
    """Return the memory of an unfinished pass: how it was shared out, and each worker's sums."""
    each = {f"{i}/{k}": v for i, w in enumerate(workers) for k, v in w.memory().items()}
    return {_BEGUN + name: tensor for name, tensor in (each | {"plan": plan}).items()}


def _take_up(workers: list[_Worker], begun: dict[str, Tensor], plan: Tensor) -> list[str]:
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


def _looked_through(source: Source, model: HasMoments) -> tuple[Tensor, Tensor]:
    """Return how many batches have gaps, and in how many each column (D,) has a value."""
    missing = torch.zeros((), dtype=torch.float64)
    seen = torch.zeros(source.n_features, dtype=torch.float64)
    for batch in source.batches(default_batch_size(source.n_features), model.dtype, model.device):
        hidden = batch.x.isnan()
        some = bool(hidden.any())
        missing += some
        seen += (~hidden.all(0)).cpu() if some else 1.0
    return missing, seen


def check_enough_rows(n_rows: int, n_components: int) -> None:
    """Refuse more components than rows.

    Raises:
        InputError: if there are more components than rows.
    """
    if n_components > n_rows:
        raise InputError(
            f"{n_components} components were asked for, but the data have only {n_rows} row(s); "
            "choose at most as many components as rows."
        )


def _check_finite(log_prob: Tensor, index: Tensor) -> None:
    if bool(log_prob.isfinite().all()):
        return
    row = int(index[int((~log_prob.isfinite()).nonzero()[0])])
    raise InputError(
        f"Row {row} has a log-likelihood that is not finite; its values are too far from all "
        "others for this floating-point type: use float64, or drop the row."
    )
