r"""Exact EM for low-rank families when every row has its own pattern of observed features.

Only the factors are latent; hidden features drop out of the likelihood. Given the
responsibilities and the moments of $\tilde z = [1, z]$, the expected log-likelihood decouples per
feature into a weighted regression of x_d on $\tilde z$ over the rows that observe it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mogul.distributions.moments import Additive


@dataclass(frozen=True)
class MaskedMoments(Additive):
    r"""Weighted moments of observed features with the factors, all in float64.

    With responsibilities r_nk (times sample weights), masks o_nd, and x_d measured from the
    component's centre:

    - `count` (K,): Σ_n r
    - `seen` (K, D): Σ_n r o_d
    - `value` (K, D), `square` (K, D): Σ_n r o_d x_d and Σ_n r o_d x_d²
    - `factor` (K, D, H): Σ_n r o_d E[z];  `product` (K, D, H): Σ_n r o_d x_d E[z]
    - `gram` (K, D, H, H): Σ_n r o_d E[zzᵀ]
    - `factor_mean` (K, H): Σ_n r E[z];  `factor_gram` (K, H, H): Σ_n r E[zzᵀ]
    """

    count: Tensor
    seen: Tensor
    value: Tensor
    square: Tensor
    factor: Tensor
    product: Tensor
    gram: Tensor
    factor_mean: Tensor
    factor_gram: Tensor

    def pin(self, components: Tensor) -> MaskedMoments:
        """Return moments by which the marked components (K,) keep their centres."""
        row = components.unsqueeze(-1)
        return replace(
            self,
            value=self.value.masked_fill(row, 0.0),
            factor=self.factor.masked_fill(row.unsqueeze(-1), 0.0),
            factor_mean=self.factor_mean.masked_fill(row, 0.0),
        )


@dataclass(frozen=True)
class Regression:
    """The M-step's solution: `shift` (K, D), `loadings` (C, D, H), squares left and their counts.

    `residual` (C, D) is the expected sum of squares that centres and factors leave, `mass` (C, D)
    the count behind it.
    """

    shift: Tensor
    loadings: Tensor
    residual: Tensor
    mass: Tensor


def regress(moments: MaskedMoments, loadings: Tensor, learn: bool) -> Regression:
    """Regress every feature on the factors, over the rows that observe it.

    Args:
        moments: the moments, of K components.
        loadings: current loadings (C, D, H), C = K or 1 if shared; kept where nothing was seen.
        learn: whether loadings are learned; otherwise only the centres move.

    Returns:
        the solution, in float64.
    """
    shared = loadings.shape[0] != moments.count.shape[0]
    W = loadings.double()
    n = moments.seen
    some = n > 0
    inverse = torch.where(some, n, 1.0).reciprocal() * some

    def pool(t: Tensor) -> Tensor:
        return t.sum(0, keepdim=True) if shared else t

    f = moments.factor
    if learn and W.shape[-1]:
        G = pool(moments.gram - inverse[..., None, None] * f.unsqueeze(-1) * f.unsqueeze(-2))
        t = pool(moments.product - (inverse * moments.value).unsqueeze(-1) * f)
        usable = pool(n) > 0
        eye = torch.eye(W.shape[-1], dtype=W.dtype, device=W.device)
        G = torch.where(usable[..., None, None], G, eye)
        solved = torch.linalg.solve(G, t.unsqueeze(-1)).squeeze(-1)
        W = torch.where(usable.unsqueeze(-1), solved, W)
    shift = inverse * (moments.value - (f * W).sum(-1))
    # Σ r o E[(x − δ − w·z)²], written out.
    left = (
        moments.square
        - 2 * shift * moments.value
        - 2 * (moments.product * W).sum(-1)
        + n * shift.square()
        + 2 * shift * (f * W).sum(-1)
        + (W.unsqueeze(-2) @ moments.gram @ W.unsqueeze(-1)).squeeze(-1).squeeze(-1)
    )
    return Regression(shift, W, pool(left).clamp_min(0), pool(n))


def expand(found: Regression, moments: MaskedMoments) -> tuple[Tensor, Tensor]:
    """Absorb the moments of the factors into centres and loadings (parameter expansion).

    The factors' posterior mean m and covariance C become part of the model: μ ← μ + W m,
    W ← W chol(C); the likelihood is that of the expanded model (Liu, Rubin & Wu 1998).

    Args:
        found: the regression.
        moments: the moments it came from.

    Returns:
        shift (K, D) and loadings (C, D, H).
    """
    W = found.loadings
    shared = W.shape[0] != moments.count.shape[0]
    n = moments.count[:, None]
    m = torch.where(n > 0, moments.factor_mean / n.clamp_min(1e-300), 0.0)
    scatter = moments.factor_gram - n[..., None] * m.unsqueeze(-1) * m.unsqueeze(-2)
    mass = n[..., None]
    if shared:
        scatter, mass = scatter.sum(0, keepdim=True), mass.sum(0, keepdim=True)
    eye = torch.eye(W.shape[-1], dtype=W.dtype, device=W.device)
    C = torch.where(mass > 0, scatter / mass.clamp_min(1e-300), eye)
    shift = found.shift + (W @ m.unsqueeze(-1)).squeeze(-1)
    return shift, W @ torch.linalg.cholesky(C)
