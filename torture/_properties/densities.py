"""What holds of every density: equivariance, sums and products of probabilities, files, seeds."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mogul import Mixture, load_model, save_model
from mogul.distributions import Full
from torture._properties.drawn import Case, gaps_in, mixture_of, rows_of, same, start_of

CLOSE = 1e-9


def translation(case: Case) -> None:
    """P(x + t) under the moved mixture is p(x)."""
    mixture, x = mixture_of(case), rows_of(case)
    shift = 5 * case.scale * case.randn(case.d)
    moved = mixture.rescaled(shift, torch.ones(case.d).double())
    same(moved.log_prob(x + shift), mixture.log_prob(x), CLOSE)
    same(moved.responsibilities(x + shift), mixture.responsibilities(x), 1e-8)
    same(moved.mean, mixture.mean + shift, CLOSE)


def origin_is_no_parameter(case: Case) -> None:
    """A mixture about another origin, with centres measured from it, is the same density."""
    mixture, x = mixture_of(case), rows_of(case)
    shift = case.scale * case.randn(case.d)
    other = Mixture(
        mixture.logits, mixture.centres - shift, mixture.covariance, mixture.origin + shift
    )
    same(other.log_prob(x), mixture.log_prob(x), CLOSE)
    same(other.sample((5,), seed=1), mixture.sample((5,), seed=1), CLOSE)


def scaling(case: Case) -> None:
    """Log p(s x) under the scaled mixture is log p(x) less Σ log s."""
    mixture, x = mixture_of(case), rows_of(case)
    scale = case.randn(case.d).exp()
    if mixture.covariance.isotropic_noise:
        scale = scale[:1].expand(case.d)
    moved = mixture.rescaled(torch.zeros(case.d).double(), scale)
    same(moved.log_prob(x * scale), mixture.log_prob(x) - scale.log().sum(), CLOSE)
    same(moved.variance, mixture.variance * scale.square(), CLOSE)


def rotation(case: Case) -> None:
    """P(Q x) under the turned mixture is p(x), and turned samples are samples."""
    mixture, x = mixture_of(case), rows_of(case)
    turn = torch.linalg.qr(case.randn(case.d, case.d)).Q
    dense = turn @ mixture.covariance.dense() @ turn.mT
    turned = Mixture(
        mixture.logits, mixture.centres @ turn.mT, Full.from_covariance(dense),
        turn @ mixture.origin,
    )  # fmt: skip
    same(turned.log_prob(x @ turn.mT), mixture.log_prob(x), 1e-8)
    same(turned.mean, turn @ mixture.mean, CLOSE)


def permuted_components(case: Case) -> None:
    """The order of components is a matter of names."""
    mixture, x = mixture_of(case), rows_of(case)
    order = case.permutation(case.k)
    covariance = mixture.covariance
    if covariance.n_covariances > 1:
        covariance = covariance.map(lambda t: t[order])
    other = Mixture(mixture.logits[order], mixture.centres[order], covariance, mixture.origin)
    same(other.log_prob(x), mixture.log_prob(x), CLOSE)
    same(other.responsibilities(x), mixture.responsibilities(x)[:, order], CLOSE)
    gaps = gaps_in(x, case)
    same(other.log_prob(gaps), mixture.log_prob(gaps), CLOSE)


def permuted_features(case: Case) -> None:
    """The order of features is a matter of names."""
    mixture, x = mixture_of(case), gaps_in(rows_of(case), case)
    order = case.permutation(case.d)
    same(mixture.marginal(order).log_prob(x[:, order]), mixture.log_prob(x), 1e-8)


def rows_are_independent(case: Case) -> None:
    """What a row scores depends on no other: not on their order, number or gaps."""
    mixture, x = mixture_of(case), gaps_in(rows_of(case), case)
    order, together = case.permutation(case.n), mixture.log_prob(x)
    same(mixture.log_prob(x[order]), together[order], CLOSE)
    one_by_one = torch.stack([mixture.log_prob(row) for row in x[:10]])
    same(one_by_one, together[:10], CLOSE)
    cut = case.n // 3
    same(torch.cat([mixture.log_prob(x[:cut]), mixture.log_prob(x[cut:])]), together, CLOSE)


def kernels_are_the_density(case: Case) -> None:
    """The fast way to score, its gradient form and its form for batches agree; r sum to one."""
    mixture, x = mixture_of(case), rows_of(case)
    joint = mixture.component_log_prob(x)
    same(mixture.log_prob(x), joint.logsumexp(-1), CLOSE)
    same(mixture.responsibilities(x), joint.softmax(-1), 1e-8)
    same(mixture.expand((case.n,)).log_prob(x), joint.logsumexp(-1), CLOSE)
    total = mixture.responsibilities(x).sum(-1)
    same(total, torch.ones_like(total), CLOSE)


def chain_rule(case: Case) -> None:
    """Log p(x) = log p(a) + log p(b | a), for any split of the features."""
    mixture, x = mixture_of(case), rows_of(case)
    a, b = _split(case)
    parts = mixture.marginal(a).log_prob(x[:, a]) + mixture.condition(a, x[:, a]).log_prob(x[:, b])
    same(parts, mixture.log_prob(x), 1e-8)


def marginal_of_conditional(case: Case) -> None:
    """The marginal of a conditional is the conditional of the marginal."""
    mixture, x = mixture_of(case), rows_of(case)
    a, b = _split(case)
    some = b[: max(1, len(b) // 2)]
    first = mixture.condition(a, x[:, a]).marginal(torch.searchsorted(b, some))
    kept = torch.cat([a, some]).sort().values
    second = mixture.marginal(kept).condition(torch.searchsorted(kept, a), x[:, a])
    same(first.log_prob(x[:, some]), second.log_prob(x[:, some]), 1e-8)
    same(first.mean / case.scale, second.mean / case.scale, 1e-8)
    same(first.variance / case.scale**2, second.variance / case.scale**2, 1e-8)


def gaps_are_marginals(case: Case) -> None:
    """A row with gaps scores as what is seen of it under the marginal; what is hidden is unseen."""
    mixture, x = mixture_of(case), rows_of(case)
    gaps = gaps_in(x, case, 0.5)
    scores, seen = mixture.log_prob(gaps), ~gaps.isnan()
    for row, mask, score in zip(x[:12], seen, scores, strict=False):
        expected = torch.zeros_like(score)
        if bool(mask.any()):
            own = mask.nonzero().squeeze(-1)
            expected = mixture.marginal(own).log_prob(row[own])
        same(score, expected, 1e-8)
    masked = mixture.complete(torch.where(seen, x, 7e7), seen)
    by_nan = mixture.complete(gaps)
    for name in ("mean", "variance", "log_prob", "reconstruction"):
        assert torch.equal(getattr(masked, name), getattr(by_nan, name)), name
    assert torch.equal(masked.sample(seed=3), by_nan.sample(seed=3))
    assert torch.equal(by_nan.mean[seen], x[seen]), "what is seen was changed"


def files_keep_everything(case: Case) -> None:
    """A model read from its file is the model that was written."""
    model = start_of(case)
    if case.k > 1:
        model.freeze([0], ["means"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.mogul"
        save_model(path, model, {"case": case.seed})
        again, extra = load_model(path)
        first = path.read_bytes()
        save_model(path, again, extra)
        assert path.read_bytes() == first, "written again, the file is another"
    assert extra == {"case": case.seed}
    assert again.config() == model.config()
    before, after = model.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    x = gaps_in(rows_of(case), case)
    assert torch.equal(again().log_prob(x), model().log_prob(x))


def seeds_decide(case: Case) -> None:
    """Samples depend on their seed alone, and leave the global generators as they were."""
    mixture = mixture_of(case)
    x = gaps_in(rows_of(case, 6), case)

    def draws(seed: int) -> list[Tensor]:
        return [
            mixture.sample((4,), seed=seed),
            mixture.sample((4,), noise=False, seed=seed),
            mixture.rsample((2,), seed=seed),
            mixture.expand((3,)).sample((2,), seed=seed),
            mixture.complete(x).sample(seed=seed),
        ]

    first = draws(case.seed)
    torch.manual_seed(case.seed % 1000 + 1)
    state, numbers = torch.get_rng_state(), np.random.get_state()[1].copy()  # ruff: ignore[numpy-legacy-random]
    second = draws(case.seed)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True)), "seed"
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
    assert (np.random.get_state()[1] == numbers).all(), "numpy's global generator was used"  # ruff: ignore[numpy-legacy-random]
    assert not torch.equal(first[0], mixture.sample((4,), seed=case.seed + 1)), (
        "seed without effect"
    )


def _split(case: Case) -> tuple[Tensor, Tensor]:
    """Split the features in two, neither empty, each in increasing order."""
    order = case.permutation(case.d)
    cut = 1 + case.seed % (case.d - 1)
    return order[:cut].sort().values, order[cut:].sort().values
