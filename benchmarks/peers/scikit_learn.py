"""Claims about scikit-learn: its mixtures, and what else of it stands beside mogul."""

from __future__ import annotations

import importlib

import numpy as np
import torch

from benchmarks.peers.claims import (
    FULL,
    NO,
    PARTLY,
    Claim,
    Library,
    expect,
    gaps,
    nats,
    no_commands,
    not_far_from_zero,
    refused,
    rows,
    seeded,
)


def fitted(x: np.ndarray | None = None, covariance: str = "full", **options: object):
    """Return a fitted mixture of two components."""
    from sklearn.mixture import GaussianMixture

    return GaussianMixture(2, covariance_type=covariance, random_state=0, **options).fit(  # type: ignore[arg-type]
        rows() if x is None else x
    )


def simple() -> str:
    """Score every covariance."""
    return ", ".join(
        f"{c} {nats(fitted(None, c).score(rows()))}" for c in ("full", "diag", "spherical")
    )


def one_component() -> str:
    """Score PCA and factor analysis, which are one component each."""
    from sklearn.decomposition import PCA, FactorAnalysis

    scores = {m.__name__: nats(m(1).fit(rows()).score(rows())) for m in (PCA, FactorAnalysis)}
    return f"one component: {scores}"


def imputed() -> str:
    """Fill gaps by a regression with a draw from its posterior."""
    importlib.import_module("sklearn.experimental.enable_iterative_imputer")
    from sklearn.impute import IterativeImputer

    filled = IterativeImputer(sample_posterior=True, random_state=0).fit_transform(gaps())
    return expect(
        bool(np.isfinite(filled).all()), True, "IterativeImputer(sample_posterior=True) filled all"
    )


def bayesian() -> str:
    """Count the components that keep weight."""
    from sklearn.mixture import BayesianGaussianMixture

    kept = (
        BayesianGaussianMixture(n_components=6, max_iter=500, random_state=0).fit(rows()).weights_
        > 0.05
    )
    return f"BayesianGaussianMixture keeps {int(kept.sum())} of 6 components"


def on_a_device() -> str:
    """Fit a tensor by the array interface, which is what runs on a GPU."""
    import os
    import subprocess
    import sys

    code = (
        "import sklearn, torch; from sklearn.mixture import GaussianMixture\n"
        "with sklearn.config_context(array_api_dispatch=True):\n"
        "    m = GaussianMixture(2, init_params='random_from_data', random_state=0)\n"
        "    print(type(m.fit(torch.randn(200, 3)).means_).__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "SCIPY_ARRAY_API": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return expect(done.stdout.strip(), "Tensor", "a torch tensor is fitted by array_api_dispatch")


def ahead() -> str:
    """Find outliers by estimators made for them."""
    from sklearn.ensemble import IsolationForest

    marks = IsolationForest(random_state=0).fit_predict(rows())
    return f"IsolationForest marks {int((marks < 0).sum())} of 600 rows"


def chosen() -> str:
    """Search by BIC."""
    return f"bic {fitted().bic(rows()):.1f}, and GridSearchCV over any parameter"


def density_kernel() -> str:
    """Score a kernel density."""
    from sklearn.neighbors import KernelDensity

    score = KernelDensity().fit(rows()).score(rows()) / 600
    return f"KernelDensity {nats(score)}; no mixture of others"


def warm() -> str:
    """Go on from the last parameters."""
    model = fitted(max_iter=1, tol=0.0, warm_start=True)
    first = model.lower_bound_
    return f"warm_start: lower bound {first:.6f}, then {model.fit(rows()).lower_bound_:.6f}"


def own_seed() -> str:
    """Fit twice."""
    found = seeded(lambda: torch.as_tensor(fitted().means_))
    return expect(found, (True, True), "same bits, generators untouched")


def quantiles() -> str:
    """Fit a quantile, which is one number of a density."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    x = rows()
    model = HistGradientBoostingRegressor(loss="quantile", quantile=0.9).fit(x[:, :2], x[:, 2])
    below = float((x[:, 2] < model.predict(x[:, :2])).mean())
    return f"one quantile per model: {below:.2f} lie below the 0.9"


def cloned() -> str:
    """Clone an estimator."""
    from sklearn.base import clone

    return expect(clone(fitted()).get_params()["n_components"], 2, "clone keeps parameters")


LIBRARY = Library(
    "scikit-learn",
    "sklearn",
    "scikit-learn",
    {
        "simple": Claim(FULL, simple),
        "tied": Claim(FULL, lambda: nats(fitted(None, "tied").score(rows()))),
        "ppca": Claim(PARTLY, one_component, "one component: `PCA.score`"),
        "mfa": Claim(PARTLY, one_component, "one component: `FactorAnalysis.score`"),
        "em": Claim(FULL, lambda: f"{fitted().n_iter_} iterations"),
        "online": Claim(NO, lambda: refused(lambda: fitted().partial_fit(rows()))),
        "bayes": Claim(FULL, bayesian),
        "prior": Claim(PARTLY, bayesian, "in `BayesianGaussianMixture`, by variational inference"),
        "weights": Claim(
            NO, lambda: refused(lambda: fitted().fit(rows(), sample_weight=np.ones(600)))
        ),
        "missing": Claim(NO, lambda: refused(lambda: fitted(gaps()))),
        "impute": Claim(
            PARTLY, imputed, "`IterativeImputer` and `KNNImputer`, apart from its mixtures"
        ),
        "selection": Claim(FULL, chosen),
        "gpu": Claim(PARTLY, on_a_device, "through the array interface, with two of four starts"),
        "far": Claim(
            NO, lambda: not_far_from_zero(lambda x: fitted(x.numpy(), tol=1e-8).score(x.numpy()))
        ),
        "seed": Claim(FULL, own_seed),
        "resume": Claim(PARTLY, warm, "`warm_start`, in one session"),
        "mdn": Claim(PARTLY, quantiles, "regressors of one quantile each"),
        "others": Claim(PARTLY, density_kernel, "`KernelDensity`"),
        "outliers": Claim(FULL, ahead),
        "files": Claim(
            NO, "1.9.1, Model persistence: pickle and joblib run code; skops is another package"
        ),
        "cli": Claim(NO, lambda: no_commands("scikit-learn")),
        "estimator": Claim(FULL, cloned),
    },
    ("sklearn.mixture", "sklearn.decomposition", "sklearn.impute", "sklearn.covariance"),
)
