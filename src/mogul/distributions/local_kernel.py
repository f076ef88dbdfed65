"""Scores and moments of chosen (component, row) pairs, tile by tile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mogul.compute.backend import in_full_precision
from mogul.distributions.kernel import near_zero
from mogul.distributions.local_forms import SharedForm, constants
from mogul.distributions.moments import Moments
from mogul.distributions.tiles import Tile, Workspace, tiles

if TYPE_CHECKING:
    from mogul.distributions.covariance import Covariance

_TILE_VALUES = 2**21  # of rows, 8 MB in float32, so that a tile stays in the cores' common cache
_TABLE_VALUES = 2**21  # gathered for the components of a tile
_ON_GPU = 64  # times as much of each


class LocalKernel:
    """An E-step that looks at chosen pairs alone.

    Where `Kernel` scores every row under every component, this one is told which: a row's
    candidates and their neighbours. Every component's work is one matrix product over its rows.

    Args:
        covariance: covariances of the components, C = K or 1.
        centres: (K, D), measured from the origin.
        offsets: what is added to each component's log-density, (K,): its log-weight.
        origin: reference point of the rows, (D,).
    """

    def __init__(
        self, covariance: Covariance, centres: Tensor, offsets: Tensor, origin: Tensor
    ) -> None:
        """Prepare the tables."""
        noise = covariance.residual_variances
        near = bool(origin.any()) and near_zero(centres, origin, noise)
        self._exact = centres.double()
        if near:  # spares a copy of the rows
            self._exact = self._exact + origin.double()
        self._origin = None if near or not bool(origin.any()) else origin
        self._centres = self._exact.to(centres.dtype)
        form = covariance.local_form(self._centres)
        shared = covariance.n_covariances < len(centres)
        self._form = SharedForm(form, covariance, self._centres) if shared else form
        self.offsets = offsets
        self._delicate = self._form.delicate.expand(len(centres))
        self._const = constants(form, offsets, centres.shape[-1])
        shapes = self._form.sum_shapes(len(centres))
        kind: Any = {"dtype": torch.float64, "device": centres.device}
        self._space = Workspace()
        self._sums = {name: torch.zeros(shape, **kind) for name, shape in shapes.items()}

    @property
    def centres(self) -> Tensor:
        """Centres about the reference point of the rows, (K, D)."""
        return self._centres

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the rows."""
        return self._centres.dtype

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._centres.device

    def reuse(self, other: LocalKernel) -> None:
        """Take over the memory of an earlier kernel of the model, whose moments nobody needs."""
        self._space = other._space
        for name, total in other._sums.items():
            if total.shape == self._sums[name].shape:
                self._sums[name] = total.zero_()

    def centred(self, x: Tensor) -> Tensor:
        """Return rows (n, D) about the reference point that all methods take them from."""
        return x if self._origin is None else x - self._origin

    @torch.no_grad()
    @in_full_precision
    def search(self, x: Tensor, held: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """Score rows under their candidates, and under those to be looked at with these.

        Args:
            x: rows as `centred` returns them, (n, D).
            held: candidates of each row, (n, C).
            others: what rows look at that hold a component, itself first, (K, G).

        Returns:
            log-joints of the candidates, (n, C), accurate; and of the others, (n, C, G), to the
            digits that a search needs.
        """
        n, width = held.shape
        g = others.shape[1]
        found = x.new_empty(n * width + 1, g)  # the last takes what tiles are padded with
        row = torch.arange(n, device=x.device).repeat_interleave(width)
        for tile, y in self._tiles(x, held.flatten(), row, g * self._form.table_values):
            which = others[tile.component]
            distance = self._form.distances(y, tile.component, which, self._space)
            const = self._const[which].unsqueeze(-1).to(x.dtype)
            score = distance.mul_(-0.5).to(x.dtype).add_(const)
            found.index_copy_(0, tile.pair.flatten(), score.mT.flatten(0, 1))
        scores = found[:-1].view(n, width, g)
        return scores[..., 0].clone(), scores

    @torch.no_grad()
    @in_full_precision
    def score(self, x: Tensor, component: Tensor, row: Tensor) -> Tensor:
        """Return accurate log-joints (p,) of pairs (p,) of rows as `centred` returns them."""
        found = x.new_empty(len(row) + 1)
        const = self._const.to(x.dtype)

        for tile, y in self._tiles(x, component, row, self._form.table_values):
            distance = self._form.own(y, tile.component, self._space)
            score = distance.mul_(-0.5).to(x.dtype).add_(const[tile.component].unsqueeze(-1))
            found.index_copy_(0, tile.pair.flatten(), score.flatten())
        return found[:-1]

    @torch.no_grad()
    @in_full_precision
    def add(self, x: Tensor, component: Tensor, row: Tensor, mass: Tensor) -> None:
        """Add the moments of pairs (p,) with masses (p,)."""
        padded = torch.cat([mass, mass.new_zeros(1)])

        for tile, y in self._tiles(x, component, row, self._form.table_values):
            weight = padded[tile.pair].to(y.dtype)
            for name, value in self._form.sums(y, weight, tile.component, self._space).items():
                total = self._sums[name]
                own = len(total) == len(self._centres)  # otherwise of all components together
                which = tile.component if own else torch.zeros_like(tile.component[:1])
                total.index_add_(0, which, value.double())

    @property
    def moments(self) -> Moments:
        """The moments of all pairs added, about the centres."""
        projected = self._sums.get("projected")
        return Moments(
            self._sums["count"],
            self._sums["first"],
            self._sums["second"],
            None if projected is None else projected.mT,
        )

    def _tiles(
        self, x: Tensor, component: Tensor, row: Tensor, table_values: int
    ) -> Iterator[tuple[Tile, Tensor]]:
        """Yield all tiles of pairs, with deviations of their rows (T, R, D)."""
        more = _ON_GPU if x.is_cuda else 1
        rows = max(16, _TILE_VALUES // x.shape[1]) * more
        wide = max(1, _TABLE_VALUES // table_values) * more
        for tile, delicate in tiles(component, row, self._delicate, rows, wide):
            yield tile, self._deviations(x, tile, delicate)

    def _deviations(self, x: Tensor, tile: Tile, delicate: bool) -> Tensor:
        """Return the rows of a tile about their components' centres, (T, R, D)."""
        y = self._space.taken("rows", x, tile.row)
        if delicate:
            return y.double().sub_(self._exact[tile.component].unsqueeze(1))
        return y.sub_(self._centres[tile.component].unsqueeze(1))
