"""Scores and moments under covariances W Wᵀ + diag(ψ) of their own.

One product of the rows with [V, μ/ψ] scores all components at once. It expands squares, so digits
are lost where centres or factors are large in units of the noise: pairs that matter and could have
lost some are scored again from the deviations, as the sum of two squares that cannot cancel. The
moments visit only rows that are active in a component.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mogul.distributions.grouped import Pairs
from mogul.distributions.kernel import Kernel, active
from mogul.distributions.moments import Moments
from mogul.distributions.natural import tolerance

if TYPE_CHECKING:
    from mogul.distributions.woodbury import WoodburyCovariance

_MOST_PAIRS = 0.25  # fraction of all pairs from which on products over all rows are faster
_STEEP = 100.0  # tr(WᵀΨ⁻¹W)/D from which float32 would lose the residual


class LowRankKernel(Kernel):
    """Low-rank covariances of their own: one product to score, thin products for the moments."""

    def __init__(
        self, covariance: WoodburyCovariance, centres: Tensor, offsets: Tensor, origin: Tensor
    ) -> None:
        """Work out V, R and the constants in float64."""
        super().__init__(covariance, centres, offsets, origin)
        k, d = centres.shape
        V, R = covariance.whitener()
        psi, mean = covariance.noise.double(), centres.double()
        self._rank = V.shape[-1]
        scaled = mean / psi
        self._isotropic = psi.shape[-1] == 1
        blocks = [V.mT.reshape(-1, d), scaled]
        self._table = torch.cat(blocks).to(centres.dtype)
        self._precision = psi.reciprocal().to(centres.dtype)
        self._shift = (V.mT @ mean.unsqueeze(-1)).reshape(-1, 1).to(centres.dtype)
        self._size = (mean * scaled).sum(-1, keepdim=True)  # μᵀΨ⁻¹μ
        log_det = covariance.log_det()
        self._const = (offsets.double() - 0.5 * (log_det + d * math.log(2 * math.pi))).unsqueeze(-1)
        signal = (covariance.factors.double().square() / psi.unsqueeze(-1)).sum((-1, -2))
        self._steep = (signal > _STEEP * d).tolist()
        self._exact = _Residual(covariance, V, R, self._steep)
        self._V = V.to(centres.dtype)
        self._pairs: Pairs | None = None

    def _moment_values(self) -> int:
        k, d = self.centres.shape
        return k * d * (self._rank + 2)

    def joint(self, x: Tensor) -> Tensor:
        """Score all pairs by one product, and again those that matter and may have lost digits."""
        k, n = len(self.centres), len(x)
        products = self._buffer("products", (len(self._table), n))
        torch.mm(self._table, x.mT, out=products)
        z, squares = products[: -k], products[-k:]
        z.sub_(self._shift).square_()
        explained = torch.sum(z.view(k, self._rank, n), 1)
        squares.mul_(-2.0).add_(self._size.to(x.dtype)).add_(self._square(x))
        joint = self._buffer("joint", (k, n))
        torch.sub(squares, explained, out=joint).mul_(-0.5).add_(self._const.to(x.dtype))
        self._pairs = None
        if x.dtype != torch.float64:
            self._refine(x, joint, squares)
        return joint

    def _square(self, x: Tensor) -> Tensor:
        """Return Σ_d x_d²/ψ_d, (K, n)."""
        squares = torch.mul(x, x, out=self._buffer("squares", tuple(x.shape), x.dtype))
        if self._isotropic:
            return self._precision * squares.sum(-1)
        return self._precision @ squares.mT

    def _refine(self, x: Tensor, joint: Tensor, squares: Tensor) -> None:
        """Score again, in place, pairs that matter and whose sums were too large for the type."""
        eps = torch.finfo(x.dtype).eps
        risk = squares.add_(2 * self._size.to(x.dtype)).mul_(eps)
        allowed = tolerance(x.dtype, x.shape[-1])
        likely = joint - risk
        matters = joint + risk >= likely.amax(0) + math.log(eps)
        if not bool(((risk > allowed) & matters).any()):
            return
        component, row = matters.nonzero(as_tuple=True)
        if len(row) > _MOST_PAIRS * joint.numel():
            scored = self.covariance.log_prob(x, self.centres).mT
            joint.copy_(scored).add_(self.offsets.unsqueeze(-1))
            return
        pairs = Pairs.of(x, self.centres, component, row)
        scores = self._exact(pairs).to(x.dtype) + self._const.to(x.dtype)[component, 0]
        joint[component, row] = scores
        self._pairs = pairs

    def accumulate(self, x: Tensor, resp: Tensor) -> None:
        """Sum the moments over active pairs; over all, by larger products, if most are active."""
        self._add("count", resp.sum(-1, dtype=torch.float64))
        pairs = self._pairs
        if pairs is None:
            component, row = active(resp).nonzero(as_tuple=True)
            if len(row) > _MOST_PAIRS * resp.numel():
                self._accumulate_all(x, resp)
                return
            pairs = Pairs.of(x, self.centres, component, row)
        self._accumulate_pairs(pairs, resp[pairs.component, pairs.row])

    def _accumulate_pairs(self, pairs: Pairs, r: Tensor) -> None:
        k, d = self.centres.shape
        h = self._rank
        linear = self._buffer("linear", (k, d, h + 1)).zero_()
        second = self._buffer("second", (k, d)).zero_()
        with_one = self._buffer("with_one", (len(r), h + 1))
        with_one[:, h] = 1.0
        for c, (y, own, z1) in pairs.each(r, with_one):
            torch.mm(y, self._V[c], out=z1[:, :h])
            z1 *= own.unsqueeze(-1)
            if self._steep[c] and y.dtype != torch.float64:
                wide, weight = y.double(), own.double()
                self._sum("linear", k, d, h + 1)[c] += wide.mT @ z1.double()
                self._sum("second", k, d)[c] += wide.square_().mT @ weight
                continue
            torch.mm(y.mT, z1, out=linear[c])
            torch.mv(y.square_().mT, own, out=second[c])
        self._add("linear", linear)
        self._add("second", second)

    def _accumulate_all(self, x: Tensor, resp: Tensor) -> None:
        found = self.covariance.statistics(x, resp.mT, self.centres)
        self._add("second", found.second)
        assert found.projected is not None
        self._add("linear", torch.cat([found.projected, found.first.unsqueeze(-1)], -1))

    @property
    def moments(self) -> Moments:
        """The sums about the centres."""
        k, d = self.centres.shape
        h = self._rank
        linear = self._sum("linear", k, d, h + 1)
        second = self._sum("second", k, d)
        return Moments(self._sum("count", k), linear[..., h], second, linear[..., :h])


class _Residual:
    """The Mahalanobis distance as ‖y − W E[z]‖² in units of the noise, plus ‖E[z]‖².

    A sum of squares loses nothing to cancellation once the residual itself has digits; where
    factors dwarf the noise it has not in float32, and float64 is used for that component.
    """

    def __init__(
        self, covariance: WoodburyCovariance, V: Tensor, R: Tensor, steep: list[bool]
    ) -> None:
        self._steep = steep
        eye = torch.eye(R.shape[-1], dtype=R.dtype, device=R.device).expand_as(R)
        R_inv = torch.linalg.solve_triangular(R, eye, upper=False)
        self._infer = V @ R_inv  # E[z] = (V R⁻¹)ᵀ y
        self._W, self._noise = covariance.factors.double(), covariance.noise.double()

    def __call__(self, pairs: Pairs) -> Tensor:
        """Return −½ of the distance for every pair, (p,)."""
        out = pairs.y.new_empty(len(pairs.y), 1)
        for c, (y, target) in pairs.each(out):
            work = torch.float64 if self._steep[c] else y.dtype
            y = y.to(work)
            z = y @ self._infer[c].to(work)
            residual = torch.addmm(y, z, self._W[c].to(work).mT, alpha=-1.0)
            distance = (residual.square() / self._noise[c].to(work)).sum(-1) + z.square().sum(-1)
            target[:, 0] = distance.mul_(-0.5)
        return out[:, 0]
