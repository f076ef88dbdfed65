"""Suites that others wrote or that others' contracts imply: scikit-learn's and torch's."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from sklearn.base import BaseEstimator
from sklearn.utils.estimator_checks import check_estimator

import mogul.sklearn
from mogul.sklearn import (
    MFA,
    MPPCA,
    BayesianGaussianMixture,
    GaussianMixture,
    KMeans,
    MixtureDensityRegressor,
)
from torture.outcome import Outcome

ROOT = Path(__file__).parents[1]
_STOCHASTIC = {
    "check_sample_weight_equivalence_on_dense_data": "minibatches of repeated rows are others",
}
_QUICK = MixtureDensityRegressor(learning_rate=1e-2, max_iter=100, batch_size=16)
ESTIMATORS: list[tuple[BaseEstimator, dict[str, str]]] = [
    (GaussianMixture(), {}),
    (GaussianMixture(covariance_type="tied"), {}),
    (GaussianMixture(covariance_type="diag"), {}),
    (GaussianMixture(covariance_type="spherical"), {}),
    (BayesianGaussianMixture(), {}),
    (MPPCA(), {}),
    (MFA(), {}),
    (KMeans(), {}),
    (KMeans(algorithm="truncated"), {}),
    (_QUICK, _STOCHASTIC),
]


def run(quick: bool) -> list[Outcome]:
    """Run scikit-learn's checks of every estimator, and the tests of torch's contract."""
    return [_scikit_learn(quick), _torch(quick)]


def public_estimators() -> set[type]:
    """Return the classes that mogul.sklearn offers as estimators."""
    offered = (getattr(mogul.sklearn, name) for name in mogul.sklearn.__all__)
    return {c for c in offered if inspect.isclass(c) and issubclass(c, BaseEstimator)}


def _scikit_learn(quick: bool) -> Outcome:
    """Run the checks; in continuous integration those of one estimator of each kind.

    The tests of the estimators run all of these checks there.
    """
    torch.set_num_threads(1)
    missing = public_estimators() - {type(estimator) for estimator, _ in ESTIMATORS}
    failures = [f"{cls.__name__} is not checked" for cls in sorted(missing, key=str)]
    tried, expected = 0, list[str]()
    asked = [ESTIMATORS[0]] if quick else ESTIMATORS
    for estimator, known in asked:
        for found in _checked(estimator, known):
            tried += 1
            name, told = found["check_name"], f"{estimator}: {found['check_name']}"
            if found["status"] == "failed":
                failures.append(f"{told}: {str(found['exception'])[:200]}")
            elif found["status"] == "xfail":
                expected.append(f"{type(estimator).__name__} {name}: {known[name]}")
    left = "; ".join(expected) or "none"
    note = f"{len(asked)} forms of {len(public_estimators())} estimators; expected to fail: {left}"
    return Outcome("suites: scikit-learn's checks", tried, failures, note)


def _checked(estimator: BaseEstimator, known: dict[str, str]) -> list[dict[str, Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: Any = check_estimator(
            estimator, expected_failed_checks=known, on_skip=None, on_fail=None
        )
    return found


def _torch(quick: bool) -> Outcome:
    """Run what torch.distributions promises of any distribution; by itself it is quick."""
    chosen = ["-k", "full"] if quick else []
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider",
         "tests/test_torch_contract.py", *chosen],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    counted = {
        what: int(number)
        for number, what in re.findall(r"(\d+) (passed|failed|errors?)", done.stdout)
    }
    failures = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if not counted or (done.returncode and not failures):
        failures = [f"pytest ended with {done.returncode}: {done.stdout[-200:]}"]
    note = "against MixtureSameFamily of MultivariateNormals, for every family and batch shape"
    return Outcome("suites: torch.distributions", sum(counted.values()), failures, note)
