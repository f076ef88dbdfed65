"""Unrestricted covariance matrices, held by their Cholesky factors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Self

import numpy as np
import torch
from torch import Tensor

from mogul.distributions.covariance import (
    Covariance,
    matched,
    picked,
    raise_to,
    softly_between,
)
from mogul.distributions.full_kernel import PrunedKernel
from mogul.distributions.kernel import DirectKernel, Kernel
from mogul.distributions.linear_algebra import in_blocks
from mogul.distributions.local_forms import DenseForm
from mogul.distributions.masked import MaskedMoments
from mogul.distributions.moments import Moments
from mogul.distributions.natural import (
    FullNaturalKernel,
    full_terms,
    origin_costs,
    working_type,
)
from mogul.distributions.shared_kernel import SharedFullKernel
from mogul.errors import InputError

_MOST_FEATURES = 24  # up to which products with all x_i x_j beat whitening
_JITTER = 1e-13  # of a variance: what float64 can tell of it beside collinear ones
_SKEW = 10  # by how many roots of rounding entries across the diagonal may differ
_WIDEST = 1e12  # variance in units of the floor beyond which eigenvalues near it have no digits


class Full(Covariance):
    """Full covariance matrices: scale_tril (..., C, D, D), lower triangular with L Lᵀ = Σ."""

    name = "full"
    aliases = ("gmm", "full-covariance")
    below_diagonal = ("lower",)

    def __init__(self, scale_tril: Tensor) -> None:
        """Hold the Cholesky factors (..., C, D, D)."""
        self.scale_tril = scale_tril

    @classmethod
    def from_covariance(cls, covariance: Tensor) -> Self:
        """Return the family member with covariance matrices (..., C, D, D).

        Raises:
            InputError: if they are not of real numbers, symmetric and positive definite.
        """
        if not covariance.dtype.is_floating_point or covariance.dtype.itemsize < 4:
            raise InputError(
                f"Covariances of {covariance.dtype} came; give them in float32 or float64."
            )
        square = covariance.dim() > 2 and covariance.shape[-1] == covariance.shape[-2]
        scale_tril, failed = torch.linalg.cholesky_ex(covariance) if square else (covariance, None)
        skew = (covariance - covariance.mT).abs() if square else covariance
        if failed is None or bool(failed.any()) or bool((skew > _skew_allowed(covariance)).any()):
            raise InputError(
                f"Covariances of shape {tuple(covariance.shape)} came that are not (C, D, D), "
                f"symmetric and positive definite in {covariance.dtype}; add a ridge to their "
                "diagonals, use float64, or choose a low-rank family."
            )
        return cls(scale_tril)

    @classmethod
    def raw_shapes(cls, n: int, n_features: int, rank: int) -> dict[str, tuple[int, ...]]:
        """Return logarithms of the diagonal, and the rows of L in units of their diagonal."""
        return {"log_diagonal": (n, n_features), "lower": (n, n_features, n_features)}

    @classmethod
    def from_raw(cls, raw: dict[str, Tensor], n_features: int) -> Self:
        """Return L = diag(exp(log_diagonal)) (I + strict lower triangle)."""
        eye, below = _eye_and_below(raw["lower"])
        return cls(raw["log_diagonal"].exp().unsqueeze(-1) * (eye + raw["lower"] * below))

    def to_raw(self) -> dict[str, Tensor]:
        """Return the logarithm of the diagonal, and the triangle below it relative to it."""
        diagonal = self.scale_tril.diagonal(dim1=-2, dim2=-1)
        lower = self.scale_tril / diagonal.unsqueeze(-1) * _eye_and_below(self.scale_tril)[1]
        return {"log_diagonal": diagonal.log(), "lower": lower}

    @classmethod
    def clamp_raw(cls, raw: dict[str, Tensor], floor: Tensor) -> Tensor:
        """Keep the conditional variances L_dd² at the floor or above."""
        return raise_to(raw["log_diagonal"], 0.5 * floor.log())

    @classmethod
    def from_cluster(cls, x: Tensor, rank: int, floor: Tensor, prior: Tensor, seed: int) -> Self:
        """Return the sample covariance, shrunk by one observation of the prior variances."""
        n, x = len(x), x.double()
        covariance = (x.mT @ x + torch.diag(prior.double())) / (n + 1)
        return cls(floored_cholesky(covariance[None], floor)[0])

    @classmethod
    def stack(cls, members: list[Self]) -> Self:
        """Concatenate along C."""
        return cls(torch.cat([m.scale_tril for m in members], dim=-3))

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Apply `function` to the factors."""
        return type(self)(function(self.scale_tril))

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the dimensions before C."""
        return tuple(self.scale_tril.shape[:-3])

    @property
    def n_features(self) -> int:
        """Number of features D."""
        return self.scale_tril.shape[-1]

    @property
    def n_covariances(self) -> int:
        """Number of covariances C."""
        return self.scale_tril.shape[-3]

    @property
    def variances(self) -> Tensor:
        """Diagonals of L Lᵀ."""
        return self.scale_tril.square().sum(-1)

    @property
    def noise_variances(self) -> Tensor:
        """All of the variance: there are no factors."""
        return self.variances

    @property
    def residual_variances(self) -> Tensor:
        """L_dd²: what the features before each one leave."""
        return self.scale_tril.diagonal(dim1=-2, dim2=-1).square()

    def dense(self) -> Tensor:
        """Return L Lᵀ."""
        return self.scale_tril @ self.scale_tril.mT

    def tril(self) -> Tensor:
        """Return L."""
        return self.scale_tril

    def log_prob(self, x: Tensor, centres: Tensor) -> Tensor:
        """Whiten by L⁻¹, one matrix product per component: −½(‖L⁻¹(x−μ)‖² + D log 2π) − log|L|."""
        eye = torch.eye(self.n_features, dtype=x.dtype, device=x.device)
        whiten = torch.linalg.solve_triangular(self.scale_tril, eye, upper=False).mT
        log_det = self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        const = 0.5 * self.n_features * math.log(2 * math.pi)
        columns = []
        for k in range(centres.shape[-2]):
            c = 0 if self.n_covariances == 1 else k
            # Subtract before whitening: the product of far-away points would cancel badly.
            y = (x - centres[..., k : k + 1, :]) @ whiten[..., c, :, :]
            columns.append(-0.5 * y.square().sum(-1) - log_det[..., c : c + 1] - const)
        return torch.stack(columns, dim=-1)

    def log_prob_each(self, deviation: Tensor, seen: Tensor | None = None) -> Tensor:
        """Whiten each deviation; a feature that is not seen becomes independent and zero."""
        L, n_seen = self.scale_tril, self.n_features
        if seen is not None:
            some = seen.to(deviation).unsqueeze(-2)  # (..., 1, D)
            rows = L * some.unsqueeze(-1)
            unit = torch.diag_embed(1 - some).expand_as(rows)
            # QR of the rows avoids squaring the condition number as L Lᵀ would.
            L = torch.linalg.qr(torch.cat([rows, unit], -1).mT).R.mT
            deviation, n_seen = deviation * some, some.sum(-1)
        log_det = L.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)
        squares = _whitened(L, deviation).square().sum(-1)
        return -0.5 * (squares + n_seen * math.log(2 * math.pi)) - log_det

    def rescaled(self, scale: Tensor) -> Self:
        """Scale the rows of L."""
        return type(self)(scale.unsqueeze(-1) * self.scale_tril)

    @classmethod
    def soft_raw(
        cls, raw: dict[str, Tensor], bounds: tuple[float, float], inverse: bool = False
    ) -> dict[str, Tensor]:
        """Keep the conditional variances L_dd² between the bounds."""
        low, high = (0.5 * math.log(bound) for bound in bounds)
        return raw | {"log_diagonal": softly_between(raw["log_diagonal"], low, high, inverse)}

    def kernel(self, centres: Tensor, offsets: Tensor, origin: Tensor) -> Kernel:
        """Share what is shared; features of all pairs for small D; else prune and whiten."""
        d = self.n_features
        shared = self.n_covariances == 1
        if not shared and d > _MOST_FEATURES:
            least = self.scale_tril.diagonal(dim1=-2, dim2=-1).square()  # conditional variances
            wide = origin_costs(centres, origin, least)
            make = PrunedKernel.in_double if wide else PrunedKernel
            return make(self, centres, offsets, origin)
        work = working_type(full_terms(self.scale_tril, centres), centres.dtype, d)
        if work is None:
            return DirectKernel(self, centres, offsets, origin)
        chosen = SharedFullKernel if shared else FullNaturalKernel
        return chosen(self, centres, offsets, origin, work)

    def sample(self, component: Tensor, noise: bool, generator: torch.Generator) -> Tensor:
        """Draw L ε; without factors there is nothing to draw once the noise is left out."""
        L = self.scale_tril
        out = torch.zeros(component.shape[0], self.n_features, dtype=L.dtype, device=L.device)
        if not noise:
            return out
        out.normal_(generator=generator)
        which = matched(component, self.n_covariances)
        for c in which.unique().tolist():
            rows = (which == c).nonzero().squeeze(-1)
            out[rows] = out[rows] @ L[c].mT
        return out

    def chosen(self, index: Tensor) -> Self:
        """Pick factors."""
        return type(self)(picked(self.scale_tril, index, 2))

    def draw(self, noise: bool, generator: torch.Generator) -> Tensor:
        """Draw L ε."""
        drawn = torch.zeros_like(self.variances)
        if not noise:
            return drawn
        return (self.scale_tril @ drawn.normal_(generator=generator).unsqueeze(-1)).squeeze(-1)

    def statistics(self, x: Tensor, resp: Tensor, centres: Tensor) -> Moments:
        """Dense second moments about each centre, one symmetric product per component."""
        k_total, d = centres.shape
        first = torch.empty(k_total, d, dtype=torch.float64, device=x.device)
        second = torch.zeros(self.n_covariances, d, d, dtype=torch.float64, device=x.device)
        for k in range(k_total):
            r = resp[:, k]
            rows = (r > 0).nonzero().squeeze(-1)
            y = x[rows] - centres[k]
            r = r[rows].unsqueeze(-1)
            first[k] = (y * r).sum(0, dtype=torch.float64)
            y = (y * r.sqrt()).double()
            second[0 if self.n_covariances == 1 else k] += y.mT @ y
        return Moments(resp.sum(0, dtype=torch.float64), first, second)

    def moments_of(self, count: Tensor, first: Tensor, scatter: Tensor) -> Moments:
        """Dense moments as they are."""
        return Moments(count, first, scatter)

    def maximise(
        self, moments: Moments | MaskedMoments, floor: Tensor, learn: bool = True
    ) -> tuple[Tensor, Self, Tensor]:
        """Σ = S/n − δδᵀ; eigenvalues below the floor are raised to it, which is the exact optimum.

        Components without data keep their covariance.
        """
        assert isinstance(moments, Moments)
        delta = moments.shift
        if not learn:
            return delta, self, moments.mass < 0
        pull = (moments.count.sqrt().unsqueeze(-1) * delta).unsqueeze(-2)  # (K, 1, D)
        if self.n_covariances == 1:
            pull = pull.movedim(0, -2)  # (1, K, D)

        def solve(second: Tensor, pull: Tensor, mass: Tensor, old: Tensor) -> tuple[Tensor, ...]:
            n = mass.reshape(-1, 1, 1)
            covariance = (second - pull.mT @ pull).div_(n.clamp_min(1e-300))
            if bool((n <= 0).any()):
                covariance = torch.where(n > 0, covariance, (old @ old.mT).double())
            scale_tril, met = floored_cholesky(covariance, floor)
            return scale_tril.to(old.dtype), met

        old = self.scale_tril
        scale_tril, met = in_blocks(solve, moments.second, pull, moments.mass, old)
        return delta, type(self)(scale_tril), met

    def local_form(self, centres: Tensor) -> DenseForm:
        """Return the inverse factors, for every component at once."""
        return DenseForm(self.scale_tril, centres)

    def log_det(self) -> Tensor:
        """Return 2 Σ log L_dd."""
        return 2 * self.scale_tril.double().diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def precision_diagonal(self) -> Tensor:
        """Return the squared lengths of the columns of L⁻¹."""
        return self.precision_parts()[1].square().sum(-1)

    def precision_parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return zeros, and L⁻ᵀ twice."""
        L = self.scale_tril.double()
        eye = torch.eye(self.n_features, dtype=L.dtype, device=L.device)
        inverse = torch.linalg.solve_triangular(L, eye.expand_as(L), upper=False).mT
        return torch.zeros_like(L[..., 0]), inverse, inverse

    def with_noise(self, variance: float) -> Self:
        """Factorise L Lᵀ + variance · I."""
        noisy = self.map(torch.Tensor.double).dense()
        noisy.diagonal(dim1=-2, dim2=-1).add_(variance)
        return type(self)(torch.linalg.cholesky(noisy).to(self.scale_tril))

    def cloud(self, mass: Tensor, offset: Tensor, variance: Tensor, gaps: bool) -> Moments:
        """Second moments m (v I + δδᵀ)."""
        m, off = mass.double(), offset.double()
        spread = torch.diag(variance.double()) + off.unsqueeze(-1) * off.unsqueeze(-2)
        second = m[:, None, None] * spread
        if self.n_covariances == 1:
            second = second.sum(0, keepdim=True)
        return Moments(m, m.unsqueeze(-1) * off, second)

    def marginal(self, features: Tensor) -> Self:
        """Re-factorise the rows of L that belong to the features."""
        rows = self.scale_tril[..., features, :]
        # QR of the rows avoids squaring the condition number as L Lᵀ would.
        r = torch.linalg.qr(rows.mT).R
        flipped = r.diagonal(dim1=-2, dim2=-1).unsqueeze(-1) < 0
        return type(self)(torch.where(flipped, -r, r).mT.contiguous())

    def condition(
        self, observed: Tensor, hidden: Tensor, x: Tensor, centres: Tensor
    ) -> tuple[Tensor, Tensor, Full]:
        """Order features (observed, hidden): the joint factor's blocks give the conditional."""
        joint = self.marginal(torch.cat([observed, hidden])).scale_tril
        a, k = observed.shape[0], centres.shape[-2]
        L_aa, L_ha, L_hh = joint[..., :a, :a], joint[..., a:, :a], joint[..., a:, a:]
        centres_a = centres[..., observed]
        log_prob = Full(L_aa).log_prob(x, centres_a)
        deviation = (x.unsqueeze(-2) - centres_a.unsqueeze(-3)).movedim(-3, -1)  # (..., K, a, n)
        batch = np.broadcast_shapes(L_aa.shape[:-3], deviation.shape[:-3])
        L_aa = L_aa.expand(*batch, k, a, a)
        white = torch.linalg.solve_triangular(L_aa, deviation, upper=False)
        means = centres[..., hidden].unsqueeze(-3) + (L_ha @ white).movedim(-1, -3)
        return log_prob, means, Full(L_hh)

    @classmethod
    def n_parameters(cls, n_features: int, rank: int) -> int:
        """D(D+1)/2."""
        return n_features * (n_features + 1) // 2


def _whitened(L: Tensor, deviation: Tensor) -> Tensor:
    """Return L⁻¹δ for factors (..., C, D, D) and deviations (s..., ..., K, D)."""
    if L.shape[-1] == 1:
        return deviation / L[..., 0]
    n_more = max(0, deviation.dim() + 1 - L.dim())  # dimensions of samples, which share factors
    columns = deviation.flatten(0, n_more - 1) if n_more else deviation.unsqueeze(0)
    columns = columns.movedim(0, -1)  # (..., K, D, s)
    shared = L.expand(*columns.shape[:-2], *L.shape[-2:])
    white = torch.linalg.solve_triangular(shared, columns, upper=False)
    return white.movedim(-1, 0).reshape(deviation.shape)


def _skew_allowed(covariance: Tensor) -> Tensor:
    """Return by how much entries (..., D, D) may differ from those across the diagonal."""
    deviation = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    scale = deviation.unsqueeze(-1) * deviation.unsqueeze(-2)
    return _SKEW * torch.finfo(covariance.dtype).eps ** 0.5 * scale


def _eye_and_below(like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the identity, and ones below the diagonal, (D, D): faster than `tril` on a batch."""
    ones = torch.ones(like.shape[-2:], dtype=like.dtype, device=like.device)
    return torch.eye(len(ones), dtype=like.dtype, device=like.device), ones.tril(-1)


def floored_cholesky(covariance: Tensor, floor: Tensor) -> tuple[Tensor, Tensor]:
    """Return Cholesky factors (C, D, D) of covariances no smaller than a floor (D,), and where met.

    Eigenvalues are raised in units in which the floor is one for every feature. Where variances
    are so unlike that float64 cannot tell small eigenvalues, the floor is added instead.

    Raises:
        InputError: if a covariance is not finite.
    """
    floor = floor.to(covariance)
    L, info = torch.linalg.cholesky_ex(covariance)
    # tr(Σ⁻¹ floor) bounds the inverse of the least eigenvalue of Σ in units of the floor …
    root = torch.diag(floor.sqrt()).expand_as(L)
    inverse = torch.linalg.solve_triangular(L, root, upper=False)
    low = (info > 0) | ~(inverse.square_().sum((-1, -2)) < 1)
    if bool(low.any()):
        # … and Σ − floor has a factor exactly if none is below one.
        less = torch.linalg.cholesky_ex(covariance[low] - torch.diag(floor)).info > 0
        low[low.clone()] = less | (info[low] > 0)
    if low.any():
        unit = floor.sqrt().unsqueeze(-1) * floor.sqrt()
        scaled = covariance[low] / unit
        if not bool(scaled.isfinite().all()):
            raise InputError(
                "A covariance is not finite: the data, or their weights, spread over more than "
                f"{covariance.dtype} can hold in squares; rescale them."
            )
        if float(scaled.diagonal(dim1=-2, dim2=-1).max()) > _WIDEST:
            own = scaled.diagonal(dim1=-2, dim2=-1)
            raised = (scaled + torch.diag_embed(1.0 + _JITTER * own)) * unit
        else:
            values, vectors = torch.linalg.eigh(scaled)
            raised = (vectors * values.clamp_min(1.0).unsqueeze(-2)) @ vectors.mT * unit
        L = L.clone()
        L[low] = torch.linalg.cholesky(0.5 * (raised + raised.mT))
    return L, low
