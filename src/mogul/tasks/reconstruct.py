"""Reconstruction: what a mixture's factors keep of each row."""

from __future__ import annotations

import torch
from torch import Tensor

from mogul.algorithms import default_batch_size
from mogul.distributions import Mixture


@torch.no_grad()
def reconstruct(mixture: Mixture, x: Tensor) -> Tensor:
    """Return the posterior mean of the noise-free part of rows (n, D), as (n, D).

    Args:
        mixture: the fitted mixture.
        x: rows (n, D), complete.

    Returns:
        reconstructions in the units of the data; see `Mixture.reconstruct`.
    """
    size = default_batch_size(mixture.n_features)
    return torch.cat([mixture.reconstruct(rows) for rows in x.split(size)])
