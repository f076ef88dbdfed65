"""Scores and moments as products with quadratic features of the rows.

A Gaussian is an exponential family: log N(x; k) = θ_k·T(x), where T(x) holds the products x_i x_j,
x and 1. Both steps are then one product each with the features of a batch. The features are taken
about a common origin, so digits are lost where centres lie many standard deviations from it;
`rounding` estimates how many, and `working_type` says in which type, if any, the form may be used.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mogul.distributions.kernel import Kernel
from mogul.distributions.moments import Moments

if TYPE_CHECKING:
    from mogul.distributions.covariance import Covariance

_ORIGIN_ERROR = 5e-3  # nats that rounding of x − origin may cost a row


def tolerance(dtype: torch.dtype, n_features: int) -> float:
    """Return the nats by which rounding may move the log-density of a typical row."""
    return 5e-4 + 1e-5 * n_features if dtype == torch.float32 else 1e-9 * (1 + n_features)


def rounding(terms: Tensor, dtype: torch.dtype) -> float:
    """Return the error, in nats, of sums whose terms have these total magnitudes (K,)."""
    return 0.25 * torch.finfo(dtype).eps * float(terms.max())


def working_type(terms: Tensor, dtype: torch.dtype, n_features: int) -> torch.dtype | None:
    """Return the first of `dtype` and float64 in which sums of such terms (K,) are accurate."""
    for candidate in dict.fromkeys([dtype, torch.float64]):
        if rounding(terms, candidate) <= tolerance(dtype, n_features):
            return candidate
    return None


def full_terms(tril: Tensor, centres: Tensor) -> Tensor:
    """Return the total magnitude of the terms of xᵀΣ⁻¹x for rows near each centre, (K,)."""
    precision = torch.cholesky_inverse(tril.double()).abs()
    size = centres.double().abs() + tril.double().square().sum(-1).sqrt()
    return ((precision @ size.unsqueeze(-1)).squeeze(-1) * size).sum(-1)


def diagonal_terms(variances: Tensor, noise: Tensor, centres: Tensor) -> Tensor:
    """Return the same for W Wᵀ + diag(ψ), from its marginal variances and ψ, (K,)."""
    size = centres.double().square() + variances.double()
    return 4 * (size / noise.double()).sum(-1)


def origin_costs(centres: Tensor, origin: Tensor, noise: Tensor) -> bool:
    """Return whether rows of the type would lose digits when measured from the origin.

    Taking the origin (D,) off rounds every feature; noise (..., D) is the variance it has left.
    """
    if centres.dtype == torch.float64 or not bool(origin.any()):
        return False
    size = (centres.abs() + origin.abs()).double()
    lost = torch.finfo(centres.dtype).eps * (size.square() / noise.double()).sum(-1).sqrt()
    return bool(lost.max() > _ORIGIN_ERROR)


def fill_quadratic(features: Tensor, d: int) -> Tensor:
    """Complete features (d(d+1)/2 + d + 1, n) that hold x in the rows before the last, in place."""
    rows, start = features[-d - 1 : -1], 0
    for i in range(d):  # each turn writes the products of feature i with those from i on
        torch.mul(rows[i:], rows[i], out=features[start : start + d - i])
        start += d - i
    features[-1] = 1.0
    return features


class NaturalKernel(Kernel):
    """log N(x; k) = θ_k·T(x): one product scores a batch, another sums its moments."""

    def __init__(
        self,
        covariance: Covariance,
        centres: Tensor,
        offsets: Tensor,
        origin: Tensor,
        work: torch.dtype,
    ) -> None:
        """Prepare θ in float64 and hold it in the working type."""
        super().__init__(covariance, centres, offsets, origin, work)
        theta = self._coefficients(centres.double(), offsets.double())
        self._theta = theta.to(work)

    def _moment_values(self) -> int:
        return self._theta.numel()

    @abstractmethod
    def _coefficients(self, centres: Tensor, offsets: Tensor) -> Tensor:
        """Return θ (K, P) in float64, offsets included."""

    @abstractmethod
    def _allocate(self, n: int) -> tuple[Tensor, Tensor]:
        """Return memory for T of n rows (P, n), and its part (n, D) where rows go."""

    @abstractmethod
    def _fill(self, features: Tensor) -> None:
        """Complete features (P, n) that hold the rows; the last is one."""

    def _centred(self, x: Tensor) -> Tensor:
        """Put rows about the origin straight among their features."""
        self._held, rows = self._allocate(len(x))
        return rows.copy_(x) if self.origin is None else self._less_origin(x, rows)

    def joint(self, x: Tensor) -> Tensor:
        """One product of θ with the features of the rows last centred."""
        self._fill(self._held)
        out = self._buffer("joint", (len(self._theta), len(x)), self.work)
        return torch.mm(self._theta, self._held, out=out)

    def accumulate(self, x: Tensor, resp: Tensor, weight: Tensor | None) -> None:
        """One product of the responsibilities with the same features."""
        resp = resp if weight is None else resp.mul_(weight)
        held = self._held
        # The same product either way round; the larger matrix first is up to three times faster.
        wide = held.stride(1) == 1 and len(held) > len(resp)
        self._add("features", (held @ resp.mT).mT if wide else resp @ held.mT)


class FullNaturalKernel(NaturalKernel):
    """T(x) = (x_i x_j for i ≤ j, x, 1): D(D+1)/2 + D + 1 features, for small D."""

    def _coefficients(self, centres: Tensor, offsets: Tensor) -> Tensor:
        k, d = centres.shape
        precision = torch.cholesky_inverse(self.covariance.tril().double()).expand(k, d, d)
        linear = (precision @ centres.unsqueeze(-1)).squeeze(-1)
        const = (linear * centres).sum(-1) + self.covariance.log_det() + d * math.log(2 * math.pi)
        i, j = torch.triu_indices(d, d, device=centres.device)
        square = precision[:, i, j] * torch.where(i == j, -0.5, -1.0)
        return torch.cat([square, linear, (offsets - 0.5 * const).unsqueeze(-1)], -1)

    def _allocate(self, n: int) -> tuple[Tensor, Tensor]:
        out = self._buffer("features", (self._theta.shape[-1], n), self.work)
        return out, out[-1 - self.centres.shape[-1] : -1].mT

    def _fill(self, features: Tensor) -> None:
        fill_quadratic(features, self.centres.shape[-1])

    @property
    def moments(self) -> Moments:
        """Unpack the sums, and move them from the origin to the centres."""
        k, d = self.centres.shape
        n_square = d * (d + 1) // 2
        sums = self._sum("features", k, n_square + d + 1)
        second = sums.new_zeros(k, d, d)
        i, j = torch.triu_indices(d, d, device=sums.device)
        second[:, i, j] = sums[:, :n_square]
        second[:, j, i] = sums[:, :n_square]
        about_origin = Moments(sums[:, -1], sums[:, n_square:-1], second)
        return pooled(about_origin.recentre(self.centres.double()), self.covariance)


class DiagonalNaturalKernel(NaturalKernel):
    """T(x) = (x_i², x, 1): 2D + 1 features."""

    def _coefficients(self, centres: Tensor, offsets: Tensor) -> Tensor:
        k, d = centres.shape
        precision = self.covariance.variances.double().reciprocal().expand(k, d)
        linear = precision * centres
        const = (linear * centres).sum(-1) + self.covariance.log_det() + d * math.log(2 * math.pi)
        return torch.cat([-0.5 * precision, linear, (offsets - 0.5 * const).unsqueeze(-1)], -1)

    def _allocate(self, n: int) -> tuple[Tensor, Tensor]:
        # Rows as they come, not turned: with few products per value, moving data is what costs.
        d = self.centres.shape[-1]
        out = self._buffer("features", (n, 2 * d + 1), self.work)
        return out.mT, out[:, d : 2 * d]

    def _fill(self, features: Tensor) -> None:
        d = self.centres.shape[-1]
        torch.mul(features[d : 2 * d], features[d : 2 * d], out=features[:d])
        features[-1] = 1.0

    @property
    def moments(self) -> Moments:
        """Move the sums from the origin to the centres."""
        k, d = self.centres.shape
        sums = self._sum("features", k, 2 * d + 1)
        about_origin = Moments(sums[:, -1], sums[:, d : 2 * d], sums[:, :d])
        return pooled(about_origin.recentre(self.centres.double()), self.covariance)


class IsotropicNaturalKernel(NaturalKernel):
    """T(x) = (‖x‖², x, 1): D + 2 features."""

    def _coefficients(self, centres: Tensor, offsets: Tensor) -> Tensor:
        k, d = centres.shape
        precision = self.covariance.variances.double()[:, :1].reciprocal().expand(k, 1)
        linear = precision * centres
        const = (linear * centres).sum(-1) + self.covariance.log_det() + d * math.log(2 * math.pi)
        return torch.cat([-0.5 * precision, linear, (offsets - 0.5 * const).unsqueeze(-1)], -1)

    def _allocate(self, n: int) -> tuple[Tensor, Tensor]:
        d = self.centres.shape[-1]
        out = self._buffer("features", (n, d + 2), self.work)
        return out.mT, out[:, 1:-1]

    def _fill(self, features: Tensor) -> None:
        features[0] = torch.linalg.vector_norm(features[1:-1].mT, dim=-1).square_()
        features[-1] = 1.0

    @property
    def moments(self) -> Moments:
        """Move the sums to the centres; of the squares, only the mean over features is known."""
        k, d = self.centres.shape
        sums = self._sum("features", k, d + 2)
        second = (sums[:, :1] / d).expand(k, d)
        about_origin = Moments(sums[:, -1], sums[:, 1:-1], second)
        return about_origin.recentre(self.centres.double())


def pooled(moments: Moments, covariance: Covariance) -> Moments:
    """Return moments whose second ones are summed over components that share a covariance."""
    if covariance.n_covariances == len(moments.count):
        return moments
    return Moments(moments.count, moments.first, moments.second.sum(0, keepdim=True))
