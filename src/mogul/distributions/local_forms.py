r"""Log-densities near a component, under it and under others, as batched products.

A tile holds rows of a few components, as deviations $y = x - \mu_c$ from each one's centre. Under
another component $j$, with $\delta = \mu_j - \mu_c$ and precision $A_j$, the Mahalanobis distance
is $(y - \delta)^\top A_j (y - \delta)$. Neighbours lie near, so that expanding this about the own
centre loses few digits; under the component itself it is worked out without cancellation.

Shapes: T components of a tile, R rows of each, G components to score them under. Products lie the
long way, components before rows: thin ones are then up to three times as fast.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mogul.distributions.linear_algebra import cholesky, in_blocks, inverted
from mogul.distributions.natural import tolerance
from mogul.distributions.tiles import Workspace

if TYPE_CHECKING:
    from mogul.distributions.covariance import Covariance
    from mogul.distributions.woodbury import WoodburyCovariance

_BLOCK_VALUES = 2**18  # of noise variances prepared at a time
_STEEP = 100.0  # tr(WᵀΨ⁻¹W)/D from which float32 would lose the residual
_CANCELLED = 32.0  # times that squares exceed their difference where its digits are in doubt
_COLLINEAR = 1e3  # variance inflation from which on float32 products would cost digits


class LocalForm(ABC):
    """Precisions of K components, prepared for tiles.

    `delicate` (C,) marks those whose own distances and moments need float64; tiles of these come in
    float64.
    """

    delicate: Tensor
    log_det: Tensor

    @property
    @abstractmethod
    def table_values(self) -> int:
        """How many values are gathered for each component that a tile is scored under."""

    @abstractmethod
    def distances(self, y: Tensor, component: Tensor, others: Tensor, space: Workspace) -> Tensor:
        """Return distances (T, G, R) of deviations (T, R, D) under others (T, G).

        The first of the others is the component itself, and the distance under it is accurate.
        """

    @abstractmethod
    def own(self, y: Tensor, component: Tensor, space: Workspace) -> Tensor:
        """Return accurate distances (T, R) under the component itself."""

    @abstractmethod
    def sum_shapes(self, k: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the sums of k components, by name."""

    @abstractmethod
    def sums(
        self, y: Tensor, mass: Tensor, component: Tensor, space: Workspace
    ) -> dict[str, Tensor]:
        """Return moments (T, ...) of deviations (T, R, D) with masses (T, R), by name."""


class LowRankForm(LocalForm):
    """A = Ψ⁻¹ − V Vᵀ, see `woodbury`; without factors, A = Ψ⁻¹."""

    def __init__(self, covariance: WoodburyCovariance, centres: Tensor) -> None:
        """Work out V and R in float64, and hold the tables in the type of the centres."""
        self._covariance, self._centres = covariance, centres
        self._isotropic = covariance.noise.shape[-1] == 1
        self.rank = covariance.rank
        shape = (len(centres), self.rank + 1, centres.shape[1])
        self._table = torch.empty(shape, dtype=centres.dtype, device=centres.device)
        self._table[:, -1] = centres
        found = in_blocks(
            partial(_prepared, centres.dtype), covariance.noise, covariance.factors,
            values=_BLOCK_VALUES,
        )  # fmt: skip
        self._precision, basis, self._infer, self.log_det, signal = found
        self._table[:, :-1] = basis  # Vᵀ, and the centre behind it
        if self._isotropic:
            self.log_det = (
                self.log_det + (centres.shape[1] - 1) * covariance.noise[:, 0].double().log()
            )
        steep = signal > _STEEP * centres.shape[-1]
        self.delicate = steep & (centres.dtype != torch.float64)

    @property
    def table_values(self) -> int:
        """V, the centre and the noise."""
        return (self.rank + 2) * self._centres.shape[-1]

    def distances(self, y: Tensor, component: Tensor, others: Tensor, space: Workspace) -> Tensor:
        """Σ (y − δ)²/ψ − ‖Vᵀ(y − δ)‖², all products of a tile at once."""
        (t, r, d), g, h = y.shape, others.shape[1], self.rank
        table = space.taken("table", self._table, others).to(y.dtype)
        precision = space.taken("precision", self._precision, others).to(y.dtype)
        basis, offset = table[:, :, :h], table[:, :, h]
        offset -= self._centres[component].unsqueeze(1)
        shift = basis @ offset.unsqueeze(-1)  # (T, G, H, 1)
        linear = torch.mul(offset, precision, out=space.empty("linear", offset.shape, y))
        size = torch.linalg.vecdot(linear, offset).unsqueeze(-1)
        table[:, :, h] = linear  # so that one product does for both
        products = space.empty("products", (t, g * (h + 1), r), y)
        torch.bmm(table.view(t, g * (h + 1), d), y.mT, out=products)
        products = products.view(t, g, h + 1, r)
        out = self._squares(y, precision, space)
        square = out[:, 0].clone()
        out.sub_(products[:, :, h], alpha=2.0).add_(size)
        if h:
            out -= products[:, :, :h].sub_(shift).square_().sum(-2)
            out[:, 0] = self._refined(out[:, 0], square, y, component)
        return out

    def _squares(self, y: Tensor, precision: Tensor, space: Workspace) -> Tensor:
        """Return Σ y²/ψ for precisions (T, G, D) or (T, G, 1), as (T, G, R)."""
        if self._isotropic:
            square = torch.linalg.vector_norm(y, dim=-1).square_()
            return square.unsqueeze(1) * precision
        squared = torch.mul(y, y, out=space.empty("squared", y.shape, y))
        out = space.empty("squares", (*precision.shape[:2], y.shape[1]), y)
        return torch.bmm(precision, squared.mT, out=out)

    def own(self, y: Tensor, component: Tensor, space: Workspace) -> Tensor:
        """Σ y²/ψ − ‖Vᵀy‖², without cancellation."""
        precision = self._precision[component].unsqueeze(1).to(y.dtype)
        square = self._squares(y, precision, space).squeeze(1)
        if not self.rank:
            return square
        factors = self._basis_of(component, y.dtype) @ y.mT
        return self._refined(square - factors.square_().sum(1), square, y, component)

    def _refined(self, distance: Tensor, square: Tensor, y: Tensor, component: Tensor) -> Tensor:
        """Return distances (T, R) that are differences of squares, again where digits were lost.

        Then as ‖y − W E[z]‖² in units of the noise, plus ‖E[z]‖²: squares that cannot cancel.
        """
        dtype = self._table.dtype
        least = tolerance(dtype, y.shape[-1]) / (0.25 * torch.finfo(dtype).eps)
        lost = (square > least) & (square > _CANCELLED * distance)
        t, r = lost.nonzero(as_tuple=True)
        if not len(t):
            return distance
        some, rows = component[t], y[t, r].unsqueeze(1)  # (m, 1, D)
        basis, noise = self._basis_of(some, y.dtype), self._covariance.noise[some].to(y.dtype)
        z = rows @ basis.mT
        residual = (rows - z @ basis * noise.unsqueeze(1)).squeeze(1)
        factors = (z @ self._infer[some].to(y.dtype)).squeeze(1)
        distance = distance.clone()
        distance[t, r] = (residual.square_() / noise).sum(-1) + factors.square_().sum(-1)
        return distance

    def _basis_of(self, component: Tensor, dtype: torch.dtype) -> Tensor:
        """Return Vᵀ (T, H, D), from float64 where that is asked for."""
        if dtype == self._table.dtype:
            return self._table[component][:, :-1]
        W = self._covariance.factors[component].double()
        scaled = W.mT / self._covariance.noise[component].double().unsqueeze(1)
        return self._infer[component] @ scaled  # R⁻¹ WᵀΨ⁻¹

    def sum_shapes(self, k: int) -> dict[str, tuple[int, ...]]:
        """Of means, squares, and products with Vᵀy, where there are factors."""
        d, h = self._centres.shape[-1], self.rank
        shapes: dict[str, tuple[int, ...]] = {"count": (k,), "first": (k, d), "second": (k, d)}
        return shapes | ({"projected": (k, h, d)} if h else {})

    def sums(
        self, y: Tensor, mass: Tensor, component: Tensor, space: Workspace
    ) -> dict[str, Tensor]:
        """Means, squares, and products with Vᵀy."""
        squared = torch.mul(y, y, out=space.empty("squared", y.shape, y))
        weight = mass.unsqueeze(1)
        found = {"count": mass.sum(-1), "second": (weight @ squared).squeeze(1)}
        if not self.rank:
            return found | {"first": (weight @ y).squeeze(1)}
        z = space.empty("weighted", (len(y), self.rank + 1, y.shape[1]), y)
        z[:, -1] = 1.0
        z[:, :-1] = self._basis_of(component, y.dtype) @ y.mT
        linear = z.mul_(weight) @ y
        return found | {"first": linear[:, -1], "projected": linear[:, :-1]}


def _prepared(dtype: torch.dtype, psi: Tensor, W: Tensor) -> tuple[Tensor, ...]:
    """Return 1/ψ (C, D), Vᵀ (C, H, D), R⁻¹ (C, H, H), log|Ψ| + log|M| and tr(WᵀΨ⁻¹W), (C,).

    The first two in a type, the others in float64. Of ψ (C, 1), log|Ψ| is that of one feature.
    """
    psi, W = psi.double(), W.double().mT
    precision, log_det = psi.reciprocal(), psi.log().sum(-1)
    scaled = W * precision.unsqueeze(1)
    inner = W @ scaled.mT
    eye = torch.eye(W.shape[1], dtype=W.dtype, device=W.device)
    R = cholesky(eye + inner)
    infer = torch.linalg.solve_triangular(R, eye.expand_as(R), upper=False)
    log_det = log_det + 2 * R.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    signal = inner.diagonal(dim1=-2, dim2=-1).sum(-1)
    return precision.to(dtype), (infer @ scaled).to(dtype), infer, log_det, signal


class DenseForm(LocalForm):
    """A = L⁻ᵀL⁻¹: rows are whitened."""

    def __init__(self, tril: Tensor, centres: Tensor) -> None:
        """Invert Cholesky factors (C, D, D) in float64."""
        self._tril, self._centres = tril, centres
        self._inverse, inflation = in_blocks(inverted, tril)
        self.log_det = 2 * tril.diagonal(dim1=-2, dim2=-1).double().log().sum(-1)
        self.delicate = inflation > _COLLINEAR
        if tril.dtype == torch.float64:
            self.delicate = torch.zeros_like(self.delicate)

    @property
    def table_values(self) -> int:
        """L⁻¹ and the centre."""
        d = self._centres.shape[-1]
        return d * (d + 1)

    def distances(self, y: Tensor, component: Tensor, others: Tensor, space: Workspace) -> Tensor:
        """‖L⁻¹y − L⁻¹δ‖²."""
        (t, r, d), g = y.shape, others.shape[1]
        offset = space.taken("offset", self._centres, others)
        offset = offset.sub_(self._centres[component].unsqueeze(1)).to(y.dtype)
        whiten = space.taken("whiten", self._inverse, others).to(y.dtype)
        shift = whiten.view(t * g, d, d) @ offset.view(t * g, d, 1)
        white = space.empty("white", (t, g * d, r), y)
        torch.bmm(whiten.view(t, g * d, d), y.mT, out=white)
        out = white.sub_(shift.view(t, g * d, 1)).square_().view(t, g, d, r).sum(-2)
        if y.dtype != self._inverse.dtype:
            out[:, 0] = self.own(y, component, space)
        return out

    def own(self, y: Tensor, component: Tensor, space: Workspace) -> Tensor:
        """‖L⁻¹y‖²."""
        if y.dtype == self._inverse.dtype:
            white = y @ self._inverse[component].mT
        else:
            tril = self._tril[component].double()
            white = torch.linalg.solve_triangular(tril, y.mT, upper=False).mT
        return white.square_().sum(-1)

    def sum_shapes(self, k: int) -> dict[str, tuple[int, ...]]:
        """Of means and products."""
        d = self._centres.shape[-1]
        return {"count": (k,), "first": (k, d), "second": (k, d, d)}

    def sums(
        self, y: Tensor, mass: Tensor, component: Tensor, space: Workspace
    ) -> dict[str, Tensor]:
        """Means and products, taken about the mean of the tile, so that a move costs no digits."""
        count, weight = mass.sum(-1).double(), mass.unsqueeze(1)
        mean = (weight @ y) / mass.sum(-1).clamp_min(1e-30)[:, None, None]
        about = torch.sub(y, mean, out=space.empty("about", y.shape, y))
        heavy = torch.mul(about, mass.unsqueeze(-1), out=space.empty("heavy", y.shape, y))
        second, left = (heavy.mT @ about).double(), heavy.sum(1).double()
        m = mean.squeeze(1).double()
        cross = left.unsqueeze(-1) * m.unsqueeze(1)
        outer = count[:, None, None] * m.unsqueeze(-1) * m.unsqueeze(1)
        first = left + count.unsqueeze(-1) * m
        return {"count": count, "first": first, "second": second + cross + cross.mT + outer}


class SharedForm(LocalForm):
    """One precision A for all: yᵀAy is common, and yᵀAδ tells the components apart."""

    def __init__(self, base: LocalForm, covariance: Covariance, centres: Tensor) -> None:
        """Work out Aμ in float64."""
        self._base, self._centres = base, centres
        a, left, right = (part[0] for part in covariance.precision_parts())
        wide = centres.double()
        self._scaled = (wide * a + (wide @ right) @ left.mT).to(centres.dtype)
        self.delicate = base.delicate.expand(len(centres))
        self.log_det = base.log_det

    @property
    def table_values(self) -> int:
        """The centre, and A times it."""
        return 2 * self._centres.shape[-1]

    def distances(self, y: Tensor, component: Tensor, others: Tensor, space: Workspace) -> Tensor:
        """yᵀAy − 2 yᵀAδ + δᵀAδ."""
        offset = space.taken("offset", self._centres, others)
        offset = offset.sub_(self._centres[component].unsqueeze(1)).to(y.dtype)
        scaled = space.taken("scaled", self._scaled, others)
        scaled = scaled.sub_(self._scaled[component].unsqueeze(1)).to(y.dtype)
        out = torch.bmm(scaled, y.mT).mul_(-2.0)
        out += offset.mul_(scaled).sum(-1).unsqueeze(-1)
        return out.add_(self.own(y, component, space).unsqueeze(1))

    def own(self, y: Tensor, component: Tensor, space: Workspace) -> Tensor:
        """yᵀAy of all rows at once."""
        only = torch.zeros(1, dtype=torch.long, device=y.device)
        return self._base.own(y.reshape(1, -1, y.shape[-1]), only, space).view(y.shape[:2])

    def sum_shapes(self, k: int) -> dict[str, tuple[int, ...]]:
        """Means of each component, and one second moment."""
        return self._base.sum_shapes(1) | {
            "count": (k,),
            "first": (k, self._centres.shape[-1]),
        }

    def sums(
        self, y: Tensor, mass: Tensor, component: Tensor, space: Workspace
    ) -> dict[str, Tensor]:
        """Means of each component; second moments of all rows together."""
        first = (mass.unsqueeze(1) @ y).squeeze(1)
        only = torch.zeros(1, dtype=torch.long, device=y.device)
        all_rows = y.reshape(1, -1, y.shape[-1]), mass.reshape(1, -1)
        found = self._base.sums(*all_rows, only, space)
        return found | {"count": mass.sum(-1), "first": first}


def constants(form: LocalForm, offsets: Tensor, n_features: int) -> Tensor:
    """Return what a component's log-joint has beside its distance, (K,) in float64."""
    return offsets.double() - 0.5 * (form.log_det + n_features * math.log(2 * math.pi))
