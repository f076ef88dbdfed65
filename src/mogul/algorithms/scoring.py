"""Score a source under a density, batch by batch."""

from __future__ import annotations

import torch
from torch import Tensor

from mogul.protocols import Density, Source


def default_batch_size(n_features: int) -> int:
    """Return the rows per batch that keep buffers near 64 MB in float32."""
    return max(256, min(8192, 2**24 // n_features))


@torch.no_grad()
def log_likelihoods(density: Density, source: Source) -> Tensor:
    """Return the log-likelihood of every row in nats, (n,) in float64 on the CPU."""
    size = default_batch_size(source.n_features)
    parts = [
        density.log_prob(batch.x).double().cpu()
        for batch in source.batches(size, density.dtype, density.device)
    ]
    return torch.cat(parts)


@torch.no_grad()
def mean_log_likelihood(density: Density, source: Source) -> float:
    """Return the weighted mean log-likelihood per row, in nats."""
    total, mass = 0.0, 0.0
    size = default_batch_size(source.n_features)
    for batch in source.batches(size, density.dtype, density.device):
        log_prob = density.log_prob(batch.x).double()
        weight = torch.ones_like(log_prob) if batch.weight is None else batch.weight.double()
        total += float((weight * log_prob).sum())
        mass += float(weight.sum())
    return total / mass
