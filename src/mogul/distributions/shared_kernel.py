"""Scores and moments under one covariance that all components share.

The square of x is then common to all: log N(x; k) = xᵀΣ⁻¹μ_k − ½ xᵀΣ⁻¹x + const, so that a thin
product tells components apart, and the second moment needs no responsibilities.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mogul.distributions.kernel import Kernel
from mogul.distributions.moments import Moments

if TYPE_CHECKING:
    from mogul.distributions.covariance import Covariance
    from mogul.distributions.woodbury import WoodburyCovariance


class SharedKernel(Kernel):
    """One covariance: x·(Σ⁻¹μ_k) for all components, and one quadratic form of each row."""

    def __init__(
        self,
        covariance: Covariance,
        centres: Tensor,
        offsets: Tensor,
        origin: Tensor,
        work: torch.dtype,
    ) -> None:
        """Prepare Σ⁻¹μ in float64, and hold it in the working type."""
        super().__init__(covariance, centres, offsets, origin, work)
        self._prepare()
        linear = self._solve(centres.double())
        quadratic = (linear * centres.double()).sum(-1)
        const = self.covariance.log_det() + centres.shape[-1] * math.log(2 * math.pi)
        self._linear = linear.to(work)
        self._const = (offsets.double() - 0.5 * (quadratic + const)).unsqueeze(-1).to(work)

    def _moment_values(self) -> int:
        k, d = self.centres.shape
        return (k + d) * d

    @abstractmethod
    def _prepare(self) -> None:
        """Prepare what `_solve`, `_quadratic` and `_add_second` need."""

    @abstractmethod
    def _solve(self, rows: Tensor) -> Tensor:
        """Return Σ⁻¹ times each of the rows (m, D), in float64."""

    @abstractmethod
    def _quadratic(self, x: Tensor) -> Tensor:
        """Return xᵀΣ⁻¹x of rows (n, D), as (n,)."""

    @abstractmethod
    def _add_second(self, x: Tensor, mass: Tensor) -> None:
        """Add second moments about the origin of rows (n, D) that weigh mass (n,)."""

    def joint(self, x: Tensor) -> Tensor:
        """A thin product, and what is common to all components."""
        out = self._buffer("joint", (len(self._linear), len(x)), self.work)
        torch.mm(self._linear, x.mT, out=out)
        return out.add_(self._const).sub_(self._quadratic(x).mul_(0.5))

    def accumulate(self, x: Tensor, resp: Tensor, weight: Tensor | None) -> None:
        """A thin product for the means, and second moments without regard to components."""
        resp = resp if weight is None else resp.mul_(weight)
        self._add("count", resp.sum(-1, dtype=torch.float64))
        self._add("first", resp @ x)
        self._add_second(x, resp.sum(0))

    def _about_centres(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return counts, first moments about the origin and about the centres, and centres."""
        k, d = self.centres.shape
        count, sums, centres = (
            self._sum("count", k),
            self._sum("first", k, d),
            self.centres.double(),
        )
        return count, sums, sums - count.unsqueeze(-1) * centres, centres


class SharedFullKernel(SharedKernel):
    """A shared full covariance: rows are whitened once."""

    def _prepare(self) -> None:
        self._tril = self.covariance.tril()[0].double()
        eye = torch.eye(len(self._tril), dtype=torch.float64, device=self._tril.device)
        self._whiten = torch.linalg.solve_triangular(self._tril, eye, upper=False).mT.to(self.work)

    def _solve(self, rows: Tensor) -> Tensor:
        return torch.cholesky_solve(rows.mT, self._tril).mT

    def _quadratic(self, x: Tensor) -> Tensor:
        white = torch.mm(x, self._whiten, out=self._buffer("white", tuple(x.shape), self.work))
        return white.square_().sum(-1)

    def _add_second(self, x: Tensor, mass: Tensor) -> None:
        weighted = torch.mul(x, mass[:, None], out=self._buffer("white", tuple(x.shape), self.work))
        self._add("second", weighted.mT @ x)

    @property
    def moments(self) -> Moments:
        """Move the sums from the origin to the centres."""
        count, sums, first, centres = self._about_centres()
        d = centres.shape[-1]
        cross = sums.mT @ centres
        outer = centres.mT @ (count.unsqueeze(-1) * centres)
        second = self._sum("second", d, d) - cross - cross.mT + outer
        return Moments(count, first, second[None])


class SharedLowRankKernel(SharedKernel):
    """A shared W Wᵀ + diag(ψ): rows are projected once on V = Ψ⁻¹ W R⁻ᵀ."""

    covariance: WoodburyCovariance

    def _prepare(self) -> None:
        self._V = self.covariance.whitener()[0][0]
        self._precision = self.covariance.noise_variances[0].double().reciprocal()
        self._basis, self._weight = self._V.to(self.work), self._precision.to(self.work)

    def _solve(self, rows: Tensor) -> Tensor:
        return rows * self._precision - (rows @ self._V) @ self._V.mT

    def _quadratic(self, x: Tensor) -> Tensor:
        self._squares = torch.mul(x, x, out=self._buffer("squares", tuple(x.shape), self.work))
        self._factors = x @ self._basis
        return self._squares @ self._weight - self._factors.square().sum(-1)

    def _add_second(self, x: Tensor, mass: Tensor) -> None:
        self._add("second", mass @ self._squares)
        self._add("projected", x.mT @ (mass.unsqueeze(-1) * self._factors))

    @property
    def moments(self) -> Moments:
        """Move the sums from the origin to the centres."""
        count, sums, first, centres = self._about_centres()
        d, h = self._V.shape
        squares = (centres * (count.unsqueeze(-1) * centres - 2 * sums)).sum(0)
        second = (self._sum("second", d) + squares)[None]
        if h == 0:
            return Moments(count, first, second)
        cross = sums.mT @ (centres @ self._V) + centres.mT @ (first @ self._V)
        return Moments(count, first, second, (self._sum("projected", d, h) - cross)[None])
