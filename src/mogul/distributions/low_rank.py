"""Covariances W Wᵀ + diagonal noise: how they start, learn and condition."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, Self

import torch
from torch import Tensor

from mogul.compute.threads import n_workers, spread
from mogul.distributions.covariance import (
    Covariance,
    matched,
    picked,
    raise_to,
    softly_between,
)
from mogul.distributions.kernel import DirectKernel, Kernel, near_zero
from mogul.distributions.linear_algebra import principal_components
from mogul.distributions.low_rank_kernel import LowRankKernel
from mogul.distributions.masked import MaskedMoments, expand, regress
from mogul.distributions.moments import Moments
from mogul.distributions.natural import (
    DiagonalNaturalKernel,
    IsotropicNaturalKernel,
    diagonal_terms,
    origin_costs,
    working_type,
)
from mogul.distributions.shared_kernel import SharedLowRankKernel
from mogul.distributions.woodbury import WoodburyCovariance

_BLOCK_VALUES = 2**20  # of float64, 8 MB: loadings that an M-step works on at a time
_FAR = 1e7  # μ²/ψ above which sums of squares about the origin cost digits in float64
_ROUNDING = 8 * torch.finfo(torch.float64).eps  # of a mean square that is cut to a remainder


class DiagonalPlusLowRank(WoodburyCovariance):
    """W Wᵀ + diag(ψ): loadings (..., C, D, H), noise (..., C, D), or (..., C, 1) if isotropic."""

    @classmethod
    @abstractmethod
    def _tie_noise(cls, noise: Tensor, mass: Tensor) -> Tensor:
        """Impose the family's structure on noise variances (C, D) of counts (C, D) or (C, 1)."""

    @classmethod
    def raw_shapes(cls, n: int, n_features: int, rank: int) -> dict[str, tuple[int, ...]]:
        """Return loadings, if the family has factors, and the logarithm of the noise variances."""
        shapes: dict[str, tuple[int, ...]] = {
            "log_noise": (n, 1 if cls.isotropic_noise else n_features)
        }
        if cls.low_rank:
            shapes["loadings"] = (n, n_features, rank)
        return shapes

    @classmethod
    def from_raw(cls, raw: dict[str, Tensor], n_features: int) -> Self:
        """Return ψ = exp(log_noise) and the loadings."""
        noise = raw["log_noise"].exp()
        empty = noise.new_zeros(*noise.shape[:-1], n_features, 0)
        return cls(raw.get("loadings", empty), noise)

    def to_raw(self) -> dict[str, Tensor]:
        """Return log ψ and the loadings."""
        raw = {"log_noise": self.noise.log()}
        return raw | ({"loadings": self._loadings} if self.low_rank else {})

    @classmethod
    def clamp_raw(cls, raw: dict[str, Tensor], floor: Tensor) -> Tensor:
        """Keep the noise at the floor or above."""
        return raise_to(raw["log_noise"], cls._least(floor).log())

    @classmethod
    def soft_raw(
        cls, raw: dict[str, Tensor], bounds: tuple[float, float], inverse: bool = False
    ) -> dict[str, Tensor]:
        """Keep the noise between the bounds."""
        low, high = (math.log(bound) for bound in bounds)
        return raw | {"log_noise": softly_between(raw["log_noise"], low, high, inverse)}

    def rescaled(self, scale: Tensor) -> Self:
        """Scale the rows of W, and the noise by the square."""
        noise = scale[:1] if self.isotropic_noise else scale
        return type(self)(scale.unsqueeze(-1) * self._loadings, noise.square() * self.noise)

    @classmethod
    def _least(cls, floor: Tensor) -> Tensor:
        """Return the floor of the noise, (D,) or (1,), from that of the features (D,)."""
        return floor.median().reshape(1) if cls.isotropic_noise else floor

    @classmethod
    def from_cluster(cls, x: Tensor, rank: int, floor: Tensor, prior: Tensor, seed: int) -> Self:
        """Principal components of the deviations; what they leave is noise (Tipping & Bishop 1999).

        The noise is shrunk by one observation of the prior variance, so that a cluster of few rows
        does not start as a spike.
        """
        n, d = x.shape
        rank = rank if cls.low_rank else 0
        # Where features have noise of their own, their units must not choose the directions.
        unit = torch.ones_like(prior) if cls.isotropic_noise else prior.sqrt()
        x, floor, prior = x / unit, floor / unit.square(), prior / unit.square()
        directions, eigenvalues = principal_components(x, rank, seed)
        variance = x.square().mean(0)
        rest = (variance.sum() - eigenvalues.sum()).clamp_min(0) / max(d - rank, 1)
        level = ((n * rest + prior.mean()) / (n + 1)).clamp_min(floor.median())
        # A zero loading is a stationary point of EM, so every factor starts with some length.
        lengths = (eigenvalues - level).clamp_min(0.01 * level).sqrt()
        loadings = directions * lengths
        noise = (variance - loadings.square().sum(-1)).clamp_min(0)
        noise = torch.maximum((n * noise + prior) / (n + 1), floor)
        if cls.isotropic_noise:
            noise = level.expand(1)
            return cls(loadings[None], noise[None])
        return cls((unit.unsqueeze(-1) * loadings)[None], (unit.square() * noise)[None])

    @classmethod
    def stack(cls, members: list[Self]) -> Self:
        """Concatenate along C."""
        return cls(
            torch.cat([m._loadings for m in members], dim=-3),
            torch.cat([m.noise for m in members], dim=-2),
        )

    def kernel(self, centres: Tensor, offsets: Tensor, origin: Tensor) -> Kernel:
        """Share what is shared; without factors, squares and rows; else project on V."""
        shared = self.n_covariances == 1
        if self.low_rank and not shared:
            wide = origin_costs(centres, origin, self.noise_variances) and not near_zero(
                centres, origin, self.noise.double()
            )
            make = LowRankKernel.in_double if wide else LowRankKernel
            return make(self, centres, offsets, origin)
        terms = diagonal_terms(self.variances, self.noise_variances, centres)
        work = working_type(terms, centres.dtype, self.n_features)
        if work is None:
            return DirectKernel(self, centres, offsets, origin)
        if shared:
            return SharedLowRankKernel(self, centres, offsets, origin, work)
        chosen = IsotropicNaturalKernel if self.isotropic_noise else DiagonalNaturalKernel
        return chosen(self, centres, offsets, origin, work)

    def sample(self, component: Tensor, noise: bool, generator: torch.Generator) -> Tensor:
        """Draw W z + √ψ ε."""
        W, which = self._loadings, matched(component, self.n_covariances)
        n, d = component.shape[0], self.n_features
        z = torch.empty(n, self.rank, dtype=W.dtype, device=W.device).normal_(generator=generator)
        out = torch.zeros(n, d, dtype=W.dtype, device=W.device)
        if noise:
            out.normal_(generator=generator)
        scale = self.noise_variances.sqrt()
        for c in which.unique().tolist():
            rows = (which == c).nonzero().squeeze(-1)
            out[rows] = out[rows] * scale[c] + z[rows] @ W[c].mT
        return out

    def chosen(self, index: Tensor) -> Self:
        """Pick loadings and noise."""
        return type(self)(picked(self._loadings, index, 2), picked(self.noise, index, 1))

    def draw(self, noise: bool, generator: torch.Generator) -> Tensor:
        """Draw W z + √ψ ε."""
        W = self._loadings
        z = W.new_empty(*W.shape[:-2], self.rank, 1).normal_(generator=generator)
        drawn = (W @ z).squeeze(-1)
        if noise:
            drawn = drawn + self.noise.sqrt() * torch.empty_like(drawn).normal_(generator=generator)
        return drawn

    def reconstruct(self, x: Tensor, resp: Tensor, centres: Tensor) -> Tensor:
        """Return Σ_k r_k (μ_k + W_k R_k⁻ᵀ Vᵀ(x − μ_k)), by one product over all components."""
        V, R = (t.to(x.dtype) for t in self.whitener())
        z = resp.unsqueeze(-1) * self._project(x, centres, V)  # (n, K, H)
        basis = torch.linalg.solve_triangular(R, self._loadings.mT, upper=False)  # (C, H, D)
        basis = basis.expand(len(centres), -1, -1)
        return resp @ centres + z.flatten(1) @ basis.flatten(0, 1)

    def infer_factors(self, x: Tensor, centres: Tensor) -> Tensor:
        """Return E[z | x, k] = R_k⁻ᵀ V_kᵀ (x − μ_k) of rows x (n, D), as (n, K, H)."""
        V, R = self.whitener()
        z = self._project(x.double(), centres.double(), V).unsqueeze(-1)
        return torch.linalg.solve_triangular(R.mT, z, upper=True).squeeze(-1).to(x.dtype)

    def statistics(self, x: Tensor, resp: Tensor, centres: Tensor) -> Moments:
        """Counts, means, squares, and the second moments projected on V, by matrix products."""
        parts = self._split(centres)
        found = [
            (
                which,
                part._statistics(*(t.to(part.noise) for t in (x, resp[:, which], centres[which]))),
            )
            for which, part in parts
        ]
        return found[0][1] if len(found) == 1 else Moments.scatter(found)

    def _statistics(self, x: Tensor, resp: Tensor, centres: Tensor) -> Moments:
        shared = self.n_covariances == 1
        count = resp.sum(0, dtype=torch.float64)
        if x.dtype == torch.float64 and bool((centres.square() / self.noise > _FAR).any()):
            return self._statistics_each(x, resp, centres)
        c, sums = centres.double(), (resp.mT @ x).double()
        squares = (resp.mT @ x.square()).double()
        delicate = self._delicate(centres)
        if bool(delicate.any()):
            part, r = x[:, delicate].double(), resp.double().mT
            sums[:, delicate], squares[:, delicate] = r @ part, r @ part.square()
        about = count[:, None] * c.square()
        # What rounding may hide counts as spread; the next pass, of less noise, sums deviations.
        second = torch.maximum(squares - 2 * c * sums + about, _ROUNDING * about)
        first = sums - count[:, None] * c
        if shared:
            second = second.sum(0, keepdim=True)
        if not self.low_rank:
            return Moments(count, first, second)
        V = self.whitener()[0].to(x.dtype)
        weighted = resp.unsqueeze(-1) * self._project(x, centres, V)  # (n, K, H)
        summed = weighted.sum(0, dtype=torch.float64)
        if shared:
            projected = (x.mT @ weighted.sum(1)).double() - c.mT @ summed
            return Moments(count, first, second, projected[None])
        joint = (x.mT @ weighted.flatten(1)).double().unflatten(-1, weighted.shape[1:])
        return Moments(
            count, first, second, joint.movedim(1, 0) - c.unsqueeze(-1) * summed.unsqueeze(-2)
        )

    def _statistics_each(self, x: Tensor, resp: Tensor, centres: Tensor) -> Moments:
        """Sum deviations from one centre after another, which cannot cancel."""
        k_total, d = centres.shape
        V = self.whitener()[0].expand(k_total, d, -1)
        first, second = (torch.zeros_like(centres) for _ in range(2))
        projected = torch.zeros_like(V)
        for k in range(k_total):
            y, r = x - centres[k], resp[:, k, None]
            first[k], second[k] = (r * y).sum(0), (r * y.square()).sum(0)
            projected[k] = y.mT @ (r * (y @ V[k]))
        if self.n_covariances == 1:
            second, projected = (t.sum(0, keepdim=True) for t in (second, projected))
        return Moments(resp.sum(0), first, second, projected if self.low_rank else None)

    def moments_of(self, count: Tensor, first: Tensor, scatter: Tensor) -> Moments:
        """The diagonal, and the product with V."""
        projected = scatter @ self.whitener()[0] if self.low_rank else None
        return Moments(count, first, scatter.diagonal(dim1=-2, dim2=-1), projected)

    def maximise(
        self, moments: Moments | MaskedMoments, floor: Tensor, learn: bool = True
    ) -> tuple[Tensor, Self, Tensor]:
        r"""One exact M-step given the responsibilities, with parameter expansion.

        With $S$ the scatter about the new mean and $\beta = M^{-1}W^\top\Psi^{-1}$, the expected
        complete-data moments are $C_{xz} = S\beta^\top$ and $C_{zz} = M^{-1} + \beta C_{xz}$; then
        $W^* = C_{xz}C_{zz}^{-1}$, $\psi = \mathrm{diag}(S - W^*C_{xz}^\top)$ and, by parameter
        expansion, $W = W^*\,\mathrm{chol}(C_{zz})$ (Rubin & Thayer 1982; Liu, Rubin & Wu 1998).
        Components without data keep their covariance.
        """
        if isinstance(moments, MaskedMoments):
            return self._maximise_masked(moments, floor, learn)
        if not learn:
            return moments.shift, self, moments.mass < 0
        n_together = max(1, _BLOCK_VALUES // max(1, self._loadings[0].numel()))
        if self.n_covariances == 1 or n_together >= self.n_covariances:
            return self._maximise(moments, floor)
        blocks = torch.arange(self.n_covariances, device=floor.device).split(n_together)
        parts: list[Any] = [None] * len(blocks)

        def work(item: tuple[int, Tensor]) -> None:
            number, some = item
            parts[number] = self._subset(some)._maximise(moments.take(some), floor)

        spread(enumerate(blocks), [work] * min(n_workers(floor.device), len(blocks)))
        shifts, covariances, met = zip(*parts, strict=True)
        return torch.cat(shifts), self.stack(list(covariances)), torch.cat(met)

    def _maximise(self, moments: Moments, floor: Tensor) -> tuple[Tensor, Self, Tensor]:
        delta, n = moments.shift, moments.mass[:, None].clamp_min(1e-300)
        mass = moments.count[:, None]
        diagonal = (moments.second - moments.pool(mass * delta.square())) / n
        loadings = self._loadings.double()
        if moments.projected is not None:
            V, R = self.whitener()
            correction = mass.unsqueeze(-1) * delta.unsqueeze(-1) * (delta.unsqueeze(-2) @ V)
            SV = (moments.projected - moments.pool(correction)) / n.unsqueeze(-1)
            eye = torch.eye(self.rank, dtype=R.dtype, device=R.device).expand_as(R)
            R_inv = torch.linalg.solve_triangular(R, eye, upper=False)
            C_xz = SV @ R_inv
            inner = V.mT @ SV
            C_zz = R_inv.mT @ (eye + 0.5 * (inner + inner.mT)) @ R_inv
            C_zz_chol = torch.linalg.cholesky(C_zz)
            W_star = torch.cholesky_solve(C_xz.mT, C_zz_chol).mT
            diagonal = diagonal - (W_star * C_xz).sum(-1)
            loadings = W_star @ C_zz_chol
        lost = _ROUNDING * moments.second / n
        return delta, *self._floored(loadings, diagonal, moments.mass[:, None], floor, lost)

    def _maximise_masked(
        self, moments: MaskedMoments, floor: Tensor, learn: bool
    ) -> tuple[Tensor, Self, Tensor]:
        """The M-step from partly observed rows; see `masked`."""
        found = regress(moments, self._loadings, learn)
        shift, loadings = expand(found, moments)
        if not learn:
            return shift, self, moments.count[: self.n_covariances] < 0
        mass = found.mass.clamp_min(1e-300)
        square = moments.square
        if len(square) != self.n_covariances:
            square = square.sum(0, keepdim=True)
        lost = _ROUNDING * square / mass
        return shift, *self._floored(loadings, found.residual / mass, found.mass, floor, lost)

    def _floored(
        self, loadings: Tensor, noise: Tensor, mass: Tensor, floor: Tensor, lost: Tensor
    ) -> tuple[Self, Tensor]:
        """Return new covariances with noise (C, D) tied and no lower than the floor, and where.

        Nor is it lower than what rounding has lost of it (C, D): where centres move far, it is the
        small difference of large squares. Where the mass (C, D) or (C, 1) is zero the old values
        stay.
        """
        noise, lost = self._tie_noise(noise, mass), self._tie_noise(lost, mass)
        seen = mass.amax(-1, keepdim=True) if self.isotropic_noise else mass
        least = torch.maximum(self._least(floor).double(), lost)
        met = ((noise < least) & (seen > 0)).any(-1)
        noise = torch.where(seen > 0, torch.maximum(noise, least), self.noise.double())
        if not bool((mass > 0).all()):
            kept = self._loadings.double()
            loadings = torch.where(mass.unsqueeze(-1) > 0, loadings, kept)
        dtype = self.noise.dtype
        return type(self)(loadings.to(dtype), noise.to(dtype)), met

    def cloud(
        self, mass: Tensor, offset: Tensor, variance: Tensor, gaps: bool
    ) -> Moments | MaskedMoments:
        """Squares m (v + δ²), and their products with V or with the inferred factors."""
        m, off, v = mass.double(), offset.double(), variance.double()
        V, R = self.whitener()
        pooled = self.n_covariances == 1
        scale = m.unsqueeze(-1)
        square = scale * (v + off.square())
        along = (off.unsqueeze(-2) @ V).squeeze(-2)  # Vᵀδ, (K, H)
        if not gaps:
            projected = scale.unsqueeze(-1) * (
                v.unsqueeze(-1) * V + off.unsqueeze(-1) * along.unsqueeze(-2)
            )
            if pooled:
                square, projected = square.sum(0, keepdim=True), projected.sum(0, keepdim=True)
            return Moments(m, scale * off, square, projected if self.low_rank else None)
        d, h = off.shape[-1], self.rank
        eye = torch.eye(h, dtype=V.dtype, device=V.device)
        R_inv = torch.linalg.solve_triangular(R, eye.expand_as(R), upper=False)
        beta = (V @ R_inv).expand(len(off), -1, -1)  # E[z] = βᵀδ
        z = (along.unsqueeze(-2) @ R_inv).squeeze(-2)
        zz = (
            R_inv.mT @ R_inv
            + beta.mT @ (v.unsqueeze(-1) * beta)
            + z.unsqueeze(-1) * z.unsqueeze(-2)
        )
        weight = scale.unsqueeze(-1)
        product = weight * (v.unsqueeze(-1) * beta + off.unsqueeze(-1) * z.unsqueeze(-2))
        found = MaskedMoments(
            count=m,
            seen=scale.expand(-1, d),
            value=scale * off,
            square=square,
            factor=(scale * z).unsqueeze(-2).expand(-1, d, -1),
            product=product,
            gram=(weight * zz).unsqueeze(-3).expand(-1, d, -1, -1),
            factor_mean=scale * z,
            factor_gram=weight * zz,
        )
        return found.summed if pooled else found

    def marginal(self, features: Tensor) -> Self:
        """Keep the rows of the features."""
        noise = self.noise if self.isotropic_noise else self.noise[..., features]
        return type(self)(self._loadings[..., features, :], noise)

    def condition(
        self, observed: Tensor, hidden: Tensor, x: Tensor, centres: Tensor
    ) -> tuple[Tensor, Tensor, Covariance]:
        """Infer the factors from what is observed; their posterior spreads the hidden features."""
        seen, unseen = self.marginal(observed), self.marginal(hidden)
        centres_a = centres[..., observed]
        V, R = (t.to(x.dtype) for t in seen.whitener())
        z = seen._project(x, centres_a, V)  # (..., n, K, H), whitened: E[z|x] = R⁻ᵀ z
        spread = torch.linalg.solve_triangular(R, unseen._loadings.mT, upper=False).mT
        # R⁻¹ W_hᵀ has rows in the basis in which the posterior of the factors is N(z, I).
        every = spread.expand(*spread.shape[:-3], centres.shape[-2], -1, -1)
        means = centres[..., hidden].unsqueeze(-3)
        means = means + torch.einsum("...nkh,...kdh->...nkd", z, every)
        return seen.log_prob(x, centres_a), means, type(self)(spread, unseen.noise)

    @classmethod
    def n_parameters(cls, n_features: int, rank: int) -> int:
        """DH − H(H−1)/2 loadings (rotations do not count) and the noise variances."""
        factors = n_features * rank - rank * (rank - 1) // 2 if cls.low_rank else 0
        return factors + (1 if cls.isotropic_noise else n_features)
