"""Mean squared errors of reconstruction and in-painting, and the error of pictures in dB."""

from __future__ import annotations

import math

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


def peak_signal_to_noise(clean: Tensor, other: Tensor, peak: float = 1.0) -> float:
    """Return the peak signal-to-noise ratio of a picture, 10 log₁₀(peak² / MSE), in dB.

    Args:
        clean: the true picture, of any shape.
        other: what is compared with it; infinite dB if there is no difference.
        peak: the range of values.
    """
    error = float((other.double() - clean.double()).square().mean())
    return 10 * math.log10(peak**2 / error) if error else math.inf
