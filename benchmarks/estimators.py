"""The estimators against scikit-learn: the same rows, the same start, the same iterations.

    python benchmarks/estimators.py

Both run 20 EM iterations in float64 from the same means, weights and precisions; times are medians
of five fits, and the likelihoods reached stand beside them.
"""

from __future__ import annotations

import os
import statistics
import time
import warnings
from typing import Any

import numpy as np
import sklearn.mixture

from mogul.sklearn import GaussianMixture

CASES = [
    ("full", 50_000, 10, 10),
    ("full", 20_000, 50, 10),
    ("tied", 50_000, 20, 10),
    ("diag", 100_000, 50, 20),
    ("spherical", 100_000, 50, 20),
]


def rows(n: int, d: int, k: int) -> np.ndarray:
    """Draw rows around k overlapping centres."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(k, d))[rng.integers(0, k, n)] + rng.normal(size=(n, d))


def start(kind: str, x: np.ndarray, k: int) -> dict[str, Any]:
    """Return a common start for both libraries."""
    d = x.shape[1]
    precision = {
        "full": np.stack([np.eye(d)] * k),
        "tied": np.eye(d),
        "diag": np.ones((k, d)),
        "spherical": np.ones(k),
    }[kind]
    return {
        "n_components": k, "covariance_type": kind, "tol": 0.0, "max_iter": 20,
        "weights_init": np.full(k, 1 / k), "means_init": x[:k], "precisions_init": precision,
        "init_params": "random_from_data", "random_state": 0,
    }  # fmt: skip


def measure(estimator: type, arguments: dict[str, Any], x: np.ndarray) -> tuple[float, float]:
    """Return the median seconds of a fit, and the mean log-likelihood reached."""
    seconds, score = [], 0.0
    for _ in range(5):
        since = time.perf_counter()
        fitted = estimator(**arguments).fit(x)
        seconds.append(time.perf_counter() - since)
        score = float(fitted.score(x))
    return statistics.median(seconds), score


def main() -> None:
    """Print the table."""
    warnings.simplefilter("ignore")
    print(f"{os.cpu_count()} CPU cores")
    print("| type | n × D, K | scikit-learn s | mogul s | ratio | nats | difference |")
    print("|---|---|---|---|---|---|---|")
    for kind, n, d, k in CASES:
        x = rows(n, d, k)
        arguments = start(kind, x, k)
        theirs = measure(sklearn.mixture.GaussianMixture, arguments, x)
        ours = measure(GaussianMixture, arguments, x)
        print(
            f"| {kind} | {n:,} × {d}, {k} | {theirs[0]:.2f} | {ours[0]:.2f} | "
            f"{theirs[0] / ours[0]:.1f} | {ours[1]:.6f} | {ours[1] - theirs[1]:.1e} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
