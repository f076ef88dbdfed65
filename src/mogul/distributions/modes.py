"""Modes of mixtures of Gaussians, uphill from every component's mean."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mogul.distributions.mixture import Mixture

# Lengths and curvatures are measured in the precision A = Σ_k r_k Σ_k⁻¹ at the point itself, so
# that neither units nor components far away matter.
_FIXED, _NEWTON = 300, 60  # steps of each kind at most
_SETTLED = 1e-9  # length of the last step
_APART = 1e-2  # distance below which two ends are one mode
_LEVEL = 1e-6  # curvature that still passes for none


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

    def above(self, share: float) -> Tensor:
        """Mark modes with at least a share of the density of the highest, (..., K)."""
        return self.found & (self.log_density >= self.log_density[..., :1] + math.log(share))


@dataclass(frozen=True)
class _Parts:
    """b mixtures in float64: weights (b, K), centres (b, K, D), precisions (b, K, D, D)."""

    log_scale: Tensor  # log π_k − ½ log |2πΣ_k|, (b, K)
    centres: Tensor
    precision: Tensor

    def of(self, which: Tensor) -> _Parts:
        """Return some of the mixtures."""
        return _Parts(self.log_scale[which], self.centres[which], self.precision[which])

    def at(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return log p, its gradient, A and Σ_k r_k g_k g_kᵀ at points x (b, S, D)."""
        away = self.centres.unsqueeze(1) - x.unsqueeze(2)  # (b, S, K, D)
        pull = torch.einsum("bkde,bske->bskd", self.precision, away)  # gradients of log N
        joint = self.log_scale.unsqueeze(1) - 0.5 * (away * pull).sum(-1)
        resp = joint.softmax(-1)
        A = torch.einsum("bsk,bkde->bsde", resp, self.precision)
        G = torch.einsum("bsk,bskd,bske->bsde", resp, pull, pull)
        return joint.logsumexp(-1), (resp.unsqueeze(-1) * pull).sum(-2), A, G


@torch.no_grad()
def modes(mixture: Mixture) -> Modes:
    r"""Return the modes that are reached uphill from the means of the components.

    $x \leftarrow x + A^{-1} \nabla\log p(x)$ with $A = \sum_k r_k(x)\,\Sigma_k^{-1}$ never lowers
    the density (Carreira-Perpiñán 2000); Newton's steps settle the end. A mode that no mean leads
    to is not found; of saddles and minima the curvature tells. Builds D×D matrices: for features
    by the dozen.

    Args:
        mixture: any, with or without a batch shape.

    Returns:
        the modes, at most as many as components.
    """
    batch, k, d = mixture.batch_shape, mixture.n_components, mixture.n_features
    n = batch.numel()
    tril = mixture.covariance.map(torch.Tensor.double).tril().expand(*batch, k, d, d)
    half_log_det = tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    log_weights = mixture.logits.double().log_softmax(-1).expand(*batch, k)
    parts = _Parts(
        (log_weights - half_log_det - 0.5 * d * math.log(2 * math.pi)).reshape(n, k),
        mixture.centres.double().expand(*batch, k, d).reshape(n, k, d),
        torch.cholesky_inverse(tril.reshape(n, k, d, d)),
    )
    x = parts.centres.clone()
    active = torch.arange(n, device=x.device)
    for step in range(_FIXED + _NEWTON):
        if not len(active):
            break
        x[active], length = _moved(parts.of(active), x[active], newton=step >= _FIXED)
        active = active[(length > _SETTLED).any(-1)] if step != _FIXED - 1 else active
    log_density, _, A, G = parts.at(x)
    points, log_density, found = _distinct(x, log_density, A, G)
    return Modes(
        (mixture.origin + points.reshape(*batch, k, d)).to(mixture.dtype),
        log_density.reshape(*batch, k).to(mixture.dtype),
        found.reshape(*batch, k),
    )


def _moved(parts: _Parts, x: Tensor, newton: bool) -> tuple[Tensor, Tensor]:
    """Return points (b, S, D) after one step uphill, and the lengths of the steps, (b, S)."""
    before, gradient, A, G = parts.at(x)
    step = torch.linalg.solve(A, gradient.unsqueeze(-1)).squeeze(-1)
    if newton:
        up = torch.linalg.eigvalsh(_relative(A, G)).amax(-1) < 1  # where −H = A − G is a metric
        H = torch.where(up[..., None, None], A - G, A)
        sharper = torch.linalg.solve(H, gradient.unsqueeze(-1)).squeeze(-1)
        higher = parts.at(x + sharper)[0] >= before
        step = torch.where((up & higher).unsqueeze(-1), sharper, step)
    return x + step, _length(step, A)


def _length(step: Tensor, A: Tensor) -> Tensor:
    """Return lengths (b, S) of steps (b, S, D) in the metric A."""
    return torch.einsum("bsd,bsde,bse->bs", step, A, step).clamp_min(0).sqrt()


def _relative(A: Tensor, G: Tensor) -> Tensor:
    """Return G in units in which A is the identity."""
    root = torch.linalg.cholesky(A)
    half = torch.linalg.solve_triangular(root, G, upper=False)
    whitened = torch.linalg.solve_triangular(root, half.mT, upper=False)
    return 0.5 * (whitened + whitened.mT)


def _distinct(
    x: Tensor, log_density: Tensor, A: Tensor, G: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Keep one of the points (b, K, D) that ended at the same maximum, the highest first."""
    peaks = torch.linalg.eigvalsh(_relative(A, G)).amax(-1) < 1 + _LEVEL
    order = torch.where(peaks, log_density, -torch.inf).argsort(-1, descending=True)
    x, A = _ordered(x, order), _ordered(A, order)
    log_density, peaks = _ordered(log_density, order), _ordered(peaks, order)
    away = x.unsqueeze(2) - x.unsqueeze(1)  # (b, i, j, D)
    same = torch.einsum("bijd,bide,bije->bij", away, A, away) < _APART**2
    earlier = torch.ones_like(same).tril(-1)
    found = peaks & ~(same & earlier & peaks.unsqueeze(1)).any(-1)
    order = found.int().argsort(dim=-1, descending=True, stable=True)
    x, log_density, found = (_ordered(t, order) for t in (x, log_density, found))
    x = torch.where(found.unsqueeze(-1), x, x[:, :1])
    return x, torch.where(found, log_density, log_density[:, :1]), found


def _ordered(values: Tensor, order: Tensor) -> Tensor:
    """Return entries of values (b, K, …) in an order (b, K)."""
    return values.gather(
        1, order.reshape(*order.shape, *[1] * (values.dim() - 2)).expand_as(values)
    )
