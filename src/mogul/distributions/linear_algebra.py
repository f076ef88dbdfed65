"""Products and inverses of matrices that the families are made of."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mogul.compute.backend import make_generator
from mogul.compute.threads import n_workers, spread

_FEW_ROWS = 64  # up to which their products with each other are faster than iterations
_NULL = 1e-5  # of the first eigenvalue, below which rounding spoils a direction
_BLOCK_VALUES = 2**16  # of float64: half a megabyte, which stays in the cache


def in_blocks(
    function: Callable[..., tuple[Tensor, ...]], *matrices: Tensor, values: int = _BLOCK_VALUES
) -> tuple[Tensor, ...]:
    """Apply a function of batches of matrices (C, D, D) to some at a time, and join the results.

    Work on all at once would pass through main memory with every operation. Blocks of so many
    `values` are worked on side by side, one a core.
    """
    size = max(1, values // max(1, matrices[0][0].numel()))
    blocks = list(zip(*(m.split(size) for m in matrices), strict=True))
    parts: list[tuple[Tensor, ...]] = [()] * len(blocks)

    def work(item: tuple[int, tuple[Tensor, ...]]) -> None:
        parts[item[0]] = function(*item[1])

    spread(enumerate(blocks), [work] * min(n_workers(matrices[0].device), len(blocks)))
    return parts[0] if len(parts) == 1 else tuple(map(torch.cat, zip(*parts, strict=True)))


def cholesky(matrix: Tensor) -> Tensor:
    """Return lower factors (..., D, D), NaN of a matrix that has none: the density then tells."""
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if bool(failed.any()):
        factor = torch.where((failed > 0)[..., None, None], torch.nan, factor)
    return factor


def inverted(tril: Tensor) -> tuple[Tensor, Tensor]:
    """Return L⁻¹ (C, D, D), worked out in float64, and the largest variance inflation (C,)."""
    wide = tril.double()
    eye = torch.eye(wide.shape[-1], dtype=torch.float64, device=wide.device)
    inverse = torch.linalg.solve_triangular(wide, eye.expand_as(wide), upper=False)
    lengths = torch.linalg.vector_norm(inverse, dim=-2) * torch.linalg.vector_norm(wide, dim=-1)
    return inverse.to(tril.dtype), lengths.amax(-1).square()


def expanded_quadratic(x: Tensor, centres: Tensor, noise: Tensor, seen: Tensor | None) -> Tensor:
    """Return Σ_d (x_d − μ_d)² / ψ_d by expanding the square, (..., n, K)."""
    precision = noise.reciprocal()
    scaled = centres * precision
    terms = centres * scaled
    const = terms.sum(-1).unsqueeze(-2) if seen is None else seen @ terms.mT
    if precision.shape[-1] == 1:
        squares = x.square().sum(-1, keepdim=True) * precision.squeeze(-1).unsqueeze(-2)
    else:
        squares = x.square() @ precision.mT
    return squares - 2 * (x @ scaled.mT) + const


def weighted_mean(noise: Tensor, mass: Tensor) -> Tensor:
    """Return the mean over features (C, 1) of noise (C, D), weighted by mass (C, D) or (C, 1)."""
    mass = mass.expand_as(noise)
    return (noise * mass).sum(-1, keepdim=True) / mass.sum(-1, keepdim=True).clamp_min(1e-300)


def principal_components(x: Tensor, rank: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return leading directions (D, H) and eigenvalues (H,) of xᵀx/n by subspace iteration.

    Those of few rows come from the products of rows with each other, xxᵀ/n.
    """
    n, d = x.shape
    if rank == 0:
        return x.new_zeros(d, 0), x.new_zeros(0)
    if rank <= n <= min(_FEW_ROWS, d):
        values, vectors = torch.linalg.eigh(x @ x.mT / n)
        values, vectors = values[-rank:].flip(0), vectors[:, -rank:].flip(1)
        if bool(values[-1] > _NULL * values[0]):  # else too few of them tell a direction
            return x.mT @ vectors / (n * values).sqrt(), values
    generator = make_generator(seed, x.device)
    width = min(rank + 8, d)
    Q = torch.empty(d, width, dtype=x.dtype, device=x.device).normal_(generator=generator)
    Q = torch.linalg.qr(Q).Q
    for _ in range(4):
        Q = torch.linalg.qr(x.mT @ (x @ Q)).Q
    values, vectors = torch.linalg.eigh((x @ Q).mT @ (x @ Q) / n)
    order = values.argsort(descending=True)[:rank]
    return Q @ vectors[:, order], values[order].clamp_min(0)
