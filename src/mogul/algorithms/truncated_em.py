"""Truncated variational EM: each row is held to a few components, found among neighbours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mogul.algorithms.base import Pass
from mogul.algorithms.candidates import Found
from mogul.algorithms.em import EM
from mogul.algorithms.first_candidates import first_candidates
from mogul.algorithms.sweep import Sweep, Variational, sweep
from mogul.algorithms.watch import Watch, check_memory
from mogul.compute.backend import make_generator
from mogul.compute.collective import Group, group_of
from mogul.compute.memory import MEMORY_ERRORS, halved, rows_that_fit
from mogul.compute.threads import threads_for
from mogul.distributions import LocalKernel
from mogul.errors import InputError
from mogul.protocols import HasLocalMoments, Source

# Times as many components as are looked at, up to which dense E-steps are faster: with factors,
# and without, where a dense E-step is one thin product. `python -m benchmarks truncated break-even`
_BREAK_EVEN = {True: 4, False: 16}
_BATCH_BYTES = 2**30
_MOST_WARM = 15  # E-steps before the first M-step
_SETTLED = 1e-3  # nats per row and feature, by which a warm-up gains too little to go on
_COMPARED = 1 / 128  # of the evaluations of a pass, spent on log-likelihoods of a sample
_COMPARED_EVERY = 4  # passes, where not all rows are compared
_LEAST_COMPARED = 2**15  # evaluations


@dataclass
class _State:
    """Where a fit stands: the state of dense EM, or the variational one."""

    group: Group
    done: int = 0
    gap: float = 0.0  # of log-likelihood to free energy, as last measured
    dense: Any = None
    variational: Variational | None = None
    size: int | None = None
    kernel: LocalKernel | None = None  # of the pass before, for its memory


class TruncatedEM:
    r"""Variational EM with truncated posteriors: passes sublinear in rows × components.

    Row $n$ is held to a set $K_n$ of C′ components, and component $c$ has a set $g_c \ni c$ of G
    neighbours. With $S_n = \bigcup_{k \in K_n} g_k$ and E components at random, an E-step makes
    $K_n$ the C′ best of $S_n$, and responsibilities are normalised over $K_n$. That raises the
    free energy

    $$\mathcal F = \sum_n w_n \log \sum_{c \in K_n} \pi_c N(x_n; c) \le \log L,$$

    and the M-step is that of EM. The distance of $c$ to $k$ is estimated by the mean, over rows
    that $c$ explains best, of log p(c, x) − log p(k, x) + log π_k − log π_c, and $g_c$ are the G
    nearest.

    A pass works out at most N (C′ G + E) log-joints, where `EM` works out N K. Its rows in the
    history tell the `free_energy`, these `evaluations` per row, and as `log_likelihood` the free
    energy plus its distance from the log-likelihood, measured on a sample of the rows, in every
    fourth pass where rows and components are many. `objective` is the free energy plus any
    log-prior. Components without data are restarted at the rows with the lowest free energy.

    With so few components that it is faster, E-steps are dense: those of `EM`.

    Args:
        candidates: C′, at most K.
        neighbours: G, at most K.
        random: E.
        dense: whether to make dense E-steps; None for what is faster.
        batch_size: rows worked on together; default: what keeps buffers near 1 GB.
        seed: of the first candidates, and of those at random.

    Raises:
        InputError: if a number is out of range.

    References:
        Salwig, Kahlke, Hirschberger, Forster & Lücke (2025), Sublinear Variational Optimization of
        Gaussian Mixture Models with Millions to Billions of Parameters; Hirschberger, Forster &
        Lücke (2022), A Variational EM Acceleration for Efficient Clustering at Very Large Scales.

    Example:
        >>> from mogul import GaussianMixture, TruncatedEM, fit, initialise, open_source
        >>> source = open_source("digits")
        >>> model = GaussianMixture(200, source.n_features, covariance="mfa", rank=2)
        >>> initialise(model, source)
        >>> fitted = fit(model, source, TruncatedEM(candidates=3, neighbours=5), passes=5)
    """

    monotone = True

    def __init__(
        self,
        candidates: int = 3,
        neighbours: int = 15,
        random: int = 1,
        dense: bool | None = None,
        batch_size: int | None = None,
        seed: int = 0,
    ) -> None:
        """Check the numbers.

        Raises:
            InputError: as the class says.
        """
        if candidates < 1 or neighbours < 1 or random < 0:
            raise InputError(
                f"{candidates} candidates, {neighbours} neighbours and {random} at random came; "
                "give at least one, one and zero."
            )
        self.candidates, self.neighbours, self.random = candidates, neighbours, random
        self.dense, self.batch_size, self.seed = dense, batch_size, seed
        self._em = EM(batch_size)

    def init(self, model: HasLocalMoments, source: Source, passes: int) -> _State:
        """Check that the model can learn from the source, and choose the kind of E-steps.

        Raises:
            InputError: if the model has no moments or was never started, there are fewer rows than
                components, rows can be read once only, or truncated E-steps were asked for and
                values are missing.
        """
        if not getattr(source, "repeatable", True):
            raise InputError(
                "Truncated EM keeps candidates of every row from pass to pass, and these rows can "
                "be read once only; write them to a file (`mogul convert`), or use OnlineEM()."
            )
        dense = self._em.init(model, source, passes)
        if dense.gaps and self.dense is False:
            raise InputError(
                "Values are missing, which truncated E-steps do not take; use EM(), or impute."
            )
        is_dense = dense.gaps or self.is_dense(model)
        return _State(group_of(source), dense=dense if is_dense else None)

    def memory(self, state: _State) -> dict[str, Tensor]:
        """Return what a fit that goes on from a file needs beside the model."""
        if state.variational is None:
            return self._em.memory(state.dense)
        return {
            "candidates": state.group.brought(state.variational.held),
            "neighbours": state.variational.neighbours.clone(),
            "passes": torch.tensor(state.done),
            "gap": torch.tensor(state.gap, dtype=torch.float64),
        }

    def resume(
        self, model: HasLocalMoments, source: Source, passes: int, memory: dict[str, Tensor]
    ) -> _State:
        """Go on where a fit ended, each process with the candidates of its own rows.

        Raises:
            InputError: if another algorithm made the passes before, or one with other numbers.
        """
        group = group_of(source)
        if "candidates" not in memory:
            dense = self._em.resume(model, source, passes, memory)
            return _State(group, dense=dense)
        check_memory(memory, "candidates", "neighbours", "passes", "gap")
        held, neighbours = memory["candidates"], memory["neighbours"]
        wanted = self._sizes(model)
        if (held.shape[1], neighbours.shape[1]) != wanted:
            raise InputError(
                f"The passes before kept {held.shape[1]} candidates and {neighbours.shape[1]} "
                f"neighbours, and {wanted[0]} and {wanted[1]} were asked for; go on with the same "
                "numbers, or begin anew."
            )
        start = sum(group.gather(len(source))[: group.rank])
        own = held[start : start + len(source)].clone()
        variational = Variational(own, neighbours.to(model.device))
        made, gap = int(memory["passes"]), float(memory["gap"])
        return _State(group, made, gap, variational=variational)

    @torch.no_grad()
    def step(
        self, model: HasLocalMoments, source: Source, state: _State, watch: Watch
    ) -> tuple[_State, Pass]:
        """E-step over all batches, then one M-step.

        Raises:
            InputError: if a row has a free energy that is not finite, or memory ran out in one of
                several processes.
        """
        if state.dense is not None:
            return self._dense_step(model, source, state, watch)
        with threads_for(self._work(model, source)):
            return self._truncated_step(model, source, state, watch)

    def _work(self, model: HasLocalMoments, source: Source) -> int:
        """Return the multiply-adds of a pass, at least."""
        return len(source) * self._looked_at(model.n_components) * source.n_features

    def _truncated_step(
        self, model: HasLocalMoments, source: Source, state: _State, watch: Watch
    ) -> tuple[_State, Pass]:
        """Make a pass over the candidates of rows and their neighbours.

        Raises:
            InputError: as `step` says.
        """
        group, events = state.group, list[str]()
        draw = make_generator(
            (self.seed * 1_000_003 + state.done) * 1009 + group.rank, model.device
        )
        while True:
            kernel = model.local_expectation()
            if state.kernel is not None:
                kernel.reuse(state.kernel)
            size = state.size or self._size(source, kernel)
            try:
                if state.variational is None:
                    events += self._begin(model, kernel, source, state, size, draw, watch)
                found = self._expect(
                    kernel, source, state.variational, size, draw, watch, state.done
                )
            except MEMORY_ERRORS as error:
                state.size = halved(size, error)
                if group.world > 1:  # the others have gone on, and do not begin again
                    raise InputError(
                        f"Memory ran out with batches of {size} rows in one of {group.world} "
                        f"processes; give all of them a batch_size of {state.size} or less."
                    ) from error
                if state.variational is not None:
                    state.variational.rows = state.variational.whole = None
                events.append(
                    f"memory ran out with batches of {size} rows; went on with {state.size}"
                )
                continue
            state.kernel = kernel
            return state, self._maximise(model, kernel, source, state, found, events)

    @torch.no_grad()
    def explore(
        self,
        model: HasLocalMoments,
        source: Source,
        state: _State,
        observe: Callable[[slice, Found, Tensor | None], None],
    ) -> None:
        """Make an E-step alone, of a fit whose E-steps are not dense.

        Args:
            model: the parameters, which stay.
            source: the rows.
            state: of the fit.
            observe: called for every batch with the places of its rows, what was found of them,
                and their weights.
        """
        draw = make_generator(self.seed, model.device)
        kernel, watch = model.local_expectation(), Watch()
        size = state.size or self._size(source, kernel)
        with threads_for(self._work(model, source)):
            if state.variational is None:
                self._begin(model, kernel, source, state, size, draw, watch)
            assert state.variational is not None
            sweep(
                kernel, source, state.variational, self.random, size, draw, watch, observe=observe
            )  # fmt: skip

    def _expect(
        self,
        kernel: LocalKernel,
        source: Source,
        variational: Variational | None,
        size: int,
        draw: torch.Generator,
        watch: Watch,
        done: int,
    ) -> Sweep:
        """Make the E-step, and compare the free energy of some rows with their log-likelihood."""
        assert variational is not None
        n, k = len(source), len(kernel.offsets)
        spent = max(_LEAST_COMPARED, _COMPARED * n * self._looked_at(k))
        wanted = max(1, int(spent / k))
        if wanted < n and done % _COMPARED_EVERY:
            wanted = 0
        sample = torch.randperm(n, generator=draw, device=draw.device)
        sample = sample[:wanted].sort().values.cpu()
        return sweep(
            kernel, source, variational, self.random, size, draw, watch, sample,
        )  # fmt: skip

    def _begin(
        self,
        model: HasLocalMoments,
        kernel: LocalKernel,
        source: Source,
        state: _State,
        size: int,
        draw: torch.Generator,
        watch: Watch,
    ) -> list[str]:
        """Find the first candidates, and better ones until the free energy settles."""
        k, (width, g) = model.n_components, self._sizes(model)
        variational = first_candidates(model(), source, width, g, self.random, size, draw, watch)
        reached = [-torch.inf]
        while len(reached) <= _MOST_WARM:
            found = sweep(kernel, source, variational, self.random, size, draw, watch)
            reached.append(found.mean(source))
            if reached[-1] - reached[-2] < _SETTLED * source.n_features:
                break
        state.variational = variational
        return [
            f"truncated E-steps look at {self._looked_at(k):,} of {k:,} components per row (up to "
            f"{self._most_dense(model):,} components dense ones are faster); {len(reached) - 1} of "
            f"them raised the free energy from {reached[1]:.2f} to {reached[-1]:.2f}"
        ]

    def _maximise(
        self,
        model: HasLocalMoments,
        kernel: LocalKernel,
        source: Source,
        state: _State,
        found: Sweep,
        events: list[str],
    ) -> Pass:
        """Make the M-step, and restart components without data."""
        group = state.group
        log_prior = float(model.log_prior())
        moments = kernel.moments
        counted = torch.tensor(
            [found.free_energy, found.mass, len(source), found.evaluations, found.gap,
             found.sampled], dtype=torch.float64,
        )  # fmt: skip
        group.add([counted, *moments.tensors().values()])
        total, mass, rows, evaluations, gap, sampled = counted.tolist()
        events += model.maximise(moments)
        dead = model.dead(moments, mass / rows)
        restarted = self._restart(model, source, state, found.worst, dead) if len(dead) else []
        if restarted:
            events.append(
                f"component(s) {', '.join(map(str, restarted))} held no data and were restarted "
                "at the rows with the lowest free energy"
            )
        state.done += 1
        reached = total / mass
        figures = {"free_energy": reached, "evaluations": evaluations / rows}
        if sampled:
            state.gap = gap / sampled
        likelihood = reached + state.gap
        return Pass(likelihood, events, (total + log_prior) / mass, bool(restarted), figures)

    def _restart(
        self,
        model: HasLocalMoments,
        source: Source,
        state: _State,
        worst: tuple[Tensor, Tensor],
        dead: Tensor,
    ) -> list[int]:
        """Restart components (m,) at the worst rows of all processes, held to them from then on."""
        group, variational = state.group, state.variational
        assert variational is not None
        low, place = (each[: len(dead)].cpu() for each in worst)
        rows = source.take(place, model.dtype, model.device)
        best = variational.held[place, 0]
        each = group.gather((low, torch.full_like(place, group.rank), place, best, rows))
        low, rank, place, best, rows = (torch.cat(t) for t in zip(*each, strict=True))
        order = low.argsort(stable=True)[: len(dead)]
        dead = dead[: len(order)]
        model.reseed(dead, rows[order].to(model.device))
        for component, i in zip(dead.tolist(), order.tolist(), strict=True):
            row = int(place[i]) if int(rank[i]) == group.rank else None
            variational.join(component, int(best[i]), row)
        return dead.tolist()

    def _dense_step(
        self, model: HasLocalMoments, source: Source, state: _State, watch: Watch
    ) -> tuple[_State, Pass]:
        """Make a pass of EM, whose free energy is the log-likelihood."""
        state.dense, done = self._em.step(model, source, state.dense, watch)
        k = model.n_components
        events = done.events
        if state.done == 0:
            why = (
                "values are missing" if state.dense.gaps
                else f"dense E-steps are faster up to {self._most_dense(model):,} components"
            )  # fmt: skip
            events = [f"E-steps are dense, over all {k:,} components: {why}", *events]
        state.done += 1
        figures = {"free_energy": done.log_likelihood, "evaluations": float(k)}
        return state, replace(done, events=events, figures=done.figures | figures)

    def _sizes(self, model: HasLocalMoments) -> tuple[int, int]:
        """Return C′ and G."""
        return min(self.candidates, model.n_components), min(self.neighbours, model.n_components)

    def _looked_at(self, k: int) -> int:
        """Return C′ G + E."""
        return min(self.candidates, k) * min(self.neighbours, k) + self.random

    def _most_dense(self, model: HasLocalMoments) -> int:
        """Return the number of components up to which dense E-steps are faster."""
        factors = model().covariance.low_rank
        return _BREAK_EVEN[factors] * self._looked_at(model.n_components)

    def is_dense(self, model: HasLocalMoments) -> bool:
        """Return whether E-steps of a model are dense."""
        if self.dense is not None:
            return self.dense
        return model.n_components <= self._most_dense(model)

    def _size(self, source: Source, kernel: LocalKernel) -> int:
        """Return rows to work on together: they, and their scores and candidates."""
        if self.batch_size is not None:
            return self.batch_size
        values = 2 * source.n_features + 6 * self._looked_at(len(kernel.offsets))
        each = values * kernel.dtype.itemsize
        if kernel.device.type == "cuda":
            return min(len(source), rows_that_fit(kernel.device, each))
        return min(len(source), max(1024, _BATCH_BYTES // each))
