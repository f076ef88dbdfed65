"""The first candidates of every row: components whose centres are near."""

from __future__ import annotations

import torch
from torch import Tensor

from mogul.algorithms.kmeans import nearest_centre
from mogul.algorithms.sweep import Variational, read, sweep
from mogul.algorithms.watch import Watch
from mogul.distributions import Diagonal, LocalKernel, Mixture
from mogul.protocols import Source

_BLOCK = 2**24  # distances worked out at a time
_SEARCHES = 12  # at most, where distances to all centres cost more
_WORTH = 200  # times as many centres as a search looks at, from which searches are faster
_SETTLED = 1e-3  # half squared distances per feature, by which a search gains too little


@torch.no_grad()
def first_candidates(
    mixture: Mixture,
    source: Source,
    width: int,
    n_neighbours: int,
    n_random: int,
    size: int,
    draw: torch.Generator,
    watch: Watch,
) -> Variational:
    """Return candidates and neighbours to begin with.

    Distances are measured in units of the mean variance of each feature within components. Up to a
    few thousand components, all distances are worked out; above, truncated E-steps over centres
    alone find near ones.

    Args:
        mixture: the components.
        source: the rows.
        width: candidates of a row, C.
        n_neighbours: of a component, G.
        n_random: components that a search draws for each row.
        size: rows worked on together.
        draw: of these.
        watch: asked to rest between batches.
    """
    variance = mixture.covariance.variances.mean(0)
    scale, k = variance.sqrt(), len(mixture.centres)
    near = first_neighbours(mixture.centres / scale, max(n_neighbours, width))
    covariance = Diagonal.of(variance.unsqueeze(0))
    offsets = torch.zeros_like(mixture.log_weights)
    kernel = LocalKernel(covariance, mixture.centres, offsets, mixture.origin)
    held = torch.empty(len(source), width, dtype=torch.int32)
    state = Variational(held, near[:, :n_neighbours].contiguous())
    if k <= _WORTH * (width * n_neighbours + n_random):
        at, centres = 0, kernel.centres / scale
        for x, *_ in read(source, size, state, kernel):
            best = nearest_centre(kernel.centred(x) / scale, centres)
            state.held[at : at + len(x)] = near[best, :width].to(held)
            at += len(x)
            watch.rest()
        return state
    steps = torch.randperm(k, generator=draw, device=draw.device)[:width]
    first = torch.randint(k, (len(held), 1), generator=draw, device=draw.device)
    state.held[:] = ((first + steps) % k).to(held)
    before = -torch.inf
    for _ in range(_SEARCHES):
        reached = sweep(kernel, source, state, n_random, size, draw, watch).mean(source)
        if reached - before < _SETTLED * source.n_features:
            break
        before = reached
    return state


def first_neighbours(points: Tensor, g: int) -> Tensor:
    """Return each of some points (K, D) with the nearest others, (K, g)."""
    norms = points.square().sum(-1)
    found = []
    size = max(1, _BLOCK // len(points))
    for start, part in zip(range(0, len(points), size), points.split(size), strict=True):
        distance = torch.addmm(norms, part, points.mT, alpha=-2.0)
        own = torch.arange(len(part), device=part.device)
        distance[own, start + own] = -torch.inf  # before its equals
        found.append(distance.topk(g, largest=False).indices)
    return torch.cat(found)
