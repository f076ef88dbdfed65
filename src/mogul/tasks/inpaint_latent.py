"""In-painting by a latent-variable model: latents inferred from what is observed, then decoded."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mogul.algorithms.particles import held_still
from mogul.compute.backend import make_generator
from mogul.errors import InputError
from mogul.models import LatentVariableModel
from mogul.tasks.encode import (
    CHUNK,
    check_latents,
    checked_rows,
    decode_rows,
    encode,
    log_joint_and_gradient,
)

_FIRST_STEP = 1e-2
_ACCEPTANCE = 0.574  # the best for Langevin proposals (Roberts & Rosenthal 1998)
_SLOWING = 0.6  # exponent at which the adaptation of step sizes dies out


@dataclass(frozen=True)
class LatentInpainting:
    """Rows with hidden features filled in.

    `mode` (n, D) decodes the most probable latents `latents` (n, d), whose log p(observed part, z)
    in nats is `log_joint` (n,); `samples` (s, n, D) decode draws of the latents' posterior, without
    the noise of the likelihood. All of them keep observed features as they are.
    """

    mode: Tensor
    latents: Tensor
    samples: Tensor
    log_joint: Tensor

    @property
    def mean(self) -> Tensor:
        """Mean of the samples, (n, D); the mode where none were drawn."""
        return self.samples.mean(0) if len(self.samples) else self.mode

    @property
    def deviation(self) -> Tensor:
        """Standard deviation of the samples, (n, D); zero where fewer than two were drawn."""
        many = len(self.samples) > 1
        return self.samples.std(0) if many else torch.zeros_like(self.mode)


def inpaint_latent(
    model: LatentVariableModel,
    x: Tensor,
    observed: Tensor | None = None,
    n_samples: int = 0,
    steps: int = 500,
    seed: int = 0,
    start: Tensor | None = None,
    burn_in: int = 300,
    spacing: int = 10,
) -> LatentInpainting:
    """Infer the hidden features of rows from the latents that their observed features tell of.

    Latents come from `encode`, and their draws from `posterior_samples`; the mean and the standard
    deviation of hidden features are those of `samples` over its first dimension.

    Args:
        model: the fitted model.
        x: rows (n, D); hidden features may hold anything, NaN included.
        observed: (n, D) boolean, True where observed; default: where x is not NaN.
        n_samples: draws of the latents per row.
        steps: most steps of the encoding.
        seed: seed of its starts and of the draws.
        start: latents (n, d) to encode from alone, such as those found before the mask changed a
            little; then few steps are enough.
        burn_in: steps of the chains of latents that are dropped first.
        spacing: steps between draws that are kept.

    Returns:
        the rows filled in.

    Raises:
        InputError: for rows of another width, a mask that is not boolean, has another shape or
            marks a NaN as observed, latents of another shape, or numbers out of range.
    """
    x = checked_rows(model, x)
    observed = ~x.isnan() if observed is None else _checked_mask(x, observed)
    _check_count(n_samples)
    seen = torch.where(observed, x, torch.nan)
    found = encode(model, seen, steps=steps, seed=seed, start=start)
    draws = found.latents.new_empty(0, *found.latents.shape)
    if n_samples:
        draws = posterior_samples(
            model, seen, found.latents, n_samples, burn_in, spacing, seed=seed
        )
    mode = torch.where(observed, x, decode_rows(model, found.latents))
    samples = x.new_empty(n_samples, *x.shape)
    for sample, z in zip(samples, draws, strict=True):
        sample.copy_(torch.where(observed, x, decode_rows(model, z)))
    return LatentInpainting(mode, found.latents, samples, found.log_joint)


def posterior_samples(
    model: LatentVariableModel,
    x: Tensor,
    latents: Tensor,
    n_samples: int,
    burn_in: int = 300,
    spacing: int = 10,
    seed: int = 0,
) -> Tensor:
    r"""Draw latents of every row from $p(z \mid x_{observed})$ by Metropolis-adjusted Langevin.

    The particles' own move, $z' = z + h\nabla\log p(x, z) + \sqrt{2h}\,\xi$, is taken or refused so
    that the posterior is exact (Roberts & Tweedie 1996). Every row has a step size h of its own,
    driven by how often it moves during the burn-in (Andrieu & Thoms 2008) and then held. One chain
    runs per row, and it may not leave the mode that it starts at.

    Args:
        model: the fitted model.
        x: rows (n, D); NaN marks what is missing.
        latents: where chains start, (n, d), such as the modes that `encode` finds.
        n_samples: draws to keep per row.
        burn_in: steps to drop first.
        spacing: steps between draws that are kept.
        seed: seed of the chains, which depend on the row's number and not on other rows.

    Returns:
        draws (n_samples, n, d), in the order of the chain.

    Raises:
        InputError: for rows or latents of another shape, numbers out of range, or chains that start
            where the log-density is not finite.
    """
    x = checked_rows(model, x)
    _check_count(n_samples)
    if burn_in < 0 or spacing < 1:
        raise InputError(
            f"A burn-in of {burn_in} steps and a spacing of {spacing} came; the first must be zero "
            "or more, the second at least 1."
        )
    check_latents(model, x, latents)
    draws = latents.new_empty(n_samples, *latents.shape, dtype=model.dtype, device=model.device)
    pieces = zip(x.split(CHUNK), latents.to(draws).split(CHUNK), draws.split(CHUNK, 1), strict=True)
    with held_still(model):
        for number, (rows, z, own) in enumerate(pieces):
            chains = _Chains(model, rows, z, seed * 1_000_003 + number)
            for step in range(1, burn_in + 1):
                chains.move(adapt=step**-_SLOWING)
            for kept in own:
                for _ in range(spacing):
                    chains.move()
                kept.copy_(chains.z)
    return draws


class _Chains:
    """One chain per row, and the step size of each."""

    def __init__(self, model: LatentVariableModel, x: Tensor, z: Tensor, seed: int) -> None:
        self.model, self.x, self.z = model, x, z
        self.draw = make_generator(seed, z.device)
        self.log_step = z.new_full((len(z),), _FIRST_STEP).log()
        self.value, self.gradient = log_joint_and_gradient(model, x, z)
        if not bool(self.value.isfinite().all()):
            raise InputError(
                "The log-density is not finite where chains start; start them at "
                "encode(model, x).latents, with NaN in x for what is missing."
            )

    def move(self, adapt: float = 0.0) -> None:
        """Propose, and take or refuse; step sizes follow the acceptance at the rate `adapt`."""
        step = self.log_step.exp().unsqueeze(-1)
        noise = self._drawn(self.z.shape[1])
        z = self.z + step * self.gradient + (2 * step).sqrt() * noise
        value, gradient = log_joint_and_gradient(self.model, self.x, z)
        back = (self.z - z - step * gradient).square() / (4 * step)
        ratio = value - self.value + (0.5 * noise.square() - back).sum(-1)
        chance = ratio.clamp_max(0.0).exp().nan_to_num(0.0)
        taken = self._uniform() < chance
        self.value = torch.where(taken, value, self.value)
        self.z = torch.where(taken.unsqueeze(-1), z, self.z)
        self.gradient = torch.where(taken.unsqueeze(-1), gradient, self.gradient)
        self.log_step += adapt * (chance - _ACCEPTANCE)

    def _drawn(self, n: int) -> Tensor:
        # Always for a whole chunk, so that the noise of a row does not depend on the rows after it.
        whole = torch.empty(CHUNK, n, dtype=self.z.dtype, device=self.z.device)
        return whole.normal_(generator=self.draw)[: len(self.z)]

    def _uniform(self) -> Tensor:
        whole = torch.empty(CHUNK, dtype=self.z.dtype, device=self.z.device)
        return whole.uniform_(generator=self.draw)[: len(self.z)]


def _check_count(n_samples: int) -> None:
    if n_samples < 0:
        raise InputError(f"{n_samples} samples were asked for; give zero or more.")


def _checked_mask(x: Tensor, observed: Tensor) -> Tensor:
    """Return the mask where the rows are.

    Raises:
        InputError: if it is not boolean, has another shape, or marks a NaN as observed.
    """
    if observed.shape != x.shape or observed.dtype != torch.bool:
        raise InputError(
            f"The mask has shape {tuple(observed.shape)} and type {observed.dtype}, the rows have "
            f"shape {tuple(x.shape)}; give one boolean value per feature of each row."
        )
    observed = observed.to(x.device)
    if bool((observed & x.isnan()).any()):
        raise InputError(
            "A value that is NaN is marked as observed; leave it out of the mask, or give no mask "
            "to hide exactly what is NaN."
        )
    return observed
