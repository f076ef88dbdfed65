"""Online expectation–maximisation: the parameters learn many times in a pass."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mogul.algorithms.base import Pass
from mogul.algorithms.em import check_enough_rows
from mogul.algorithms.expectation import check_finite
from mogul.algorithms.online_state import OnlineState
from mogul.algorithms.shuffled import shuffled, weights_of
from mogul.algorithms.watch import Watch, check_memory
from mogul.compute.backend import make_generator
from mogul.compute.collective import group_of
from mogul.compute.threads import n_workers, spread, threads_for
from mogul.errors import InputError
from mogul.protocols import Batch, Expectation, LearnsOnline, Source

_RECENT = 3.0  # η of averages: the weight of step t grows as t^η
_MOST_ROWS = 2500  # of a batch, unless more are asked for
_LEAST_ROWS = 128  # of a batch, below which a thread is not worth its sums


@dataclass(frozen=True)
class Lesson:
    """What one batch told: its log-likelihood before it was learned from, in nats, and its mass.

    `restarted` are the components that were; `told` what else a user should know.
    """

    total: float
    mass: float
    restarted: list[int]
    told: list[str]


class OnlineEM:
    """Online expectation–maximisation (Cappé & Moulines 2009): an M-step after every batch.

    Complete-data sufficient statistics are averaged over batches, S ← (1 − γ_t) S + γ_t s_t, with
    steps γ_t = (t + delay)^−power, and the parameters are the maximiser of S. They begin as what
    the model expects of data by itself. At the end the parameters are those of statistics averaged
    over steps, late ones most (Polyak & Juditsky 1992; weights of Shamir & Zhang 2013).

    A step costs its share of a pass of `EM`, and an M-step, which one core makes. Rows come in a
    random order, or in their own from sources that can be read only once. The history's log-
    likelihood is that of every batch before it was learned from. Components without data are
    restarted at the worst-explained rows of a batch.

    Args:
        batch_size: rows per step; default: a 30th of the data, from 100 to 2,500 rows.
        power: how fast steps shrink, above 0.5 and at most 1.
        delay: at least 1; with 1 the first batch replaces what the model began with.
        average: end with averaged statistics.
        seed: seed of the order of rows.

    Raises:
        InputError: for numbers out of range.
    """

    monotone = False

    def __init__(
        self,
        batch_size: int | None = None,
        power: float = 0.55,
        delay: float = 2.0,
        average: bool = True,
        seed: int = 0,
    ) -> None:
        """Check the settings.

        Raises:
            InputError: as the class says.
        """
        if batch_size is not None and batch_size < 1:
            raise InputError(f"The batch size is {batch_size}; it must be at least 1.")
        if not 0.5 < power <= 1 or not 1 <= delay < float("inf"):
            raise InputError(
                f"power {power} and delay {delay} came; the first must lie above 0.5 and at most "
                "at 1, the second be at least 1."
            )
        self.batch_size, self.power, self.delay = batch_size, power, delay
        self.average, self.seed = average, seed

    def init(self, model: LearnsOnline, source: Source, passes: int) -> OnlineState:
        """Check that the model can learn from the source.

        Raises:
            InputError: if the model has no complete-data statistics or was never started, or there
                are fewer rows than components.
        """
        check_online(model)
        if group_of(source).world > 1:
            raise InputError(
                f"Online EM learns from one batch after the other, in one process, and there are "
                f"{group_of(source).world}; choose EM(), or start one."
            )
        if getattr(source, "repeatable", True):
            check_enough_rows(len(source), model.n_components)
        model.check_started()
        return OnlineState()

    def memory(self, state: OnlineState) -> dict[str, Tensor]:
        """Return what a fit that goes on from a file needs beside the model."""
        return state.flat()

    def resume(
        self, model: LearnsOnline, source: Source, passes: int, memory: dict[str, Tensor]
    ) -> OnlineState:
        """Go on where a fit ended, with the parameters before they were averaged.

        Raises:
            InputError: if another algorithm made the passes before.
        """
        check_memory(memory, "steps", "mass")
        return OnlineState.restored(memory)

    def step(
        self, model: LearnsOnline, source: Source, state: OnlineState, watch: Watch
    ) -> tuple[OnlineState, Pass]:
        """Learn from every batch in turn.

        Raises:
            InputError: if a row has a log-likelihood that is not finite, or a column no value.
        """
        state.rows, state.mass, total = 0, 0.0, 0.0
        draw = make_generator(self.seed * 1_000_003 + state.done)
        if state.weights is None:
            state.weights = weights_of(source)  # at once, where there are none
        size = self.batch_size or _default_size(source)
        restarted, told = set(), []
        cores = n_workers(model.device)
        batches = shuffled(source, size, model.dtype, model.device, draw, state.weights, cores)
        # Threads of torch's own that wait for a next small product would be in the workers' way.
        with threads_for(model.expectation(gaps=False).footprint):
            for batch in batches:
                lesson = self.learn(model, batch, state, cores)
                total += lesson.total
                restarted.update(lesson.restarted)
                told = lesson.told
                watch.seen(len(batch.x))
                watch.rest()
        _check_columns(state)
        state.done, state.whole = state.done + 1, state.mass
        if restarted:
            told.append(
                f"component(s) {', '.join(map(str, sorted(restarted)))} held no data and were "
                "restarted at the worst-explained rows of a batch"
            )
        penalty = float(model.log_prior().detach())
        mass = state.mass
        return state, Pass(total / mass, told, (total + penalty) / mass, bool(restarted))

    @torch.no_grad()
    def learn(
        self, model: LearnsOnline, batch: Batch, state: OnlineState, cores: int = 1
    ) -> Lesson:
        """Make one step with a batch of rows, sharing out the E-step over some cores.

        Raises:
            InputError: if a row has a log-likelihood that is not finite.
        """
        x, weight, index = batch
        kernel = model.expectation(gaps=_notice(x, state))
        log_prob, moments = _expect(kernel, x, weight, state, cores)
        each = log_prob if weight is None else log_prob * weight
        total = float(each.sum(dtype=torch.float64))
        if not abs(total) < float("inf"):
            check_finite(log_prob, index)
        mass = float(len(x) if weight is None else weight.sum(dtype=torch.float64))
        if mass == 0:
            return Lesson(0.0, 0.0, [], [])
        state.rows, state.mass = state.rows + len(x), state.mass + mass
        if state.statistics is None:
            state.statistics = model.own_statistics().scale(mass)
        rate = (state.steps + self.delay) ** -self.power
        told = self._follow(model, model.complete(moments), rate, state)
        dead = model.dead(state.statistics.scale(1 / rate), state.mass / state.rows)
        if len(dead):
            some = log_prob if weight is None else log_prob.masked_fill(weight == 0, torch.inf)
            self._restart(model, dead, x[some.argsort()[: len(dead)]], state)
        told = told if kernel.note is None else [kernel.note, *told]
        return Lesson(total, mass, dead.tolist(), told)

    def finish(self, model: LearnsOnline, state: OnlineState) -> None:
        """Take the parameters of the averaged statistics."""
        if state.average is not None:
            model.follow(state.average, max(state.mass, state.whole))

    def _follow(self, model: LearnsOnline, new: Any, rate: float, state: OnlineState) -> list[str]:
        """Mix new statistics in, make the M-step, and restate all by what it moved."""
        mixed = state.statistics.mix(new, rate)
        told, change = model.follow(mixed, max(state.mass, state.whole))
        state.statistics = mixed.restate(change)
        state.steps += 1
        if self.average:
            share = (_RECENT + 1) / (state.steps + _RECENT)
            held = state.statistics if state.average is None else state.average.restate(change)
            state.average = held.mix(state.statistics, share)
        return told

    def _restart(self, model: LearnsOnline, dead: Tensor, rows: Tensor, state: OnlineState) -> None:
        """Restart components at rows (m, D), with the statistics that they then expect."""
        dead = dead[: len(rows)]
        model.reseed(dead, rows)
        own = model.own_statistics(dead)
        for name in ("statistics", "average"):
            held = getattr(state, name)
            if held is not None:
                setattr(state, name, held.without(dead) + own.scale(float(held.count.sum())))


def check_online(model: Any) -> None:
    """Refuse models that cannot learn online.

    Raises:
        InputError: if the model has no complete-data statistics.
    """
    if not getattr(model, "learns_online", False):
        raise InputError(
            f"A {type(model).__name__} has no complete-data statistics that online EM could "
            "average; fit a GaussianMixture, or this by EM() or the algorithm made for it."
        )


def _notice(x: Tensor, state: OnlineState) -> bool:
    """Return whether rows (n, D) have gaps, and mark the columns that have values."""
    if state.seen is None:
        state.seen = torch.zeros(x.shape[1], dtype=torch.bool, device=x.device)
    if not bool(x.sum().isnan()):
        state.seen.fill_(True)
        return False
    state.seen |= ~x.isnan().all(0)
    return True


def _check_columns(state: OnlineState) -> None:
    """Refuse data with a column that never had a value.

    Raises:
        InputError: naming the column.
    """
    if state.mass == 0:
        raise InputError("The source gave no rows of any weight; give at least one.")
    if state.seen is not None and not bool(state.seen.all()):
        column = int((~state.seen).nonzero()[0])
        raise InputError(
            f"Column {column} is NaN in every row, so nothing can be learned of it; remove the "
            "column."
        )


def _default_size(source: Source) -> int:
    """Return rows per step."""
    if not getattr(source, "repeatable", True):
        return _MOST_ROWS
    return max(100, min(_MOST_ROWS, len(source) // 30))


def _expect(
    kernel: Expectation, x: Tensor, weight: Tensor | None, state: OnlineState, cores: int
) -> tuple[Tensor, Any]:
    """Return log-likelihoods (n,) and moments of rows (n, D), shared out over so many cores."""
    number = max(1, min(cores, len(x) // _LEAST_ROWS))
    kernels = [kernel, *(kernel.fork() for _ in range(number - 1))]
    for own, workspace in zip(kernels, state.workspaces, strict=False):
        own.workspace = workspace
    state.workspaces = [own.workspace for own in kernels]
    size = -(-len(x) // number)
    weights: Iterable[Tensor | None] = [None] * number if weight is None else weight.split(size)
    out = torch.empty_like(x[:, 0])
    parts = list(zip(x.split(size), weights, out.split(size), strict=False))
    spread(parts, [partial(_expect_part, own) for own in kernels])
    for other in kernels[1:]:
        kernel.absorb(other)
    return out, kernel.moments


def _expect_part(kernel: Expectation, part: tuple[Tensor, Tensor | None, Tensor]) -> None:
    x, weight, out = part
    out.copy_(kernel.expect(x, weight))
