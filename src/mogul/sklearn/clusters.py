"""KMeans under scikit-learn's names."""

from __future__ import annotations

import warnings
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import torch
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    ClusterMixin,
    TransformerMixin,
    _fit_context,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from mogul.algorithms.kmeans import Clusters, kmeans, nearest_centre
from mogul.algorithms.truncated_kmeans import truncated_kmeans
from mogul.compute.columns import column_means
from mogul.sklearn.rows import checked_rows, like

_ALGORITHMS = {"lloyd": kmeans, "truncated": truncated_kmeans}


class KMeans(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator):
    """k-means, with an algorithm for thousands of clusters.

    Rows are grouped about centres such that Σₙ ‖xₙ − c(n)‖² is small. numpy in, numpy out; torch
    in, torch out; computation is in the type of the data and on the device of a tensor.

    Args:
        n_clusters: number of clusters K.
        algorithm: "lloyd" compares every row with every centre, from greedy k-means++ seeds (Lloyd
            1982; Arthur & Vassilvitskii 2007). "truncated" compares each with the neighbours of its
            centre, from AFK-MC² seeds (Hirschberger, Forster & Lücke 2022; Bachem et al. 2016): for
            K from about a thousand.
        max_iter: most iterations.
        tol: stop when the inertia falls by a smaller fraction.
        n_init: number of starts; the lowest inertia is kept.
        random_state: seed.

    Attributes:
        cluster_centers_: (n_clusters, n_features).
        labels_: cluster of each row, (n_samples,); after "truncated" a few rows may have a nearer
            centre than theirs, which `predict` finds.
        inertia_: sum of squared distances of rows to the centres of their clusters.
        n_iter_: number of iterations.
        n_features_in_: number of features.

    Example:
        >>> import numpy as np
        >>> from mogul.sklearn import KMeans
        >>> X = np.random.default_rng(0).normal(size=(500, 2))
        >>> KMeans(20, algorithm="truncated", random_state=0).fit(X).cluster_centers_.shape
        (20, 2)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_clusters": [Interval(Integral, 1, None, closed="left")],
        "algorithm": [StrOptions(set(_ALGORITHMS))],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0.0, None, closed="left")],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        algorithm: str = "lloyd",
        max_iter: int = 300,
        tol: float = 1e-4,
        n_init: int = 1,
        random_state: Any = None,
    ) -> None:
        """Keep the parameters; they are checked by `fit`."""
        self.n_clusters = n_clusters
        self.algorithm = algorithm
        self.max_iter = max_iter
        self.tol = tol
        self.n_init = n_init
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        """Say that the type of floats is kept."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: None = None) -> Self:
        """Cluster rows, `n_init` times, and keep the clusters of lowest inertia.

        Args:
            X: rows (n_samples, n_features): array, tensor or data frame.
            y: ignored.

        Returns:
            the estimator.

        Raises:
            ValueError: for fewer rows than clusters.
        """
        x = checked_rows(self, X, reset=True)
        if len(x) < self.n_clusters:
            raise ValueError(
                f"n_samples={len(x)} should be >= n_clusters={self.n_clusters}; give at least one "
                "row for every cluster, or choose fewer clusters"
            )
        mean = column_means(x)
        x = x - mean
        size = float(x.abs().max()) or 1.0  # so that squares stay in range
        # Inertia is a sum of squares in Python's own numbers.
        if bool(x.any()) and not 1e-150 < size < 1e150:
            raise ValueError(
                f"The rows lie up to {size:.3g} from their mean, and squares of such numbers are "
                "out of range; rescale them"
            )
        found = self._best(x / size)
        self.cluster_centers_ = like(X, found.centres * size + mean)
        self.labels_ = like(X, found.labels.to(torch.int32))
        self.inertia_ = found.inertia * size**2
        self.n_iter_ = found.iterations
        self._n_features_out = self.n_clusters
        return self

    def _best(self, x: Tensor) -> Clusters:
        """Return the best of `n_init` attempts on rows about their mean."""
        random = check_random_state(self.random_state)
        run, settings = _ALGORITHMS[self.algorithm], (self.max_iter, self.tol)
        seeds = [int(random.randint(2**31 - 1)) for _ in range(self.n_init)]
        best = min((run(x, self.n_clusters, s, *settings) for s in seeds), key=_inertia)
        distinct = len(best.labels.unique())
        if distinct < self.n_clusters:
            warnings.warn(
                f"Only {distinct} of {self.n_clusters} clusters hold rows, perhaps because many "
                "rows are equal; choose fewer clusters.",
                ConvergenceWarning,
                stacklevel=4,
            )
        return best

    def predict(self, X: Any) -> Any:
        """Return the nearest centre of each row, (n_samples,)."""
        x, centres, _ = self._centred(X)
        return like(X, nearest_centre(x, centres).to(torch.int32))

    def transform(self, X: Any) -> Any:
        """Return distances to all centres, (n_samples, n_clusters)."""
        x, centres, size = self._centred(X)
        far = torch.cdist(x, centres, compute_mode="donot_use_mm_for_euclid_dist")
        return like(X, far * size)

    def score(self, X: Any, y: None = None) -> float:
        """Return minus the sum of squared distances of rows to the nearest centres."""
        x, centres, size = self._centred(X)
        nearest = nearest_centre(x, centres)
        return -float((x - centres[nearest]).double().square().sum()) * size**2

    def _centred(self, X: Any) -> tuple[Tensor, Tensor, float]:
        """Return rows and centres about the mean of the centres in some unit, and the unit.

        So squares keep digits, and stay in range.
        """
        check_is_fitted(self, "cluster_centers_")
        x = checked_rows(self, X, reset=False)
        centres = torch.as_tensor(self.cluster_centers_).to(x)
        middle = centres.mean(0)
        x, centres = x - middle, centres - middle
        size = max(float(x.abs().max()), float(centres.abs().max())) or 1.0
        return x / size, centres / size, size


def _inertia(found: Clusters) -> float:
    return found.inertia
