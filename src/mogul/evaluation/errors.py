"""Mean squared errors of reconstruction and in-painting."""

from __future__ import annotations

import torch
from torch import Tensor

from mogul.distributions import Mixture


@torch.no_grad()
def reconstruction_error(mixture: Mixture, x: Tensor) -> float:
    """Return the mean squared error per observed feature of reconstructing rows (n, D)."""
    total = sum(float((mixture.reconstruct(r) - r).square().nansum()) for r in x.split(1024))
    return total / int((~x.isnan()).sum())


def inpainting_error(x: Tensor, filled: Tensor, observed: Tensor) -> float:
    """Return the mean squared error per hidden feature of filled rows (n, D), data units²."""
    return float((filled - x)[~observed].square().mean())
