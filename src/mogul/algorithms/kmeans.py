"""k-means by large products: greedy k-means++ seeding, then Lloyd's iterations."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from mogul.compute.backend import make_generator
from mogul.compute.collective import Group
from mogul.compute.threads import n_workers, spread

_SEED_ROWS = 20  # rows per cluster that seeding looks at
_LEAST_SEED_ROWS = 2000
_BATCH_VALUES = 2**21
_CACHED_VALUES = 2**19  # of distances, 2 MB in float32
_MANY = 256  # clusters, above which rows are added one by one faster than by a product
_MOST_LOST = 1e-3  # of the inertia, to rounding of the rows' squares
_EXACT = "donot_use_mm_for_euclid_dist"  # of `torch.cdist`: differences, not products


@dataclass(frozen=True)
class Clusters:
    """Centres (K, D), the centre of every row (n,), and the sum of squared distances to these.

    `iterations` is how often the centres were moved.
    """

    centres: Tensor
    labels: Tensor
    inertia: float
    iterations: int


def kmeans(
    x: Tensor,
    n_clusters: int,
    seed: int,
    iterations: int = 20,
    tolerance: float = 1e-3,
    group: Group | None = None,
) -> Clusters:
    """Cluster rows around means (Lloyd 1982), from greedy k-means++ seeds.

    Args:
        x: rows (n, D), about their mean so that squares keep their digits.
        n_clusters: number of clusters K, at most n.
        seed: seed of the seeding.
        iterations: at most so many.
        tolerance: stop when the inertia falls by a smaller fraction.
        group: processes that all have these rows and share the work.

    Returns:
        centres, labels and inertia; a cluster that loses its rows is restarted at the row farthest
        from its centre.
    """
    group = group or Group()
    low, high = (r * len(x) // group.world for r in (group.rank, group.rank + 1))

    def begin(x: Tensor, norms: Tensor) -> _Dense:
        centres = group.said(kmeans_plusplus(x, n_clusters, seed)).to(x.device)
        return _Dense(x[low:high], norms[low:high], centres, group)

    found = lloyd(begin, x, iterations, tolerance)
    return replace(found, labels=group.collect(found.labels))


class Steps(Protocol):
    """The two steps of Lloyd's iterations, and what they reached."""

    centres: Tensor
    labels: Tensor
    exact: bool  # whether to take distances from differences, which is slower

    def assign(self) -> float:
        """Give every row a centre, and return the inertia."""
        ...

    def move(self) -> None:
        """Move the centres to the means of their rows."""
        ...


def lloyd(
    begin: Callable[[Tensor, Tensor], Steps], x: Tensor, iterations: int, tolerance: float
) -> Clusters:
    """Assign and move in turn (Lloyd 1982), in float64 where float32 would lose the inertia.

    Args:
        begin: makes the steps of rows (n, D) and their squared norms (n,).
        x: rows (n, D).
        iterations: at most so many.
        tolerance: stop when the inertia falls by a smaller fraction.

    Returns:
        centres in the type of the rows, the labels that the steps keep, and the inertia.
    """
    norms = torch.linalg.vector_norm(x, dim=-1).square_()
    steps = begin(x, norms)
    inertia = steps.assign()
    lost = torch.finfo(x.dtype).eps * float(norms.max()) * len(x) > _MOST_LOST * inertia
    if x.dtype != torch.float64 and lost:
        found = lloyd(begin, x.double(), iterations, tolerance)
        return replace(found, centres=found.centres.to(x.dtype))
    if lost:
        steps.exact = True
        inertia = steps.assign()
    moved = 0
    while moved < iterations:
        moved += 1
        steps.move()
        before, inertia = inertia, steps.assign()
        if inertia > before * (1 - tolerance):
            break
    return Clusters(steps.centres, steps.labels, inertia, moved)


class _Dense:
    """Steps that compare every row of this process with every centre."""

    labels: Tensor
    exact = False

    def __init__(self, x: Tensor, norms: Tensor, centres: Tensor, group: Group) -> None:
        self.centres, self._norms, self._group = centres, norms, group
        self._batches = list(x.split(_batch_rows(x.shape[1])))

    def assign(self) -> float:
        self.labels, self._distance, inertia = _assign(
            self._batches, self._norms, self.centres, self._group, self.exact
        )
        return inertia

    def move(self) -> None:
        self.centres = _means(self._batches, self.labels, self.centres, self._distance, self._group)


def kmeans_plusplus(x: Tensor, n_clusters: int, seed: int) -> Tensor:
    """Choose rows far apart, (K, D): each is the best of a few drawn by squared distance.

    Source: Arthur & Vassilvitskii (2007), with the greedy variant of their section 5. It looks at a
    subsample of 20 rows per cluster, at least 2,000.
    """
    generator = make_generator(seed, x.device)
    rows = max(_LEAST_SEED_ROWS, _SEED_ROWS * n_clusters)
    order = torch.randperm(len(x), generator=generator, device=x.device)
    x = x[order[: max(rows, n_clusters)]]
    norms = x.square().sum(-1)
    trials = 2 + int(math.log(n_clusters))
    chosen = [0]  # the order is random already
    nearest = _distance(x, norms, x[:1])[0]
    for _ in range(1, n_clusters):
        if float(nearest.sum()) <= 0:  # no row is left that differs from all chosen
            chosen.append(len(chosen))
            continue
        drawn = torch.multinomial(nearest, trials, replacement=True, generator=generator)
        candidate = torch.minimum(_distance(x, norms, x[drawn]), nearest)
        better = int(candidate.sum(-1).argmin())
        nearest = candidate[better]
        chosen.append(int(drawn[better]))
    return x[chosen]


def nearest_centre(x: Tensor, centres: Tensor) -> Tensor:
    """Return the nearest centre of every row (n, D), as (n,)."""
    batches, norms = list(x.split(_batch_rows(x.shape[1]))), x.square().sum(-1)
    labels, best, _ = _assign(batches, norms, centres, Group())
    rounding = torch.finfo(x.dtype).eps * (norms + centres.square().sum(-1).max())
    lost = (rounding > _MOST_LOST * best).nonzero().squeeze(-1)
    for rows in lost.split(_batch_rows(max(x.shape[1], len(centres)))):
        distance = torch.cdist(x[rows].double(), centres.double(), compute_mode=_EXACT)
        labels[rows] = distance.argmin(-1)
    return labels


def _batch_rows(n_features: int) -> int:
    """Return how many rows a core works on at a time."""
    return max(256, min(16_384, _BATCH_VALUES // n_features))


def _distance(x: Tensor, norms: Tensor, centres: Tensor) -> Tensor:
    """Return squared distances, (K, n)."""
    square = centres.square().sum(-1, keepdim=True)
    return (norms + square - 2 * (centres @ x.mT)).clamp_min_(0.0)


def _assign(
    batches: list[Tensor], norms: Tensor, centres: Tensor, group: Group, exact: bool = False
) -> tuple[Tensor, Tensor, float]:
    """Return each own row's nearest centre, the squared distance to it, and the sum over all.

    Distances are products less squares, or with `exact` those of differences.
    """
    half = 0.5 * centres.square().sum(-1, keepdim=True)
    # All memory is fetched before: small results between large ones would keep these from being
    # given back.
    sizes = [len(x) for x in batches]
    labels, best = torch.empty_like(norms, dtype=torch.long), torch.empty_like(norms)
    places = list(zip(batches, labels.split(sizes), best.split(sizes), strict=True))
    rows = max(64, _CACHED_VALUES // len(centres))

    def worker() -> Callable[[tuple[Tensor, Tensor, Tensor]], None]:
        scores = centres.new_empty(len(centres) * min(rows, max(sizes)))

        def work(item: tuple[Tensor, Tensor, Tensor]) -> None:
            for x, label, top in zip(*(t.split(rows) for t in item), strict=True):
                if exact:
                    torch.min(torch.cdist(x, centres, compute_mode=_EXACT), -1, out=(top, label))
                    continue
                score = scores[: len(centres) * len(x)].view(len(centres), len(x))
                torch.addmm(half, centres, x.mT, beta=-1.0, out=score)
                torch.max(score, 0, out=(top, label))

        return work

    spread(places, [worker() for _ in range(min(n_workers(norms.device), len(batches)))])
    distance = best.square() if exact else norms.sub(best, alpha=2.0).clamp_min_(0.0)
    return labels, distance, group.total(float(distance.sum(dtype=torch.float64)))[0]


def _means(
    batches: list[Tensor], labels: Tensor, centres: Tensor, distance: Tensor, group: Group
) -> Tensor:
    """Return the mean of each cluster; one without rows moves to a row far from its centre."""
    k = len(centres)
    parts = labels.split([len(x) for x in batches])
    workers = min(n_workers(centres.device), len(batches))
    sums = centres.new_zeros(workers, *centres.shape, dtype=torch.float64)

    def worker(own: Tensor) -> Callable[[tuple[Tensor, Tensor]], None]:
        def work(item: tuple[Tensor, Tensor]) -> None:
            x, label = item
            if k > _MANY:
                own.index_add_(0, label, x.double())
                return
            member = x.new_zeros(k, len(x)).scatter_(0, label.unsqueeze(0), 1.0)
            own.add_(member @ x)

        return work

    spread(zip(batches, parts, strict=True), [worker(own) for own in sums])
    count = torch.bincount(labels, minlength=k).unsqueeze(-1)
    total = sums.sum(0)
    group.add([count, total])
    means = (total / count.clamp_min(1)).to(centres.dtype)
    empty = (count.squeeze(-1) == 0).nonzero().squeeze(-1)
    if len(empty):
        means[empty] = _farthest(torch.cat(batches), distance, len(empty), group)
    return means


def _farthest(rows: Tensor, distance: Tensor, m: int, group: Group) -> Tensor:
    """Return the m rows of all processes that are farthest from their centres, (m, D)."""
    far, which = distance.topk(min(m, len(distance)))
    parts = group.gather((far, rows[which]))
    far, rows = (torch.cat(each) for each in zip(*parts, strict=True))
    return rows[far.topk(m).indices].to(distance.device)
