"""k-means with many clusters: each row looks at the neighbours of its centre alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mogul.algorithms.afk_mc2 import afk_mc2
from mogul.algorithms.first_candidates import first_neighbours
from mogul.algorithms.kmeans import Clusters, lloyd, nearest_centre
from mogul.compute.threads import n_workers, spread
from mogul.distributions.tiles import Tile, tiles

_TILE_VALUES = 2**19  # of rows, and of centres, 2 MB each in float32
_ON_GPU = 64  # times as many


@torch.no_grad()
def truncated_kmeans(
    x: Tensor,
    n_clusters: int,
    seed: int,
    iterations: int = 50,
    tolerance: float = 1e-3,
    neighbours: int = 50,
) -> Clusters:
    r"""Cluster rows around means, with iterations whose cost is sublinear in rows × clusters.

    Every row begins at the nearest of the AFK-MC² seeds, found among all in the one step that takes
    O(n K D). From then on an assignment step moves a row from its centre to the best of the $G$
    centres nearest that one: O(n G D + K² D). Centres then move to the means of their rows. Neither
    step raises the inertia.

    Args:
        x: rows (n, D), about their mean so that squares keep their digits.
        n_clusters: number of clusters K, at most n.
        seed: of the seeds.
        iterations: at most so many.
        tolerance: stop when the inertia falls by a smaller fraction.
        neighbours: G; with as many as clusters, these are Lloyd's iterations.

    Returns:
        centres; labels, which need not be the nearest centres; and the inertia under these labels.
        A cluster that loses its rows is restarted at the row farthest from its centre.

    Source: Hirschberger, Forster & Lücke (2022), A Variational EM Acceleration for Efficient
    Clustering at Very Large Scales, with one candidate a row, and neighbours by distances of
    centres.
    """

    def begin(x: Tensor, norms: Tensor) -> _Near:
        centres = afk_mc2(x, n_clusters, seed)
        return _Near(x, norms, centres, min(neighbours, n_clusters))

    return lloyd(begin, x, iterations, tolerance)


class _Near:
    """Steps that compare a row with the centres nearest its own; with all if `exact`."""

    exact = False

    def __init__(self, x: Tensor, norms: Tensor, centres: Tensor, neighbours: int) -> None:
        self.centres, self.labels = centres, nearest_centre(x, centres)
        self._x, self._norms, self._neighbours = x, norms, neighbours

    def assign(self) -> float:
        if self.exact:
            self.labels = nearest_centre(self._x, self.centres)
            self._distance = (self._x - self.centres[self.labels]).square().sum(-1)
            return float(self._distance.sum(dtype=torch.float64))
        lists = first_neighbours(self.centres, self._neighbours)
        self.labels, self._distance = _step(self._x, self._norms, self.labels, lists, self.centres)
        return float(self._distance.sum(dtype=torch.float64))

    def move(self) -> None:
        self.centres, self.labels = _moved(self._x, self.centres, self.labels, self._distance)


def _step(
    x: Tensor, norms: Tensor, groups: Tensor, lists: Tensor, centres: Tensor
) -> tuple[Tensor, Tensor]:
    """Give each row the best centre in its group's list.

    Args:
        x: rows (n, D).
        norms: their squared norms (n,).
        groups: of each row, (n,).
        lists: centres to look at for each group, (m, G).
        centres: (K, D).

    Returns:
        the centre of each row, (n,), and the squared distance to it, (n,).
    """
    half = 0.5 * centres.square().sum(-1)
    labels = groups.new_empty(len(x) + 1)  # the last takes what tiles are padded with
    best = x.new_empty(len(x) + 1)

    def work(numbered: tuple[int, Tile]) -> None:
        tile = numbered[1]
        others = lists[tile.component]
        score = torch.baddbmm(half[others].unsqueeze(1), x[tile.row], centres[others].mT, beta=-1.0)
        top, at = score.max(-1)
        pair = tile.pair.flatten()
        labels[pair] = others.gather(1, at).flatten()
        best[pair] = top.flatten()

    _spread(work, x, groups, lists.shape[1], len(lists))
    return labels[:-1], norms.sub(best[:-1], alpha=2.0).clamp_min_(0.0)


def _moved(x: Tensor, centres: Tensor, labels: Tensor, distance: Tensor) -> tuple[Tensor, Tensor]:
    """Return centres at the means of their rows, and labels; those without rows move to rows."""
    sums = torch.zeros_like(centres, dtype=torch.float64)
    found: dict[int, tuple[Tensor, Tensor]] = {}

    def work(numbered: tuple[int, Tile]) -> None:
        number, tile = numbered
        inside = (tile.pair < len(x)).to(x).unsqueeze(1)
        # About the old centre, so that rounding is small beside a cluster.
        about = x[tile.row] - centres[tile.component].unsqueeze(1)
        found[number] = tile.component, (inside @ about).squeeze(1)

    _spread(work, x, labels, 1, len(centres))
    for number in range(len(found)):  # not in the order in which threads came to an end
        component, part = found[number]
        sums.index_add_(0, component, part.double())
    count = torch.bincount(labels, minlength=len(centres))
    moved = (centres + sums / count.clamp_min(1).unsqueeze(-1)).to(centres)
    empty = (count == 0).nonzero().squeeze(-1)
    far, rows = distance.topk(len(empty))
    empty, rows = empty[far > 0], rows[far > 0]
    moved[empty] = x[rows]
    return moved, labels.index_copy(0, rows, empty)


def _spread(
    work: Callable[[tuple[int, Tile]], None],
    x: Tensor,
    groups: Tensor,
    width: int,
    n_groups: int,
) -> None:
    """Call `work` for numbered tiles of the rows of each group, on all cores."""
    values = _TILE_VALUES * (_ON_GPU if x.is_cuda else 1)
    most_rows, most_groups = (max(16, values // (each * x.shape[1])) for each in (1, width))
    apart = torch.zeros(n_groups, dtype=torch.bool, device=x.device)
    row = torch.arange(len(x), device=x.device)
    parts = tiles(groups, row, apart, most_rows, most_groups)
    spread(enumerate(tile for tile, _ in parts), [work] * n_workers(x.device))
