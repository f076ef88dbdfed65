"""Posterior: what an encoder says of the latents of each row, as a value."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mogul.distributions.diagonal_families import Diagonal
from mogul.distributions.mixture import Mixture
from mogul.distributions.reparameterise import attach


@dataclass(frozen=True)
class Posterior:
    r"""$q(z \mid x) = \sum_s w_s\,N(z; m_s, \mathrm{diag}(v_s))$, one for each of n rows.

    `log_weights` (n, S), `means` and `log_variances` (n, S, d). With S = 1 it is the Gaussian of
    the usual variational autoencoder.
    """

    log_weights: Tensor
    means: Tensor
    log_variances: Tensor

    @property
    def n_components(self) -> int:
        """Number of components S."""
        return self.means.shape[-2]

    @property
    def mean(self) -> Tensor:
        """E[z | x], (n, d)."""
        return (self.log_weights.exp().unsqueeze(-1) * self.means).sum(-2)

    def mixture(self) -> Mixture:
        """Return it as a mixture of batch shape (n,)."""
        return Mixture(self.log_weights, self.means, Diagonal.of(self.log_variances.exp()))

    def entropies(self) -> Tensor:
        r"""Return the entropy of every component, $\tfrac12\sum_j(1+\log 2\pi v_j)$, (n, S)."""
        return 0.5 * (1 + math.log(2 * math.pi) + self.log_variances).sum(-1)

    def log_prob(self, z: Tensor) -> Tensor:
        """Return log q(z | x) in nats, (..., n), of latents (..., n, d)."""
        away = (z.unsqueeze(-2) - self.means) * (-0.5 * self.log_variances).exp()
        each = -0.5 * (away.square() + self.log_variances + math.log(2 * math.pi)).sum(-1)
        return (self.log_weights + each).logsumexp(-1)

    def stratified(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n latents of every component, (n, S, rows, d), differentiable in all but weights.

        A sum over components, weighted by w_s, is then exact in the choice of the component
        (Roeder, Wu & Duvenaud 2017; Morningstar et al. 2021).
        """
        means, deviations = self.means.movedim(-2, 0), (0.5 * self.log_variances).exp()
        noise = means.new_empty(n, *means.shape).normal_(generator=generator)
        return means + deviations.movedim(-2, 0) * noise

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n latents (n, rows, d) of the whole posterior."""
        rows, _, d = self.means.shape
        chosen = torch.multinomial(
            self.log_weights.exp(), n, replacement=True, generator=generator
        ).mT
        pick = chosen[:, :, None, None].expand(n, rows, 1, d)

        def of_chosen(each: Tensor) -> Tensor:
            return each.expand(n, *each.shape).gather(-2, pick).squeeze(-2)

        means, log_variances = of_chosen(self.means), of_chosen(self.log_variances)
        noise = torch.empty_like(means).normal_(generator=generator)
        return means + (0.5 * log_variances).exp() * noise

    def rsample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n latents (n, rows, d) of the whole posterior, differentiable in everything.

        With more than one component by implicit reparameterisation (Figurnov, Mohamed & Mnih
        2018), at a cost of d³.
        """
        if self.n_components == 1:
            return self.stratified(n, generator).squeeze(1)
        tril = torch.diag_embed((0.5 * self.log_variances).exp())
        drawn = self.sample(n, generator)
        return attach(drawn, self.log_weights, self.means, tril).to(drawn.dtype)
