"""Densities of mixtures in 50-digit arithmetic, from the parameters as they are held."""

from __future__ import annotations

from typing import Any

import mpmath
import torch
from mpmath import mp, mpf
from torch import Tensor

from mogul.distributions import Full, Mixture

mp.dps = 50

Row = list[mpf]
Matrix = list[Row]


def digits(values: Tensor) -> Any:
    """Return a tensor as nested lists of exact 50-digit numbers."""
    if values.dim() == 0:
        return mpf(float(values))
    return [digits(part) for part in values.detach()]


def cholesky(matrix: Matrix) -> Matrix:
    """Return the lower factor of a symmetric positive-definite matrix."""
    factor: Matrix = []
    for i, row in enumerate(matrix):
        new: Row = []
        for j in range(i):
            new.append((row[j] - mpmath.fdot(new[:j], factor[j][:j])) / factor[j][j])
        new.append(mpmath.sqrt(row[i] - mpmath.fdot(new, new)))
        factor.append(new)
    return factor


def whitened(factor: Matrix, deviation: Row) -> Row:
    """Return L⁻¹δ."""
    white: Row = []
    for row, value in zip(factor, deviation, strict=True):
        white.append((value - mpmath.fdot(row[: len(white)], white)) / row[len(white)])
    return white


def gram(rows: Matrix) -> Matrix:
    """Return all inner products of rows."""
    return [[mpmath.fdot(a, b) for b in rows] for a in rows]


def normal(factor: Matrix, deviation: Row) -> mpf:
    """Return log N(δ; 0, L Lᵀ)."""
    white = whitened(factor, deviation)
    log_det = 2 * mpmath.fsum(mpmath.log(factor[i][i]) for i in range(len(factor)))
    return -(mpmath.fdot(white, white) + log_det + len(white) * mpmath.log(2 * mp.pi)) / 2


def low_rank_normal(loadings: Matrix, noise: Row, deviation: Row) -> mpf:
    """Return log N(δ; 0, W Wᵀ + Ψ) by the Woodbury identity; 50 digits outlast what it cancels."""
    rank = len(loadings[0])
    scaled = [value / psi for value, psi in zip(deviation, noise, strict=True)]
    quadratic = mpmath.fdot(scaled, deviation)
    log_det = mpmath.fsum(mpmath.log(psi) for psi in noise)
    if rank:
        columns = [[row[h] for row in loadings] for h in range(rank)]
        over = [[w / psi for w, psi in zip(column, noise, strict=True)] for column in columns]
        inner = [[mpmath.fdot(a, b) + (i == j) for j, b in enumerate(columns)]
                 for i, a in enumerate(over)]  # fmt: skip
        factor = cholesky(inner)
        white = whitened(factor, [mpmath.fdot(column, scaled) for column in columns])
        quadratic -= mpmath.fdot(white, white)
        log_det += 2 * mpmath.fsum(mpmath.log(factor[h][h]) for h in range(rank))
    return -(quadratic + log_det + len(noise) * mpmath.log(2 * mp.pi)) / 2


class Exact:
    """A mixture without batch shape, in 50-digit arithmetic."""

    def __init__(self, mixture: Mixture) -> None:
        """Take the parameters over, without rounding any."""
        self.k, covariance = mixture.n_components, mixture.covariance
        logits = digits(mixture.logits)
        total = mpmath.log(mpmath.fsum(mpmath.exp(value) for value in logits))
        self.log_weights = [value - total for value in logits]
        origin = digits(mixture.origin)
        self.means = [
            [a + b for a, b in zip(centre, origin, strict=True)]
            for centre in digits(mixture.centres)
        ]
        self.full = isinstance(covariance, Full)
        if self.full:
            self.factors = digits(covariance.scale_tril)
        else:
            self.loadings = digits(covariance.factors)
            self.noise = digits(covariance.noise_variances)

    def component(self, k: int, row: Row, features: list[int]) -> mpf:
        """Return log N of some features of a row under a component."""
        if not features:
            return mpf(0)
        c = k if len(self.factors if self.full else self.noise) > 1 else 0
        deviation = [row[d] - self.means[k][d] for d in features]
        if not self.full:
            loadings, noise = self.loadings[c], self.noise[c]
            return low_rank_normal(
                [loadings[d] for d in features], [noise[d] for d in features], deviation
            )
        if features == list(range(len(row))):
            return normal(self.factors[c], deviation)
        covariance = gram([self.factors[c][d] for d in features])
        return normal(cholesky(covariance), deviation)

    def log_prob(self, row: Tensor, features: list[int] | None = None) -> mpf:
        """Return log p of a row (D,): of some features, or of those that are not NaN."""
        if features is None:
            features = (~row.isnan()).nonzero().flatten().tolist()
        values = digits(row.nan_to_num(0.0))
        parts = [w + self.component(k, values, features) for k, w in enumerate(self.log_weights)]
        top = max(parts)
        return top + mpmath.log(mpmath.fsum(mpmath.exp(part - top) for part in parts))


def conditioning(mixture: Mixture) -> float:
    """Return the largest condition number of a component's correlations: units do not matter."""
    covariance = mixture.covariance.map(torch.Tensor.double).map(torch.Tensor.detach)
    if isinstance(covariance, Full):
        rows = covariance.scale_tril
        rows = rows / rows.square().sum(-1, keepdim=True).sqrt()
        values = torch.linalg.svdvals(rows).square()
    elif covariance.loadings is None:
        return 1.0
    else:
        wide = torch.cat([covariance.factors, covariance.noise_variances.sqrt().diag_embed()], -1)
        values = torch.linalg.svdvals(wide / wide.square().sum(-1, keepdim=True).sqrt()).square()
    return float((values[..., 0] / values[..., -1].clamp_min(1e-300)).max())
