"""Modes of mixtures of Gaussians, by fixed-point iteration from every component's mean."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mogul.distributions.mixture import Mixture

_ITERATIONS = 1000
_TOLERANCE = 1e-9  # of a step, in deviations of the mixture
_APART = 1e-3  # deviations within which two ends are one mode
_FLAT = 1e-6  # curvature, in units of the deviations, below which a point is no maximum


@dataclass(frozen=True)
class Modes:
    """Modes by falling density, one set for each mixture of a batch.

    `points` (..., K, D) and `log_density` (..., K) in nats; `found` (..., K) marks those that there
    are, and beyond them the highest mode is repeated.
    """

    points: Tensor
    log_density: Tensor
    found: Tensor

    @property
    def count(self) -> Tensor:
        """Number of modes, (...)."""
        return self.found.sum(-1)


@torch.no_grad()
def modes(mixture: Mixture) -> Modes:
    r"""Return the modes that are reached uphill from the means of the components.

    $x \leftarrow (\sum_k r_k\Sigma_k^{-1})^{-1}\sum_k r_k\Sigma_k^{-1}\mu_k$ with responsibilities
    $r_k(x)$ never lowers the density (Carreira-Perpiñán 2000). A mode that no mean leads to is not
    found; of saddles and minima the curvature tells. Builds D×D matrices: for features by the
    dozen.

    Args:
        mixture: any, with or without a batch shape.

    Returns:
        the modes, at most as many as components.
    """
    batch, k, d = mixture.batch_shape, mixture.n_components, mixture.n_features
    tril = mixture.covariance.tril().double()
    precision = torch.cholesky_inverse(tril).expand(*batch, k, d, d)
    log_weights = mixture.log_weights.double().expand(*batch, k)
    centres = mixture.centres.double().expand(*batch, k, d)
    half_log_det = tril.diagonal(dim1=-2, dim2=-1).log().sum(-1).expand(*batch, k)
    unit = _deviation(log_weights.exp(), centres, mixture.covariance.variances.double())
    pulled = (precision @ centres.unsqueeze(-1)).squeeze(-1)  # Σ⁻¹μ, (..., K, D)

    def responsibilities(x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-density (..., S) of points (..., S, D), and p(k | x), (..., S, K)."""
        away = x.unsqueeze(-2) - centres.unsqueeze(-3)
        quad = torch.einsum("...skd,...kde,...ske->...sk", away, precision, away)
        joint = (log_weights - half_log_det).unsqueeze(-2) - 0.5 * quad
        total = joint.logsumexp(-1)
        return total - 0.5 * d * torch.log(torch.tensor(2 * torch.pi)), joint.softmax(-1)

    x = centres
    for _ in range(_ITERATIONS):
        resp = responsibilities(x)[1]
        A = torch.einsum("...sk,...kde->...sde", resp, precision)
        moved = torch.linalg.solve(A, (resp @ pulled).unsqueeze(-1)).squeeze(-1)
        step = ((moved - x) / unit.unsqueeze(-2)).abs().amax()
        x = moved
        if float(step) < _TOLERANCE:
            break
    log_density, resp = responsibilities(x)
    peaks = _is_maximum(x, resp, centres, precision, unit)
    return _distinct(x, log_density, peaks, unit, mixture)


def _deviation(weights: Tensor, centres: Tensor, variances: Tensor) -> Tensor:
    """Return standard deviations of the mixture's features, (..., D)."""
    w = weights.unsqueeze(-1)
    mean = (w * centres).sum(-2, keepdim=True)
    return (w * (variances + (centres - mean).square())).sum(-2).sqrt()


def _is_maximum(
    x: Tensor, resp: Tensor, centres: Tensor, precision: Tensor, unit: Tensor
) -> Tensor:
    """Mark points (..., S, D) where the Hessian of log p is negative definite."""
    away = x.unsqueeze(-2) - centres.unsqueeze(-3)
    gradient = -torch.einsum("...kde,...ske->...skd", precision, away)
    hessian = torch.einsum("...sk,...skd,...ske->...sde", resp, gradient, gradient)
    hessian = hessian - torch.einsum("...sk,...kde->...sde", resp, precision)
    scale = unit.unsqueeze(-2)
    hessian = hessian * scale.unsqueeze(-1) * scale.unsqueeze(-2)
    return torch.linalg.eigvalsh(0.5 * (hessian + hessian.mT)).amax(-1) < -_FLAT


def _distinct(
    x: Tensor, log_density: Tensor, peaks: Tensor, unit: Tensor, mixture: Mixture
) -> Modes:
    """Keep one of the points (..., K, D) that ended at the same mode."""
    order = torch.where(peaks, log_density, -torch.inf).argsort(-1, descending=True)
    x = x.gather(-2, order.unsqueeze(-1).expand_as(x))
    log_density, peaks = log_density.gather(-1, order), peaks.gather(-1, order)
    away = (x.unsqueeze(-2) - x.unsqueeze(-3)) / unit.unsqueeze(-2).unsqueeze(-2)
    same = away.abs().amax(-1) < _APART  # (..., K, K)
    earlier = torch.ones_like(same).tril(-1)
    found = peaks & ~(same & earlier & peaks.unsqueeze(-2)).any(-1)
    order = found.int().argsort(dim=-1, descending=True, stable=True)
    x, found = x.gather(-2, order.unsqueeze(-1).expand_as(x)), found.gather(-1, order)
    log_density = log_density.gather(-1, order)
    x = torch.where(found.unsqueeze(-1), x, x[..., :1, :])
    log_density = torch.where(found, log_density, log_density[..., :1])
    return Modes((mixture.origin + x).to(mixture.dtype), log_density.to(mixture.dtype), found)
