"""Score a source under a density, batch by batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mogul.compute.collective import group_of
from mogul.compute.memory import MEMORY_ERRORS, halved, rows_that_fit
from mogul.compute.threads import n_workers, spread
from mogul.compute.transfer import staged
from mogul.protocols import Batch, Density, Scorer, Source

_BATCH_BYTES = 2**25
_MOST_ROWS = 2**16  # bytes of a column of a batch
_LEAST_WORK = 5e7  # floating-point operations below which a batch is not worth a thread
_MOST_SUMS = 2**28  # bytes of sums that all threads together may hold
_MOST_ON_GPU = 2**18  # rows, above which batches gain nothing
_SAMPLED = 2**20  # rows whose log-likelihoods are held together


def default_batch_size(n_features: int, dtype: torch.dtype = torch.float32) -> int:
    """Return the rows per batch that keep buffers near 32 MB."""
    return max(256, min(_MOST_ROWS, _BATCH_BYTES // n_features) // dtype.itemsize)


def batch_plan(
    source: Source,
    device: torch.device,
    dtype: torch.dtype,
    footprint: int,
    size: int | None = None,
) -> tuple[int, int]:
    """Return rows per batch, and how many batches to work on at once.

    Args:
        source: what will be read.
        device: where; only CPUs work on several batches at once.
        dtype: of the values.
        footprint: bytes of the sums that each thread needs for itself.
        size: rows per batch, if the user asks for a number.
    """
    rows = len(source)
    if device.type == "cuda" and size is None:
        # Rows, their copies, and scores: as many values as a component's sums have columns.
        values = 3 * source.n_features + 3 * footprint // (12 * max(1, source.n_features))
        return min(rows, rows_that_fit(device, values * dtype.itemsize), _MOST_ON_GPU), 1
    cores = n_workers(device)
    workers = min(cores, max(1, _MOST_SUMS // max(footprint, 1)))
    if size is not None:
        return size, max(1, min(workers, rows // size))
    # A pass costs about as many operations a row as a third of the bytes of its sums.
    worth = int(rows * footprint / 3 / _LEAST_WORK)
    fewest = -(-rows // default_batch_size(source.n_features, dtype))
    workers = max(1, min(workers, max(worth, fewest)))
    batches = -(-max(fewest, workers) // workers) * workers  # as many for each
    return -(-rows // batches), workers


class _Scores:
    """One thread's share of scores: their weighted sum, and those of every so-manieth row."""

    def __init__(self, kernel: Scorer, density: Density, every: int) -> None:
        self.score = kernel.score
        self.complete = density.log_prob
        self.every = every
        self.total, self.mass = 0.0, 0.0
        self.parts: list[tuple[int, Tensor]] = []

    @torch.no_grad()
    def __call__(self, read: Callable[[], Batch]) -> None:
        x, weight, index = read()
        log_prob = self.score(x)
        if bool(log_prob.isnan().any()):  # gaps, or numbers beyond the type
            log_prob = self.complete(x)
        log_prob = log_prob.double()
        w = torch.ones_like(log_prob) if weight is None else weight.double()
        self.total += float((w * log_prob).sum())
        self.mass += float(w.sum())
        if self.every:
            self.parts.append((int(index[0]), log_prob.cpu()[index % self.every == 0]))


def _scored(density: Density, source: Source, every: int) -> list[_Scores]:
    """Score all rows; where memory runs out, again with batches of half the size."""
    kernel, asked = density.kernel(), None
    while True:
        size, number = batch_plan(source, density.device, density.dtype, kernel.footprint, asked)
        kernels = [kernel, *(kernel.fork() for _ in range(number - 1))]
        workers = [_Scores(own, density, every) for own in kernels]
        try:
            spread(staged(source, size, density.dtype, density.device), workers)
        except MEMORY_ERRORS as error:
            asked, kernel = halved(size, error), density.kernel()
            continue
        return workers


def _in_order(workers: list[_Scores]) -> Tensor:
    parts = sorted((p for w in workers for p in w.parts), key=lambda part: part[0])
    return torch.cat([log_prob for _, log_prob in parts])


def _mean(workers: list[_Scores], source: Source) -> float:
    sums = sum(w.total for w in workers), sum(w.mass for w in workers)
    total, mass = group_of(source).total(*sums)
    return total / mass


def log_likelihoods(density: Density, source: Source) -> Tensor:
    """Return the log-likelihood of every row in nats, (n,) in float64 on the CPU."""
    return _in_order(_scored(density, source, every=1))


def mean_log_likelihood(density: Density, source: Source) -> float:
    """Return the weighted mean log-likelihood per row, in nats, over all processes' shares."""
    return _mean(_scored(density, source, every=0), source)


def sampled_log_likelihoods(density: Density, source: Source) -> tuple[float, Tensor]:
    """Return the weighted mean of log-likelihoods in nats, and those of some rows.

    These are the rows whose numbers are multiples of the least whole number that leaves about a
    million of them, (m,) in float64: all rows where there are no more. Of all processes' shares.
    """
    group = group_of(source)
    n = int(group.total(len(source))[0])
    workers = _scored(density, source, every=-(-n // _SAMPLED))
    return _mean(workers, source), group.collect(_in_order(workers))
