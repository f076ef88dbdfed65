"""Scores and moments of chosen (component, row) pairs, tile by tile, one tile a core."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mogul.compute.backend import full_precision
from mogul.compute.threads import n_workers, spread
from mogul.distributions.kernel import near_zero
from mogul.distributions.local_forms import SharedForm, constants
from mogul.distributions.moments import Moments
from mogul.distributions.tiles import Plan, Span, Tile, Workspace

if TYPE_CHECKING:
    from mogul.distributions.covariance import Covariance

_TILE_VALUES = 2**18  # of rows, 1 MB in float32, so that a tile stays in the cache of its core
_TABLE_VALUES = 2**19  # gathered for the components of a tile
_MOST_ROWS = 4096  # of a tile
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
        noise = covariance.residual_variances.double()
        near = bool(origin.any()) and near_zero(centres, origin, noise)
        self._exact = centres.double()
        if near:  # spares a copy of the rows
            self._exact = self._exact + origin.double()
        self._origin = None if near or not bool(origin.any()) else origin
        self._centres = self._exact.to(centres.dtype)
        form = covariance.local_form(self._centres)
        shared = covariance.n_covariances == 1
        self._form = SharedForm(form, self._centres) if shared else form
        self._delicate = self._form.delicate.expand(len(centres))
        self._const = constants(form, offsets, centres.shape[-1])
        shapes = self._form.sum_shapes(len(centres))
        kind: Any = {"dtype": torch.float64, "device": centres.device}
        self._sums = {name: torch.zeros(shape, **kind) for name, shape in shapes.items()}

    def centred(self, x: Tensor) -> Tensor:
        """Return rows (n, D) about the reference point that all methods take them from."""
        return x if self._origin is None else x - self._origin

    def search(self, x: Tensor, held: Tensor, neighbours: Tensor) -> tuple[Tensor, Tensor]:
        """Score rows under their candidates, and under the neighbours of these.

        Args:
            x: rows as `centred` returns them, (n, D).
            held: candidates of each row, (n, C).
            neighbours: of each component, itself first, (K, G).

        Returns:
            log-joints of the candidates, (n, C), accurate; and of their neighbours, (n, C, G), to
            the digits that a search needs.
        """
        n, width = held.shape
        g = neighbours.shape[1]
        found = x.new_empty(n * width + 1, g)  # the last takes what tiles are padded with
        row = torch.arange(n, device=x.device).repeat_interleave(width)
        const = self._const.to(x.dtype)

        def work(worker: _Worker, tile: Tile, y: Tensor) -> None:
            others = neighbours[tile.component]
            distance = self._form.distances(y, tile.component, others, worker.space)
            score = distance.mul_(-0.5).to(x.dtype) + const[others].unsqueeze(1)
            found.index_copy_(0, tile.pair.flatten(), score.flatten(0, 1))

        self._over(x, held.flatten().long(), row, g * self._form.table_values, work)
        scores = found[:-1].view(n, width, g)
        return scores[..., 0].contiguous(), scores

    def score(self, x: Tensor, component: Tensor, row: Tensor) -> Tensor:
        """Return accurate log-joints (p,) of pairs (p,) of rows as `centred` returns them."""
        found = x.new_empty(len(row) + 1)
        const = self._const.to(x.dtype)

        def work(worker: _Worker, tile: Tile, y: Tensor) -> None:
            distance = self._form.own(y, tile.component, worker.space)
            score = distance.mul_(-0.5).to(x.dtype) + const[tile.component].unsqueeze(-1)
            found.index_copy_(0, tile.pair.flatten(), score.flatten())

        self._over(x, component, row, self._form.table_values, work)
        return found[:-1]

    def add(self, x: Tensor, component: Tensor, row: Tensor, mass: Tensor) -> None:
        """Add the moments of pairs (p,) with masses (p,)."""
        padded = torch.cat([mass, mass.new_zeros(1)])

        def work(worker: _Worker, tile: Tile, y: Tensor) -> None:
            weight = padded[tile.pair].to(y.dtype)
            found = self._form.sums(y, weight, tile.component, worker.space)
            for name, value in found.items():
                if len(value) == len(tile.component):
                    self._sums[name].index_add_(0, tile.component, value.double())
                else:  # what all components share, threads add up for themselves
                    worker.add(name, value)

        workers = self._over(x, component, row, self._form.table_values, work)
        for name, value in (item for worker in workers for item in worker.shared.items()):
            self._sums[name] += value

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

    def _over(
        self,
        x: Tensor,
        component: Tensor,
        row: Tensor,
        table_values: int,
        work: Callable[[_Worker, Tile, Tensor], None],
    ) -> list[_Worker]:
        """Let workers treat all tiles of pairs, and return them."""
        more = _ON_GPU if x.is_cuda else 1
        rows = max(16, min(_MOST_ROWS, _TILE_VALUES // x.shape[1])) * more
        wide = max(1, _TABLE_VALUES // table_values) * more
        plan = Plan(component, row, len(self._centres), rows, wide)
        workers = [_Worker() for _ in range(n_workers(x.device))]

        def over(worker: _Worker, span: Span) -> None:
            delicate = bool(self._delicate[span.component[0]])
            for tile in plan.tiles(span):
                work(worker, tile, self._deviations(x, tile, delicate, worker.space))

        with torch.no_grad(), full_precision(x.device):
            spread(plan.spans(self._delicate), [partial(over, worker) for worker in workers])
        return workers

    def _deviations(self, x: Tensor, tile: Tile, delicate: bool, space: Workspace) -> Tensor:
        """Return the rows of a tile about their components' centres, (T, R, D)."""
        y = space.taken("rows", x, tile.row)
        if delicate:
            return y.double().sub_(self._exact[tile.component].unsqueeze(1))
        return y.sub_(self._centres[tile.component].unsqueeze(1))


class _Worker:
    """One thread's scratch memory, and its sums of what all components share."""

    def __init__(self) -> None:
        self.space = Workspace()
        self.shared: dict[str, Tensor] = {}

    def add(self, name: str, value: Tensor) -> None:
        held = self.shared.get(name)
        self.shared[name] = value.double() if held is None else held + value
