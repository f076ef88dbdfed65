"""Claims about pomegranate."""

from __future__ import annotations

import io
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
    seeded,
)

X = torch.as_tensor(rows())


def fitted(x: Any = X, covariance: str = "full", **options: Any) -> Any:
    """Return a fitted mixture of two Normals."""
    from pomegranate.distributions import Normal
    from pomegranate.gmm import GeneralMixtureModel

    parts = [Normal(covariance_type=covariance) for _ in range(2)]
    return GeneralMixtureModel(parts, random_state=0, tol=1e-4).fit(x, **options)


def score(model: Any, x: Any = X) -> str:
    """Write the mean log-likelihood."""
    return nats(model.log_probability(x).mean())


def masked() -> Any:
    """Return the rows with gaps as pomegranate takes them."""
    x = torch.as_tensor(gaps())
    return torch.masked.MaskedTensor(x.nan_to_num(), ~x.isnan())


def with_gaps() -> str:
    """Fit masked rows: independent features may have gaps, full covariances may not."""
    x = masked()
    diagonal = fitted(x, "diag").log_probability(x).mean()
    return f"diag {nats(diagonal)}; full {refused(lambda: fitted(x))}"


def out_of_core() -> str:
    """Add the statistics of batches, by a loop of one's own."""
    model = fitted(X[:100])
    for _ in range(20):
        for batch in X.split(100):
            model.summarize(batch)
        model.from_summaries()
    return f"summarize per batch, then from_summaries: {score(model)}"


def by_state() -> str:
    """Keep the parameters alone."""
    from pomegranate.distributions import Normal
    from pomegranate.gmm import GeneralMixtureModel

    model, file = fitted(), io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = GeneralMixtureModel([Normal(torch.zeros(3), torch.eye(3)) for _ in range(2)])
    other.load_state_dict(torch.load(file, weights_only=True))
    off = float((model.log_probability(X) - other.log_probability(X)).abs().max())
    return expect(off, 0.0, "a state_dict, put into a model of the same make")


def other_components() -> str:
    """Mix two families."""
    from pomegranate.distributions import Exponential, Gamma
    from pomegranate.gmm import GeneralMixtureModel

    x = X.abs() + 0.1
    return (
        f"Exponential and Gamma: {score(GeneralMixtureModel([Exponential(), Gamma()]).fit(x), x)}"
    )


def graphs() -> str:
    """Fit a hidden Markov model, and a Bayesian network."""
    from pomegranate.bayesian_network import BayesianNetwork
    from pomegranate.distributions import Normal
    from pomegranate.hmm import DenseHMM

    sequences = X.reshape(20, 30, 3)
    hmm = DenseHMM([Normal(), Normal()], max_iter=3, random_state=0).fit(sequences)
    network = BayesianNetwork(algorithm="chow-liu").fit((X > 2).int())
    return (
        f"DenseHMM {nats(hmm.log_probability(sequences).mean() / 30)} a step; BayesianNetwork "
        f"{nats(network.log_probability((X > 2).int()).mean())}"
    )


def discrete() -> str:
    """Infer a hidden value in a network of discrete ones."""
    from pomegranate.bayesian_network import BayesianNetwork

    x = (X > 2).int()
    network = BayesianNetwork(algorithm="chow-liu").fit(x)
    hidden = torch.masked.MaskedTensor(x, torch.tensor([True, True, False]).expand(600, 3))
    return f"BayesianNetwork: p(third = 1) {float(network.predict_proba(hidden)[2][0, 1]):.3f}"


def some_gradients() -> str:
    """Ask log-densities for gradients to means: full covariances keep products of them."""
    seen = []
    for covariance in ("diag", "full"):
        model = fitted(X, covariance)
        model.distributions[0].means.requires_grad_(True)
        seen.append(model.log_probability(X).requires_grad)
    return expect(seen, [True, False], "gradients to means of independent features, not of full")


def own_seed() -> str:
    """Fit twice."""
    return expect(
        seeded(lambda: fitted().log_probability(X)), (True, True), "same bits, generators untouched"
    )


LIBRARY = Library(
    "pomegranate",
    "pomegranate",
    "pomegranate",
    {
        "simple": Claim(
            FULL,
            lambda: ", ".join(f"{c} {score(fitted(X, c))}" for c in ("full", "diag", "sphere")),
        ),
        "tied": Claim(NO, lambda: refused(lambda: fitted(X, "tied"))),
        "em": Claim(FULL, lambda: score(fitted())),
        "online": Claim(
            PARTLY,
            out_of_core,
            "statistics of batches are added, and `inertia` mixes; the loop is yours",
        ),
        "gradient": Claim(
            PARTLY,
            some_gradients,
            "to parameters that you set to require them; not of full covariances",
        ),
        "weights": Claim(
            FULL, lambda: score(fitted(X, sample_weight=torch.linspace(0, 1, 600)[:, None]))
        ),
        "missing": Claim(PARTLY, with_gaps, "as masked tensors; not for full covariances"),
        "memory": Claim(PARTLY, out_of_core, "`summarize` and `from_summaries`; the loop is yours"),
        "gpu": Claim(FULL, "1.1.2, README: models move by `.cuda()`, being modules of torch"),
        "far": Claim(
            NO, lambda: not_far_from_zero(lambda x: float(fitted(x).log_probability(x).mean()))
        ),
        "seed": Claim(FULL, own_seed),
        "others": Claim(FULL, other_components),
        "graphs": Claim(FULL, graphs),
        "files": Claim(
            PARTLY,
            by_state,
            "parameters alone, put into a model that your code builds; its guide pickles",
        ),
        "cli": Claim(NO, lambda: no_commands("pomegranate")),
        "conditional": Claim(
            PARTLY, discrete, "of discrete values, in Bayesian networks and factor graphs"
        ),
        "estimator": Claim(
            PARTLY,
            lambda: f"fit and predict {tuple(fitted().predict(X).shape)}; clone {_clone()}",
            "`fit`, `predict`; no `get_params`",
        ),
    },
)


def _clone() -> str:
    from sklearn.base import clone

    return refused(lambda: clone(fitted()))
