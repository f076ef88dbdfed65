"""Which family, how many components, how many factors: fit them all and compare."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from joblib import Parallel, delayed

from mogul.algorithms import EM, default_batch_size, fit, initialise, mean_log_likelihood
from mogul.data import DataSource
from mogul.distributions import Prior, family
from mogul.errors import InputError
from mogul.models import GaussianMixture

_ROUNDING = 1e-3  # of sums of weights
CRITERIA = ("bic", "aic", "icl", "validation")


@dataclass(frozen=True)
class Criteria:
    """Information criteria of one fit; lower is better for all but the log-likelihood.

    `log_likelihood` is the sum over rows in nats, `entropy` that of the responsibilities;
    aic = −2ℓ + 2p (Akaike 1974), bic = −2ℓ + p log n (Schwarz 1978), icl = bic + 2·entropy
    (Biernacki, Celeux & Govaert 2000), with p parameters and n rows (their total weight).
    """

    log_likelihood: float
    n_parameters: int
    entropy: float
    aic: float
    bic: float
    icl: float


@torch.no_grad()
def information_criteria(model: GaussianMixture, source: DataSource) -> Criteria:
    """Return the criteria of a fitted model on the rows it was fitted to.

    Raises:
        InputError: if the weights of many rows sum to no more than that of one.
    """
    mixture, total, entropy, n = model(), 0.0, 0.0, 0.0
    for x, weight, _ in source.batches(
        default_batch_size(source.n_features), model.dtype, model.device
    ):
        joint = mixture.component_log_prob(x).double()
        log_prob = joint.logsumexp(-1)
        resp = joint - log_prob.unsqueeze(-1)
        each = -(resp.exp() * resp.clamp_min(-700)).sum(-1)
        w = torch.ones_like(log_prob) if weight is None else weight.double()
        total += float((w * log_prob).sum())
        entropy += float((w * each).sum())
        n += float(w.sum())
    if n <= 1 + _ROUNDING and len(source) > 1:
        raise InputError(
            f"The weights of {len(source)} rows sum to {n:.3g}, and criteria would count no more "
            "rows than that; give weights that count rows, such as weights * n / weights.sum()."
        )
    p = model.n_parameters
    bic = -2 * total + p * math.log(n)
    return Criteria(total, p, entropy, -2 * total + 2 * p, bic, bic + 2 * entropy)


@dataclass(frozen=True)
class Candidate:
    """One fit: its settings, its criteria, and what it reaches on validation rows, if given.

    `trouble` is what the last pass told, such as a variance floor met; a criterion of such a fit
    is not to be trusted.
    """

    covariance: str
    sharing: str
    components: int
    rank: int | None
    criteria: Criteria
    validation: float | None
    trouble: str

    def value(self, criterion: str) -> float:
        """Return what is minimised: the criterion, or minus the validation log-likelihood."""
        if criterion != "validation":
            return getattr(self.criteria, criterion)
        assert self.validation is not None
        return -self.validation

    def row(self) -> dict[str, Any]:
        """Return everything by name."""
        settings = {k: v for k, v in asdict(self).items() if k != "criteria"}
        return settings | asdict(self.criteria)


@dataclass(frozen=True)
class Selection:
    """All candidates, the best first, and the model of the best."""

    candidates: list[Candidate]
    criterion: str
    model: GaussianMixture


def select(
    source: DataSource,
    families: Sequence[str] = ("full", "diagonal", "isotropic"),
    components: Sequence[int] = tuple(range(1, 10)),
    ranks: Sequence[int] = (1, 2),
    sharings: Sequence[str] = ("own", "shared"),
    criterion: str = "bic",
    validation: DataSource | None = None,
    prior: Prior | None = None,
    passes: int = 200,
    n_init: int = 3,
    seed: int = 0,
    jobs: int = -1,
) -> Selection:
    """Fit every combination and rank them.

    Args:
        source: the rows to fit.
        families: covariance families or aliases.
        components: numbers of components.
        ranks: numbers of factors, for low-rank families.
        sharings: own or shared covariances.
        criterion: "bic", "aic", "icl", or "validation" log-likelihood.
        validation: held-out rows; needed for the last.
        prior: prior of every fit.
        passes: most EM passes per fit.
        n_init: complete fits per candidate from different starts; the most likely is kept.
        seed: seed of the starts.
        jobs: processes to use; −1 is one per core.

    Returns:
        the candidates, those without trouble first, each group by the criterion.

    Raises:
        InputError: for an unknown criterion, missing validation rows, or nothing to fit.
    """
    if criterion not in CRITERIA:
        raise InputError(f"Unknown criterion '{criterion}'; choose one of: {', '.join(CRITERIA)}.")
    if criterion == "validation" and validation is None:
        raise InputError("The criterion 'validation' needs held-out rows; give validation=.")
    settings = [
        (name, sharing, k, rank)
        for name, sharing, k in itertools.product(families, sharings, components)
        for rank in (ranks if family(name).low_rank else [None])
        if rank is None or rank < source.n_features
        if not (k == 1 and sharing == "shared" and "own" in sharings)  # the same model twice
    ]
    if not settings:
        raise InputError(
            "There is nothing to fit; give at least one family, number of components and sharing, "
            "and ranks below the number of features."
        )
    fitted: Any = Parallel(n_jobs=jobs)(
        delayed(_fit_one)(source, validation, *s, prior, passes, n_init, seed) for s in settings
    )
    ranked = sorted(fitted, key=lambda f: (bool(f[0].trouble), f[0].value(criterion)))
    return Selection([candidate for candidate, _ in ranked], criterion, ranked[0][1])


def prune_factors(
    model: GaussianMixture, source: DataSource, criterion: str = "bic", passes: int = 20
) -> list[int]:
    """Give every component its own number of factors, in place.

    The weakest factor of a component is removed and EM goes on; what came of it is kept if the
    criterion fell. Factors are tried from the weakest up, until none can go.

    Args:
        model: a fitted model of a low-rank family.
        source: the rows it was fitted to.
        criterion: "bic", "aic" or "icl".
        passes: EM passes after each removal.

    Returns:
        the number of factors of every covariance.

    Raises:
        InputError: for a family without factors, or an unknown criterion.
    """
    if not model.family.low_rank or criterion not in CRITERIA[:3]:
        raise InputError(
            f"A {model.family.name} model and the criterion '{criterion}' came; give a model of "
            f"ppca or factor-analysis, and one of: {', '.join(CRITERIA[:3])}."
        )
    best = getattr(information_criteria(model, source), criterion)
    settled = set[int]()
    while len(settled) < len(model.ranks):
        component = _weakest(model, settled)
        if component is None:
            break
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        _drop_weakest(model, component)
        fit(model, source, EM(), passes=passes)
        reached = getattr(information_criteria(model, source), criterion)
        if reached < best:
            best = reached
        else:
            model.load_state_dict(before)
            settled.add(component)
    return model.ranks


@torch.no_grad()
def _weakest(model: GaussianMixture, settled: set[int]) -> int | None:
    """Return the covariance, not settled, that holds the shortest factor."""
    lengths = torch.linalg.svdvals(model.raw["loadings"].double())
    lengths = torch.where(lengths > 0, lengths, torch.inf)
    shortest = lengths.amin(-1)
    for c, rank in enumerate(model.ranks):
        if c in settled or rank == 0:
            shortest[c] = torch.inf
    found = int(shortest.argmin())
    return found if bool(shortest[found].isfinite()) else None


@torch.no_grad()
def _drop_weakest(model: GaussianMixture, c: int) -> None:
    """Turn the loadings of a covariance to principal axes, and set the shortest to zero."""
    loadings = model.raw["loadings"]
    U, s, _ = torch.linalg.svd(loadings[c].double(), full_matrices=False)
    s[model.ranks[c] - 1 :] = 0.0
    loadings[c] = (U * s).to(loadings.dtype)


def _fit_one(
    source: DataSource,
    validation: DataSource | None,
    name: str,
    sharing: str,
    k: int,
    rank: int | None,
    prior: Prior | None,
    passes: int,
    n_init: int,
    seed: int,
) -> tuple[Candidate, GaussianMixture]:
    torch.set_num_threads(1)  # candidates run side by side, one per process
    best = None
    for attempt in range(1 if k == 1 else n_init):
        model = GaussianMixture(
            k, source.n_features, name, rank, sharing, prior=prior, dtype=torch.float64
        )
        initialise(model, source, seed=seed + attempt)
        fitted = fit(model, source, EM(), passes=passes, tolerance=1e-7)
        # A start that ends on the floor of variances has a likelihood that means nothing.
        rank_of = (not fitted.history[-1]["events"], fitted.history[-1]["objective"])
        if best is None or rank_of > best[0]:
            best = (rank_of, fitted)
    assert best is not None
    fitted = best[1]
    model = fitted.model.requires_grad_(False)
    held_out = None if validation is None else mean_log_likelihood(model(), validation)
    trouble = "; ".join(fitted.history[-1]["events"])
    criteria = information_criteria(model, source)
    candidate = Candidate(model.family.name, sharing, k, rank, criteria, held_out, trouble)
    return candidate, model
