"""Outliers: rows less likely than almost all training rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mogul.algorithms import log_likelihoods
from mogul.errors import InputError
from mogul.protocols import Density, Source

_N_QUANTILES = 1001


@dataclass(frozen=True)
class Outliers:
    """Rows in order of likelihood.

    `log_likelihood` (n,) of all rows in nats, or the scores that they were ranked by; `order` (n,)
    row numbers from the least likely up, `threshold` in nats, and `n_below`, how many rows are
    below it (the first of `order`). Rows with gaps, `incomplete` (n,), come last and are not
    judged: the density of a part of a row cannot be compared with those of whole rows.
    """

    log_likelihood: np.ndarray
    order: np.ndarray
    threshold: float
    n_below: int
    incomplete: np.ndarray

    @property
    def index(self) -> np.ndarray:
        """Row numbers of the outliers, the least likely first."""
        return self.order[: self.n_below]


def training_quantiles(log_likelihood: np.ndarray) -> list[float]:
    """Return the 0, 0.1, … 100 % quantiles of training log-likelihoods, to keep with a model."""
    return np.quantile(log_likelihood, np.linspace(0, 1, _N_QUANTILES)).tolist()


def percentile_of(log_likelihood: np.ndarray, quantiles: list[float]) -> np.ndarray:
    """Return which percentage of the training rows is less likely than each value."""
    return 100 * np.interp(log_likelihood, quantiles, np.linspace(0, 1, len(quantiles)))


def find_outliers(
    density: Density, source: Source, quantiles: list[float], fraction: float = 0.01
) -> Outliers:
    """Rank rows by likelihood and mark those below a quantile of the training rows.

    Args:
        density: the fitted density.
        source: the rows to judge.
        quantiles: what `training_quantiles` returned for the training rows.
        fraction: share of training rows that lie below the threshold.

    Returns:
        the ranking, the threshold and the number of outliers.

    Raises:
        InputError: if the fraction is not between 0 and 1.
    """
    values = log_likelihoods(density, source).numpy()
    return rank_rows(values, rows_with_gaps(source), quantiles, fraction)


def rank_rows(
    values: np.ndarray, incomplete: np.ndarray, quantiles: list[float], fraction: float = 0.01
) -> Outliers:
    """Rank rows by scores in nats, and mark those below a quantile of the training rows' scores.

    Args:
        values: scores (n,) of the rows: log-likelihoods, or what stands for them.
        incomplete: rows (n,) with gaps, which are not judged.
        quantiles: what `training_quantiles` returned for such scores of the training rows.
        fraction: share of training rows that lie below the threshold.

    Raises:
        InputError: if the fraction is not between 0 and 1.
    """
    if not 0 < fraction < 1:
        raise InputError(
            f"The fraction of training rows below the threshold is {fraction}; it must lie "
            "between 0 and 1, for example 0.01."
        )
    threshold = float(np.interp(fraction, np.linspace(0, 1, len(quantiles)), quantiles))
    order = np.lexsort((values, incomplete))
    below = int(((values < threshold) & ~incomplete).sum())
    return Outliers(values, order, threshold, below, incomplete)


def rows_with_gaps(source: Source) -> np.ndarray:
    """Return which rows have a missing value, (n,) boolean."""
    return np.concatenate([b.x.isnan().any(-1).cpu().numpy() for b in source.batches()])
