"""Bounds on log p(x) that an autoencoder can raise: of the evidence, and importance-weighted."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from mogul.distributions import (
    Mixture,
    Posterior,
    marginal_divergence,
    sampled_divergence,
    variational_bound,
)
from mogul.errors import InputError
from mogul.protocols import HasPosterior

DIVERGENCES = ("marginal", "sampled", "variational")


class Bound(NamedTuple):
    """A bound for one batch, in nats per row.

    `objective` is what gradients raise (warm-up and free bits included), `evidence` the lower bound
    of log p(x) itself, `reconstruction` E_q[log p(x | z)], and `divergence` that to the prior, as
    estimated or bounded.
    """

    objective: Tensor
    evidence: Tensor
    reconstruction: Tensor
    divergence: Tensor


class Objective(Protocol):
    """What to raise."""

    def __call__(
        self, model: HasPosterior, x: Tensor, draw: torch.Generator, beta: float = 1.0
    ) -> Bound:
        """Return the bound of rows (n, D), with the divergence weighted by beta."""
        ...


class EvidenceBound:
    r"""$\mathcal L = E_q[\log p(x \mid z)] - \beta\,\max(KL(q \| p), \lambda)$.

    A divergence to a mixture has no closed form; three ways are offered, and none makes more of
    $\mathcal L$ at β = 1 than a lower bound of log p(x), in expectation:

    - "marginal": unbiased. One draw of every posterior component, weighted; components of the prior
      are summed exactly, and the entropy is in closed form where the posterior has one component.
    - "sampled": unbiased. Draws of the whole posterior by implicit reparameterisation, at which
      log q − log p is taken.
    - "variational": an upper bound of the divergence in closed form; exact for a Gaussian prior.

    Args:
        divergence: one of them.
        n_samples: draws per row, or per posterior component.
        free_bits: λ in nats: a divergence whose mean over the batch is below it earns nothing more
            by falling, so that latents keep at least so much information (Kingma et al. 2016).

    Raises:
        InputError: for an unknown divergence, no samples, or negative free bits.
    """

    def __init__(
        self, divergence: str = "marginal", n_samples: int = 1, free_bits: float = 0.0
    ) -> None:
        """Check the settings.

        Raises:
            InputError: as the class says.
        """
        if divergence not in DIVERGENCES:
            raise InputError(
                f"Unknown divergence '{divergence}'; choose one of: {', '.join(DIVERGENCES)}."
            )
        if n_samples < 1 or not 0 <= free_bits < math.inf:
            raise InputError(
                f"{n_samples} samples and {free_bits} free bits came; give at least one sample, "
                "and free bits of zero or more, in nats."
            )
        self.divergence, self.n_samples, self.free_bits = divergence, n_samples, free_bits

    def __call__(
        self, model: HasPosterior, x: Tensor, draw: torch.Generator, beta: float = 1.0
    ) -> Bound:
        """Return the bound of rows (n, D), with the divergence weighted by beta."""
        q, prior = model.posterior(x), model.prior
        reconstruction, divergence = self._terms(model, x, q, prior, draw)
        reconstruction, divergence = reconstruction.mean(), divergence.mean()
        kept = divergence.clamp_min(self.free_bits) if self.free_bits else divergence
        return Bound(
            reconstruction - beta * kept, reconstruction - divergence, reconstruction, divergence
        )

    def _terms(
        self,
        model: HasPosterior,
        x: Tensor,
        q: Posterior,
        prior: Mixture,
        draw: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        """Return E_q[log p(x | z)] and the divergence, (n,) each."""
        if self.divergence == "sampled":
            z = q.rsample(self.n_samples, draw)
            reconstruction = model.log_likelihood(x, z).mean(0)
            return reconstruction, sampled_divergence(q, prior, z)
        z = q.stratified(self.n_samples, draw)
        each = model.log_likelihood(x, z).mean(0)  # (S, n)
        reconstruction = (q.log_weights.mT.exp() * each).sum(0)
        if self.divergence == "variational":
            return reconstruction, variational_bound(q, prior)
        return reconstruction, marginal_divergence(q, prior, z)


class ImportanceBound:
    r"""$\mathcal L_T = E\log \frac1T \sum_{t,s} w_s\, p(x, z_{ts}) / q(z_{ts} \mid x)$.

    With a posterior of one component it is the bound of Burda, Grosse & Salakhutdinov (2016,
    IWAE), which rises to log p(x) with T; with more, that of Morningstar et al. (2021, SIWAE), with
    T draws of every component.

    Args:
        n_samples: T.

    Raises:
        InputError: for no samples.
    """

    def __init__(self, n_samples: int = 50) -> None:
        """Check the number.

        Raises:
            InputError: as the class says.
        """
        if n_samples < 1:
            raise InputError(f"{n_samples} samples came; there must be at least one.")
        self.n_samples = n_samples

    def __call__(
        self, model: HasPosterior, x: Tensor, draw: torch.Generator, beta: float = 1.0
    ) -> Bound:
        """Return the bound of rows (n, D), with log p(z) − log q(z | x) weighted by beta."""
        q = model.posterior(x)
        z = q.stratified(self.n_samples, draw)  # (T, S, n, d)
        likelihood = model.log_likelihood(x, z)
        ratio = model.prior.log_prob(z) - q.log_prob(z)
        weights = q.log_weights.mT
        objective = self._bound(likelihood + beta * ratio + weights)
        evidence = self._bound((likelihood + ratio + weights).detach())
        share = weights.exp() / self.n_samples
        reconstruction = (share * likelihood.detach()).sum((0, 1)).mean()
        return Bound(objective, evidence, reconstruction, -(share * ratio).sum((0, 1)).mean())

    def _bound(self, terms: Tensor) -> Tensor:
        return terms.flatten(0, 1).logsumexp(0).mean() - math.log(self.n_samples)
