"""Every feature of a mixture by itself: distribution functions and quantiles."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_HALVINGS = 200  # of a bracket, at most: float64 needs about sixty


def marginal_cdf(x: Tensor, weights: Tensor, centres: Tensor, deviations: Tensor) -> Tensor:
    """Return P(X_d ≤ x_d) for rows x (..., D), as (..., D) in float64.

    Args:
        x: rows, (..., D).
        weights: (..., K).
        centres: (..., K, D).
        deviations: standard deviations of every feature under every component, (..., K, D).
    """
    z = ((x.unsqueeze(-2) - centres) / deviations).double()
    # erfc keeps the digits of the lower tail, where 1 + erf has none.
    return (weights.unsqueeze(-1) * 0.5 * torch.erfc(-z / math.sqrt(2))).sum(-2)


@torch.no_grad()
def marginal_quantiles(
    probability: Tensor, weights: Tensor, centres: Tensor, deviations: Tensor
) -> Tensor:
    """Return quantiles (q, ..., D) of every feature, by bisection of `marginal_cdf`.

    The least and the greatest quantile of the components bracket that of the mixture.

    Args:
        probability: (q,), between 0 and 1.
        weights: (..., K).
        centres: (..., K, D).
        deviations: (..., K, D).
    """
    weights, centres, deviations = (t.double() for t in (weights, centres, deviations))
    p = probability.double().reshape(-1, *[1] * centres.dim())
    each = centres + deviations * torch.special.ndtri(p)  # (q, ..., K, D)
    there = weights.unsqueeze(-1) > 0
    low = torch.where(there, each, torch.inf).amin(-2)
    high = torch.where(there, each, -torch.inf).amax(-2)
    p = p.squeeze(-1)
    for _ in range(_HALVINGS):
        middle = low + 0.5 * (high - low)
        if not bool(((middle > low) & (middle < high)).any()):
            break
        below = marginal_cdf(middle, weights, centres, deviations) < p
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return high
