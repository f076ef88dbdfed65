"""What mixtures ask of their arguments and data."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import torch

from mogul.distributions import Covariance
from mogul.errors import InputError


def check_scale(variance: float, dtype: torch.dtype, size: float) -> None:
    """Refuse data without a scale, or with one that the type cannot square.

    Args:
        variance: mean variance of features; 0 if they are constant but for rounding.
        dtype: type of the numbers.
        size: the largest distance of a value from the mean of its feature.

    Raises:
        InputError: if the variance is zero, or beyond the type.
    """
    # Squares, their ratio to the floor, and sums over features must stay in range.
    limit = torch.finfo(dtype).max ** 0.8
    vanished = 0 < size < torch.finfo(dtype).tiny ** 0.5
    if variance == 0 and not vanished:
        raise InputError(
            f"All rows are equal, or differ by no more than rounding in {dtype}, so the data have "
            "no scale; give rows that differ, or subtract what all have in common."
        )
    if not 1 / limit < variance < limit:
        raise InputError(
            f"The rows lie up to {size:.3g} from their mean, which {dtype} cannot square "
            "safely; rescale the columns, or use float64."
        )


def check_counts(n_components: Any, n_features: Any) -> tuple[int, int]:
    """Return two numbers as Python's own, if they are whole and positive.

    Raises:
        InputError: if one is not.
    """
    for what, n in (("components", n_components), ("features", n_features)):
        if isinstance(n, bool) or not isinstance(n, Integral) or n < 1:
            raise InputError(
                f"The number of {what} is {n!r}; it must be a whole number of at least 1."
            )
    return int(n_components), int(n_features)


def check_rank(cls: type[Covariance], rank: int | None, n_features: int) -> int:
    """Return the number of factors, 0 for a family without any.

    Raises:
        InputError: if it does not fit the family or the number of features.
    """
    if not cls.low_rank:
        if rank is not None:
            raise InputError(
                f"The {cls.name} family has no factors, but rank {rank} came; leave the rank out, "
                "or choose ppca or factor-analysis."
            )
        return 0
    if n_features < 2:
        raise InputError(
            f"The {cls.name} family needs at least 2 features, and {n_features} came; choose "
            "full or diagonal."
        )
    if rank is None:
        rank = min(6, n_features - 1)
    if isinstance(rank, bool) or not isinstance(rank, Integral) or not 1 <= rank < n_features:
        raise InputError(
            f"Rank {rank!r} came for {n_features} features; the number of factors must be a whole "
            f"number from 1 to {n_features - 1} (the features less one)."
        )
    return int(rank)
