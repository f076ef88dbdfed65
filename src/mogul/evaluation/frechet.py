"""How far two sets of feature rows are apart: Fréchet, kernel, and nearest-neighbour estimates."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mogul.compute.backend import make_generator
from mogul.errors import InputError

_CHUNK = 1024
_LARGEST_SUBSET = 1000


def frechet_distance(a: Tensor, b: Tensor) -> float:
    r"""Return the squared Fréchet distance between Gaussians fitted to two sets of rows.

    $\|\mu_a-\mu_b\|^2 + \operatorname{tr}(\Sigma_a+\Sigma_b-2(\Sigma_a\Sigma_b)^{1/2})$ with
    unbiased covariances. It is biased upwards by few rows: compare only at equal numbers of them.
    Source: Dowson & Landau 1982; Heusel et al. 2017.

    Args:
        a: feature rows (n, f).
        b: feature rows (m, f).

    Returns:
        the distance in squared units of the features; zero at best.

    Raises:
        InputError: if a set has fewer than two rows, the widths differ, or a value is not finite
            or too large.
    """
    _check(a, b, 2)
    _check_range(a, b, 2)
    a, b = a.double(), b.double()
    root_a, root_b = _covariance_root(a), _covariance_root(b)
    # Singular values of Σa^½ Σb^½ are the roots of the eigenvalues of Σa^½ Σb Σa^½, and unlike
    # these they lose no digits where the covariances are nearly singular.
    cross = torch.linalg.svdvals(root_a @ root_b).sum()
    spread = root_a.square().sum() + root_b.square().sum() - 2 * cross
    shift = (a.mean(0) - b.mean(0)).square().sum()
    return max(float(shift + spread), 0.0)


def kernel_distance(
    a: Tensor, b: Tensor, subsets: int = 10, size: int | None = None, seed: int = 0
) -> tuple[float, float]:
    r"""Return the squared maximum mean discrepancy of two sets of rows, and its standard error.

    The mean over random subsets of the unbiased estimate with the kernel $(x^\top y/f+1)^3$. The
    subsets are disjoint, so that their estimates are independent and the standard error is that
    of the mean. Without bias, zero is not the least: it is what equal distributions average to.
    Source: Bińkowski et al. 2018 (KID); Zaremba et al. 2013 for the disjoint subsets.

    Args:
        a: feature rows (n, f).
        b: feature rows (m, f).
        subsets: number of subsets of each set.
        size: rows of each subset; default: as many as there are, at most 1000.
        seed: seed of the subsets.

    Returns:
        mean and standard error, in units of the kernel.

    Raises:
        InputError: if fewer than two subsets of two rows fit into a set, the widths differ, or a
            value is not finite or too large.
    """
    _check(a, b, 4)
    rows = min(len(a), len(b))
    size = min(rows // max(subsets, 1), _LARGEST_SUBSET) if size is None else size
    if min(subsets, size) < 2 or subsets * size > rows:
        raise InputError(
            f"{subsets} disjoint subsets of {size} rows were asked for, and the smaller set has "
            f"{rows}; ask for at least two subsets of at least two rows, and no more than fit."
        )
    _check_range(a, b, 6)
    draw = make_generator(seed)
    order_a, order_b = (
        torch.randperm(len(rows), generator=draw)[: subsets * size].to(rows.device)
        for rows in (a, b)
    )
    pairs = zip(a[order_a].double().split(size), b[order_b].double().split(size), strict=True)
    found = torch.stack([_discrepancy(x, y) for x, y in pairs])
    return float(found.mean()), float(found.std() / math.sqrt(subsets))


def precision_recall(real: Tensor, fake: Tensor, neighbours: int = 3) -> tuple[float, float]:
    """Return which share of fake rows lies amid real ones, and of real rows amid fake ones.

    A row lies amid others if it is within the distance of one of them to its k-th nearest
    neighbour among them. Precision falls with bad samples, recall with missing kinds of them.
    Source: Kynkäänniemi et al. 2019.

    Args:
        real: feature rows (n, f).
        fake: feature rows (m, f).
        neighbours: k; more blur the estimate, fewer make it noisy.

    Returns:
        precision and recall, between 0 and 1.

    Raises:
        InputError: if a set has no more rows than neighbours, neighbours are fewer than one, the
            widths differ, or a value is not finite or too large.
    """
    if neighbours < 1:
        raise InputError(f"{neighbours} neighbours were asked for; give at least one: try 3.")
    _check(real, fake, neighbours + 1)
    _check_range(real, fake, 2)
    real, fake = real.double(), fake.double()
    return _share_amid(fake, real, neighbours), _share_amid(real, fake, neighbours)


def _covariance_root(rows: Tensor) -> Tensor:
    """Return the symmetric root (f, f) of the covariance of rows (n, f)."""
    centred = rows - rows.mean(0)
    values, vectors = torch.linalg.eigh(centred.mT @ centred / (len(rows) - 1))
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.mT


def _discrepancy(x: Tensor, y: Tensor) -> Tensor:
    """Return the unbiased squared discrepancy of two sets of as many rows (n, f)."""
    n = len(x)
    within = (_kernel(x, x), _kernel(y, y))
    pairs = sum(k.sum() - k.diagonal().sum() for k in within) / (n * (n - 1))
    return pairs - 2 * _kernel(x, y).mean()


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.mT / x.shape[1] + 1).pow(3)


def _share_amid(rows: Tensor, others: Tensor, neighbours: int) -> float:
    """Return the share of rows within the neighbourhood of at least one of the others."""
    # One more neighbour, because the nearest is the row itself.
    radii = torch.cat([
        _distances(part, others).kthvalue(neighbours + 1, 1).values for part in others.split(_CHUNK)
    ])
    inside = [(_distances(part, others) <= radii).any(1) for part in rows.split(_CHUNK)]
    return float(torch.cat(inside).double().mean())


def _distances(rows: Tensor, others: Tensor) -> Tensor:
    # By differences: as a product, the distance of a row to itself would not be zero.
    return torch.cdist(rows, others, compute_mode="donot_use_mm_for_euclid_dist")


def _check(a: Tensor, b: Tensor, least: int) -> None:
    """Refuse rows that cannot be compared.

    Raises:
        InputError: if they are too few, of different widths, or not finite.
    """
    fit = a.ndim == b.ndim == 2 and a.shape[1] == b.shape[1] > 0
    if not fit or min(len(a), len(b)) < least:
        raise InputError(
            f"Features of shapes {tuple(a.shape)} and {tuple(b.shape)} came to be compared; they "
            f"must be (n, f) and (m, f) with at least {least} rows each: reshape them, or take "
            "more."
        )
    if not bool(a.isfinite().all() and b.isfinite().all()):
        raise InputError(
            "Features with missing or infinite values cannot be compared; drop these rows, or "
            "find what produced them."
        )


def _check_range(a: Tensor, b: Tensor, power: int) -> None:
    """Refuse rows whose values cannot be raised to a power in float64, and summed.

    Raises:
        InputError: if they are too large.
    """
    largest = max(float(a.abs().max()), float(b.abs().max()))
    limit = 1e250 ** (1 / power)
    if largest > limit:
        raise InputError(
            f"Features as large as {largest:.3g} came to be compared, and powers of those above "
            f"{limit:.0e} are beyond float64; rescale them."
        )
