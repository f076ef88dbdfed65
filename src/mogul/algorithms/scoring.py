"""Score a source under a density, batch by batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mogul.compute.threads import n_workers, spread
from mogul.protocols import Batch, Density, Scorer, Source

_BATCH_BYTES = 2**25
_MOST_ROWS = 2**16  # bytes of a column of a batch
_LEAST_WORK = 5e7  # floating-point operations below which a batch is not worth a thread
_MOST_SUMS = 2**28  # bytes of sums that all threads together may hold


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
    """One thread's share of scores."""

    def __init__(self, kernel: Scorer, density: Density) -> None:
        self.score = kernel.score
        self.complete = density.log_prob
        self.parts: list[tuple[int, Tensor, Tensor | None]] = []

    @torch.no_grad()
    def __call__(self, read: Callable[[], Batch]) -> None:
        x, weight, index = read()
        log_prob = self.score(x)
        if bool(log_prob.isnan().any()):  # gaps, or numbers beyond the type
            log_prob = self.complete(x)
        self.parts.append((int(index[0]), log_prob.double().cpu(), weight))


def _scored(density: Density, source: Source) -> list[tuple[int, Tensor, Tensor | None]]:
    kernel = density.kernel()
    size, number = batch_plan(source, density.device, density.dtype, kernel.footprint)
    kernels = [kernel, *(kernel.fork() for _ in range(number - 1))]
    workers = [_Scores(own, density) for own in kernels]
    spread(source.parts(size, density.dtype, density.device), workers)
    parts = [part for worker in workers for part in worker.parts]
    return sorted(parts, key=lambda part: part[0])


def log_likelihoods(density: Density, source: Source) -> Tensor:
    """Return the log-likelihood of every row in nats, (n,) in float64 on the CPU."""
    return torch.cat([log_prob for _, log_prob, _ in _scored(density, source)])


def mean_log_likelihood(density: Density, source: Source) -> float:
    """Return the weighted mean log-likelihood per row, in nats."""
    total, mass = 0.0, 0.0
    for _, log_prob, weight in _scored(density, source):
        w = torch.ones_like(log_prob) if weight is None else weight.double().cpu()
        total += float((w * log_prob).sum())
        mass += float(w.sum())
    return total / mass
