r"""Exact EM for low-rank families from moments of features and factors together.

For rows that have their own patterns of observed features, and for rows learned from online. Only
the factors are latent; hidden features drop out of the likelihood. Given the responsibilities and
the moments of $\tilde z = [1, z]$, the expected log-likelihood decouples per feature into a
weighted regression of x_d on $\tilde z$ over the rows that observe it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mogul.distributions.moments import Additive, Change


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

    D is 1 in `seen`, `factor` and `gram` where every row observes all features. Where components
    share a covariance, `square`, `product` and both Gram matrices are sums over them, K = 1.
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

    @property
    def summed(self) -> MaskedMoments:
        """The moments of components that share a covariance: summed wherever they allow it."""
        return replace(
            self,
            **{
                name: getattr(self, name).sum(0, keepdim=True)
                for name in ("square", "product", "gram", "factor_gram")
            },
        )

    def pool(self, per_component: Tensor) -> Tensor:
        """Sum a (K, ...) quantity over components if the squares are sums over them."""
        shared = self.square.shape[0] != self.count.shape[0]
        return per_component.sum(0, keepdim=True) if shared else per_component

    def less(self, base: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """Return base − a bᵀ, (C, D, H), of a (K, D) and b (K, D or 1, H), summed if base is."""
        if base.shape[0] != a.shape[0]:
            return base - (a.unsqueeze(-1) * b).sum(0, keepdim=True)
        return torch.addcmul(base, a.unsqueeze(-1), b, value=-1)

    def restate(self, change: Change) -> MaskedMoments:
        """Return the same data's moments about moved centres, of factors L⁻¹(z − m)."""
        m, L = change.factor_mean, change.factor_tril
        assert m is not None
        assert L is not None
        eye = torch.eye(m.shape[-1], dtype=m.dtype, device=m.device)
        inverse = torch.linalg.solve_triangular(L, eye.expand_as(L), upper=False)
        back = inverse.mT.expand(len(m), -1, -1)  # of rows of factors, (K, H, H)
        n, delta = self.count.unsqueeze(-1), change.centre
        factor = (self.factor - self.seen.unsqueeze(-1) * m.unsqueeze(-2)) @ back
        product = self.less(self.product @ inverse.mT, self.value, m.unsqueeze(-2) @ back)
        moved = delta * (self.seen * delta - 2 * self.value)
        return MaskedMoments(
            count=self.count,
            seen=self.seen,
            value=self.value - delta * self.seen,
            square=self.square + self.pool(moved),
            factor=factor,
            product=self.less(product, delta, factor),
            gram=self._standard(self.gram, self.factor, self.seen, m.unsqueeze(-2), inverse),
            factor_mean=((self.factor_mean - n * m).unsqueeze(-2) @ back).squeeze(-2),
            factor_gram=self._standard(self.factor_gram, self.factor_mean, n[..., 0], m, inverse),
        )

    def _standard(
        self, gram: Tensor, factor: Tensor, n: Tensor, m: Tensor, inverse: Tensor
    ) -> Tensor:
        """Return Σ r E[L⁻¹(z − m)(z − m)ᵀL⁻ᵀ] (..., H, H) of counts n and moments of z."""
        cross = factor.unsqueeze(-1) * m.unsqueeze(-2)
        about = n[..., None, None] * m.unsqueeze(-1) * m.unsqueeze(-2)
        centred = gram - self.pool(cross + cross.mT - about)
        inverse = inverse.unsqueeze(-3) if gram.dim() == 4 else inverse
        return inverse @ centred @ inverse.mT


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

    f, value = moments.factor, moments.value
    left = pool(moments.square) - pool(inverse * value.square())
    if learn and W.shape[-1]:
        G = pool(moments.gram) - pool(inverse[..., None, None] * f.unsqueeze(-1) * f.unsqueeze(-2))
        t = moments.less(pool(moments.product), inverse * value, f)
        usable = pool(n) > 0
        if bool(usable.all()):
            W = _solved(G, t)
        else:
            eye = torch.eye(W.shape[-1], dtype=W.dtype, device=W.device)
            solved = _solved(torch.where(usable[..., None, None], G, eye), t)
            W = torch.where(usable.unsqueeze(-1), solved, W)
        # What a regression with intercept leaves of Σ r o E[(x − δ − w·z)²]. Of isotropic families
        # only the sum over features counts, so that a feature's own may be negative.
        left = left - (t * W).sum(-1)
    of_factors = (f @ W.mT).squeeze(-2) if f.shape[1] == 1 else (f * W).sum(-1)
    shift = inverse * (value - of_factors)
    return Regression(shift, W, left, pool(n))


def _solved(gram: Tensor, t: Tensor) -> Tensor:
    """Solve G_d w_d = t_d of every feature d, (C, D, H); gram (C, D, H, H), or D = 1 for all."""
    if gram.shape[1] == 1:
        return torch.linalg.solve(gram.squeeze(1), t.mT).mT
    return torch.linalg.solve(gram, t.unsqueeze(-1)).squeeze(-1)


def factor_scale(moments: MaskedMoments) -> tuple[Tensor, Tensor]:
    """Return mean m (K, H) of the factors, and L (C, H, H) with L Lᵀ their covariance."""
    n = moments.count[:, None]
    m = torch.where(n > 0, moments.factor_mean / n.clamp_min(1e-300), 0.0)
    about = moments.pool(n[..., None] * m.unsqueeze(-1) * m.unsqueeze(-2))
    mass = moments.pool(n[..., None])
    eye = torch.eye(m.shape[-1], dtype=m.dtype, device=m.device)
    C = torch.where(mass > 0, (moments.factor_gram - about) / mass.clamp_min(1e-300), eye)
    return m, torch.linalg.cholesky(C)


def expand(found: Regression, moments: MaskedMoments) -> tuple[Tensor, Tensor]:
    """Absorb the moments of the factors into centres and loadings (parameter expansion).

    The factors' posterior mean m and covariance L Lᵀ become part of the model: μ ← μ + W m,
    W ← W L; the likelihood is that of the expanded model (Liu, Rubin & Wu 1998).

    Args:
        found: the regression.
        moments: the moments it came from.

    Returns:
        shift (K, D) and loadings (C, D, H).
    """
    m, L = factor_scale(moments)
    shift = found.shift + (found.loadings @ m.unsqueeze(-1)).squeeze(-1)
    return shift, found.loadings @ L
