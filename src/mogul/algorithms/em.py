"""Expectation–maximisation, for any model that has additive moments."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from mogul.algorithms.base import Pass
from mogul.algorithms.expectation import (
    Worker,
    begun_pass,
    combined,
    of_begun_pass,
    take_up,
    worst_of_all,
)
from mogul.algorithms.scoring import batch_plan, default_batch_size
from mogul.algorithms.watch import Watch, check_memory
from mogul.compute.collective import group_of
from mogul.compute.memory import MEMORY_ERRORS, halved
from mogul.compute.threads import spread
from mogul.compute.transfer import staged
from mogul.errors import InputError
from mogul.protocols import Expectation, HasMoments, Source


@dataclass(frozen=True)
class _State:
    """Whether values are missing, and what passes leave to those after them.

    `size` is that of batches, if it had to be lowered; `workspaces` is scratch memory of each
    worker; `begun` is the memory of a pass to go on with.
    """

    gaps: bool
    size: int | None = None
    workspaces: list[dict[str, Tensor]] = field(default_factory=list)
    begun: dict[str, Tensor] = field(default_factory=dict)


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
        return _State(gaps=looked_through(source, model))

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
        check_memory(memory, "gaps")
        return _State(bool(memory["gaps"]), begun=of_begun_pass(memory))

    def step(
        self, model: HasMoments, source: Source, state: _State, watch: Watch
    ) -> tuple[_State, Pass]:
        """E-step over all batches, then one M-step.

        Raises:
            InputError: if a row has a log-likelihood that is not finite.
        """
        group = group_of(source)
        log_prior = float(model.log_prior().detach())
        workers, state, events = self._expect(model, source, state, watch)
        moments, total, mass, worst = combined(workers)
        counted = torch.tensor([total, mass, len(source)], dtype=torch.float64)
        group.add([counted, *moments.tensors().values()])
        total, mass, rows = counted.tolist()
        events += model.maximise(moments)
        dead = model.dead(moments, mass / rows)
        if len(dead):
            worst = worst_of_all(worst, group)
        if len(dead) and worst.rows is not None:
            dead = dead[: len(worst.rows)]
            model.reseed(dead, worst.rows[: len(dead)])
            events.append(
                f"component(s) {', '.join(map(str, dead.tolist()))} held no data and were "
                "restarted at the worst-explained rows"
            )
        restarted = bool(len(dead))
        return state, Pass(total / mass, events, (total + log_prior) / mass, restarted)

    def _expect(
        self, model: HasMoments, source: Source, state: _State, watch: Watch
    ) -> tuple[list[Worker], _State, list[str]]:
        """Make the E-step; where memory runs out, again with batches of half the size."""
        events: list[str] = []
        while True:
            kernel = model.expectation(gaps=state.gaps)
            size, n_workers = batch_plan(
                source, model.device, model.dtype, kernel.footprint, state.size or self.batch_size
            )
            try:
                workers, told = self._pass_over(
                    model, source, state, watch, kernel, size, n_workers
                )
            except MEMORY_ERRORS as error:
                state = replace(state, size=halved(size, error), workspaces=[], begun={})
                events.append(
                    f"memory ran out with batches of {size} rows; went on with {state.size}"
                )
                continue
            spaces = [worker.kernel.workspace for worker in workers]
            events += told + ([] if kernel.note is None else [kernel.note])
            return workers, replace(state, workspaces=spaces, begun={}), events

    @staticmethod
    def _pass_over(
        model: HasMoments,
        source: Source,
        state: _State,
        watch: Watch,
        kernel: Expectation,
        size: int,
        n_workers: int,
    ) -> tuple[list[Worker], list[str]]:
        """Let workers add all batches; return them, and what to tell."""
        # The first worker's thread may be this one; the kernel itself holds what it adds.
        kernels = [kernel, *(kernel.fork() for _ in range(n_workers - 1))]
        for own, workspace in zip(kernels, state.workspaces, strict=False):
            own.workspace = workspace
        workers = [Worker(k, model.n_components, watch.seen) for k in kernels]
        group = group_of(source)
        plan = torch.tensor([size, n_workers, group.rank, group.world])
        events = take_up(workers, state.begun, plan)

        def memory() -> dict[str, Tensor]:
            # Processes come to rest at unlike places: what each has added is only kept alone.
            return begun_pass(workers, plan) if group.world == 1 else {}

        batches = staged(source, size, model.dtype, model.device)
        added = sum(worker.done for worker in workers)  # in the part of the pass made before
        turn = workers[added % n_workers :] + workers[: added % n_workers]
        spread(islice(batches, added, None), turn, lambda: watch.due(memory))
        return workers, events


def looked_through(source: Source, model: Any) -> bool:
    """Return whether values are missing in the rows of any process.

    Raises:
        InputError: if a column has no value at all.
    """
    if getattr(source, "complete", False):
        return False
    missing = torch.zeros((), dtype=torch.float64)
    seen = torch.zeros(source.n_features, dtype=torch.float64)
    for batch in source.batches(default_batch_size(source.n_features), model.dtype, model.device):
        hidden = batch.x.isnan()
        some = bool(hidden.any())
        missing += some
        seen += (~hidden.all(0)).cpu() if some else 1.0
    group_of(source).add([missing, seen])
    if not bool(seen.all()):
        column = int((seen == 0).nonzero()[0])
        raise InputError(
            f"Column {column} is NaN in every row, so nothing can be learned of it; remove the "
            "column."
        )
    return bool(missing)


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
