"""One function per library: EM from a given start, timed iteration by iteration where it can be.

Each returns seconds per iteration and the mean log-likelihood after all of them. Libraries that
show no iterations are timed by the difference of a long and a short fit.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

SKLEARN_NAMES = {"full": "full", "shared": "tied", "diagonal": "diag", "isotropic": "spherical"}


@dataclass(frozen=True)
class Problem:
    """Rows, a covariance type, and where all libraries start: means, weights 1/K, covariances I."""

    x: np.ndarray
    means: np.ndarray
    kind: str
    iterations: int

    @property
    def k(self) -> int:
        """Number of components."""
        return len(self.means)


def by_difference(
    fit: Callable[[int], Any], iterations: int, score: Callable[[Any], float]
) -> tuple[float, float]:
    """Time fits of 1 and of all iterations; return seconds per iteration, and the score."""
    for n in (1, iterations):
        fit(n)  # what is compiled or imported late
    since = time.perf_counter()
    fit(1)
    short = time.perf_counter() - since
    since = time.perf_counter()
    fitted = fit(iterations)
    long = time.perf_counter() - since
    return (long - short) / (iterations - 1), score(fitted)


def mogul(problem: Problem) -> tuple[float, float]:
    """Time every pass."""
    from mogul import EM, GaussianMixture, fit
    from mogul.algorithms import mean_log_likelihood
    from mogul.data import ArraySource

    x = torch.as_tensor(problem.x)
    kind = "full" if problem.kind == "shared" else problem.kind
    sharing = "shared" if problem.kind == "shared" else "own"
    model = GaussianMixture(problem.k, x.shape[1], kind, sharing=sharing, dtype=x.dtype)
    model.start(x[: 4 * problem.k], torch.arange(4 * problem.k) % problem.k, 0)
    model.feature_variance.fill_(1.0)
    with torch.no_grad():
        model.centres.copy_(torch.as_tensor(problem.means) - model.origin)
        model.logits.zero_()
        for raw in model.raw.values():
            raw.zero_()  # covariances of one
    source = ArraySource(x)
    fitted = fit(model, source, EM(), passes=problem.iterations, tolerance=0.0)
    seconds = statistics.median(row["seconds"] for row in fitted.history[1:])
    return seconds, mean_log_likelihood(model(), source)


def scikit_learn(problem: Problem) -> tuple[float, float]:
    """Time every iteration, from E-step to E-step."""
    from sklearn.mixture import GaussianMixture

    stamps: list[float] = []

    class Timed(GaussianMixture):
        def _e_step(self, *args: Any, **kwargs: Any) -> Any:
            stamps.append(time.perf_counter())
            return super()._e_step(*args, **kwargs)

    d, dtype = problem.x.shape[1], problem.x.dtype
    eye = np.eye(d, dtype=dtype)
    precisions = {
        "full": np.stack([eye] * problem.k),
        "shared": eye,
        "diagonal": np.ones((problem.k, d), dtype),
        "isotropic": np.ones(problem.k, dtype),
    }[problem.kind]
    model = Timed(
        problem.k,
        covariance_type=SKLEARN_NAMES[problem.kind],
        weights_init=np.full(problem.k, 1 / problem.k, dtype),
        means_init=problem.means,
        precisions_init=precisions,
        init_params="random_from_data",
        random_state=0,
        tol=0.0,
        max_iter=problem.iterations,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(problem.x)
    # The last E-step of a fit has no M-step after it.
    return statistics.median(np.diff(stamps[:-1])), float(model.score(problem.x))


def tgmm(problem: Problem) -> tuple[float, float]:
    """tgmm, on the CPU."""
    from tgmm import GaussianMixture

    x = torch.as_tensor(problem.x)
    eye = torch.eye(x.shape[1], dtype=x.dtype).expand(problem.k, -1, -1).clone()

    def fit(n: int) -> Any:
        model = GaussianMixture(
            problem.k, x.shape[1], problem.kind, max_iter=n, tol=1e-300, device="cpu",
            init_means=torch.as_tensor(problem.means), init_covariances=eye,
            init_weights=torch.full((problem.k,), 1 / problem.k, dtype=x.dtype),
        )  # fmt: skip
        return model.fit(x)

    return by_difference(fit, problem.iterations, lambda m: float(m.score_samples(x).mean()))


def pomegranate(problem: Problem) -> tuple[float, float]:
    """Pomegranate's GeneralMixtureModel of Normals."""
    from pomegranate.distributions import Normal
    from pomegranate.gmm import GeneralMixtureModel

    x = torch.as_tensor(problem.x)
    eye = torch.eye(x.shape[1], dtype=x.dtype)

    def fit(n: int) -> Any:
        parts = [Normal(torch.as_tensor(m), eye.clone(), "full") for m in problem.means]
        return GeneralMixtureModel(parts, max_iter=n, tol=-np.inf).fit(x)

    return by_difference(fit, problem.iterations, lambda m: float(m.log_probability(x).mean()))


def torchgmm(problem: Problem) -> tuple[float, float]:
    """torchgmm, which takes means and works out the first covariances from the data."""
    import logging

    from torchgmm.bayes import GaussianMixture

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    x = torch.as_tensor(problem.x)
    quiet = {
        "enable_progress_bar": False, "logger": False, "enable_model_summary": False,
        "accelerator": "cpu",
    }  # fmt: skip

    def fit(n: int) -> Any:
        model = GaussianMixture(
            problem.k, covariance_type="full", init_means=torch.as_tensor(problem.means),
            convergence_tolerance=0.0, trainer_params={**quiet, "max_epochs": n},
        )  # fmt: skip
        return model.fit(x)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return by_difference(fit, problem.iterations, lambda m: -float(m.score(x)))


def gmmx(problem: Problem) -> tuple[float, float]:
    """gmmx, compiled by JAX."""
    import jax
    from gmmx import EMFitter, GaussianMixtureModelJax

    jax.config.update("jax_enable_x64", problem.x.dtype == np.float64)
    x, d = jax.numpy.asarray(problem.x), problem.x.shape[1]
    start = GaussianMixtureModelJax.from_squeezed(
        means=problem.means,
        covariances=np.stack([np.eye(d, dtype=problem.x.dtype)] * problem.k),
        weights=np.full(problem.k, 1 / problem.k, problem.x.dtype),
    )

    def fit(n: int) -> Any:
        return jax.block_until_ready(EMFitter(max_iter=n, tol=-1.0).fit(x=x, gmm=start))

    def score(result: Any) -> float:
        return float(EMFitter().e_step(x, result.gmm)[0])

    return by_difference(fit, problem.iterations, score)


LIBRARIES = {
    "mogul": mogul,
    "scikit-learn": scikit_learn,
    "tgmm": tgmm,
    "pomegranate": pomegranate,
    "torchgmm": torchgmm,
    "gmmx": gmmx,
}
