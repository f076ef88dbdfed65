"""What holds of every fit: equivariance, weights, batches, ranks, threads, seeds, gaps, ascent."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from hypothesis import assume
from torch import Tensor

from mogul import (
    EM,
    GaussianMixture,
    Gradient,
    Mixture,
    OnlineEM,
    TruncatedEM,
    fit,
    initialise,
)
from mogul.algorithms.initialise import METHODS
from torture._properties.drawn import (
    Case,
    gaps_in,
    mixture_of,
    rows_of,
    same,
    source_of,
    start_of,
)
from torture._properties.ranks import on_ranks

PASSES = 3
CLOSE = 1e-6  # rounding grows from pass to pass where components compete for rows


def translation(case: Case) -> None:
    """A fit of moved rows is the moved fit."""
    x, shift = rows_of(case), 5 * case.scale * case.randn(case.d)
    mixture = mixture_of(case)
    ends = []
    for by in (torch.zeros_like(shift), shift):
        model = start_of(case, mixture.rescaled(by, torch.ones_like(by)))
        ends.append(_ends(model, x + by, _algorithm(case)))
    same(ends[1], ends[0], CLOSE)


def scaling(case: Case) -> None:
    """A fit of rows in other units is the fit in other units."""
    x, scale = rows_of(case), case.randn(case.d).exp()
    mixture = mixture_of(case)
    if mixture.covariance.isotropic_noise:
        scale = scale[:1].expand(case.d)
    ends = []
    for by in (torch.ones_like(scale), scale):
        model = start_of(case, mixture.rescaled(torch.zeros_like(by), by))
        ends.append(_ends(model, x * by, _algorithm(case)) + by.log().sum())
    same(ends[1], ends[0], CLOSE)


def rotation(case: Case) -> None:
    """A fit of turned rows is the turned fit, of families that have no axes.

    The floor of variances has axes, in the units of the features: fits that meet it are left out.
    """
    x, mixture = rows_of(case), mixture_of(case)
    turn = torch.linalg.qr(case.randn(case.d, case.d)).Q
    dense = mixture.covariance
    if case.family == "full":
        covariance = type(dense).from_covariance(turn @ dense.dense() @ turn.mT)
    elif case.family == "ppca":
        covariance = type(dense)(turn @ dense.loadings, dense.noise)
    else:
        covariance = dense
    turned = Mixture(mixture.logits, mixture.centres @ turn.mT, covariance, turn @ mixture.origin)
    ends = []
    for start, rows in ((mixture, x), (turned, x @ turn.mT)):
        model = start_of(case, start)
        history = fit(model, source_of(rows), EM(), passes=PASSES, tolerance=0.0).history
        assume(not any(row["events"] for row in history))
        ends.append(model().log_prob(rows))
    same(ends[1], ends[0], CLOSE)


def permuted_components(case: Case) -> None:
    """A fit from a start in another order is the fit in that order."""
    x, mixture, order = rows_of(case), mixture_of(case), case.permutation(case.k)
    covariance = mixture.covariance
    if covariance.n_covariances > 1:
        covariance = covariance.map(lambda t: t[order])
    other = Mixture(mixture.logits[order], mixture.centres[order], covariance, mixture.origin)
    models = [start_of(case, mixture), start_of(case, other)]
    ends = [_ends(model, x, EM()) for model in models]
    same(ends[1], ends[0], CLOSE)
    scaled = [model().means / case.scale for model in models]
    same(scaled[1], scaled[0][order], CLOSE)


def permuted_rows(case: Case) -> None:
    """The order of rows does not matter to EM."""
    x, order = _maybe_gaps(case), case.permutation(case.n)
    weight = case.randn(case.n).square()
    first = _ends(start_of(case), x, EM(), weight)
    second = _ends(start_of(case), x[order], EM(), weight[order])
    same(second, first[order], CLOSE)


def weights_are_repetitions(case: Case) -> None:
    """A row of weight three is three rows, and one of weight zero is none."""
    x = _maybe_gaps(case)
    weight = torch.randint(0, 4, (case.n,), generator=case.generator)
    weight[0] = 1
    assume(int(weight.sum()) >= case.k)
    weighted, repeated = start_of(case), start_of(case)
    _ends(weighted, x, EM(), weight.double())
    _ends(repeated, x.repeat_interleave(weight, 0), EM())
    same(weighted().log_prob(x), repeated().log_prob(x), CLOSE)


def batch_size(case: Case) -> None:
    """EM sums over batches, however the rows are cut into them."""
    x, weight = _maybe_gaps(case), case.randn(case.n).square()
    size = 1 + case.seed % case.n
    first, second = (_ends(start_of(case), x, EM(b), weight) for b in (None, size))
    same(second, first, CLOSE)


def rank_count(case: Case) -> None:
    """Processes, each with a share of the rows, make the fit of one that has them all."""
    x, weight = _maybe_gaps(case), case.randn(case.n).square()
    world, source = 2 + case.seed % 3, source_of(x, weight)
    alone = _ends(start_of(case), x, EM(), weight)

    def member(group: Any) -> Tensor:
        model = start_of(case)
        fit(model, source.shard(group), EM(), passes=PASSES, tolerance=0.0)
        return model().log_prob(x)

    members = on_ranks(world, member)
    assert all(torch.equal(members[0], other) for other in members[1:]), "ranks disagree"
    same(members[0], alone, CLOSE)


def thread_count(case: Case) -> None:
    """Threads change a fit by rounding alone."""
    x, before = _maybe_gaps(case), torch.get_num_threads()
    ends = []
    try:
        for number in (1, 2 + case.seed % 2):
            torch.set_num_threads(number)
            ends.append(_ends(start_of(case), x, EM(batch_size=7 + case.seed % 30)))
    finally:
        torch.set_num_threads(before)
    same(ends[1], ends[0], CLOSE)


def seeds_decide(case: Case) -> None:
    """A start and a fit, by any algorithm, depend on their seed alone; nothing global is used."""
    x, source = rows_of(case), source_of(rows_of(case))
    method = METHODS[case.seed % len(METHODS)]
    make = (
        lambda: EM(batch_size=20),
        lambda: OnlineEM(batch_size=20, seed=case.seed),
        lambda: Gradient(batch_size=20, seed=case.seed),
        lambda: TruncatedEM(min(2, case.k), case.k, 1, dense=False, seed=case.seed),
    )[case.seed // 7 % 4]
    found = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        np.random.seed(noise)  # ruff: ignore[numpy-legacy-random]
        state, numbers = torch.get_rng_state(), np.random.get_state()[1].copy()  # ruff: ignore[numpy-legacy-random]
        model = _new(case)
        initialise(model, source, method=method, seed=case.seed)
        fit(model, source, make(), passes=2, tolerance=0.0)
        assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
        assert (np.random.get_state()[1] == numbers).all(), "numpy's generator was used"  # ruff: ignore[numpy-legacy-random]
        found.append(model.state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0]), "seed"
    assert bool(model().log_prob(x).isfinite().all())


def gaps_of_no_weight(case: Case) -> None:
    """A row that weighs nothing says nothing, and no more by its gaps."""
    x = rows_of(case)
    weight = torch.ones(case.n + 1, dtype=torch.float64)
    weight[-1] = 0
    hidden = x[:1].clone()
    hidden[0, case.seed % case.d] = torch.nan
    gaps = torch.cat([x, hidden])
    first = fit(start_of(case), source_of(x), EM(), passes=1).history[0]
    second = fit(start_of(case), source_of(gaps, weight), EM(), passes=1).history[0]
    assert abs(first["log_likelihood"] - second["log_likelihood"]) <= 1e-9 * case.d
    if case.family in ("full", "diagonal", "isotropic"):  # the others expand by what is seen
        ends = [_ends(start_of(case), x, EM()), _ends(start_of(case), gaps, EM(), weight)[:-1]]
        same(ends[1], ends[0], CLOSE)


def hidden_is_hidden(case: Case) -> None:
    """A fit knows which values are missing, and not what stood there or how NaN is written."""
    x = gaps_in(rows_of(case), case)
    negative = torch.where(x.isnan(), -torch.nan, x)
    copies = np.where(np.isnan(x.numpy()), np.float64(np.nan), x.numpy())
    ends = [_ends(start_of(case), rows, EM()) for rows in (x, negative, torch.as_tensor(copies))]
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[2])


def monotone(case: Case) -> None:
    """EM never lowers the likelihood, from any start, with weights and gaps, in any units.

    Nor where rows are repeated, lie on a grid, are few, or one lies far out.
    """
    x = _maybe_gaps(case)
    unusual = case.seed // 2 % 5
    if unusual == 0:
        x = (x / case.scale).round() * case.scale
    elif unusual == 1:
        x[-1] *= 1e3
    elif unusual == 2:
        x = x[: max(case.k + 1, 8)].repeat(3, 1)[: case.n]
    weight = case.randn(len(x)).square() if case.seed % 3 == 0 else None
    source, model = source_of(x, weight), _new(case)
    initialise(model, source, method=METHODS[case.seed // 2 % len(METHODS)], seed=case.seed)
    history = fit(model, source, EM(), passes=25, tolerance=0.0).history
    for before, after in itertools.pairwise(history):
        if any("restarted" in event for event in before["events"]):
            continue
        fall = before["objective"] - after["objective"]
        least = 1e-9 * max(1.0, abs(before["objective"]))
        assert fall <= least, f"pass {after['pass']} fell by {fall:.3g} nats"


def _new(case: Case) -> GaussianMixture:
    return GaussianMixture(
        case.k, case.d, case.family, case.rank or None, case.sharing, dtype=torch.float64
    )


def _maybe_gaps(case: Case) -> Tensor:
    """Rows of the case, every other time with gaps."""
    return gaps_in(rows_of(case), case) if case.seed % 2 else rows_of(case)


def _algorithm(case: Case) -> Any:
    return (
        EM(),
        OnlineEM(batch_size=25, seed=case.seed),
        TruncatedEM(min(2, case.k), case.k, 1, dense=False, seed=case.seed),
    )[case.seed % 3]


def _ends(
    model: GaussianMixture, x: Tensor, algorithm: Any, weight: Tensor | None = None
) -> Tensor:
    """Fit, and return what the rows score under the model."""
    fit(model, source_of(x, weight), algorithm, passes=PASSES, tolerance=0.0)
    with torch.no_grad():
        return model().log_prob(x)
