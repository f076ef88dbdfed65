"""Means and deviations of columns, to the last digit."""

from __future__ import annotations

from torch import Tensor


def column_means(x: Tensor) -> Tensor:
    """Return the mean of every column, and of a constant column its very value.

    A sum of many rows is rounded many times, so that the mean of equal rows is not theirs, and
    what is left looks like data. The mean of the deviations from it, m + mean(x − m), mends that.

    Args:
        x: rows (*batch, n, D); NaN is left out.

    Returns:
        Means (*batch, D); NaN where a column has no value.
    """
    m = x.nanmean(-2)
    return m + (x - m.unsqueeze(-2)).nanmean(-2)


def column_deviations(x: Tensor) -> Tensor:
    """Return the standard deviation of every column (with 1/n), and of a constant column zero.

    Args:
        x: rows (*batch, n, D); NaN is left out.

    Returns:
        Standard deviations (*batch, D); NaN where a column has no value.
    """
    return (x - column_means(x).unsqueeze(-2)).square().nanmean(-2).sqrt()
