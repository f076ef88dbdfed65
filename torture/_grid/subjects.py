"""What is fitted: every family, model and estimator by every algorithm that takes it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from mogul import EM, GaussianMixture, Gradient, OnlineEM, TruncatedEM, fit, initialise, open_source
from mogul.algorithms import Supervised, Variational, mean_log_likelihood, pga, pmga
from mogul.data import ArraySource, DataSource
from mogul.distributions import Mixture
from mogul.models import (
    MLP,
    BayesianGaussianMixture,
    GaussianLikelihood,
    LatentVariableModel,
    LinearDecoder,
    MixtureDensityNetwork,
    MLPDecoder,
    MLPEncoder,
    PosteriorFamily,
    VampPrior,
    VariationalAutoencoder,
)
from mogul.sklearn import (
    MFA,
    MPPCA,
    KMeans,
    MixtureDensityRegressor,
)
from mogul.sklearn import BayesianGaussianMixture as BayesianEstimator
from mogul.sklearn import GaussianMixture as Estimator
from torture._grid.inputs import Input

PASSES = 6
_reseed = GaussianMixture.reseed
FAMILIES = ("full", "diagonal", "isotropic", "ppca", "factor-analysis")
LOW_RANK = ("ppca", "factor-analysis")
ALGORITHMS: dict[str, Callable[[int], Any]] = {
    "EM": lambda n: EM(),
    "OnlineEM": lambda n: OnlineEM(batch_size=max(30, n // 10)),
    "TruncatedEM": lambda n: TruncatedEM(candidates=2, neighbours=2, dense=False),
    "Gradient": lambda n: Gradient(batch_size=max(30, n // 10)),
}


@dataclass
class Result:
    """What a fit gave, for the judge.

    `mixtures` are what rows are scored under, each without batch shape, with `rows` (m, D) and the
    `log_prob` (m,) that the library gave them in different ways; `numbers` must all be finite;
    `shares` sum to one over the last dimension; `mean` is the mean log-likelihood of the data;
    `objective` must not fall, but where `disturbed` says so; `complaints` are what a subject found
    itself.
    """

    scored: list[tuple[Mixture, Tensor, dict[str, Tensor]]] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)
    shares: dict[str, Any] = field(default_factory=dict)
    mean: float | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    monotone: bool = False
    complaints: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Subject:
    """A model with an algorithm.

    Args:
        name: what it is.
        kind: which rules hold for it.
        run: fits it to an input in a type, and tests what a user would do with it.
        can: what it can do: "gaps", "weights", "rank", "one column".
        same: whether equal data must give equal fits, and other units nothing but other units.
    """

    name: str
    kind: str
    run: Callable[[Input, torch.dtype], Result]
    can: frozenset[str]
    same: bool = False


def number_type(dtype: torch.dtype) -> type:
    """Return numpy's name of a type."""
    return np.float32 if dtype == torch.float32 else np.float64


def opened(case: Input, dtype: torch.dtype) -> DataSource:
    """Return the data of an input as a source."""
    data = case.data(number_type(dtype))
    if case.weight is None:
        return open_source(data)
    return ArraySource(data, case.weight())


def rows_of(source: DataSource, dtype: torch.dtype) -> Tensor:
    """Return the first rows and the last."""
    n = len(source)
    return source.take(sorted({0, 1 % n, n - 1}), dtype)


def scores(mixture: Mixture, rows: Any) -> dict[str, Tensor]:
    """Score rows as a user may."""
    with torch.no_grad():
        found = {"log_prob": mixture.log_prob(rows)}
    if rows.dtype in (torch.float32, torch.float64):
        graph = mixture.log_prob(rows.clone().requires_grad_())
        found["log_prob with gradient"] = graph.detach()
    return found


def used(result: Result, mixture: Mixture, source: DataSource, case: Input) -> None:
    """Use a fitted mixture: score rows, whose or other ones, draw samples."""
    rows = rows_of(source, mixture.dtype) if case.query is None else case.query(mixture.dtype)
    result.scored.append((mixture, rows, scores(mixture, rows)))
    with torch.no_grad():
        result.shares["responsibilities"] = mixture.responsibilities(rows)
    result.shares["weights"] = mixture.weights.detach()
    result.numbers["samples"] = drawn = mixture.sample((5,), seed=0)
    with torch.no_grad():
        result.numbers["log_prob of samples"] = mixture.log_prob(drawn)
        result.numbers["variances"] = mixture.variances


def run_mixture(
    family: str, sharing: str, algorithm: str, case: Input, dtype: torch.dtype
) -> Result:
    """Fit a GaussianMixture."""
    source = opened(case, dtype)
    rank = case.rank if family in LOW_RANK or "rank" in case.needs else None
    model = GaussianMixture(case.k, source.n_features, family, rank, sharing, dtype=dtype)
    return fitted_mixture(model, source, ALGORITHMS[algorithm](len(source)), case)


def run_bayesian(
    family: str, sharing: str, prior: str, algorithm: str, case: Input, dtype: torch.dtype
) -> Result:
    """Fit a variational Bayesian mixture."""
    source = opened(case, dtype)
    model = BayesianGaussianMixture(case.k, source.n_features, family, sharing, prior, dtype=dtype)
    return fitted_mixture(model, source, ALGORITHMS[algorithm](len(source)), case)


def fitted_mixture(model: Any, source: DataSource, algorithm: Any, case: Input) -> Result:
    """Start, fit and use a mixture."""
    start_from(model, source, case)
    done = fit(model, source, algorithm, passes=PASSES)
    result = Result(history=done.history, monotone=algorithm.monotone)
    result.numbers |= {f"parameter {k}": v for k, v in model.state_dict().items()}
    used(result, model(), source, case)
    with torch.no_grad():
        result.mean = mean_log_likelihood(model(), source)
    if isinstance(algorithm, EM) and type(model) is GaussianMixture and case.query is None:
        if not any("restarted" in event for event in done.history[-1]["events"]):
            result.complaints += at_the_mean(model, source)
        if model.n_components == 1:
            result.complaints += at_the_optimum(model, source, result.mean)
    return result


def start_from(model: Any, source: DataSource, case: Input) -> None:
    """Start a model, from given clusters where its fit is compared with that of a twin."""
    if case.labels is None or type(model) is not GaussianMixture or model.n_components != 3:
        initialise(model, source)
        return
    own = case.start is None
    data = source.take(range(len(source)), model.dtype) if own else case.start(np.float64)
    rows = torch.as_tensor(data)
    model.start(rows.to(model.dtype), torch.as_tensor(case.labels[0]), 0)


def complete_rows(model: GaussianMixture, source: DataSource) -> tuple[np.ndarray, np.ndarray]:
    """Return all rows in long double, and weights with a sum of one."""
    parts, weight = [], []
    for x, w, _ in source.batches(dtype=model.dtype):
        parts.append(x.double().numpy())
        weight.append(np.ones(len(x)) if w is None else w.double().numpy())
    rows, mass = np.concatenate(parts).astype(np.longdouble), np.concatenate(weight)
    return rows, mass.astype(np.longdouble) / mass.sum(dtype=np.longdouble)


def at_the_mean(model: GaussianMixture, source: DataSource) -> list[str]:
    """After an M-step on complete rows, a mixture has the mean of the data."""
    rows, share = complete_rows(model, source)
    if np.isnan(rows).any() or model.family.low_rank:
        return []
    mean = share @ rows
    unit = np.sqrt(share @ (rows - mean) ** 2) + abs(mean) * 1e-30
    unit = np.where(unit > 0, unit, 1)
    here = np.asarray(model().means.detach().double()).astype(np.longdouble)
    weights = np.asarray(model().weights.detach().double())
    off = abs((weights[:, None] * (here - mean)).sum(0)) / unit
    rounding = np.finfo(number_type(model.dtype)).eps * abs(rows).max(0) / unit
    allowed = (1e-6 if model.dtype == torch.float64 else 1e-3) + 4 * rounding
    if bool((off <= allowed).all()):
        return []
    return [f"the mean is off by {float(off.max()):.1e} deviations"]


def at_the_optimum(model: GaussianMixture, source: DataSource, reached: float) -> list[str]:
    """One component has a likelihood in closed form: with full, diagonal, isotropic and PPCA."""
    rows, share = complete_rows(model, source)
    if np.isnan(rows).any() or model.family.name == "factor-analysis" or model.sharing != "own":
        return []
    floor = np.asarray(model.floor.double()).astype(np.longdouble)
    away = rows - share @ rows
    d = rows.shape[1]
    covariance = (away * share[:, None]).T @ away
    if model.family.name == "full":
        unit = np.sqrt(floor)
        own = np.linalg.eigvalsh((covariance / unit / unit[:, None]).astype(np.float64))
        held, units = np.maximum(own, 1.0), np.log(floor).sum()
    elif model.family.name == "diagonal":
        own = np.diag(covariance)
        held, units = np.maximum(own, floor), 0.0
    else:
        scale = np.trace(covariance)
        if not scale > 0:
            return []
        low = float(np.sort(floor)[(d - 1) // 2] / scale)
        own = np.linalg.eigvalsh((covariance / scale).astype(np.float64))
        split = d - model.rank
        noise = max(float(own[:split].mean()), low)
        held = np.where(np.arange(d) < split, noise, np.maximum(own, noise))
        units = d * np.log(scale)
    wanted = float(-(d * np.log(2 * np.pi) + np.log(held).sum() + units + (own / held).sum()) / 2)
    allowed = (1e-6 if model.dtype == torch.float64 else 1e-3) * (1 + abs(wanted))
    # What the type of the data can tell of deviations, in units of the floor.
    rounding = np.finfo(number_type(model.dtype)).eps * abs(rows).max(0)
    allowed += float((rounding**2 / floor).sum())
    # EM takes its time to shrink noise that rows so few leave none of.
    slow = model.family.low_rank and len(rows) <= d + 1 and reached <= wanted
    if slow or abs(reached - wanted) <= allowed:
        return []
    return [f"reached {reached:.9g} nats, and the maximum in closed form is {wanted:.9g}"]


def run_network(family: str, case: Input, dtype: torch.dtype) -> Result:
    """Fit a mixture density network of the first column to the others."""
    torch.manual_seed(0)
    source = opened(case, dtype)
    rank = case.rank if family in LOW_RANK or "rank" in case.needs else None
    n_targets = source.n_features - 1
    model = MixtureDensityNetwork(MLP(1, (8,)), case.k, n_targets, family, rank, dtype=dtype)
    algorithm = Supervised()
    done = fit(model, source, algorithm, passes=3)
    rows = rows_of(source, dtype)
    inputs, targets = model.split(rows)
    return of_batch(model(inputs), targets, done.history, model)


def of_batch(mixture: Mixture, targets: Tensor, history: list, model: Any) -> Result:
    """Return the result of a network: a mixture for each row."""
    result = Result(history=history)
    result.numbers |= {f"parameter {k}": v for k, v in model.state_dict().items()}
    with torch.no_grad():
        found = mixture.log_prob(targets)
        result.shares["responsibilities"] = mixture.responsibilities(targets)
    for i, row in enumerate(targets):
        covariance = mixture.covariance.map(partial(one_of, len(targets), i))
        one = Mixture(mixture.logits[i], mixture.centres[i], covariance, mixture.origin)
        result.scored.append((one, row[None], {"log_prob": found[i : i + 1]}))
    result.numbers |= {
        "samples": mixture.sample((3,), seed=0),
        "mean": mixture.mean,
        "variance": mixture.variance,
        "median": mixture.icdf(0.5),
    }
    return result


def one_of(n: int, i: int, tensor: Tensor) -> Tensor:
    """Return what belongs to row i of a tensor with a batch of n, or of one."""
    return tensor[i] if len(tensor) == n else tensor[0]


def run_decoder(name: str, case: Input, dtype: torch.dtype) -> Result:
    """Fit a decoder with Gaussian noise by particles."""
    torch.manual_seed(0)
    source = opened(case, dtype)
    decoder: Any = LinearDecoder if "linear" in name else MLPDecoder
    built = decoder(2, source.feature_shape) if "linear" in name else decoder(
        2, source.feature_shape, (8,)
    )  # fmt: skip
    model = LatentVariableModel(built, 2, source.feature_shape, GaussianLikelihood(1.0)).to(dtype)
    algorithm = (pmga if "pmga" in name else pga)(n_particles=3)
    done = fit(model, source, algorithm, passes=3)
    return of_latents(model, source, done.history, case, dtype)


def run_autoencoder(name: str, case: Input, dtype: torch.dtype) -> Result:
    """Fit an autoencoder."""
    torch.manual_seed(0)
    source = opened(case, dtype)
    family, shape = PosteriorFamily(2), source.feature_shape
    prior = {
        "normal": lambda: None,
        "mixture": lambda: GaussianMixture(2, 2, "diagonal"),
        "vamp": lambda: VampPrior(2, shape, bounded=False),
    }[name]()
    encoder = MLPEncoder(family.n_outputs, shape, (8,))
    decoder = MLPDecoder(2, shape, (8,))
    model = VariationalAutoencoder(
        encoder, decoder, family, shape, GaussianLikelihood(1.0), prior,
        "fixed" if prior is None else "gradient",
    ).to(dtype)  # fmt: skip
    done = fit(model, source, Variational(batch_size=30), passes=3)
    return of_latents(model, source, done.history, case, dtype)


def of_latents(
    model: Any, source: DataSource, history: list, case: Input, dtype: torch.dtype
) -> Result:
    """Return the result of a model with latents; its log-joint is that of its parts."""
    result = Result(history=history)
    result.numbers |= {f"parameter {k}": v for k, v in model.state_dict().items()}
    rows = rows_of(source, dtype)
    latents = torch.full((len(rows), 2), 0.5, dtype=dtype)
    with torch.no_grad():
        result.numbers["samples"] = model.sample(3, seed=0)
        joint = model.log_joint(rows, latents).double()
        output = model.decoder(latents).double()
        scale = model.likelihood.log_scale.double().exp()
        away = ((rows.double() - output) / scale).square()
        each = away + 2 * scale.log() + math.log(2 * math.pi)
        seen = ~rows.isnan()
        wanted = -0.5 * torch.where(seen, each, 0.0).sum(-1)
        wanted = wanted + model.prior.log_prob(latents).double()
    result.numbers["log_joint"] = joint
    off = float(((joint - wanted).abs() / (1 + wanted.abs())).max())
    if not off <= (1e-9 if dtype == torch.float64 else 1e-4):
        result.complaints.append(f"log_joint is off by {off:.1e} of itself")
    return result


def handed(case: Input, dtype: torch.dtype) -> Any:
    """Return the data of an input as they are."""
    return case.data(number_type(dtype))


def run_estimator(make: Callable[[Input], Any], case: Input, dtype: torch.dtype) -> Result:
    """Fit an estimator with scikit-learn's interface, and call its methods."""
    X = handed(case, dtype)
    estimator = make(case)
    weight = None if case.weight is None else case.weight()
    with patch.object(GaussianMixture, "reseed", autospec=True, side_effect=_reseed) as restarts:
        estimator.fit(X, sample_weight=weight)
    result = Result(monotone=not restarts.called)
    result.history = [{"objective": value, "events": []} for value in estimator.lower_bounds_]
    X = estimator_rows(X, case, dtype)
    mixture = estimator.mixture_
    model = estimator.model_
    result.numbers |= {f"parameter {k}": v for k, v in model.state_dict().items()}
    result.numbers |= {
        name: getattr(estimator, name)
        for name in ("means_", "covariances_", "precisions_", "loadings_", "noise_variances_")
        if hasattr(estimator, name)
    }
    result.shares |= {"weights_": estimator.weights_, "predict_proba": estimator.predict_proba(X)}
    result.numbers |= {"predict": estimator.predict(X), "sample": estimator.sample(4)[0]}
    found = torch.as_tensor(np.asarray(estimator.score_samples(X)))
    rows = torch.as_tensor(np.array(X, dtype=np.float64)).to(mixture.dtype)[:2]
    ways = scores(mixture, rows)
    if not isinstance(estimator, BayesianEstimator):
        ways["score_samples"] = found[:2]
    result.scored.append((mixture, rows, ways))
    return result


def estimator_rows(X: Any, case: Input, dtype: torch.dtype) -> Any:
    """Return the rows that an estimator is asked about."""
    if case.query is None:
        return X.detach().double().numpy() if isinstance(X, Tensor) else X
    asked = case.query(dtype)
    return asked.numpy() if isinstance(asked, Tensor) else asked


def run_kmeans(algorithm: str, case: Input, dtype: torch.dtype) -> Result:
    """Cluster, and compare with distances of our own."""
    X = handed(case, dtype)
    estimator = KMeans(case.k, algorithm=algorithm, random_state=0).fit(X)
    result = Result()
    X = estimator_rows(X, case, dtype)
    centres = np.asarray(estimator.cluster_centers_).astype(np.longdouble)
    labels, distances = estimator.predict(X), estimator.transform(X)
    result.numbers |= {"centres": centres, "distances": distances, "inertia": estimator.inertia_}
    rows = np.asarray(np.array(X), dtype=np.longdouble)
    exact = np.sqrt(((rows[:, None] - centres) ** 2).sum(-1))
    unit = np.finfo(distances.dtype).eps * (abs(rows).max() + abs(centres).max())
    slack = 64 * unit * rows.shape[1] + 1e-322 + exact * 64 * np.finfo(distances.dtype).eps
    nearest = exact.min(1)
    chosen = exact[np.arange(len(rows)), labels]
    margin = 1e-6 if distances.dtype == np.float64 else 1e-3
    if not bool((chosen <= nearest * (1 + margin) + slack.max(1)).all()):
        result.complaints.append("predict gives a centre that is not the nearest")
    if not bool((abs(distances - exact) <= margin * exact + slack).all()):
        result.complaints.append("transform gives wrong distances")
    if case.query is None:
        inertia = float((exact[np.arange(len(rows)), estimator.labels_] ** 2).sum())
        rounding = float(slack.max()) ** 2 * len(rows)
        if not abs(inertia - estimator.inertia_) <= 1e-3 * inertia + rounding:
            result.complaints.append(f"inertia {estimator.inertia_:.6g}, and it is {inertia:.6g}")
    return result


def run_regressor(family: str, case: Input, dtype: torch.dtype) -> Result:
    """Regress the last column on the others."""
    X = handed(case, dtype)
    inputs, targets = parted(X)
    estimator = MixtureDensityRegressor(
        case.k, covariance_type=family, hidden_layer_sizes=(8,), max_iter=3, random_state=0
    )
    estimator.fit(inputs, targets, None if case.weight is None else case.weight())
    some = inputs[:2]
    y = np.array(targets, dtype=np.float64)[:2].reshape(2, -1).copy()
    mixture = estimator.mixture(some)
    result = of_batch(mixture, torch.as_tensor(y), estimator.history_, estimator.model_)
    result.numbers |= {
        "predict": estimator.predict(some),
        "predict_std": estimator.predict_std(some),
        "predict_interval": estimator.predict_interval(some),
        "predict_mode": estimator.predict_mode(some),
    }
    return result


def parted(X: Any) -> tuple[Any, Any]:
    """Return inputs and targets of what may be cut by columns; anything else twice as it is."""
    array = X.detach().numpy() if isinstance(X, Tensor) and X.layout == torch.strided and (
        X.device.type == "cpu" and not X.is_quantized and X.dtype != torch.bfloat16
    ) else X  # fmt: skip
    if hasattr(array, "iloc"):
        return array.iloc[:, :-1], array.iloc[:, -1]
    if isinstance(array, np.ndarray) and array.ndim > 1 and array.shape[1] > 1:
        return array[:, :-1], array[:, -1]
    return array, array


def subjects() -> Iterator[Subject]:
    """Yield everything that is fitted."""
    takes = frozenset({"weights", "rank"})
    column, gaps = frozenset({"one column"}), frozenset({"gaps"})
    for family in FAMILIES:
        own = takes | (frozenset() if family in LOW_RANK else column)
        for sharing in ("own", "shared", "constant"):
            for algorithm in ALGORITHMS:
                can = own | (gaps if algorithm != "TruncatedEM" else frozenset())
                can |= frozenset({"factors"} if family in LOW_RANK else ())
                run = partial(run_mixture, family, sharing, algorithm)
                yield Subject(f"{family} ({sharing}) by {algorithm}", "mixture", run, can, True)
    for prior in ("dirichlet_process", "dirichlet_distribution"):
        for family, sharing in (
            ("full", "own"), ("full", "shared"), ("diagonal", "own"), ("isotropic", "own"),
        ):  # fmt: skip
            for algorithm in ("EM", "TruncatedEM"):
                run = partial(run_bayesian, family, sharing, prior, algorithm)
                name = f"Bayesian {family} ({sharing}), {prior}, by {algorithm}"
                yield Subject(name, "bayesian", run, (takes | column) - {"rank"}, True)
    for family in FAMILIES:
        run = partial(run_network, family)
        can = takes | frozenset({"gaps in targets"})
        yield Subject(f"network ({family}) by Supervised", "network", run, can)
    for name in ("linear decoder by pga", "MLP decoder by pga", "linear decoder by pmga"):
        can = column | (gaps if "pga" in name.split() else frozenset())
        yield Subject(name, "decoder", partial(run_decoder, name), can)
    for name in ("normal", "mixture", "vamp"):
        run = partial(run_autoencoder, name)
        yield Subject(f"autoencoder ({name}) by Variational", "autoencoder", run, column)
    yield from estimators()


def estimators() -> Iterator[Subject]:
    """Yield the estimators."""
    can = frozenset({"gaps", "weights", "one column", "float64"})
    for kind in ("full", "tied", "diag", "spherical"):

        def make(case: Input, kind: str = kind) -> Any:
            return Estimator(case.k, covariance_type=kind, max_iter=PASSES, random_state=0)

        yield Subject(f"sklearn GaussianMixture ({kind})", "estimator",
                      partial(run_estimator, make), can)  # fmt: skip

        def bayes(case: Input, kind: str = kind) -> Any:
            return BayesianEstimator(
                n_components=case.k, covariance_type=kind, max_iter=PASSES, random_state=0
            )

        yield Subject(f"sklearn BayesianGaussianMixture ({kind})", "estimator",
                      partial(run_estimator, bayes), can - {"gaps"})  # fmt: skip
    for cls in (MPPCA, MFA):

        def factors(case: Input, cls: Any = cls) -> Any:
            return cls(case.k, case.rank, max_iter=PASSES, random_state=0)

        yield Subject(f"sklearn {cls.__name__}", "estimator",
                      partial(run_estimator, factors), can | {"rank", "factors"})  # fmt: skip
    for algorithm in ("lloyd", "truncated"):
        yield Subject(f"sklearn KMeans ({algorithm})", "k-means", partial(run_kmeans, algorithm),
                      frozenset({"one column", "float64"}))  # fmt: skip
    for family in ("full", "diagonal"):
        yield Subject(f"sklearn MixtureDensityRegressor ({family})", "regressor",
                      partial(run_regressor, family),
                      frozenset({"weights", "float64", "one column"}))  # fmt: skip
