"""Expectation–maximisation, for any model that has additive moments."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mogul.algorithms.base import Pass
from mogul.algorithms.scoring import batch_plan, default_batch_size
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
    """Whether values are missing, and scratch memory of each worker from the pass before."""

    gaps: bool
    workspaces: list[dict[str, Tensor]] = field(default_factory=list)


class _Worker:
    """One thread's share of an E-step."""

    def __init__(self, kernel: Expectation, n_components: int, seen: Callable[[int], None]) -> None:
        self.kernel, self.seen = kernel, seen
        self.total, self.mass = 0.0, 0.0
        self.worst = _Worst(n_components)

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
        self.seen(len(x))


def _combined(workers: list[_Worker]) -> tuple[Any, float, float, _Worst]:
    """Return the moments, log-likelihood, mass and worst rows of all workers, in their order."""
    first = workers[0]
    kernel, worst = first.kernel, first.worst
    for other in workers[1:]:
        kernel.absorb(other.kernel)
        if other.worst.log_prob is not None and other.worst.rows is not None:
            worst.add(other.worst.log_prob, other.worst.rows)
    return kernel.moments, sum(w.total for w in workers), sum(w.mass for w in workers), worst


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
        check_enough_rows(len(source), model.n_components)
        model.check_started()
        gaps, seen = False, torch.zeros(source.n_features, dtype=torch.bool, device=model.device)
        size = default_batch_size(source.n_features)
        for batch in source.batches(size, model.dtype, model.device):
            missing = batch.x.isnan()
            if bool(missing.any()):
                gaps = True
                seen |= ~missing.all(0)
            else:
                seen[:] = True
        if not bool(seen.all()):
            column = int((~seen).nonzero()[0])
            raise InputError(
                f"Column {column} is NaN in every row, so nothing can be learned of it; remove "
                "the column."
            )
        return _State(gaps)

    def step(
        self, model: HasMoments, source: Source, state: _State, seen: Callable[[int], None]
    ) -> tuple[_State, Pass]:
        """E-step over all batches, then one M-step.

        Raises:
            InputError: if a row has a log-likelihood that is not finite.
        """
        log_prior = float(model.log_prior().detach())
        kernel = model.expectation(gaps=state.gaps)
        size, n_workers = batch_plan(
            source, model.device, model.dtype, kernel.footprint, self.batch_size
        )
        # The first worker's thread may be this one; the kernel itself holds what it adds.
        kernels = [kernel, *(kernel.fork() for _ in range(n_workers - 1))]
        for own, workspace in zip(kernels, state.workspaces, strict=False):
            own.workspace = workspace
        state = _State(state.gaps, [k.workspace for k in kernels])
        workers = [_Worker(k, model.n_components, seen) for k in kernels]
        spread(source.parts(size, model.dtype, model.device), workers)
        moments, total, mass, worst = _combined(workers)
        events = ([] if kernel.note is None else [kernel.note]) + model.maximise(moments)
        dead = model.dead(moments, mass / len(source))
        if len(dead) and worst.rows is not None:
            dead = dead[: len(worst.rows)]
            model.reseed(dead, worst.rows[: len(dead)])
            events.append(
                f"component(s) {', '.join(map(str, dead.tolist()))} held no data and were "
                "restarted at the worst-explained rows"
            )
        restarted = bool(len(dead))
        return state, Pass(total / mass, events, (total + log_prior) / mass, restarted)


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
