"""Number of statistically different bins: do samples fall where training rows fall?"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from mogul.errors import InputError

_MANY_FEATURES = 1000
_CHUNK = 4096
_MOST_BINS, _ROWS_EACH = 100, 10


def fitting_bins(n: int) -> int:
    """Return how many bins suit n training rows: a hundred, or fewer so that each has ten rows.

    With fewer rows the test in a bin, which takes shares for normal, would mean little.
    """
    return max(2, min(_MOST_BINS, n // _ROWS_EACH))


@dataclass(frozen=True)
class BinComparison:
    """How the rows compared fill the bins of the training rows.

    `ndb` bins of `n_bins` differ significantly; `js` is the Jensen–Shannon divergence of the two
    histograms in nats; `n` rows were compared; `proportions` and `reference` (K,) are the shares
    of compared and of training rows; `different` (K,) marks the bins.
    """

    ndb: int
    n_bins: int
    js: float
    n: int
    proportions: np.ndarray
    reference: np.ndarray
    different: np.ndarray

    @property
    def ratio(self) -> float:
        """NDB/K: 0 at best, about the level of significance for rows of the same distribution."""
        return self.ndb / self.n_bins


class BinModel:
    """k-means bins of a training set, in which other samples are compared with it.

    Source: Richardson & Weiss 2018, "On GANs and GMMs".
    """

    def __init__(
        self,
        train: np.ndarray,
        n_bins: int = 100,
        whiten: bool = False,
        significance: float = 0.05,
        seed: int = 0,
    ) -> None:
        """Cut the training rows into bins.

        Args:
            train: training rows (n, D).
            n_bins: number of bins K.
            whiten: give every feature that is not constant unit variance first.
            significance: level of the two-sided test in each bin.
            seed: seed of k-means, and of the D // 6 coordinates used when D > 1000.

        Raises:
            InputError: if rows are not 2-D or finite, bins are fewer than two or more than the
                rows, or the significance is not between 0 and 1.
        """
        from sklearn.cluster import KMeans  # slow to import, and seldom needed

        _check(train, None)
        if not 2 <= n_bins <= len(train):
            raise InputError(
                f"{n_bins} bins were asked for with {len(train)} training row(s); choose from 2 to "
                "the number of rows, and about a hundred rows per bin."
            )
        if not 0 < significance < 1:
            raise InputError(
                f"A significance of {significance} came; it must lie between 0 and 1: try 0.05."
            )
        self.n_bins = n_bins
        self._width = train.shape[1]
        self._critical = NormalDist().inv_cdf(1 - significance / 2)
        self._used = _coordinates(self._width, seed)
        part = train[:, self._used]
        # Sums over many rows drift in float32, hence float64 here and in the deviations.
        self._shift = part.mean(0, dtype=np.float64)
        spans = part.max(0).astype(np.float64) - part.min(0)
        # In units of the widest, squares stay in the range of float32; a power of two rounds none.
        unit = np.exp2(np.rint(np.log2(spans.max()))) if spans.max() > 0 else 1.0
        self._scale = np.full(len(spans), unit)
        if whiten:
            units = np.where(spans > 0, spans, 1)
            self._scale = units  # in which squares do not overflow
            deviations = self._standardised(part).std(0, dtype=np.float64)
            self._scale = np.where(spans > 0, units * deviations, 1)
        means = KMeans(n_bins, n_init=1, random_state=seed)  # pyright: ignore
        means.fit(self._standardised(part))
        self._centres = np.asarray(means.cluster_centers_, np.float32)
        self._n = len(train)
        self._counts = np.bincount(self._assign(train), minlength=n_bins)

    def compare(self, samples: np.ndarray) -> BinComparison:
        r"""Compare how samples (m, D), in the units of the training rows, fill the bins.

        A bin differs if $|p_1-p_2|/\sqrt{p(1-p)(1/n_1+1/n_2)}$ exceeds the normal quantile, with
        $p$ the pooled share: the two-proportion z-test. A bin empty in both does not differ.

        Raises:
            InputError: if samples are not 2-D, not finite, or of another width.
        """
        _check(samples, self._width)
        counts = np.bincount(self._assign(samples), minlength=self.n_bins)
        n, m = self._n, len(samples)
        reference, proportions = self._counts / n, counts / m
        pooled = (self._counts + counts) / (n + m)
        error = np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
        # Multiplied out, because the error is zero in a bin that is empty, or full, in both.
        different = np.abs(proportions - reference) > self._critical * error
        js = jensen_shannon(proportions, reference)
        ndb = int(different.sum())
        return BinComparison(ndb, self.n_bins, js, m, proportions, reference, different)

    def _standardised(self, rows: np.ndarray) -> np.ndarray:
        """Return rows less their mean, in units in which float32 holds them."""
        out = np.empty(rows.shape, np.float32)
        for start in range(0, len(rows), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            out[chunk] = (rows[chunk] - self._shift) / self._scale
        return out

    def _assign(self, rows: np.ndarray) -> np.ndarray:
        """Return the bin (n,) with the nearest centre to each row."""
        labels = np.empty(len(rows), np.int64)
        half_norms = 0.5 * np.square(self._centres).sum(1)
        for start in range(0, len(rows), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            part = self._standardised(rows[chunk, self._used])
            # ½‖x − c‖² less ½‖x‖², which is the same for every centre.
            labels[chunk] = (half_norms - part @ self._centres.T).argmin(1)
        return labels


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> float:
    """Return ½KL(p‖m) + ½KL(q‖m), m = (p+q)/2, of two histograms (K,), in nats (0 … ln 2)."""
    middle = 0.5 * (p + q)
    kl = [float((a[a > 0] * np.log(a[a > 0] / middle[a > 0])).sum()) for a in (p, q)]
    return max(0.5 * sum(kl), 0.0)


def _coordinates(width: int, seed: int) -> np.ndarray:
    """Return the coordinates to bin by: all, or a random sixth of more than a thousand."""
    if width <= _MANY_FEATURES:
        return np.arange(width)
    chosen = np.random.default_rng(seed).choice(width, width // 6, replace=False)
    return np.sort(chosen)


def _check(rows: np.ndarray, width: int | None) -> None:
    if rows.ndim != 2 or 0 in rows.shape or (width is not None and rows.shape[1] != width):
        wanted = "(n, D)" if width is None else f"(n, {width})"
        raise InputError(
            f"Rows of shape {rows.shape} came to be binned; they must have shape {wanted} with at "
            "least one row: reshape them."
        )
    if not np.isfinite(rows).all():
        raise InputError(
            "Rows with missing or infinite values cannot be binned; impute them, or drop them."
        )
