"""What mixtures ask of rows and of indices of features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mogul.errors import InputError


def check_width(x: Tensor, n_features: int) -> None:
    """Refuse anything but rows of so many features.

    Raises:
        InputError: for another type or width.
    """
    if not isinstance(x, Tensor):
        raise InputError(f"A {type(x).__name__} came; give a tensor: torch.as_tensor(rows).")
    if x.is_complex():
        raise InputError(f"Rows of {x.dtype} came; give real numbers, such as x.real.")
    if x.dim() == 0 or x.shape[-1] != n_features:
        raise InputError(
            f"Rows of {n_features} features are expected in the last dimension; got shape "
            f"{tuple(x.shape)}."
        )


def has_gaps(x: Tensor) -> bool:
    """Return whether values are missing (NaN).

    Raises:
        InputError: if a value is infinite: it has no density, nor responsibilities.
    """
    if bool(x.sum().isfinite()):
        return False
    infinite = x.isinf()
    if bool(infinite.any()):
        raise InputError(
            f"{int(infinite.sum())} value(s) are infinite, the first at "
            f"{tuple(infinite.nonzero()[0].tolist())}; drop their rows, or put NaN, which marks "
            "what is missing."
        )
    return bool(x.isnan().any())


def sample_sizes(shape: Any) -> torch.Size:
    """Return how many samples are asked for, as sizes.

    Raises:
        InputError: if one is negative.
        TypeError: if they are no tuple of whole numbers, as `torch.distributions` raises it.
    """
    try:
        sizes = torch.Size(shape)
    except TypeError as error:
        raise TypeError(
            f"Samples of shape {shape!r} were asked for; give a tuple of whole numbers, such as "
            "(16,)."
        ) from error
    if any(size < 0 for size in sizes):
        raise InputError(f"Samples of shape {tuple(sizes)} were asked for; none may be negative.")
    return sizes


def feature_indices(features: Any, n_features: int, device: torch.device) -> Tensor:
    """Return indices of features as a tensor (m,).

    Raises:
        InputError: if they are none, repeated or out of range.
    """
    found = torch.as_tensor(features, dtype=torch.long, device=device)
    good = found.dim() == 1 and len(found) and len(found.unique()) == len(found)
    if not good or not bool(((found >= 0) & (found < n_features)).all()):
        raise InputError(
            f"The features are {found.tolist()}; give at least one, each once, from 0 to "
            f"{n_features - 1}."
        )
    return found
