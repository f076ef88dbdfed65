"""Scores and moments under covariances W Wᵀ + diag(ψ) of their own.

One product of the rows with [V, μ/ψ] scores all components at once. It expands squares, so digits
are lost where centres or factors are large in units of the noise: pairs that matter and could have
lost some are scored again from the deviations, as the sum of two squares that cannot cancel. The
moments visit only rows that are active in a component.
"""

from __future__ import annotations

import math
from itertools import groupby
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mogul.distributions.grouped import Pairs
from mogul.distributions.kernel import Kernel, active, near_zero
from mogul.distributions.moments import Moments
from mogul.distributions.natural import tolerance

if TYPE_CHECKING:
    from mogul.distributions.woodbury import WoodburyCovariance

_MOST_PAIRS = 0.25  # fraction of all pairs from which on products over all rows are faster
_FAR = 5e-3  # nats that rounding of a centre may cost a row
_FAR_SQUARE = 1e7  # μ²/ψ in float64
_CACHED = 2**16  # values of sums that are worked on at a time
_STEEP = 100.0  # tr(WᵀΨ⁻¹W)/D from which float32 would lose the residual


class LowRankKernel(Kernel):
    """Low-rank covariances of their own: one product to score, thin products for the moments."""

    def __init__(
        self, covariance: WoodburyCovariance, centres: Tensor, offsets: Tensor, origin: Tensor
    ) -> None:
        """Work out V, R and the constants in float64."""
        d, psi = centres.shape[-1], covariance.noise.double()
        self._left = torch.zeros_like(centres)
        if bool(origin.any()) and near_zero(centres, origin, psi):  # spares a copy of the rows
            exact = centres.double() + origin.double()
            centres, origin = exact.to(centres.dtype), torch.zeros_like(origin)
            self._left = (exact - centres.double()).to(centres.dtype)
        super().__init__(covariance, centres, offsets, origin)
        V, R = covariance.whitener()
        mean = centres.double()
        self._rank = V.shape[-1]
        scaled = mean / psi
        self._isotropic = psi.shape[-1] == 1
        blocks = [V.mT.reshape(-1, d), scaled]
        self._table = torch.cat(blocks).to(centres.dtype)
        self._precision = psi.reciprocal().to(centres.dtype)
        self._shift = (V.mT @ mean.unsqueeze(-1)).reshape(-1, 1).to(centres.dtype)
        self._size = (mean * scaled).sum(-1, keepdim=True)  # μᵀΨ⁻¹μ
        log_det = covariance.noise_variances.double().log().sum(-1)
        log_det = log_det + 2 * R.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        self._const = (offsets.double() - 0.5 * (log_det + d * math.log(2 * math.pi))).unsqueeze(-1)
        # Deviations are taken in units of the noise where features have noise of their own.
        self._units = torch.ones_like(mean) if self._isotropic else psi.rsqrt()
        self._residual = _Residual(covariance, mean, V, R, self._units, centres.dtype)
        self._pairs: tuple[Pairs, Tensor] | None = None
        # Sums of squares about the origin would lose digits of the second moments.
        self._far = centres.dtype == torch.float64 and bool((mean * scaled > _FAR_SQUARE).any())

    def _moment_values(self) -> int:
        k, d = self.centres.shape
        return k * d * (self._rank + 2)

    def joint(self, x: Tensor) -> Tensor:
        """Score all pairs by one product, and again those that matter and may have lost digits."""
        k, n = len(self.centres), len(x)
        products = self._buffer("products", (len(self._table), n))
        torch.mm(self._table, x.mT, out=products)
        z, squares = products[:-k], products[-k:]
        z.sub_(self._shift).square_()
        explained = torch.sum(z.view(k, self._rank, n), 1)
        squares.mul_(-2.0).add_(self._size.to(x.dtype)).add_(self._square(x))
        joint = self._buffer("joint", (k, n))
        torch.sub(squares, explained, out=joint).mul_(-0.5).add_(self._const.to(x.dtype))
        self._pairs = None
        self._refine(x, joint, squares)
        return joint

    def _square(self, x: Tensor) -> Tensor:
        """Return Σ_d x_d²/ψ_d, (K, n)."""
        if self._isotropic:
            return self._precision * torch.linalg.vector_norm(x, dim=-1).square_()
        squares = torch.mul(x, x, out=self._buffer("rows", tuple(x.shape)))
        return self._precision @ squares.mT

    def _refine(self, x: Tensor, joint: Tensor, squares: Tensor) -> None:
        """Score again, in place, pairs that matter and whose sums were too large for the type."""
        eps = torch.finfo(x.dtype).eps
        risk = squares.add_(2 * self._size.to(x.dtype)).mul_(eps)
        allowed = tolerance(x.dtype, x.shape[-1])
        if not bool((risk > allowed).any()):
            return
        likely = (joint - risk).amax(0)
        matters = joint + risk >= likely + math.log(eps)
        if not bool(((risk > allowed) & matters).any()):
            return
        component, row = matters.nonzero(as_tuple=True)
        if len(row) > _MOST_PAIRS * joint.numel():
            scored = self.covariance.log_prob(x, self.centres).mT
            joint.copy_(scored).add_(self.offsets.unsqueeze(-1))
            return
        parts = _in_parts(x, component, row)
        for chosen in parts:
            pairs, z = found = self._gather(x, *chosen)
            scratch = self._buffer("residual", tuple(pairs.y.shape))
            distance = self._residual.distance(pairs, z[:, :-1], scratch)
            joint[chosen] = self._const.to(x.dtype)[chosen[0], 0] - 0.5 * distance
            if len(parts) == 1:
                self._pairs = found

    def _gather(self, x: Tensor, component: Tensor, row: Tensor) -> tuple[Pairs, Tensor]:
        """Return pairs with deviations in units of the noise, and (Vᵀ(x − μ), 1), (p, H + 1)."""
        out = self._buffer("rows", (len(row), x.shape[1]))
        pairs = Pairs.of(x, self.centres, component, row, out)
        # Thin matrices lie the long way: products with them are then twice as fast.
        z = self._buffer("factors", (self._rank + 1, len(row))).mT
        z[:, -1] = 1.0
        for k, (y, target) in pairs.each(z[:, :-1]):
            if self._residual.steep[k]:
                y.sub_(self._left[k])  # what rounding took from the centre
            if not self._isotropic:
                y.mul_(self._residual.units[k])
            torch.mm(y, self._residual.V[k], out=target)
        return pairs, z

    def accumulate(self, x: Tensor, resp: Tensor, weight: Tensor | None) -> None:
        """Sum the moments over active pairs; over all, by larger products, if most are active."""
        total = resp.sum(-1, dtype=torch.float64) if weight is None else resp @ weight
        self._add("count", total)
        if self._pairs is None:
            component, row = active(resp).nonzero(as_tuple=True)
            if len(row) > _MOST_PAIRS * resp.numel() and not self._far:
                self._accumulate_all(x, resp if weight is None else resp * weight)
                return
            found = (self._gather(x, *chosen) for chosen in _in_parts(x, component, row))
        else:
            found = iter([self._pairs])
        for pairs, z in found:
            r = resp[pairs.component, pairs.row]
            self._accumulate_pairs(pairs, z, r if weight is None else r * weight[pairs.row])

    def _accumulate_pairs(self, pairs: Pairs, z: Tensor, r: Tensor) -> None:
        (k_total, d), h = self.centres.shape, self._rank
        total = self._sum("linear", k_total, h + 1, d)  # lies the long way, as z does
        second = self._buffer("second", (k_total, d)).zero_()
        weighted = z.mul_(r.unsqueeze(-1))
        if self._isotropic:  # only the mean over features is asked for
            length = torch.linalg.vector_norm(pairs.y, dim=-1).square_().mul_(r)
            mean = torch.zeros_like(second[:, 0]).index_add_(0, pairs.component, length) / d
            second += mean.unsqueeze(-1)
        size = max(1, _CACHED // ((h + 1) * d))
        parts = groupby(pairs.each(r, weighted), lambda part: part[0] // size)
        for group, members in parts:  # as many components at a time as the cache holds
            at = group * size
            linear = self._buffer("linear", (min(size, k_total - at), h + 1, d)).zero_()
            for k, (y, own, zr) in members:
                if self._residual.steep[k] and y.dtype != torch.float64:
                    wide = y.double()
                    total[k] += (wide.mT @ zr.double()).mT
                    self._sum("second", k_total, d)[k] += wide.square_().mT @ own.double()
                    second[k] = 0.0
                    continue
                torch.mm(y.mT, zr, out=linear[k - at].mT)
                if not self._isotropic:
                    torch.mv(y.square_().mT, own, out=second[k])
            total[at : at + size] += linear
        self._add("second", second)

    def _accumulate_all(self, x: Tensor, resp: Tensor) -> None:
        found = self.covariance.statistics(x, resp.mT, self.centres)
        assert found.projected is not None
        units = self._units  # the sums are held in units of the noise
        linear = torch.cat([found.projected, found.first.unsqueeze(-1)], -1)
        self._add("linear", (linear * units.unsqueeze(-1)).mT)
        self._add("second", found.second * units.square())

    @property
    def moments(self) -> Moments:
        """The sums about the centres."""
        k, d = self.centres.shape
        h = self._rank
        linear = self._sum("linear", k, h + 1, d).mT
        linear = linear / self._units.unsqueeze(-1)
        second = self._sum("second", k, d) / self._units.square()
        return Moments(self._sum("count", k), linear[..., h], second, linear[..., :h])


def _in_parts(x: Tensor, component: Tensor, row: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Split pairs, so that the memory for their rows does not grow with how many overlap."""
    most = 2 * len(x)
    return list(zip(component.split(most), row.split(most), strict=True))


class _Residual:
    """The Mahalanobis distance as ‖y − W E[z]‖² in units of the noise, plus ‖E[z]‖².

    A sum of squares loses nothing to cancellation once the residual itself has digits; where
    factors dwarf the noise it has not in float32, and float64 is used for that component.
    """

    def __init__(
        self,
        covariance: WoodburyCovariance,
        mean: Tensor,
        V: Tensor,
        R: Tensor,
        units: Tensor,
        dtype: torch.dtype,
    ) -> None:
        scale = units.unsqueeze(-1)
        W = covariance.factors.double() * scale
        noise = covariance.noise.double().unsqueeze(-1) * scale.square()
        signal = (W.square() / noise).sum((-1, -2))
        far = torch.finfo(dtype).eps * (mean.square() / covariance.noise.double()).sum(-1).sqrt()
        self.steep = ((signal > _STEEP * W.shape[-2]) | (far > _FAR)).tolist()
        eye = torch.eye(R.shape[-1], dtype=R.dtype, device=R.device).expand_as(R)
        infer = torch.linalg.solve_triangular(R, eye, upper=False)  # E[z] = R⁻ᵀ Vᵀ y
        self._covariance, self._R = covariance, R
        self.V = (V / scale).mT.contiguous().mT.to(dtype).unbind(0)
        self.units = units.to(dtype).unbind(0)
        self._W_t, self._infer = W.mT.to(dtype).unbind(0), infer.to(dtype).unbind(0)
        self._inverse_noise = noise[:, 0, 0].reciprocal().to(dtype)

    def distance(self, pairs: Pairs, z: Tensor, residual: Tensor) -> Tensor:
        """Return the distance of every pair, (p,); residual (p, D) is scratch."""
        factors = torch.empty_like(z)
        for k, (y, own, mean, left) in pairs.each(z, factors, residual):
            torch.mm(own, self._infer[k], out=mean)
            torch.addmm(y, mean, self._W_t[k], alpha=-1.0, out=left)
        square = torch.linalg.vector_norm(residual, dim=-1).square_()
        square.mul_(self._inverse_noise[pairs.component])
        square += torch.linalg.vector_norm(factors, dim=-1).square_()
        if any(self.steep) and z.dtype != torch.float64:
            for k, (y, target) in pairs.each(square):
                if self.steep[k]:
                    target.copy_(self._in_double(k, y.double()))
        return square

    def _in_double(self, k: int, y: Tensor) -> Tensor:
        noise = self._covariance.noise[k].double()
        scale = torch.ones_like(noise) if len(noise) == 1 else noise.rsqrt()
        W = self._covariance.factors[k].double() * scale.unsqueeze(-1)
        left = 1.0 if len(noise) > 1 else noise  # of the noise, in these units
        mean = torch.cholesky_solve(W.mT @ y.mT / left, self._R[k]).mT
        return ((y - mean @ W.mT).square() / left).sum(-1) + mean.square().sum(-1)
