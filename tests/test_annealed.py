"""Annealed importance sampling against linear models, whose log p(x) is known."""

import copy
import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from mogul import GaussianMixture, InputError
from mogul.evaluation import annealed
from mogul.evaluation.annealed import annealed_likelihood, bidirectional_gap
from mogul.models import (
    BernoulliLikelihood,
    ConvDecoder,
    GaussianLikelihood,
    LatentVariableModel,
    LinearDecoder,
)

D, LATENTS, SCALE = 8, 3, 0.5


def linear_model(n_components: int = 1, scale: float = SCALE) -> LatentVariableModel:
    prior = None
    if n_components == 2:
        prior = GaussianMixture(2, LATENTS, "isotropic", dtype=torch.float64)
        with torch.no_grad():
            prior.centres.copy_(torch.tensor([[-1.0, 0.0, 0.5], [1.0, 0.5, 0.0]]))
            prior.logits.copy_(torch.tensor([0.3, 0.7]).log())
    decoder = LinearDecoder(LATENTS, (D,))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        decoder.weight.normal_(generator=generator)
        decoder.bias.normal_(generator=generator)
    return LatentVariableModel(decoder, LATENTS, (D,), GaussianLikelihood(scale), prior).double()


@torch.no_grad()
def exact(model: LatentVariableModel, x: torch.Tensor) -> torch.Tensor:
    """The mixture of N(W μ_k + b, W Σ_k Wᵀ + σ² I)."""
    weight, bias, prior = model.decoder.weight, model.decoder.bias, model.prior
    noise = model.likelihood.scale.square() * torch.eye(D, dtype=torch.float64)
    terms = [
        share
        + MultivariateNormal(weight @ mean + bias, (weight * v) @ weight.mT + noise).log_prob(x)
        for share, mean, v in zip(prior.log_weights, prior.means, prior.variances, strict=True)
    ]
    return torch.stack(terms).logsumexp(0)


@pytest.mark.parametrize("n_components", [1, 2])
def test_both_bounds_are_tight_on_linear_models(n_components, monkeypatch):
    monkeypatch.setattr(annealed, "_CHUNK", 5000)  # a linear decoder takes all chains at once
    model = linear_model(n_components)
    found = bidirectional_gap(model, 10, n_chains=500, n_temperatures=300, n_leapfrog=2, seed=1)
    truth = exact(model, found.rows)
    assert found.rows.shape == (10, D)
    torch.testing.assert_close(found.lower, truth, atol=0.1, rtol=0)
    torch.testing.assert_close(found.upper, truth, atol=0.1, rtol=0)
    assert found.gap == pytest.approx(float((found.upper - found.lower).mean()))
    assert abs(found.gap) < 0.05


@pytest.mark.parametrize("n_components", [1, 2])
def test_rough_estimates_are_still_bounds(n_components):
    model = linear_model(n_components)
    found = bidirectional_gap(model, 200, n_chains=2, n_temperatures=20, n_leapfrog=2)
    truth = exact(model, found.rows).mean()
    assert found.lower.mean() + 0.3 < truth < found.upper.mean() - 0.3
    assert found.gap > 0.6


def test_weights_have_no_bias():
    # 200 copies of a row, 32 chains each: w / p(x) averages to one though the chains are short.
    model = linear_model()
    x = model.sample(1, seed=5, noise=True)
    found = annealed_likelihood(
        model, x.expand(200, -1), n_chains=32, n_temperatures=25, n_leapfrog=2
    )
    ratios = (found.log_likelihood - exact(model, x)).exp()
    assert abs(ratios.mean() - 1) < 4 * ratios.std() / math.sqrt(200) < 0.2


def test_features_that_are_missing_are_marginalised():
    model, whole = linear_model(), linear_model()
    x = model.sample(6, seed=2, noise=True).detach()
    x[:, 5:] = math.nan
    found = annealed_likelihood(model, x, n_chains=128, n_temperatures=200, n_leapfrog=2)
    weight, bias = whole.decoder.weight[:5].detach(), whole.decoder.bias[:5].detach()
    covariance = weight @ weight.mT + SCALE**2 * torch.eye(5, dtype=torch.float64)
    truth = MultivariateNormal(bias, covariance).log_prob(x[:, :5])
    torch.testing.assert_close(found.log_likelihood, truth, atol=0.15, rtol=0)
    assert (found.effective_chains > 50).all()
    assert (found.effective_chains <= 128).all()


def test_the_seed_determines_the_estimates_in_chunks_too():
    model = linear_model()
    settings = {"n_chains": 640, "n_temperatures": 5, "n_leapfrog": 2}  # two rows at a time
    rows = bidirectional_gap(model, 5, seed=3, **settings)
    one, again = (annealed_likelihood(model, rows.rows, seed=3, **settings) for _ in range(2))
    other = annealed_likelihood(model, rows.rows, seed=4, **settings)
    assert torch.equal(one.log_likelihood, again.log_likelihood)
    assert torch.equal(one.log_likelihood, rows.lower)
    assert (one.log_likelihood != other.log_likelihood).all()


def test_one_temperature_is_importance_sampling_from_the_prior():
    model = linear_model(scale=3.0)
    x = model.sample(4, seed=0, noise=True)
    found = annealed_likelihood(model, x, n_chains=5000, n_temperatures=1, n_leapfrog=1)
    torch.testing.assert_close(found.log_likelihood, exact(model, x), atol=0.1, rtol=0)


@pytest.mark.parametrize("likelihood", [BernoulliLikelihood(), GaussianLikelihood(0.1, learn=True)])
def test_the_model_and_the_global_generator_are_left_alone(likelihood):
    shape = (32, 32)
    model = LatentVariableModel(ConvDecoder(2, shape, width=4), 2, shape, likelihood).train()
    before = copy.deepcopy(model.state_dict())
    learned = [p.requires_grad for p in model.parameters()]
    state = torch.get_rng_state()
    found = bidirectional_gap(model, 3, n_chains=2, n_temperatures=8, n_leapfrog=2)
    assert torch.equal(state, torch.get_rng_state())
    assert model.training
    assert [p.requires_grad for p in model.parameters()] == learned
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert found.lower.isfinite().all()
    assert found.upper.isfinite().all()
    assert not (found.lower.requires_grad)
    assert not (found.rows.requires_grad)


def test_trajectories_that_diverge_are_not_taken():
    model = linear_model(scale=1e-6)  # a step of 0.2 leaves the numbers in a few leapfrog steps
    found = bidirectional_gap(model, 3, n_chains=4, n_temperatures=10, n_leapfrog=30)
    assert found.lower.isfinite().all()
    assert (found.lower < exact(model, found.rows)).all()


def test_bad_input_is_refused():
    model = linear_model()
    with pytest.raises(InputError, match=r"\(n, 8\)"):
        annealed_likelihood(model, torch.zeros(2, 7))
    with pytest.raises(InputError, match="at least one row"):
        annealed_likelihood(model, torch.zeros(0, D))
    with pytest.raises(InputError, match="infinite"):
        annealed_likelihood(model, torch.full((2, D), math.inf))
    for name in ("n_chains", "n_temperatures", "n_leapfrog"):
        with pytest.raises(InputError, match="at least 1"):
            annealed_likelihood(model, torch.zeros(2, D), **{name: 0})
        with pytest.raises(InputError, match="at least 1"):
            bidirectional_gap(model, 2, **{name: 0})
    with pytest.raises(InputError, match="0 rows"):
        bidirectional_gap(model, 0)
    with torch.no_grad():
        model.decoder.bias.fill_(math.nan)
    with pytest.raises(InputError, match="not finite"):
        annealed_likelihood(model, torch.zeros(2, D), n_temperatures=2)
