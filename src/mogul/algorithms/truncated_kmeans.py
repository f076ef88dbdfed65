"""k-means with many clusters: each row looks at the neighbours of the few nearest it knows."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from mogul.algorithms.afk_mc2 import afk_mc2
from mogul.algorithms.candidates import Witnesses, search
from mogul.algorithms.first_candidates import first_candidates
from mogul.algorithms.kmeans import Clusters
from mogul.algorithms.rows import Rows
from mogul.algorithms.sweep import Variational
from mogul.algorithms.watch import Watch
from mogul.compute.backend import make_generator
from mogul.distributions import Isotropic, LocalKernel, Mixture

_BATCH_VALUES = 2**26  # of scores and rows that are worked on together: 256 MB in float32
_MOST_LOST = 1e-3  # of the inertia, to rounding of the rows' squares


@torch.no_grad()
def truncated_kmeans(
    x: Tensor,
    n_clusters: int,
    seed: int,
    iterations: int = 50,
    tolerance: float = 1e-3,
    candidates: int = 3,
    neighbours: int = 15,
    random: int = 1,
) -> Clusters:
    r"""Cluster rows around means, from AFK-MC² seeds, at a cost sublinear in rows × clusters.

    Row $n$ keeps its $C$ nearest known centres $K_n$, and centre $c$ a set $g_c$ of the $G$ nearest
    it. An assignment step makes $K_n$ the best of $\bigcup_{k \in K_n} g_k$ and of $E$ centres at
    random: n (C G + E) distances at most, where Lloyd's iterations take n K. The nearest in $K_n$
    is the row's centre, and centres move to the means of their rows. Neither step raises the
    inertia.

    Args:
        x: rows (n, D), about their mean so that squares keep their digits.
        n_clusters: number of clusters K, at most n.
        seed: of the seeds, the first candidates, and the centres at random.
        iterations: at most so many.
        tolerance: stop when the inertia falls by a smaller fraction.
        candidates: C.
        neighbours: G; with as many as clusters, all distances are looked at.
        random: E.

    Returns:
        centres; labels, which need not be the nearest centres; and the inertia under these labels.
        A cluster that loses its rows is restarted at the row farthest from its centre.

    Source: Hirschberger, Forster & Lücke (2022), A Variational EM Acceleration for Efficient
    Clustering at Very Large Scales, with hard assignments.
    """
    width, g = min(candidates, n_clusters), min(neighbours, n_clusters)
    draw = make_generator(seed, x.device)
    size = max(1024, _BATCH_VALUES // (2 * x.shape[1] + 6 * width * g))
    problem = _Problem(x, afk_mc2(x, n_clusters, seed), size, random, draw)
    problem.begin(width, g)
    inertia = problem.assign()
    if x.dtype != torch.float64 and problem.lost > _MOST_LOST * inertia:
        settings = iterations, tolerance, candidates, neighbours, random
        found = truncated_kmeans(x.double(), n_clusters, seed, *settings)
        return replace(found, centres=found.centres.to(x.dtype))
    moved = 0
    while moved < iterations:
        moved += 1
        problem.move()
        before, inertia = inertia, problem.assign()
        if inertia > before * (1 - tolerance):
            break
    return Clusters(problem.centres, problem.state.held[:, 0].long(), inertia, moved)


class _Problem:
    """Rows, centres, and who is near whom."""

    state: Variational

    def __init__(
        self, x: Tensor, centres: Tensor, size: int, n_random: int, draw: torch.Generator
    ) -> None:
        """Hold rows (n, D) and centres (K, D)."""
        self.x, self.centres = x, centres
        self.distance = torch.linalg.vector_norm(x, dim=-1).square_()
        # Rounding of squares about the mean, from which seeds and first candidates suffer alone.
        self.lost = torch.finfo(x.dtype).eps * float(self.distance.max()) * len(x)
        self._size, self._n_random, self._draw = size, n_random, draw
        # A component for each centre, all with the covariance I.
        self._covariance = Isotropic.of(torch.ones_like(x[:1, 0]), x.shape[1])
        self._zero = torch.zeros_like(x[0])

    def begin(self, width: int, n_neighbours: int) -> None:
        """Find the first candidates of every row, and the neighbours of every centre."""
        offsets = torch.zeros_like(self.centres[:, 0])
        mixture = Mixture(offsets, self.centres, self._covariance, self._zero)
        sizes = width, n_neighbours, self._n_random, self._size
        self.state = first_candidates(mixture, Rows(self.x), *sizes, self._draw, Watch())

    def assign(self) -> float:
        """Look for nearer centres of all rows, and return the inertia."""
        kernel = self._kernel()
        witnesses = Witnesses(len(self.centres))
        for part, x in self._batches():
            held = self.state.held[part].to(x.device, torch.long)
            neighbours = self.state.neighbours
            found = search(kernel, x, held, neighbours, self._n_random, self._draw, witnesses)
            self.state.held[part] = found.held.to(self.state.held)
            self.distance[part] = -2.0 * found.joint[:, 0]
        self.state.neighbours = witnesses.neighbours(self.state.neighbours)
        return float(self.distance.sum(dtype=torch.float64))

    def move(self) -> None:
        """Move centres to the means of their rows, and those without rows to rows far away."""
        kernel = self._kernel()
        for part, x in self._batches():
            label = self.state.held[part, 0].to(x.device, torch.long)
            row = torch.arange(len(x), device=x.device)
            kernel.add(x, label, row, torch.ones_like(x[:, 0]))
        count, first = kernel.moments.count, kernel.moments.first
        shift = first / count.clamp_min(1.0).unsqueeze(-1)
        self.centres = (self.centres.double() + shift).to(self.centres)
        empty = (count == 0).nonzero().squeeze(-1).tolist()
        far, rows = self.distance.topk(len(empty))
        for component, row, apart in zip(empty, rows.tolist(), far.tolist(), strict=True):
            if apart > 0:
                self.centres[component] = self.x[row]
                self.state.join(component, int(self.state.held[row, 0]), row)

    def _kernel(self) -> LocalKernel:
        """Return what scores rows under centres by minus half their squared distance."""
        d = self.x.shape[1]
        log_norm = 0.5 * d * torch.log(torch.tensor(2 * torch.pi, dtype=torch.float64))
        offsets = log_norm.to(self.x.device).expand(len(self.centres))
        return LocalKernel(self._covariance, self.centres, offsets, self._zero)

    def _batches(self):
        """Yield slices of rows, and the rows."""
        for start in range(0, len(self.x), self._size):
            part = slice(start, start + self._size)
            yield part, self.x[part]
