r"""Samples of a mixture through which gradients flow to all parameters, weights included.

The conditional distribution functions $S_d(x;\theta) = F(x_d | x_{<d};\theta)$ map samples to
uniform noise whatever the parameters. Differentiating $S(x(\theta);\theta) = u$ gives
$\mathrm{d}x/\mathrm{d}\theta = -(\partial S/\partial x)^{-1}\,\partial S/\partial\theta$
(Graves 2016; Figurnov, Mohamed & Mnih 2018).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def conditional_cdfs(x: Tensor, log_weights: Tensor, centres: Tensor, tril: Tensor) -> Tensor:
    """Return F(x_d | x_<d) of one row x (D,) under a mixture, (D,).

    Args:
        x: the row, (D,), about the origin of the mixture.
        log_weights: (K,).
        centres: (K, D).
        tril: Cholesky factors (K, D, D) of the covariances.

    Returns:
        uniform numbers if the row was drawn from the mixture.
    """
    z = torch.linalg.solve_triangular(tril, (x - centres).unsqueeze(-1), upper=False).squeeze(-1)
    log_density = -0.5 * z.square() - tril.diagonal(dim1=-2, dim2=-1).log()
    before = log_density.cumsum(-1) - log_density  # of the features that come first, (K, D)
    resp = (log_weights.unsqueeze(-1) + before).softmax(0)
    return (resp * 0.5 * torch.erfc(-z / math.sqrt(2))).sum(0)


def attach(x: Tensor, log_weights: Tensor, centres: Tensor, tril: Tensor) -> Tensor:
    """Return samples x (s, b, D) unchanged in value, with gradients to b mixtures' parameters.

    Args:
        x: s samples of each of b mixtures, (s, b, D), about their origin.
        log_weights: (b, K).
        centres: (b, K, D).
        tril: Cholesky factors (b, K, D, D).

    Returns:
        the samples, as functions of the parameters. Costs O(s·b·K·D³).
    """
    x = x.detach().double()
    parameters = tuple(t.double() for t in (log_weights, centres, tril))

    def over_samples(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        per_mixture = torch.func.vmap(function, in_dims=(0, 0, 0, 0))
        return torch.func.vmap(per_mixture, in_dims=(0, None, None, None))

    uniform = over_samples(conditional_cdfs)(x, *parameters)
    slopes = over_samples(torch.func.jacrev(conditional_cdfs))(x, *(t.detach() for t in parameters))
    moved = torch.linalg.solve_triangular(
        slopes.tril(), (uniform - uniform.detach()).unsqueeze(-1), upper=False
    )
    return x - moved.squeeze(-1)
