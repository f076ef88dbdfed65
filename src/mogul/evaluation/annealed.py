"""log p(x) of latent-variable models by annealed importance sampling, and how far off it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from mogul.algorithms.base import check_gradients
from mogul.algorithms.particles import held_still
from mogul.compute.backend import make_generator
from mogul.distributions import Mixture
from mogul.errors import InputError
from mogul.models import LatentVariableModel

_CHUNK = 1280  # latents decoded at a time
_STEEPNESS = 4.0  # of the sigmoid that temperatures follow
_ACCEPTANCE = 0.65
_PILOT = 4  # chains that only find step sizes
_FIRST_STEP = 0.2
_RATE = 0.2
_JITTER = (0.5, 1.5)  # times the step size


@dataclass(frozen=True)
class AnnealedLikelihood:
    """Estimates of log p(x) for rows.

    `log_likelihood` (n,) in nats, float64, is at most log p(x) in expectation; `effective_chains`
    (n,) is (Σw)²/Σw² of the weights, of which a value near one says that a single chain decided.
    """

    log_likelihood: Tensor
    effective_chains: Tensor


@dataclass(frozen=True)
class BidirectionalBounds:
    """Bounds of log p(x) from both sides, for rows that the model made.

    `rows` (n, D) are these; `lower` and `upper` (n,) in nats, float64, are in expectation at most
    and at least log p(x).
    """

    rows: Tensor
    lower: Tensor
    upper: Tensor

    @property
    def gap(self) -> float:
        """Mean of upper less lower, nats per row: it bounds the error of either on average."""
        return float((self.upper - self.lower).mean())


@torch.no_grad()
def annealed_likelihood(
    model: LatentVariableModel,
    x: Tensor,
    *,
    n_chains: int = 16,
    n_temperatures: int = 500,
    n_leapfrog: int = 10,
    seed: int = 0,
) -> AnnealedLikelihood:
    r"""Estimate log p(x) by annealed importance sampling from prior to posterior.

    Chains go along $p(z)\,p(x|z)^\beta$ by Hamiltonian Monte Carlo, β from 0 to 1 by a sigmoidal
    schedule, and the mean of $w=\prod_t p(x|z_{t-1})^{\beta_t-\beta_{t-1}}$ estimates p(x) without
    bias. A few chains go first to find, for each row and temperature, the step size that accepts
    65 %; chains that chose their own steps would make estimates that bound nothing.
    Source: Neal 2001; Wu et al. 2017, "On the quantitative analysis of decoder-based generative
    models".

    Args:
        model: the model; its parameters and mode are left as they were.
        x: rows (n, D) in the units of the data; features that are NaN are marginalised.
        n_chains: chains per row, C.
        n_temperatures: steps from prior to posterior; the more, the closer.
        n_leapfrog: leapfrog steps of each move; one costs a gradient of the decoder.
        seed: seed of the chains.

    Returns:
        estimates and how many chains carry them.

    Raises:
        InputError: if rows have another width, are none or infinite, a setting is below one, or
            the model gives a row a density that is not finite.
    """
    x = _checked(model, x, n_chains, n_temperatures, n_leapfrog)
    found, effective = [], []
    with held_still(model):
        for number, rows in enumerate(x.split(_rows_at_a_time(n_chains))):
            path = _Path(model, rows, n_temperatures, n_leapfrog, seed * 1_000_003 + number)
            log_weights = path.up(n_chains)
            found.append(_log_mean(log_weights))
            effective.append(log_weights.softmax(0).square().sum(0).reciprocal())
    return AnnealedLikelihood(_finite(torch.cat(found)), torch.cat(effective))


@torch.no_grad()
def bidirectional_gap(
    model: LatentVariableModel,
    n_rows: int,
    *,
    n_chains: int = 16,
    n_temperatures: int = 500,
    n_leapfrog: int = 10,
    seed: int = 0,
) -> BidirectionalBounds:
    r"""Bound log p(x) from both sides for rows drawn from the model, by bidirectional Monte Carlo.

    A row drawn as z* ~ p(z), x ~ p(x|z*) comes with an exact draw z* of its posterior. From there
    the chains of `annealed_likelihood` are run backwards, to the prior, and the mean of 1/w bounds
    log p(x) from above. On real rows, estimates of the same settings are about as close as these.
    Source: Grosse, Ghahramani & Adams 2015; Wu et al. 2017.

    Args:
        model: the model; its parameters and mode are left as they were.
        n_rows: rows to draw, n.
        n_chains: chains per row and direction.
        n_temperatures: steps between prior and posterior.
        n_leapfrog: leapfrog steps of each move.
        seed: seed of rows and chains.

    Returns:
        the rows, both bounds, and the gap between them.

    Raises:
        InputError: if a setting is below one, or a density is not finite.
    """
    if n_rows < 1:
        raise InputError(f"{n_rows} rows were asked for; give at least one.")
    lower, upper = [], []
    with held_still(model):
        z, x = _simulate(model, n_rows, seed)
        _checked(model, x, n_chains, n_temperatures, n_leapfrog)
        size = _rows_at_a_time(n_chains)
        for number, (own, rows) in enumerate(zip(z.split(size), x.split(size), strict=True)):
            path = _Path(model, rows, n_temperatures, n_leapfrog, seed * 1_000_003 + number)
            lower.append(_log_mean(path.up(n_chains)))
            upper.append(-_log_mean(path.down(own.expand(n_chains, *own.shape))))
    return BidirectionalBounds(x, _finite(torch.cat(lower)), _finite(torch.cat(upper)))


@dataclass(frozen=True)
class _Point:
    """Latents (C, b, d); log p(z) and log p(x | z) there, (C, b); and the gradients of both."""

    z: Tensor
    log_prior: Tensor
    log_likelihood: Tensor
    prior_slope: Tensor
    likelihood_slope: Tensor

    def log_prob(self, beta: float) -> Tensor:
        """Return log p(z) + β log p(x | z)."""
        return self.log_prior + beta * self.log_likelihood

    def slope(self, beta: float) -> Tensor:
        """Return the gradient of `log_prob`."""
        return self.prior_slope + beta * self.likelihood_slope

    def replaced(self, other: _Point, where: Tensor) -> _Point:
        """Return the other point where (C, b) is True, and this one elsewhere."""
        parts = []
        for field in fields(self):
            old, new = getattr(self, field.name), getattr(other, field.name)
            parts.append(torch.where(where if old.ndim == 2 else where.unsqueeze(-1), new, old))
        return _Point(*parts)


class _Path:
    """The densities p(z) p(x | z)^β between prior and posterior of some rows, and moves there."""

    def __init__(
        self, model: LatentVariableModel, x: Tensor, n_temperatures: int, n_leapfrog: int, seed: int
    ) -> None:
        self._model, self._x, self._n_leapfrog = model, x, n_leapfrog
        self._prior: Mixture = model.prior
        self._draw = make_generator(seed, x.device)
        self._betas = _schedule(n_temperatures)
        self._steps = self._find_steps()

    def up(self, n_chains: int) -> Tensor:
        """Return log w (C, b) of chains from the prior to the posterior; the mean of w is p(x)."""
        return self._anneal(self._from_prior(n_chains), self._betas, self._steps)

    def down(self, z: Tensor) -> Tensor:
        """Return −log w (C, b) of chains from posterior draws (C, b, d) to the prior."""
        return self._anneal(self._at(z), self._betas[::-1], self._steps[::-1])

    def _anneal(self, point: _Point, betas: Sequence[float], steps: Sequence[Tensor]) -> Tensor:
        """Return Σ (β' − β) log p(x | z) along chains that move at every β but the outer ones."""
        log_weights = torch.zeros_like(point.log_prior, dtype=torch.float64)
        for number, step in enumerate(steps, 1):
            log_weights += (betas[number] - betas[number - 1]) * point.log_likelihood
            point, _ = self._move(point, betas[number], step)
        return log_weights + (betas[-1] - betas[-2]) * point.log_likelihood

    def _find_steps(self) -> list[Tensor]:
        """Return step sizes (b, 1) for every temperature but the outer ones."""
        point = self._from_prior(_PILOT)
        log_step = torch.full_like(self._x[:, :1], math.log(_FIRST_STEP))
        steps = []
        for beta in self._betas[1:-1]:
            steps.append(log_step.exp())
            point, accepted = self._move(point, beta, steps[-1])
            log_step = log_step + _RATE * (accepted.mean(0).unsqueeze(-1) - _ACCEPTANCE)
        return steps

    def _move(self, point: _Point, beta: float, step: Tensor) -> tuple[_Point, Tensor]:
        """Make one move of Hamiltonian Monte Carlo; return also how likely it was to be taken."""
        momentum = torch.empty_like(point.z).normal_(generator=self._draw)
        # Trajectories of one length can come back to where they began, every time.
        jitter = torch.empty_like(point.z[..., :1]).uniform_(*_JITTER, generator=self._draw)
        step = step * jitter
        before = point.log_prob(beta) - 0.5 * momentum.square().sum(-1)
        new = point
        momentum = momentum + 0.5 * step * new.slope(beta)
        for number in range(self._n_leapfrog):
            new = self._at(new.z + step * momentum)
            last = number == self._n_leapfrog - 1
            momentum = momentum + (0.5 if last else 1.0) * step * new.slope(beta)
        after = new.log_prob(beta) - 0.5 * momentum.square().sum(-1)
        # A trajectory that left the numbers is one that is not taken.
        likely = (after - before).clamp_max(0).exp().nan_to_num(0.0)
        uniform = torch.empty_like(likely).uniform_(generator=self._draw)
        return point.replaced(new, uniform < likely), likely

    def _from_prior(self, n_chains: int) -> _Point:
        seed = int(torch.randint(2**31, (), generator=self._draw, device=self._draw.device))
        return self._at(self._prior.sample((n_chains, len(self._x)), seed=seed))

    def _at(self, z: Tensor) -> _Point:
        model = self._model
        # Where a trajectory diverged, its momentum is no number and refuses it; the densities need
        # not be asked about such latents, and some would raise.
        z = z.to(model.dtype).nan_to_num(0.0, 0.0, 0.0)
        check_gradients()
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            log_prior = self._prior.log_prob(z)
            output = model.decoder(z.reshape(-1, model.n_latents)).view(*z.shape[:-1], -1)
            log_likelihood = model.likelihood.log_prob(self._x, output)
            slopes = [torch.autograd.grad(v.sum(), z)[0] for v in (log_prior, log_likelihood)]
        return _Point(z.detach(), log_prior.detach(), log_likelihood.detach(), *slopes)


def _schedule(n: int) -> list[float]:
    """Return n + 1 inverse temperatures from 0 to 1, close together at both ends."""
    sigmoid = torch.linspace(-_STEEPNESS, _STEEPNESS, n + 1, dtype=torch.float64).sigmoid()
    return ((sigmoid - sigmoid[0]) / (sigmoid[-1] - sigmoid[0])).tolist()


def _simulate(model: LatentVariableModel, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw latents (n, d) from the prior, and rows (n, D) given them."""
    z = model.prior.sample((n,), seed=seed).to(model.dtype)
    output = torch.cat([model.decoder(part) for part in z.split(_CHUNK)])
    return z, model.likelihood.sample(output, seed + 1)


def _rows_at_a_time(n_chains: int) -> int:
    return max(1, _CHUNK // n_chains)


def _log_mean(log_values: Tensor) -> Tensor:
    """Return the log of the mean over chains, (b,), of (C, b)."""
    return log_values.logsumexp(0) - math.log(len(log_values))


def _checked(
    model: LatentVariableModel, x: Tensor, n_chains: int, n_temperatures: int, n_leapfrog: int
) -> Tensor:
    """Return rows as the model computes with them.

    Raises:
        InputError: if rows or settings cannot be used.
    """
    if min(n_chains, n_temperatures, n_leapfrog) < 1:
        raise InputError(
            f"{n_chains} chains, {n_temperatures} temperatures and {n_leapfrog} leapfrog steps "
            "came; each must be at least 1: try 16, 500 and 10."
        )
    if x.ndim != 2 or len(x) == 0 or x.shape[1] != model.n_features:
        raise InputError(
            f"Rows of shape {tuple(x.shape)} came; they must have shape (n, {model.n_features}) "
            "with at least one row: reshape them."
        )
    if bool(x.isinf().any()):
        raise InputError("Rows with infinite values have no density; drop them.")
    return x.to(model.device, model.dtype)


def _finite(log_likelihood: Tensor) -> Tensor:
    """Return it if all values are finite.

    Raises:
        InputError: if not.
    """
    if not bool(log_likelihood.isfinite().all()):
        raise InputError(
            "The model gives some rows a density that is not finite; look for parameters that are "
            "not, or fit it in float64."
        )
    return log_likelihood
