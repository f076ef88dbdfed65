"""Mixtures with a batch shape, of every family, against one mixture at a time."""

import math

import pytest
import torch
from scipy.optimize import brentq
from scipy.stats import norm

from families import random_covariance, random_mixture
from mogul import InputError, Mixture
from mogul.distributions import Covariance, Full, Isotropic, families, modes
from mogul.distributions.covariance import softly_between

FAMILIES = list(families())
K, D, B = 3, 4, 5


def batch_of(name, n_covariances=K, dtype=torch.float64):
    """Return a mixture of batch shape (B,) and its members."""
    members = [random_mixture(name, K, D, n_covariances, seed=s) for s in range(B)]
    raws = [m.covariance.to_raw() for m in members]
    raw = {key: torch.stack([r[key] for r in raws]).to(dtype) for key in raws[0]}
    batch = Mixture(
        torch.stack([m.logits for m in members]).to(dtype),
        torch.stack([m.centres for m in members]).to(dtype),
        families()[name].from_raw(raw, D),
    )
    return batch, members


@pytest.fixture
def rows():
    return torch.randn(B, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("n_covariances", [1, K])
def test_log_prob_is_that_of_each_member(name, n_covariances, rows):
    batch, members = batch_of(name, n_covariances)
    alone = torch.stack([m.log_prob(x) for m, x in zip(members, rows, strict=True)])
    torch.testing.assert_close(batch.log_prob(rows), alone, rtol=1e-10, atol=1e-10)
    single = batch_of(name, n_covariances, torch.float32)[0].log_prob(rows.float())
    torch.testing.assert_close(single.double(), alone, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", FAMILIES)
def test_missing_features_are_marginalised(name, rows):
    batch, members = batch_of(name)
    rows[0, 1] = rows[2, :3] = rows[3] = math.nan
    found = batch.log_prob(rows)
    for i, member in enumerate(members):
        seen = (~rows[i].isnan()).nonzero().squeeze(-1)
        if len(seen):
            alone = member.marginal(seen).log_prob(rows[i, seen])
            torch.testing.assert_close(found[i], alone, rtol=1e-10, atol=1e-10)
    assert found[3] == pytest.approx(0, abs=1e-12)
    resp = batch.responsibilities(rows)
    torch.testing.assert_close(resp.sum(-1), torch.ones(B, dtype=torch.float64))


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_through_gaps_are_those_of_finite_differences(name, rows):
    batch, _ = batch_of(name)
    raw = {k: v.clone().requires_grad_() for k, v in batch.covariance.to_raw().items()}
    rows[1, 2] = math.nan

    def total(*tensors):
        covariance = type(batch.covariance).from_raw(dict(zip(raw, tensors, strict=True)), D)
        return Mixture(batch.logits, batch.centres, covariance).log_prob(rows).sum()

    assert torch.autograd.gradcheck(total, tuple(raw.values()))


@pytest.mark.parametrize("name", FAMILIES)
def test_conditionals_are_those_of_each_member(name, rows):
    batch, members = batch_of(name)
    seen = torch.tensor([2, 0])
    found = batch.condition(seen, rows[:, seen])
    y = rows[:, [1, 3]]
    alone = [
        m.condition(seen, x[seen]).log_prob(v) for m, x, v in zip(members, rows, y, strict=True)
    ]
    torch.testing.assert_close(found.log_prob(y), torch.stack(alone), rtol=1e-9, atol=1e-9)
    marginal = batch.marginal(seen).log_prob(rows[:, seen])
    torch.testing.assert_close(
        found.log_prob(y) + marginal, batch.log_prob(rows), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("n_covariances", [1, K])
def test_samples_have_the_moments_of_each_member(name, n_covariances):
    batch, _ = batch_of(name, n_covariances)
    x = batch.sample((40_000,), seed=0)
    assert x.shape == (40_000, B, D)
    error = (batch.variance / 40_000).sqrt()
    assert bool(((x.mean(0) - batch.mean).abs() < 4.5 * error).all())
    torch.testing.assert_close(x.var(0), batch.variance, rtol=0.08, atol=0)
    with_noise, without = batch.sample((2000,), seed=1), batch.sample((2000,), False, seed=1)
    assert bool((without.var(0) < 1.2 * with_noise.var(0)).all())


@pytest.mark.parametrize("name", FAMILIES)
def test_a_change_of_units_moves_densities_by_its_jacobian(name, rows):
    mixture = random_mixture(name, K, D, K)
    shift, scale = rows[0], torch.full((D,), 3.0, dtype=torch.float64)
    if not families()[name].isotropic_noise:
        scale = scale * torch.arange(1, D + 1)
    moved = mixture.rescaled(shift, scale)
    torch.testing.assert_close(
        moved.log_prob(shift + scale * rows), mixture.log_prob(rows) - scale.log().sum()
    )
    torch.testing.assert_close(moved.mean, shift + scale * mixture.mean)


@pytest.mark.parametrize("name", FAMILIES)
def test_soft_bounds_keep_variances_and_can_be_undone(name):
    low, high = 1e-4, 1e2
    covariance: Covariance = random_covariance(name, K, D)
    family, raw = type(covariance), covariance.to_raw()
    again = family.soft_raw(family.soft_raw(raw, (low, high), inverse=True), (low, high))
    for key, value in raw.items():
        torch.testing.assert_close(again[key], value, rtol=1e-6, atol=1e-6)
    wild = {key: 50 * torch.randn_like(value) for key, value in raw.items()}
    wild = {k: v if k.startswith("log_") else torch.zeros_like(v) for k, v in wild.items()}
    noise = family.from_raw(family.soft_raw(wild, (low, high)), D).noise_variances
    assert bool((noise > 0.99 * low).all() and (noise < 1.01 * high).all())


def test_soft_bounds_are_smooth():
    raw = torch.linspace(-30, 30, 61, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda r: softly_between(r, -9.0, 4.0, False), (raw,))


@pytest.mark.parametrize("p", [1e-6, 0.025, 0.5, 0.9, 1 - 1e-6])
def test_quantiles_invert_the_distribution_function(p):
    batch, members = batch_of("full")
    q = batch.icdf(p)
    assert q.shape == (B, D)
    torch.testing.assert_close(batch.cdf(q), torch.full_like(q, p), rtol=1e-9, atol=1e-9)
    member = members[2]
    w, m, s = member.weights, member.means[:, 1], member.variances[:, 1].sqrt()

    def over(x):
        return sum(float(a) * norm.cdf(x, float(b), float(c)) for a, b, c in zip(w, m, s)) - p  # ruff: ignore[zip-without-explicit-strict]

    assert float(q[2, 1]) == pytest.approx(brentq(over, -100, 100, xtol=1e-12), abs=1e-8)


def test_quantiles_of_several_probabilities_come_first():
    batch, _ = batch_of("diagonal")
    q = batch.icdf(torch.tensor([0.1, 0.9]))
    assert q.shape == (2, B, D)
    assert bool((q[0] < q[1]).all())
    alone = random_mixture("diagonal", K, D, K)
    assert alone.icdf(0.5).shape == (D,)
    for bad in (0.0, 1.0, math.nan, [[0.5]]):
        with pytest.raises(InputError, match="above 0 and below 1"):
            alone.icdf(bad if not isinstance(bad, list) else torch.tensor(bad))


def test_modes_of_known_mixtures():
    centres = torch.tensor([[[-2.0], [2.0]], [[-0.4], [0.4]], [[5.0], [5.0]]]).double()
    weights = torch.tensor([[0.3, 0.7], [0.5, 0.5], [0.5, 0.5]]).double()
    mixture = Mixture(weights.log(), centres, Isotropic.of(torch.ones(3, 2).double(), 1))
    found = modes(mixture)
    # Equal unit Gaussians nearer than two deviations have one mode, in the middle.
    assert found.count.tolist() == [2, 1, 1]
    torch.testing.assert_close(
        found.points[0, :, 0], torch.tensor([2.0, -2.0]).double(), atol=0.03, rtol=0
    )
    torch.testing.assert_close(found.points[1:, 0, 0], torch.tensor([0.0, 5.0]).double())
    torch.testing.assert_close(
        found.log_density, torch.stack([mixture.log_prob(p) for p in found.points.unbind(-2)], -1)
    )
    grid = torch.linspace(-6, 6, 20_001).double().reshape(-1, 1, 1).expand(-1, 3, 1)
    assert bool((mixture.log_prob(grid).amax(0) <= found.log_density[:, 0] + 1e-9).all())


def one_dimensional(weights, means, deviations):
    kind = {"dtype": torch.float64}
    scales = torch.tensor(deviations, **kind).square()
    means = torch.tensor(means, **kind).unsqueeze(-1)
    return Mixture(torch.tensor(weights, **kind).log(), means, Isotropic.of(scales, 1))


@pytest.mark.parametrize(
    ("weights", "means", "deviations", "count"),
    [
        # Far components, which make the mixture wide, hide nothing.
        ([0.25, 0.25, 0.5], [0.0, 1.0, 1e4], [0.1, 0.1, 1.0], 3),
        ([0.4995, 0.4995, 0.001], [0.0, 1.0, 1e5], [0.1, 0.1, 1.0], 3),
        ([1 - 1e-9, 1e-9], [0.0, 1e6], [1.0, 1e5], 2),
        # Equal Gaussians part at two deviations.
        ([0.5, 0.5], [0.0, 1.999], [1.0, 1.0], 1),
        ([0.5, 0.5], [0.0, 2.0], [1.0, 1.0], 1),
        ([0.5, 0.5], [0.0, 2.01], [1.0, 1.0], 2),
        ([0.5, 0.5, 0.0], [3.0, 3.0, 8.0], [1.0, 1.0, 1.0], 1),
    ],
)
def test_modes_are_counted(weights, means, deviations, count):
    found = modes(one_dimensional(weights, means, deviations))
    assert int(found.count) == count
    highest = found.log_density.max()
    expected = found.found & (found.log_density >= highest + math.log(0.5))
    assert found.above(0.5).tolist() == expected.tolist()
    assert bool(found.above(1.0)[0])


def test_tails_keep_their_digits():
    mixture = one_dimensional([0.5, 0.5], [0.0, 1.0], [1.0, 1.0])
    q = mixture.icdf(torch.tensor([1e-30, 1e-18, 1 - 1e-12], dtype=torch.float64))
    expected = [norm.ppf(2e-30), norm.ppf(2e-18), 1 + norm.isf(2e-12)]
    assert q.flatten().tolist() == pytest.approx(expected, rel=1e-3)
    single = Mixture(torch.zeros(1), torch.zeros(1, 1), Isotropic.of(torch.ones(1), 1))
    tail = single.cdf(torch.tensor([[-6.0]]))
    assert float(tail) == pytest.approx(norm.cdf(-6), rel=1e-5)
    # A component without weight is no part of a quantile, however far up it is asked for.
    logits = torch.tensor([0.0, 0.0, -math.inf])
    far = Mixture(logits, torch.tensor([[0.0], [0.0], [1e3]]), Isotropic.of(torch.ones(3), 1))
    high = float(far.icdf(torch.tensor(1 - 1e-9, dtype=torch.float64)))
    assert high == pytest.approx(norm.isf(1e-9), rel=1e-4)


@pytest.mark.parametrize("e", [1e-3, 1e-4, 1e-5])
def test_gaps_do_not_square_the_condition_number(e):
    tril = torch.tensor([[1.0, 0, 0], [1, e, 0], [1, 1, e]])
    x = torch.tensor([[0.5, 0.5 + e, math.nan]])
    batch = Mixture(torch.zeros(1, 1), torch.zeros(1, 1, 3), Full(tril.expand(1, 1, 3, 3)))
    twin = Mixture(torch.zeros(1), torch.zeros(1, 3), Full(tril[None]))
    alone = twin.marginal(torch.tensor([0, 1])).log_prob(x[:, :2])
    # x itself is rounded: e is a difference of numbers near one.
    torch.testing.assert_close(batch.log_prob(x), alone, rtol=0, atol=1e-2)


def test_covariances_alone_may_have_the_batch():
    covariance = Isotropic.of(torch.tensor([[1.0, 4.0], [9.0, 1.0]]), 2)
    mixture = Mixture(torch.zeros(2), torch.zeros(2, 2), covariance)
    assert mixture.batch_shape == (2,)
    assert mixture.log_prob(torch.zeros(2, 2)).shape == (2,)
    assert mixture.sample((5,), seed=0).shape == (5, 2, 2)
    torch.testing.assert_close(mixture.variance, torch.tensor([[2.5, 2.5], [5.0, 5.0]]))
    assert mixture.icdf(0.3).shape == (2, 2)


@pytest.mark.parametrize("name", ["ppca", "factor-analysis"])
def test_strong_loadings_keep_their_digits_in_float32(name):
    W = 30 * torch.randn(1, 2, 8, 2, generator=torch.Generator().manual_seed(0)).double()
    raw = {"loadings": W, "log_noise": torch.full((1, 2, 8), 1e-4).double().log()}
    if name == "ppca":
        raw["log_noise"] = raw["log_noise"][..., :1]
    centres = torch.zeros(1, 2, 8).double()
    raw = {k: v.float().double() for k, v in raw.items()}
    double = Mixture(torch.zeros(1, 2).double(), centres, families()[name].from_raw(raw, 8))
    x = double.sample((200,), seed=0).float()
    floats = {k: v.float() for k, v in raw.items()}
    single = Mixture(torch.zeros(1, 2), centres.float(), families()[name].from_raw(floats, 8))
    error = (single.log_prob(x).double() - double.log_prob(x.double())).abs().max()
    assert float(error) < 1e-2
    assert bool((modes(single).count == 1).all())


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_vanish_at_modes(name):
    batch, _ = batch_of(name)
    found = modes(batch)
    assert bool((found.count >= 1).all())
    x = found.points.movedim(-2, 0).clone().requires_grad_()
    batch.log_prob(x).sum().backward()
    assert x.grad is not None
    assert float((x.grad * batch.variance.sqrt()).abs().max()) < 1e-5
