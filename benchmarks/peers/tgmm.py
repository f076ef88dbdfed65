"""Claims about tgmm."""

from __future__ import annotations

from typing import Any

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
    runs_code,
    seeded,
)

X = torch.as_tensor(rows())


def fitted(x: torch.Tensor = X, weight: torch.Tensor | None = None, **options: Any) -> Any:
    """Return a fitted mixture of two components."""
    from tgmm import GaussianMixture

    options = {"n_components": 2, "random_state": 0, "device": "cpu", **options}
    return GaussianMixture(**options).fit(x, sample_weight=weight)


def score(model: Any, x: torch.Tensor = X) -> str:
    """Write the mean log-likelihood."""
    return nats(model.score_samples(x).mean())


def with_gaps() -> str:
    """Fit rows with gaps."""
    x = torch.as_tensor(gaps())
    return score(fitted(x, missing="em"), x)


def imputed() -> str:
    """Fill gaps by conditional means."""
    filled = fitted(torch.as_tensor(gaps()), missing="em").impute(torch.as_tensor(gaps()))
    return expect(
        bool(filled.isfinite().all()), True, "impute gives conditional means, no variances"
    )


def online() -> str:
    """Learn from batches."""
    model = fitted(X[:100], batch_size=100, step_size="auto", max_iter=1)
    for batch in 10 * list(X[torch.randperm(600)].split(100)):
        model.partial_fit(batch)
    return f"partial_fit after a first fit: {score(model)}"


def gibbs() -> str:
    """Sample the number of components."""
    from tgmm import GaussianMixture

    names = ("mean_prior", "mean_precision_prior", "covariance_prior", "degrees_of_freedom_prior")
    priors = dict(zip(names, GaussianMixture.suggest_priors(X, 2), strict=True))
    model = fitted(X[::4], n_components=None, max_iter=100, **priors)
    return f"Gibbs sampling finds {model.n_components_} components"


def map_fit() -> str:
    """Fit under priors."""
    from tgmm import GaussianMixture

    mean, precision, covariance, freedom = GaussianMixture.suggest_priors(X, 2)
    return score(
        fitted(
            n_features=3,
            mean_prior=mean,
            mean_precision_prior=precision,
            covariance_prior=covariance,
            degrees_of_freedom_prior=freedom,
        )
    )


def parts() -> str:
    """Condition, and marginalise."""
    model = fitted()
    given = model.condition(X[:4, :1], [0])
    marginal = score(model.marginal([0, 2]), X[:, [0, 2]])
    return f"condition {tuple(given.mean().shape)}, marginal {marginal}"


def selected() -> str:
    """Select by a criterion."""
    from tgmm import select_model

    found = select_model(X, [1, 2, 3], covariance_types=["full", "diag"])
    return f"select_model: {type(found).__name__}, and bic {fitted().bic(X):.1f}"


def noisy() -> str:
    """Find rows that a uniform component explains best."""
    x = torch.cat([X, 20 * torch.rand(20, 3, generator=torch.Generator().manual_seed(0)) - 8])
    n = int((fitted(x, noise=True).predict(x) == -1).sum())
    return f"noise=True marks {n} of 620 rows, 20 of them uniform"


def heavy_tails() -> str:
    """Fit another family."""
    from tgmm import StudentTMixture

    return f"StudentTMixture {score(StudentTMixture(2, random_state=0, device='cpu').fit(X))}"


def files() -> str:
    """Open a file that holds code."""
    from tgmm import GaussianMixture

    return expect(runs_code(GaussianMixture.load), True, "load ran code that a file held")


def one_seed() -> str:
    """Fit twice."""
    return expect(
        seeded(lambda: fitted().score_samples(X)),
        (True, False),
        "same bits; sets torch's global seed",
    )


def some_gradients() -> str:
    """Ask a log-density for a gradient to the means."""
    model = fitted()
    model.means_.requires_grad_(True)
    return expect(model.score_samples(X).requires_grad, True, "gradients to means_, once asked for")


def warm() -> str:
    """Go on from the last parameters."""
    model = fitted(max_iter=1, warm_start=True)
    return f"warm_start: {score(model)}, then {score(model.fit(X))}"


LIBRARY = Library(
    "tgmm",
    "tgmm",
    "tgmm",
    {
        "simple": Claim(
            FULL,
            lambda: ", ".join(
                f"{c} {score(fitted(covariance_type=c))}" for c in ("full", "diag", "spherical")
            ),
        ),
        "tied": Claim(
            FULL,
            lambda: ", ".join(
                f"{c} {score(fitted(covariance_type=c))}" for c in ("tied_full", "tied_diag", "VEV")
            ),
            "and the 14 covariances of Celeux & Govaert",
        ),
        "em": Claim(FULL, lambda: score(fitted())),
        "online": Claim(FULL, online),
        "gradient": Claim(PARTLY, some_gradients, "to tensors that you set to require them"),
        "bayes": Claim(FULL, gibbs),
        "prior": Claim(FULL, map_fit),
        "weights": Claim(FULL, lambda: score(fitted(weight=torch.linspace(0, 1, 600)))),
        "missing": Claim(FULL, with_gaps),
        "impute": Claim(
            PARTLY, imputed, "conditional means; variances of one pattern by `condition`"
        ),
        "conditional": Claim(FULL, parts),
        "selection": Claim(FULL, selected),
        "memory": Claim(PARTLY, online, "`partial_fit` batch by batch; the loop is yours"),
        "gpu": Claim(FULL, '0.4.3, README: GPU-accelerated; `device="cuda"`'),
        "far": Claim(
            NO, lambda: not_far_from_zero(lambda x: float(fitted(x).score_samples(x).mean()))
        ),
        "seed": Claim(PARTLY, one_seed, "the same result, but torch's global generator is set"),
        "resume": Claim(PARTLY, warm, "`warm_start`"),
        "others": Claim(FULL, heavy_tails),
        "outliers": Claim(FULL, noisy),
        "cli": Claim(NO, lambda: no_commands("tgmm")),
        "files": Claim(NO, files),
        "estimator": Claim(
            PARTLY,
            lambda: f"predict_proba {tuple(fitted().predict_proba(X).shape)}; clone {_clone()}",
            "names of parameters and methods; no `get_params`",
        ),
    },
)


def _clone() -> str:
    from sklearn.base import clone

    return refused(lambda: clone(fitted()))
