"""AFK-MC² seeding: rows far apart, drawn by Markov chains instead of passes over all rows."""

from __future__ import annotations

import torch
from torch import Tensor

from mogul.compute.backend import make_generator
from mogul.compute.threads import n_workers, spread, threads_for

_TOGETHER = 32  # centres whose chains are drawn, and measured against all before, at once
_PRODUCT_VALUES = 2**20  # of a product of rows with centres, 4 MB in float32


def afk_mc2(x: Tensor, n_clusters: int, seed: int, chain: int = 50) -> Tensor:
    r"""Choose rows far apart, (K, D): each nearly as if drawn by squared distance.

    After the first centre $c_1$, drawn uniformly, each is the end of a Metropolis chain whose
    target is $p(x) \propto d(x, C)^2$, the squared distance to the centres so far, and whose
    proposals are independent draws of

    $$q(x) = \frac{d(x, c_1)^2}{2 \sum_{x'} d(x', c_1)^2} + \frac{1}{2n}.$$

    Only rows proposed are compared with centres: O(nD + m K² D) for chains of m, where exact D²
    sampling takes O(n K D).

    Args:
        x: rows (n, D), about their mean so that squares keep their digits.
        n_clusters: number of centres K, at most n.
        seed: of all draws.
        chain: proposals m of each chain.

    Returns:
        the centres. A chain that meets nothing but rows equal to centres gives way to a row at
        random that is not one yet.

    Source: Bachem, Lucic, Hassani & Krause (2016), Fast and Provably Good Seedings for k-Means.
    """
    draw = make_generator(seed, x.device)
    first = torch.randint(len(x), (1,), generator=draw, device=x.device)
    norms = torch.linalg.vector_norm(x, dim=-1).square_()
    proposal = _proposal(_squares(x, norms, x[first[0]]))
    ends = proposal.cumsum(0)
    chosen, taken = first.tolist(), torch.zeros(len(x), dtype=torch.bool, device=x.device)
    taken[first] = True
    while len(chosen) < n_clusters:
        width = min(_TOGETHER, n_clusters - len(chosen))
        shape = width * chain
        at = torch.rand(shape, generator=draw, dtype=torch.float64, device=x.device)
        rows = torch.searchsorted(ends, at * ends[-1], right=True).clamp_max_(len(x) - 1)
        pool, sizes, weight = x[rows], norms[rows], proposal[rows]
        nearest = _nearest(pool, sizes, x[chosen])
        luck = torch.rand(width, chain, generator=draw, dtype=torch.float64, device=x.device)
        with threads_for(0):  # many small steps
            for number, levels in enumerate(luck.tolist()):
                own, later = (
                    slice(number * chain, (number + 1) * chain),
                    slice((number + 1) * chain, None),
                )
                nearest[own].masked_fill_(taken[rows[own]], 0.0)
                ratios = (nearest[own] / weight[own]).tolist()
                end = _walk(ratios, levels)
                row = int(rows[own][end])
                if ratios[end] <= 0:
                    free = (~taken).nonzero().squeeze(-1)
                    row = int(free[torch.randint(len(free), (), generator=draw, device=x.device)])
                chosen.append(row)
                taken[row] = True
                closer = _squares(pool[later], sizes[later], x[row])
                nearest[later] = torch.minimum(nearest[later], closer)
    return x[chosen]


def _proposal(distance: Tensor) -> Tensor:
    """Return q of every row, (n,) in float64, from squared distances to the first centre."""
    distance = distance.double()
    total, uniform = distance.sum(), 1.0 / len(distance)
    if float(total) <= 0:
        return torch.full_like(distance, uniform)
    return 0.5 * (distance / total + uniform)


def _walk(ratios: list[float], levels: list[float]) -> int:
    """Return where a chain ends: proposals with ratios of target to proposal, and uniform draws."""
    end, current = 0, ratios[0]
    for place in range(1, len(ratios)):
        if ratios[place] > levels[place] * current:
            end, current = place, ratios[place]
    return end


def _squares(rows: Tensor, norms: Tensor, centre: Tensor) -> Tensor:
    """Return squared distances (n,) of rows with squared norms (n,) to one centre (D,)."""
    products = rows @ centre
    return (norms + centre.dot(centre)).sub_(products, alpha=2.0).clamp_min_(0.0)


def _nearest(rows: Tensor, norms: Tensor, centres: Tensor) -> Tensor:
    """Return squared distances (n,) of rows to the nearest centre (K, D)."""
    half = 0.5 * centres.square().sum(-1, keepdim=True)
    size = max(16, min(_PRODUCT_VALUES // len(centres), -(-len(rows) // n_workers(rows.device))))
    parts = list(rows.split(size))
    best = [half] * len(parts)

    def work(item: tuple[int, Tensor]) -> None:
        number, part = item
        best[number] = torch.addmm(half, centres, part.mT, beta=-1.0).amax(0)

    spread(enumerate(parts), [work] * min(n_workers(rows.device), len(parts)))
    return norms.sub(torch.cat(best), alpha=2.0).clamp_min_(0.0)
