r"""Sums of complete-data sufficient statistics: what may be mixed across parameters.

An E-step sums $E[s(x, k, z)]$ under its own parameters; averages over steps stay meaningful only if
s itself does not depend on these (Cappé & Moulines 2009). For densities without factors s is
$(1, x, xx^\top)$ or its diagonal; with factors it holds $z, xz^\top, zz^\top$ as well, while the
product of second moments with a basis, fast as it is within one pass, belongs to that pass.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mogul.distributions.covariance import Covariance
from mogul.distributions.low_rank import DiagonalPlusLowRank
from mogul.distributions.masked import MaskedMoments, factor_scale
from mogul.distributions.moments import Moments


def complete_data(
    covariance: Covariance, moments: Moments | MaskedMoments
) -> Moments | MaskedMoments:
    r"""Return the moments of an E-step as sums of complete-data statistics.

    With $V = \Psi^{-1}WR^{-\top}$, $E[z|x] = R^{-\top}V^\top(x-\mu)$, so that the projection SV of
    second moments S gives $\sum r(x-\mu)E[z]^\top = SVR^{-1}$ and
    $\sum rE[zz^\top] = nR^{-\top}R^{-1} + R^{-\top}V^\top SVR^{-1}$.

    Args:
        covariance: that of the E-step.
        moments: its moments, about its centres.

    Returns:
        dense moments as they are; for families of diagonal noise those of features and factors.
    """
    if isinstance(moments, MaskedMoments) or not isinstance(covariance, DiagonalPlusLowRank):
        return moments
    V, R = covariance.whitener()
    n, eye = moments.count, torch.eye(covariance.rank, dtype=V.dtype, device=V.device)
    R_inv = torch.linalg.solve_triangular(R, eye.expand_as(R), upper=False)
    projected = torch.zeros_like(V) if moments.projected is None else moments.projected
    product = projected @ R_inv
    inner = V.mT @ projected
    spread = moments.mass[:, None, None] * eye + 0.5 * (inner + inner.mT)
    return _alike(
        n, moments.first, moments.second, product,
        (moments.first.unsqueeze(-2) @ V @ R_inv).squeeze(-2), R_inv.mT @ spread @ R_inv,
    )  # fmt: skip


def own_statistics(
    covariance: Covariance, weights: Tensor, centres: Tensor
) -> Moments | MaskedMoments:
    """Return the complete-data statistics that a mixture itself expects of a row.

    An M-step on them gives back the mixture.

    Args:
        covariance: its covariances.
        weights: mass of each component, (K,), zero to leave one out.
        centres: its centres, about which they are, (K, D).
    """
    pi, first = weights.double(), torch.zeros_like(centres, dtype=torch.float64)
    shared = covariance.n_covariances == 1
    mass = pi.sum(0, keepdim=True) if shared else pi
    if not isinstance(covariance, DiagonalPlusLowRank):
        return Moments(pi, first, mass[:, None, None] * covariance.map(torch.Tensor.double).dense())
    W = covariance.factors.double()
    eye = torch.eye(W.shape[-1], dtype=W.dtype, device=W.device)
    return _alike(
        pi, first, mass[:, None] * covariance.variances.double(), mass[:, None, None] * W,
        first.new_zeros(len(pi), W.shape[-1]), mass[:, None, None] * eye,
    )  # fmt: skip


def factor_change(
    moments: Moments | MaskedMoments, kept: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """Return how an M-step on moments changes what factors mean: m (K, H) and L (C, H, H).

    Args:
        moments: the moments.
        kept: marks covariances that the step leaves as they are, (C,).
    """
    if isinstance(moments, Moments):
        return None, None
    m, L = factor_scale(moments)
    eye = torch.eye(L.shape[-1], dtype=L.dtype, device=L.device)
    return m, torch.where(kept[:, None, None], eye, L)


def _alike(
    count: Tensor, value: Tensor, square: Tensor, product: Tensor, mean: Tensor, gram: Tensor
) -> MaskedMoments:
    """Return moments of rows that observe all features."""
    return MaskedMoments(
        count, count.unsqueeze(-1), value, square, mean.unsqueeze(-2), product, gram.unsqueeze(-3),
        mean, gram,
    )  # fmt: skip
