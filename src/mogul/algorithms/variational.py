"""Autoencoders: encoder, decoder and prior raised together by stochastic gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mogul.algorithms.base import Pass
from mogul.algorithms.bounds import Bound, EvidenceBound, Objective
from mogul.algorithms.initialise import initialise
from mogul.algorithms.minibatches import minibatches, random_order
from mogul.algorithms.optimiser_state import moments_of, restore_moments
from mogul.algorithms.particles import check_latent_model
from mogul.algorithms.rows import Rows
from mogul.algorithms.watch import Watch
from mogul.compute.backend import make_generator
from mogul.compute.collective import group_of
from mogul.distributions import product_bound, variational_bound
from mogul.errors import InputError
from mogul.protocols import HasPosterior, Source

_ENCODED = 2048  # rows encoded at a time where no gradient is wanted
_START_ROWS = 20  # per component of a prior, at least 10,000, that it is started from
_WIDTH_VALUES = 2**22  # numbers held for the product bound
_APART = 7_368_787  # between the seeds of processes
_JITTER = 0.01  # deviation by which pseudo-inputs differ from rows at first
_SCORING, _STARTING = 1_000_001, 1_000_002  # purposes that draw, as if they were passes
_STATE = "adam/"  # before the names of Adam's moments in a model's training state


@dataclass
class _State:
    bound: torch.nn.Module  # its backward pass gives gradients over the rows of all processes
    optimiser: torch.optim.Optimizer
    names: list[str]
    done: int = 0
    told: list[str] = field(default_factory=list)


class _Bound(torch.nn.Module):
    """A bound as a module's call, which is what gradients can be shared of."""

    def __init__(self, model: Any, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, x: Tensor, draw: torch.Generator, beta: float) -> tuple[Tensor, ...]:
        return tuple(self.objective(self.model, x, draw, beta))


class Variational:
    r"""Raise a bound of log p(x) in encoder, decoder, likelihood and prior by Adam.

    Source: Kingma & Welling (2014); Rezende, Mohamed & Wierstra (2014).

    A prior whose components are all alike is started from the data before the first pass: a mixture
    from encoded rows by k-means, a VampPrior from rows themselves. With `prior_learning="em"` every
    pass ends with an EM step of the mixture on a latent drawn from every row's posterior, so that
    the prior follows the aggregate posterior.

    The history has the mean bound per row as objective, and as figures `evidence_bound`,
    `reconstruction`, `divergence`, and for a mixture prior `bound_width`: how far apart the closed
    bounds of the divergence are, on some rows.

    Args:
        objective: what to raise.
        learning_rate: of Adam (Kingma & Ba 2015).
        batch_size: rows per step.
        warm_up: passes over which the weight β of the divergence grows from 1/warm_up to one
            (Bowman et al. 2016; Sønderby et al. 2016).
        binarise: draw every pixel as 0 or 1 with its value as probability, anew in every pass
            (dynamic binarisation).
        seed: seed of the order of rows and of the draws.

    Raises:
        InputError: for numbers out of range.
    """

    monotone = False

    def __init__(
        self,
        objective: Objective | None = None,
        learning_rate: float = 1e-3,
        batch_size: int = 128,
        warm_up: int = 0,
        binarise: bool = False,
        seed: int = 0,
    ) -> None:
        """Check the settings.

        Raises:
            InputError: as the class says.
        """
        if not 0 < learning_rate < math.inf or batch_size < 1 or warm_up < 0:
            raise InputError(
                f"Learning rate {learning_rate}, batch size {batch_size} and a warm-up of "
                f"{warm_up} passes came; the first two must be positive, the last zero or more."
            )
        self.objective: Objective = EvidenceBound() if objective is None else objective
        self.learning_rate, self.batch_size = learning_rate, batch_size
        self.warm_up, self.binarise, self.seed = warm_up, binarise, seed

    def init(self, model: HasPosterior, source: Source, passes: int) -> _State:
        """Build the optimiser, or take up that of the passes made before; start the prior.

        Raises:
            InputError: if data and model do not fit each other, or all passes are made.
        """
        check_latent_model(model, source)
        model.eval()
        moving = {n: p for n, p in model.named_parameters() if p.requires_grad}
        # One kernel for all of a parameter's update: a third of a step of a small network.
        optimiser = torch.optim.Adam(list(moving.values()), lr=self.learning_rate, fused=True)
        told = [] if model.training_state else self._start_prior(model, source)
        bound = group_of(source).replicated(_Bound(model, self.objective))
        state = _State(bound, optimiser, list(moving), told=told)
        if model.training_state:
            _restore(state, model.training_state)
            if state.done >= passes:
                raise InputError(
                    f"The model has made {state.done} passes and {passes} were asked for, in all; "
                    "ask for more, or build it anew."
                )
        return state

    def step(
        self, model: HasPosterior, source: Source, state: _State, watch: Watch
    ) -> tuple[_State, Pass]:
        """Take one step per minibatch, over all rows in a random order.

        Raises:
            InputError: if rows have gaps, or the bound stops being finite.
        """
        group = group_of(source)
        draw = self._generator(model, state.done, group.rank)
        order = random_order(source, draw)
        beta = min(1.0, (state.done + 1) / self.warm_up) if self.warm_up else 1.0
        sums = torch.zeros(4, dtype=torch.float64, device=model.device)
        told, x = set(state.told), None
        model.train()
        try:
            for index, share in minibatches(order, self.batch_size, group):
                x = self._rows(model, source, index, draw)
                bound = Bound(*state.bound(x, draw, beta))
                _check_finite(bound.objective)
                state.optimiser.zero_grad(set_to_none=True)
                # The processes' gradients are averaged, and they differ in their shares of rows.
                (-bound.objective * (share * group.world)).backward()
                model.hold_frozen()
                state.optimiser.step()
                told.update(model.clamp_prior())
                sums += len(index) * torch.stack([value.detach() for value in bound])
                watch.seen(len(index))
                watch.rest()
        finally:
            model.eval()
        if model.prior_learning == "em":
            drawn = self._drawn(model, source, len(source), draw)
            told.update(model.maximise_prior(drawn, group))
        state.done, state.told = state.done + 1, []
        model.training_state = _flat(state)
        *totals, n = group.total(*sums.tolist(), len(source))
        objective, *means = (total / n for total in totals)
        names = ("evidence_bound", "reconstruction", "divergence")
        figures: dict[str, float] = dict(zip(names, means, strict=True))
        if x is not None and model.prior.n_components > 1:
            figures |= bound_width(model, x)
        # Disturbed: the bound is estimated by draws, and changes in the warm-up.
        return state, Pass(None, sorted(told), objective, True, figures)

    @torch.no_grad()
    def score(self, model: HasPosterior, source: Source) -> float:
        """Return the mean bound of held-out rows, with the divergence at its full weight."""
        model.eval()
        group = group_of(source)
        draw = self._generator(model, _SCORING, group.rank)
        total = 0.0
        for index in torch.arange(len(source)).split(self.batch_size):
            x = self._rows(model, source, index, draw)
            total += len(index) * float(self.objective(model, x, draw).evidence)
        total, n = group.total(total, len(source))
        return total / n

    @torch.no_grad()
    def _drawn(self, model: HasPosterior, source: Source, n: int, draw: torch.Generator) -> Tensor:
        """Return a latent drawn from the posterior of each of n rows, (n, d)."""
        order = torch.randperm(len(source), generator=draw, device=draw.device)[:n].cpu()
        parts = []
        for index in order.split(_ENCODED):
            q = model.posterior(self._rows(model, source, index, draw))
            parts.append(q.sample(1, draw)[0])
        return torch.cat(parts)

    def _generator(self, model: HasPosterior, number: int, rank: int) -> torch.Generator:
        """Return a process's generator of a pass, or of another purpose, by its number."""
        return make_generator((self.seed + _APART * rank) * 1_000_003 + number, model.device)

    def _rows(
        self, model: HasPosterior, source: Source, index: Tensor, draw: torch.Generator
    ) -> Tensor:
        """Return rows, binarised if this is asked for.

        Raises:
            InputError: if what is to be binarised is no probability.
        """
        x = source.take(index, model.dtype, model.device)
        if not self.binarise:
            return x
        if not bool(((x >= 0) & (x <= 1)).all()):
            raise InputError(
                f"Values from {x.min():.3g} to {x.max():.3g} came to be binarised; they must be "
                "probabilities: open pixels with binarise='dynamic', or leave binarise out."
            )
        return torch.bernoulli(x, generator=draw)

    def _start_prior(self, model: HasPosterior, source: Source) -> list[str]:
        """Start a prior that was not; tell of it."""
        vamp, mixture = model.vamp_prior, model.prior_model
        group = group_of(source)
        draw = self._generator(model, _STARTING, group.rank)
        if vamp is not None and not bool(vamp.started):
            every = torch.randperm(len(source), generator=draw, device=draw.device).cpu()
            own = -(-vamp.n_components // group.world)
            index = every.repeat(-(-own // len(every)))[:own]
            x = group.collect(source.take(index, model.dtype, model.device))[: vamp.n_components]
            # Equal rows would stay equal for ever.
            vamp.start(x + _JITTER * torch.empty_like(x).normal_(generator=draw))
            return ["pseudo-inputs started as rows of the data"]
        if mixture is not None and not mixture.started:
            n = max(10_000, _START_ROWS * mixture.n_components)
            drawn = group.collect(self._drawn(model, source, -(-n // group.world), draw))
            initialise(mixture, Rows(drawn), seed=self.seed)
            return ["mixture prior started from encoded rows"]
        return []


@torch.no_grad()
def bound_width(model: HasPosterior, x: Tensor) -> dict[str, float]:
    """Return the mean of the variational less the product bound of the divergence, in nats.

    By its name in the history; nothing where the product bound is not defined.
    """
    prior, d = model.prior, model.n_latents
    per_row = prior.n_components * d * (1 if prior.covariance.independent else d)
    n = max(1, _WIDTH_VALUES // (per_row * model.posterior_family.n_components))
    q = model.posterior(x[:n])
    try:
        width = variational_bound(q, prior) - product_bound(q, prior)
    except InputError:
        return {}
    return {"bound_width": float(width.mean())}


def _flat(state: _State) -> dict[str, Tensor]:
    """Return what a fit needs to go on, by name."""
    moments = moments_of(state.optimiser, state.names)
    return {"done": torch.tensor(state.done)} | {_STATE + k: t for k, t in moments.items()}


def _restore(state: _State, held: dict[str, Tensor]) -> None:
    """Take up Adam's moments.

    Raises:
        InputError: if the state is that of another algorithm.
    """
    moments = {k.removeprefix(_STATE): t for k, t in held.items() if k.startswith(_STATE)}
    restore_moments(state.optimiser, state.names, moments)
    state.done = int(held["done"])


def _check_finite(bound: Tensor) -> None:
    if not bool(bound.isfinite()):
        raise InputError(
            "The bound of the evidence stopped being finite; choose a smaller learning_rate, or "
            "look for infinite or very large values in the data."
        )
