r"""Covariances W Wᵀ + diagonal noise: densities by the Woodbury identity.

With $M = I + W^\top\Psi^{-1}W$, $M = RR^\top$ and $V = \Psi^{-1}WR^{-\top}$, the Woodbury identity
and the matrix determinant lemma give

$$(x-\mu)^\top C^{-1}(x-\mu) = (x-\mu)^\top\Psi^{-1}(x-\mu) - \|V^\top(x-\mu)\|^2, \qquad
\log|C| = \log|\Psi| + \log|M|,$$

so that every component is scored by one product of the data with [V, μ/ψ] and no D×D matrix.
Diagonal and isotropic covariances are the case H = 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Self

import numpy as np
import torch
from torch import Tensor

from mogul.distributions.covariance import Covariance
from mogul.distributions.linear_algebra import cholesky, expanded_quadratic
from mogul.distributions.local_forms import LowRankForm

_FLOAT32_RATIO = 100.0  # μ²/ψ above which the expanded square costs over 1e-5 nats in float32
_FLOAT32_SIGNAL = 100.0  # tr(WᵀΨ⁻¹W)/D above which Woodbury costs about 1e-4 nats per feature
_FLOAT32_FAR = 1e6  # μ²/ψ above which the products with V cost about as much
_FLOAT32_ERROR = 1e-5  # nats per feature at risk; sums of one sign may lose nine times that
_FLOAT64_ERROR = 1e-8  # nats per feature at risk in float64
_RESCORED = 2**20  # values of residuals that are worked on at a time


class WoodburyCovariance(Covariance):
    """W Wᵀ + diag(ψ) as a density, in the precision each row and component needs."""

    def __init__(self, loadings: Tensor, noise: Tensor) -> None:
        """Hold loadings (..., C, D, H) and noise variances (..., C, D) or (..., C, 1)."""
        self._loadings = loadings
        self.noise = noise

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Apply `function` to loadings and noise."""
        return type(self)(function(self._loadings), function(self.noise))

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the dimensions before C."""
        return tuple(self.noise.shape[:-2])

    @property
    def n_features(self) -> int:
        """Number of features D."""
        return self._loadings.shape[-2]

    @property
    def n_covariances(self) -> int:
        """Number of covariances C."""
        return self._loadings.shape[-3]

    @property
    def rank(self) -> int:
        """Number of factors H."""
        return self._loadings.shape[-1]

    @property
    def loadings(self) -> Tensor | None:
        """Factor loadings (..., C, D, H), or None without factors."""
        return self._loadings if self.low_rank else None

    @property
    def noise_variances(self) -> Tensor:
        """Noise variances ψ for every feature."""
        return self.noise.expand(*self.noise.shape[:-1], self.n_features)

    @property
    def variances(self) -> Tensor:
        """diag(W Wᵀ) + ψ."""
        return self._loadings.square().sum(-1) + self.noise

    def dense(self) -> Tensor:
        """Return W Wᵀ + diag(ψ)."""
        return self._loadings @ self._loadings.mT + torch.diag_embed(self.noise_variances)

    @property
    def factors(self) -> Tensor:
        """W (..., C, D, H); H is zero for a family without factors."""
        return self._loadings

    def whitener(self) -> tuple[Tensor, Tensor]:
        """Return V = Ψ⁻¹ W R⁻ᵀ (..., C, D, H) and R (..., C, H, H), worked out in float64."""
        W, psi = self._loadings.double(), self.noise.double().unsqueeze(-1)
        scaled = W / psi
        eye = torch.eye(self.rank, dtype=W.dtype, device=W.device)
        R = cholesky(eye + W.mT @ scaled)
        V = torch.linalg.solve_triangular(R, scaled.mT, upper=False).mT
        return V, R

    def _project(self, x: Tensor, centres: Tensor, V: Tensor) -> Tensor:
        """Return Vᵀ(x − μ) for every row and component, (..., n, K, H)."""
        if self.n_covariances == 1:
            z = (x @ V[..., 0, :, :])[..., None, :]
            shift = centres @ V[..., 0, :, :]
        else:
            joint = V.movedim(-3, -2).flatten(-2)  # (..., D, C·H)
            z = (x @ joint).unflatten(-1, V.shape[-3:][::2])
            shift = (centres.unsqueeze(-2) @ V).squeeze(-2)
        return z - shift.unsqueeze(-3)

    def _delicate(self, centres: Tensor) -> Tensor:
        """Mark the features (D,) whose expanded squares float32 would lose: μ² ≫ ψ."""
        if centres.dtype == torch.float64:
            return torch.zeros(self.n_features, dtype=torch.bool, device=centres.device)
        ratio = (centres.square() / self.noise).detach()
        return ratio.reshape(-1, self.n_features).amax(0) > _FLOAT32_RATIO

    def _quadratic(self, x: Tensor, centres: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return Σ_d (x_d − μ_d)² / ψ_d for rows (..., n, D), as (..., n, K).

        With `seen` (n, D), ones and zeros, only features seen are summed; x is zero elsewhere.
        """
        delicate, psi = self._delicate(centres), self.noise
        if not bool(delicate.any()):
            return expanded_quadratic(x, centres, psi, seen)
        total = x.new_zeros(1, dtype=torch.float64)
        for features, dtype in ((delicate, torch.float64), (~delicate, x.dtype)):
            noise = psi if self.isotropic_noise else psi[..., features]
            some = None if seen is None else seen[..., features].to(dtype)
            rows, means = x[..., features].to(dtype), centres[..., features].to(dtype)
            total = total + expanded_quadratic(rows, means, noise.to(dtype), some)
        return total.to(x.dtype)

    def steep(self, centres: Tensor) -> Tensor:
        """Mark covariances (C,) with which float32 would lose the residual of typical rows.

        Either factors dwarf the noise, or centres lie very far from the origin in its units.
        """
        if self.noise.dtype == torch.float64:
            return torch.zeros(self.n_covariances, dtype=torch.bool, device=self.noise.device)
        signal = (self._loadings.square() / self.noise.unsqueeze(-1)).detach().sum((-1, -2))
        far = (centres.square() / self.noise).detach().amax(-1) > _FLOAT32_FAR
        if self.n_covariances == 1:
            far = far.any(-1, keepdim=True)
        steep = (signal > _FLOAT32_SIGNAL * self.n_features) | far
        return steep.reshape(-1, self.n_covariances).any(0)

    def _subset(self, which: Tensor) -> Self:
        """Return the covariances marked in which (C,)."""
        return type(self)(self._loadings[..., which, :, :], self.noise[..., which, :])

    def _split(self, centres: Tensor) -> list[tuple[Tensor, Self]]:
        """Return marked components (K,) with their covariances, the steep ones in float64."""
        steep, parts = self.steep(centres), []
        n_components = centres.shape[-2]
        for which, convert in ((~steep, None), (steep, torch.Tensor.double)):
            if bool(which.any()):
                part = self if bool(which.all()) else self._subset(which)
                parts.append((which.expand(n_components), part.map(convert) if convert else part))
        return parts

    def log_prob(self, x: Tensor, centres: Tensor) -> Tensor:
        """Score all components by matrix products with x, x² and V."""
        parts = self._split(centres)
        if len(parts) == 1:
            part = parts[0][1]
            scored, risk = part._log_prob(x.to(part.noise), centres.to(part.noise))
            return self._rescored(x, centres, scored.to(x.dtype), risk)
        shape = (*np.broadcast_shapes(x.shape[:-2], centres.shape[:-2]), x.shape[-2])
        out = x.new_empty(*shape, centres.shape[-2])
        risks = torch.zeros_like(out)
        for which, part in parts:
            scored, risk = part._log_prob(x.to(part.noise), centres[..., which, :].to(part.noise))
            out[..., which], risks[..., which] = scored.to(x.dtype), risk.to(x.dtype)
        return self._rescored(x, centres, out, risks)

    def log_prob_each(self, deviation: Tensor, seen: Tensor | None = None) -> Tensor:
        r"""Score residuals $e = \delta - W\hat z$ by $e^\top\Psi^{-1}e + \|\hat z\|^2$.

        Equal to the difference of squares above, and without its cancellation. A feature that is
        not seen loses its loadings.
        """
        part, n_seen = self, self.n_features
        if seen is not None:
            some = seen.unsqueeze(-2)
            W, psi = self._loadings * some.unsqueeze(-1), self.noise_variances
            part = type(self)(W, torch.where(some, psi, 1.0))
            deviation, n_seen = deviation * some, some.sum(-1).to(deviation)
        psi, dtype = part.noise_variances, deviation.dtype
        if self.rank:  # in float64, as loadings may dwarf the noise
            V, R = part.whitener()
            deviation, psi = deviation.double(), psi.double()
            z = torch.linalg.solve_triangular(R.mT, V.mT @ deviation.unsqueeze(-1), upper=True)
            deviation = deviation - (part._loadings.double() @ z).squeeze(-1)
            factors = z.square().sum((-1, -2))
            factors = factors + 2 * R.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        else:
            factors = deviation.new_zeros(())
        quad = (deviation.square() / psi).sum(-1) + psi.log().sum(-1) + factors
        return (-0.5 * (quad + n_seen * math.log(2 * math.pi))).to(dtype)

    def _rescored(self, x: Tensor, centres: Tensor, scored: Tensor, risk: Tensor) -> Tensor:
        """Score rows again where the error at risk (n, K) could be seen in their sum.

        The residual of a row far out along the factors is a small difference of large squares, and
        so is that of a row near a centre far from the origin. In float32 such rows are scored
        again in float64; in float64, from their residuals.
        """
        if x.dim() != 2 or centres.dim() != 2:
            return scored
        wide = x.dtype == torch.float64
        with torch.no_grad():
            could_be = scored + risk
            matters = ~(could_be < scored.amax(-1, keepdim=True) - 30)
            least = (_FLOAT64_ERROR if wide else _FLOAT32_ERROR) * self.n_features
            rows = ((risk > least) & matters) | scored.isnan()
            again = rows.any(-1).nonzero().squeeze(-1)
        if len(again) == 0:
            return scored
        if wide:
            exact = self._from_residuals(x[again], centres)
        else:
            exact = self.map(torch.Tensor.double).log_prob(x[again].double(), centres.double())
        return scored.index_copy(0, again, exact.to(scored.dtype))

    def rescored(
        self,
        x: Tensor,
        centres: Tensor,
        scored: Tensor,
        terms: Tensor,
        seen: Tensor,
        dtype: torch.dtype,
    ) -> Tensor:
        """Return scores (n, K) of the seen (n, D) part of rows, in float64 where digits were lost.

        Args:
            x: rows (n, D), zero where not seen.
            centres: (K, D).
            scored: what differences of terms gave, (n, K).
            terms: the size of these, (n, K).
            seen: which features are scored, (n, D) boolean.
            dtype: the type whose digits the scores must have.
        """
        with torch.no_grad():
            lost = scored.isnan().any(-1)
            if x.dtype == torch.float64:  # in float32, `_quadratic` and `steep` see to it
                error = _FLOAT64_ERROR if dtype == torch.float64 else _FLOAT32_ERROR
                risk = torch.finfo(x.dtype).eps * terms
                lost = lost | (risk > error * self.n_features).any(-1)
        again = lost.nonzero().squeeze(-1)
        if len(again) == 0:
            return scored
        wide = self.map(torch.Tensor.double)
        exact = wide._from_residuals(x[again].double(), centres.double(), seen[again])
        return scored.index_copy(0, again, exact.to(scored.dtype))

    def _from_residuals(self, x: Tensor, centres: Tensor, seen: Tensor | None = None) -> Tensor:
        """Score rows (n, D) from their residuals, some at a time, (n, K)."""
        factors = 1 if seen is None else 1 + self.rank  # loadings of what each row shows
        size = max(1, _RESCORED // (centres.numel() * factors))
        seens = [None] * len(x) if seen is None else seen.split(size)
        parts = zip(x.split(size), seens, strict=False)
        return torch.cat([
            self.log_prob_each(rows.unsqueeze(-2) - centres, some) for rows, some in parts
        ])

    def _log_prob(self, x: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-densities (..., n, K), and how far rounding may have moved them."""
        V, R = self.whitener()
        V = V.to(x.dtype)
        squares = self._quadratic(x, centres)
        quad = squares - self._project(x, centres, V).square().sum(-1)
        log_det = self.noise_variances.double().log().sum(-1)
        log_det = log_det + 2 * R.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        const = (log_det + self.n_features * math.log(2 * math.pi)).to(x.dtype)
        error = squares.detach()
        if x.dtype == torch.float64:  # in float32, `_quadratic` sees to far centres
            error = error + 2 * (centres.square() / self.noise).sum(-1).unsqueeze(-2).detach()
        error = torch.finfo(x.dtype).eps * error
        return -0.5 * (quad + const.unsqueeze(-2)), error

    def local_form(self, centres: Tensor) -> LowRankForm:
        """Return V and Ψ, for every component at once."""
        return LowRankForm(self, centres)

    def log_det(self) -> Tensor:
        """Return log|Ψ| + log|M|."""
        R = self.whitener()[1]
        noise = self.noise_variances.double().log().sum(-1)
        return noise + 2 * R.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def precision_diagonal(self) -> Tensor:
        """Return 1/ψ_d − ‖V_d‖²."""
        V = self.whitener()[0]
        return self.noise_variances.double().reciprocal() - V.square().sum(-1)

    def precision_parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return 1/ψ, −V and V."""
        V = self.whitener()[0]
        return self.noise_variances.double().reciprocal(), -V, V

    def with_noise(self, variance: float) -> Self:
        """Add to the noise."""
        return type(self)(self._loadings, self.noise + variance)
