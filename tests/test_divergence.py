"""Divergences to mixtures: estimates against long simulations, bounds on the right side."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from families import random_mixture
from mogul.distributions import (
    PPCA,
    Diagonal,
    Full,
    Isotropic,
    Mixture,
    Posterior,
    component_divergences,
    marginal_divergence,
    product_bound,
    sampled_divergence,
    variational_bound,
)

FAMILIES = ["full", "diagonal", "isotropic", "ppca", "factor-analysis"]


def posteriors(n: int, s: int, d: int, seed: int) -> Posterior:
    """Posteriors of n rows with S components."""
    draw = torch.Generator().manual_seed(seed)
    kind = {"generator": draw, "dtype": torch.float64}
    logits = torch.randn(n, s, **kind)
    return Posterior(
        logits.log_softmax(-1), torch.randn(n, s, d, **kind), torch.randn(n, s, d, **kind)
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_divergences_of_components_are_those_of_torch(family):
    p, q = random_mixture(family, 4, 3, 4, seed=1), posteriors(5, 2, 3, 2)
    found = component_divergences(q, p)
    dense = p.covariance.dense()
    for n in range(5):
        for s in range(2):
            one = MultivariateNormal(q.means[n, s], torch.diag(q.log_variances[n, s].exp()))
            for k in range(4):
                other = MultivariateNormal(p.means[k], dense[k])
                assert float(found[n, s, k]) == pytest.approx(float(kl_divergence(one, other)))


@pytest.mark.parametrize("s", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_bounds_hold_the_divergence_between_them(family, s):
    p, q = random_mixture(family, 5, 3, 5, seed=3), posteriors(6, s, 3, 4)
    z = q.sample(100_000, torch.Generator().manual_seed(0))
    terms = q.log_prob(z) - p.log_prob(z)
    mean, error = terms.mean(0), terms.std(0) / math.sqrt(len(z))
    assert bool((product_bound(q, p) <= mean + 4 * error).all())
    assert bool((mean <= variational_bound(q, p) + 4 * error).all())


def test_the_product_bound_stands_steep_covariances():
    draw = torch.Generator().manual_seed(0)
    loadings = 100 * torch.randn(8, 10, 4, generator=draw)
    covariance = PPCA(loadings, torch.full((8, 1), 1e-3))
    p = Mixture(torch.zeros(8), 100 * torch.randn(8, 10, generator=draw), covariance)
    q = Posterior(torch.zeros(5, 1), torch.zeros(5, 1, 10), torch.full((5, 1, 10), -8.0))
    found = product_bound(q, p)
    double = Mixture(p.logits.double(), p.centres.double(), covariance.map(torch.Tensor.double))
    wide = Posterior(*(t.double() for t in (q.log_weights, q.means, q.log_variances)))
    assert torch.allclose(found.double(), product_bound(wide, double), rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 4))
def test_the_product_bound_never_exceeds_the_variational_one(seed, k, d):
    p, q = random_mixture("diagonal", k, d, k, seed=seed), posteriors(8, 1 + seed % 3, d, seed + 1)
    assert bool((product_bound(q, p) <= variational_bound(q, p) + 1e-9).all())


def test_the_variational_bound_is_exact_for_one_gaussian():
    q = posteriors(7, 1, 4, 0)
    p = Mixture(
        torch.zeros(1).double(), torch.zeros(1, 4).double(), Isotropic.of(torch.ones(1).double(), 4)
    )
    one = Independent(Normal(q.means[:, 0], (0.5 * q.log_variances[:, 0]).exp()), 1)
    other = Independent(Normal(torch.zeros(4).double(), torch.ones(4).double()), 1)
    assert torch.allclose(variational_bound(q, p), kl_divergence(one, other))


def test_the_variational_bound_is_tight_for_islands_far_apart():
    q = Posterior(torch.zeros(1, 1), torch.tensor([[[10.0]]]), torch.tensor([[[-2.0]]]))
    p = Mixture(torch.zeros(2), torch.tensor([[-10.0], [10.0]]), Diagonal.of(torch.ones(2, 1)))
    nearest = component_divergences(q, p)[0, 0, 1] + math.log(2)
    assert float(variational_bound(q, p)) == pytest.approx(float(nearest), abs=1e-6)


@pytest.mark.parametrize("s", [1, 3])
@pytest.mark.parametrize("way", ["marginal", "sampled"])
def test_estimates_agree_with_a_million_draws(way, s):
    p, q = random_mixture("diagonal", 6, 2, 6, seed=5), posteriors(1, s, 2, 6)
    z = q.sample(1_000_000, torch.Generator().manual_seed(1))
    terms = q.log_prob(z) - p.log_prob(z)
    reference, error = terms.mean(), terms.std() / 1000
    if way == "marginal":
        draw = torch.Generator().manual_seed(0)
        found = torch.stack([
            marginal_divergence(q, p, q.stratified(20, draw)) for _ in range(1000)
        ])
    else:
        z = q.rsample(20_000, torch.Generator().manual_seed(2)).detach()
        found = (q.log_prob(z) - p.log_prob(z)).view(1000, 20).mean(1)
        assert torch.allclose(sampled_divergence(q, p, z), found.mean())
    own = found.std() / math.sqrt(len(found))
    assert abs(float(found.mean() - reference)) < 3 * float((own.square() + error.square()).sqrt())


@pytest.mark.parametrize("way", ["marginal", "sampled"])
def test_gradients_of_estimates_agree_with_finite_differences_of_the_truth(way):
    """In one dimension, where the divergence can be integrated."""
    p = Mixture(
        torch.tensor([0.3, -0.2]).double(),
        torch.tensor([[-1.0], [1.5]]).double(),
        Full(torch.tensor([[[0.7]], [[0.5]]]).double()),
    )
    start = torch.tensor([0.4, -0.6, 0.2, 0.9, -0.3, -1.0]).double()

    def posterior(t):
        return Posterior(t[:2].log_softmax(-1)[None], t[2:4].view(1, 2, 1), t[4:].view(1, 2, 1))

    def truth(t):
        q, grid = posterior(t), torch.linspace(-12, 12, 40_001).double().view(-1, 1, 1)
        log_q = q.log_prob(grid).squeeze(-1)
        return float(
            torch.trapezoid(log_q.exp() * (log_q - p.log_prob(grid).squeeze(-1)), dx=24 / 40_000)
        )

    steps = 1e-4 * torch.eye(6).double()
    expected = torch.tensor([(truth(start + h) - truth(start - h)) / 2e-4 for h in steps])
    t = start.clone().requires_grad_()
    q = posterior(t)
    if way == "marginal":
        value = marginal_divergence(q, p, q.stratified(100_000, torch.Generator().manual_seed(0)))
    else:
        value = sampled_divergence(q, p, q.rsample(100_000, torch.Generator().manual_seed(0)))
    (found,) = torch.autograd.grad(value.sum(), t)
    assert torch.allclose(found, expected.double(), atol=0.015)
