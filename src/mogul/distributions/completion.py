"""Exact inference of hidden features when every row has its own pattern of observed ones."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mogul.compute.backend import make_generator
from mogul.distributions.low_rank import DiagonalPlusLowRank
from mogul.errors import InputError

if TYPE_CHECKING:
    from mogul.distributions.mixture import Mixture


class Completion(ABC):
    """What a mixture knows of the hidden features of rows (n, D) given the observed ones.

    `log_prob` (n, K) holds log π_k + log p(observed part | k), in nats.
    """

    def __init__(self, mixture: Mixture, x: Tensor, observed: Tensor) -> None:
        """Hold the rows about the origin, zero where hidden, and the boolean mask (n, D)."""
        self.mixture = mixture
        self.observed = observed
        self.x = torch.where(observed, x - mixture.origin, 0.0)
        self.log_prob = self._component_log_prob() + mixture.log_weights

    @property
    def responsibilities(self) -> Tensor:
        """p(k | observed part), (n, K)."""
        return self.log_prob.softmax(-1)

    @property
    def mean(self) -> Tensor:
        """The rows with E[hidden | observed] filled in, (n, D), in the units of the data."""
        filled = torch.where(self.observed, self.x, self._moments()[0])
        return self.mixture.origin + filled

    @property
    def variance(self) -> Tensor:
        """Var[hidden | observed] of each feature, (n, D); zero where observed."""
        mean, second = self._moments()
        return torch.where(self.observed, 0.0, (second - mean.square()).clamp_min(0))

    def sample(self, noise: bool = True, seed: int | None = None) -> Tensor:
        """Draw the hidden features given the observed ones, (n, D), observed ones kept."""
        generator = make_generator(seed, self.x.device)
        component = torch.multinomial(self.responsibilities, 1, generator=generator).squeeze(-1)
        draw = torch.where(self.observed, self.x, self._draw(component, noise, generator))
        return self.mixture.origin + draw

    @abstractmethod
    def _component_log_prob(self) -> Tensor:
        """Return log p(observed | k), (n, K)."""

    @abstractmethod
    def _moments(self) -> tuple[Tensor, Tensor]:
        """Return mean and mean square of hidden features about the origin, each (n, D)."""

    @abstractmethod
    def _draw(self, component: Tensor, noise: bool, generator: torch.Generator) -> Tensor:
        """Draw hidden features about the origin from the given component of each row."""


class _LowRankCompletion(Completion):
    r"""All rows at once: $M_n = I + \sum_d o_{nd}\,w_dw_d^\top/\psi_d$ is one matrix product."""

    def _component_log_prob(self) -> Tensor:
        cov, centres, x = self.mixture.covariance, self.mixture.centres, self.x
        assert isinstance(cov, DiagonalPlusLowRank)
        if cov.steep:
            cov = cov.map(torch.Tensor.double)
            centres, x = centres.double(), x.double()
        n, (k, d) = x.shape[0], centres.shape
        o = self.observed.to(x.dtype)
        W = cov._loadings.expand(k, d, -1)
        h = W.shape[-1]
        psi = cov.noise_variances.expand(k, d)
        scaled = W / psi.unsqueeze(-1)
        gram = (scaled.unsqueeze(-1) * W.unsqueeze(-2)).movedim(0, 1).reshape(d, k * h * h)
        M = (o @ gram).reshape(n, k, h, h).double()
        M = M + torch.eye(h, dtype=M.dtype, device=M.device)
        # b = Wᵀ Ψ⁻¹ o(x − μ)
        flat = scaled.movedim(0, 1).reshape(d, k * h)
        pull = (centres.unsqueeze(-1) * scaled).movedim(0, 1).reshape(d, k * h)
        b = (x @ flat - o @ pull).reshape(n, k, h, 1).double()
        self._R = torch.linalg.cholesky(M)
        white = torch.linalg.solve_triangular(self._R, b, upper=False)
        z = torch.linalg.solve_triangular(self._R.mT, white, upper=True)
        self._z = z.squeeze(-1).to(self.x.dtype)
        quad = cov._quadratic(x, centres, o)
        quad = quad - white.squeeze(-1).square().sum(-1).to(x.dtype)
        log_det = o @ psi.log().mT
        log_det = log_det + 2 * self._R.diagonal(dim1=-2, dim2=-1).log().sum(-1).to(x.dtype)
        nats = -0.5 * (quad + log_det + o.sum(-1, keepdim=True) * math.log(2 * math.pi))
        return nats.to(self.x.dtype)

    def _extended(self) -> Tensor:
        """[μ, W] (K, D, H+1), to which [1, z] belongs."""
        cov, centres = self.mixture.covariance, self.mixture.centres
        assert isinstance(cov, DiagonalPlusLowRank)
        W = cov._loadings.expand(*centres.shape, -1)
        return torch.cat([centres.unsqueeze(-1), W], dim=-1)

    def _moments(self) -> tuple[Tensor, Tensor]:
        r, E = self.responsibilities, self._extended()
        k, d, h = E.shape
        z = torch.cat([torch.ones_like(r).unsqueeze(-1), self._z], dim=-1)  # (n, K, H+1)
        rz = r.unsqueeze(-1) * z
        mean = rz.flatten(1) @ E.movedim(1, -1).reshape(k * h, d)
        eye = torch.eye(h - 1, dtype=self._R.dtype, device=self._R.device)
        R_inv = torch.linalg.solve_triangular(self._R, eye.expand_as(self._R), upper=False)
        zz = z.unsqueeze(-1) * z.unsqueeze(-2)
        zz[..., 1:, 1:] += (R_inv.mT @ R_inv).to(z.dtype)
        weighted = (r[..., None, None] * zz).flatten(1)
        squares = (E.unsqueeze(-1) * E.unsqueeze(-2)).movedim(1, -1).reshape(k * h * h, d)
        return mean, weighted @ squares + r @ self.mixture.noise_variances

    def _draw(self, component: Tensor, noise: bool, generator: torch.Generator) -> Tensor:
        E, n = self._extended(), self.x.shape[0]
        rows = torch.arange(n, device=self.x.device)
        R = self._R[rows, component]
        shape = (n, R.shape[-1], 1)
        white = torch.empty(shape, dtype=R.dtype, device=R.device).normal_(generator=generator)
        spread = torch.linalg.solve_triangular(R.mT, white, upper=True).squeeze(-1)
        z = self._z[rows, component] + spread.to(self.x.dtype)
        z = torch.cat([torch.ones_like(z[:, :1]), z], dim=-1) if z.shape[-1] else z.new_ones(n, 1)
        out = torch.zeros_like(self.x)
        if noise:
            out.normal_(generator=generator)
        scale = self.mixture.noise_variances.sqrt()
        for k in component.unique().tolist():
            of_k = (component == k).nonzero().squeeze(-1)
            out[of_k] = out[of_k] * scale[k] + z[of_k] @ E[k].mT
        return out


class _PatternCompletion(Completion):
    """Any family: rows with equal patterns are conditioned together."""

    def _component_log_prob(self) -> Tensor:
        patterns, which = torch.unique(self.observed, dim=0, return_inverse=True)
        self._groups = []
        cov, centres = self.mixture.covariance, self.mixture.centres
        log_prob = self.x.new_zeros(len(self.x), len(centres))
        for g, pattern in enumerate(patterns):
            rows = (which == g).nonzero().squeeze(-1)
            seen, hidden = pattern.nonzero().squeeze(-1), (~pattern).nonzero().squeeze(-1)
            x = self.x[rows][:, seen]
            if len(hidden) == 0:
                log_prob[rows] = cov.log_prob(x, centres)
                continue
            if len(seen) == 0:
                means = centres.expand(len(rows), -1, -1)
                self._groups.append((rows, hidden, means, cov))
                continue
            log_prob[rows], means, conditional = cov.condition(seen, hidden, x, centres)
            self._groups.append((rows, hidden, means, conditional))
        return log_prob

    def _moments(self) -> tuple[Tensor, Tensor]:
        first, second = torch.zeros_like(self.x), torch.zeros_like(self.x)
        resp = self.responsibilities.unsqueeze(-1)
        for rows, hidden, means, cov in self._groups:
            r = resp[rows]
            first[rows[:, None], hidden] = (r * means).sum(1)
            second[rows[:, None], hidden] = (r * (means.square() + cov.variances)).sum(1)
        return first, second

    def _draw(self, component: Tensor, noise: bool, generator: torch.Generator) -> Tensor:
        out = torch.zeros_like(self.x)
        for rows, hidden, means, cov in self._groups:
            k = component[rows]
            centre = means[torch.arange(len(rows), device=k.device), k]
            out[rows[:, None], hidden] = centre + cov.sample(k, noise, generator)
        return out


def complete(mixture: Mixture, x: Tensor, observed: Tensor) -> Completion:
    """Return the completion of rows (n, D) by the way that suits the mixture's family.

    Args:
        mixture: an unbatched mixture.
        x: rows (n, D).
        observed: boolean mask (n, D), True where observed.

    Returns:
        the completion.

    Raises:
        InputError: if the mask has the wrong shape or type, or marks a NaN as observed.
    """
    if observed.shape != x.shape or observed.dtype != torch.bool:
        raise InputError(
            f"The mask has shape {tuple(observed.shape)} and type {observed.dtype}; it must be "
            f"boolean, True where observed, with the shape of the rows, {tuple(x.shape)}."
        )
    if (observed & x.isnan()).any():
        raise InputError("The mask marks a NaN value as observed; hide it in the mask, or fill it.")
    low_rank = isinstance(mixture.covariance, DiagonalPlusLowRank)
    return (_LowRankCompletion if low_rank else _PatternCompletion)(mixture, x, observed)
