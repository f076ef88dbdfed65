"""Gradients: of densities, of samples, and as a way to fit the same model as EM does."""

import numpy as np
import pytest
import torch
from torch import nn

from families import random_mixture
from mogul import (
    EM,
    GaussianMixture,
    Gradient,
    InputError,
    Mixture,
    OnlineEM,
    TruncatedEM,
    fit,
    initialise,
)  # fmt: skip
from mogul.algorithms import mean_log_likelihood
from mogul.data import ArraySource
from mogul.distributions import Prior, families
from mogul.distributions.reparameterise import conditional_cdfs
from mogul.models.gaussian_mixture import SHARINGS

PAIRS = [(name, sharing) for name in families() for sharing in SHARINGS]


def _model(name, sharing, k, d):
    rank = 2 if families()[name].low_rank and d > 2 else None
    return GaussianMixture(k, d, name, rank, sharing, dtype=torch.float64)


@pytest.mark.parametrize(("name", "sharing"), PAIRS)
@pytest.mark.parametrize("gaps", [False, True])
def test_gradients_of_the_density_agree_with_finite_differences(name, sharing, gaps):
    model = _model(name, sharing, 2, 4)
    x = random_mixture("full", 2, 4, 2).sample((20,), seed=0)
    initialise(model, ArraySource(x))
    if gaps:
        x[::2, 1] = torch.nan
    model().log_prob(x).mean().backward()
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        flat, gradient = parameter.data.view(-1), parameter.grad.view(-1)
        for i in range(0, len(flat), 3):
            values = []
            for step in (1e-6, -1e-6):
                before = flat[i].item()
                flat[i] = before + step
                values.append(float(model().log_prob(x).detach().mean()))
                flat[i] = before
            assert float(gradient[i]) == pytest.approx((values[0] - values[1]) / 2e-6, abs=1e-6)


def _quantile(u, log_weights, centres, tril):
    """Solve S(x) = u feature by feature, by bisection."""
    x = torch.zeros_like(u)
    for d in range(len(u)):
        low, high = torch.tensor(-60.0).double(), torch.tensor(60.0).double()
        for _ in range(80):
            x[d] = (low + high) / 2
            below = conditional_cdfs(x, log_weights, centres, tril)[d] < u[d]
            low, high = (x[d].clone(), high) if below else (low, x[d].clone())
    return x


@pytest.mark.parametrize("n_features", [1, 2, 3])
def test_sample_gradients_agree_with_moving_the_quantiles(n_features):
    truth = random_mixture("full", 3, n_features, 3)
    leaves = [
        t.clone().requires_grad_() for t in (truth.logits, truth.centres, truth.covariance.tril())
    ]
    mixture = Mixture(leaves[0], leaves[1], type(truth.covariance)(leaves[2]))
    x = mixture.rsample((4,), seed=0)
    torch.testing.assert_close(x.detach(), mixture.sample((4,), seed=0))
    for row in x:
        fixed = [mixture.log_weights.detach(), leaves[1].detach(), leaves[2].detach()]
        u = conditional_cdfs(row.detach(), *fixed)
        out = torch.linspace(1, 2, n_features, dtype=torch.float64)
        gradients = torch.autograd.grad(row @ out, leaves, retain_graph=True)
        for which, index in ((0, (1,)), (1, (2, n_features - 1)), (2, (0, n_features - 1, 0))):
            moved = []
            for step in (1e-5, -1e-5):
                values = [leaf.detach().clone() for leaf in leaves]
                values[which][index] += step
                at = _quantile(u, values[0].log_softmax(-1), values[1], values[2])
                moved.append(float(at @ out))
            finite = (moved[0] - moved[1]) / 2e-5
            assert float(gradients[which][index]) == pytest.approx(finite, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", families())
def test_sample_gradients_reach_all_parameters_of_a_batch(name):
    model = _model(name, "own", 3, 4)
    x = random_mixture("full", 3, 4, 3).sample((50,), seed=0)
    initialise(model, ArraySource(x))
    a = torch.tensor([1, 3])
    batch = model().condition(a, x[:5][:, a])
    drawn = batch.rsample((7,), seed=0)
    assert drawn.shape == (7, 5, 2)
    drawn.square().mean().backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters())
    assert all(float(p.grad.abs().max()) > 0 for p in model.parameters())


@pytest.mark.parametrize(("name", "sharing"), PAIRS)
def test_gradient_fit_reaches_the_likelihood_of_em(name, sharing):
    x = random_mixture("full", 3, 4, 3).sample((600,), seed=0)
    source = ArraySource(x)
    reached = []
    for algorithm, passes in ((EM(), 300), (Gradient(0.05, batch_size=100), 150)):
        model = _model(name, sharing, 3, 4)
        initialise(model, source)
        fit(model, source, algorithm, passes=passes, tolerance=1e-9)
        reached.append(mean_log_likelihood(model(), source))
    assert reached[1] > reached[0] - 0.02


def test_sgd_too():
    x = random_mixture("diagonal", 2, 3, 2).sample((600,), seed=0)
    reached = []
    for algorithm in (EM(), Gradient(0.01, 0.01, "sgd", batch_size=50)):
        model = _model("diagonal", "own", 2, 3)
        initialise(model, ArraySource(x))
        fit(model, ArraySource(x), algorithm, passes=60)
        reached.append(mean_log_likelihood(model(), ArraySource(x)))
    assert reached[1] > reached[0] - 0.02


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_a_change_of_units_changes_nothing(optimiser):
    x = random_mixture("ppca", 2, 4, 2).sample((200,), seed=0)
    reached = []
    for unit in (1.0, 2.0**-13):
        model = _model("ppca", "own", 2, 4)
        source = ArraySource(x * unit)
        initialise(model, source)
        fit(model, source, Gradient(0.01, optimiser=optimiser, batch_size=50), passes=5)
        reached.append(mean_log_likelihood(model(), source) + 4 * np.log(unit))
    assert reached[0] == pytest.approx(reached[1], abs=1e-5)


def test_em_and_gradient_take_turns_on_one_model():
    source = ArraySource(random_mixture("full", 3, 4, 3).sample((500,), seed=0))
    model = _model("full", "own", 3, 4)
    initialise(model, source)
    values = [mean_log_likelihood(model(), source)]
    for algorithm in (EM(), Gradient(0.005, batch_size=500), EM()):
        fit(model, source, algorithm, passes=5, tolerance=0.0)
        values.append(mean_log_likelihood(model(), source))
    assert values[1] > values[0]
    assert values[2] > values[1] - 0.02
    assert values[3] > values[2]


@pytest.mark.parametrize("name", families())
def test_a_variance_that_collapses_is_held_and_recovers(name):
    x = random_mixture("full", 2, 4, 2).sample((300,), seed=0)
    model = _model(name, "own", 2, 4)
    initialise(model, ArraySource(x))
    with torch.no_grad():
        for key, raw in model.raw.items():
            if key.startswith("log"):
                raw[0] = -60.0
    history = fit(model, ArraySource(x), Gradient(0.1, batch_size=50), passes=60).history
    assert "variance floor" in history[0]["events"][0]
    assert history[-1]["events"] == []
    reference = _model(name, "own", 2, 4)
    initialise(reference, ArraySource(x))
    em = fit(reference, ArraySource(x), EM(), passes=100).history[-1]["log_likelihood"]
    assert history[-1]["log_likelihood"] > em - 0.5


def test_frozen_parameters_stay_and_larger_networks_train_through_the_mixture():
    generator = torch.Generator().manual_seed(0)
    model = _model("diagonal", "own", 2, 3)
    source = ArraySource(torch.randn(100, 3, generator=generator))
    initialise(model, source)
    model.centres.requires_grad_(False)
    centres = model.centres.clone()
    fit(model, source, Gradient(), passes=2)
    torch.testing.assert_close(model.centres, centres, rtol=0, atol=0)
    encoder = nn.Linear(5, 3).double()
    network = nn.ModuleList([encoder, model])
    x = torch.randn(20, 5, generator=generator, dtype=torch.float64)
    (-model().log_prob(encoder(x)).mean()).backward()
    assert encoder.weight.grad.abs().max() > 0
    assert len(list(network.parameters())) == 5


def test_bad_settings_are_refused():
    with pytest.raises(InputError, match="adam, sgd"):
        Gradient(optimiser="newton")
    with pytest.raises(InputError, match="positive"):
        Gradient(learning_rate=0.0)


def test_integer_weights_are_repeated_rows():
    x = random_mixture("full", 2, 3, 2).sample((60,), seed=0)
    weight = torch.randint(0, 3, (60,), generator=torch.Generator().manual_seed(0))
    found = []
    for source in (ArraySource(x, weight.double()), ArraySource(x.repeat_interleave(weight, 0))):
        model = _model("full", "own", 2, 3)
        initialise(model, ArraySource(x))
        fitted = fit(model, source, Gradient(batch_size=1000), passes=10)
        found.append((model().log_prob(x), fitted.history[-1]["log_likelihood"]))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-6, atol=1e-6)
    assert found[0][1] == pytest.approx(found[1][1], abs=1e-9)


def test_equal_weights_count_against_a_prior_by_their_sum():
    x = torch.randn(300, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = []
    for source in (ArraySource(x, torch.full((300,), 10.0)), ArraySource(x.repeat(10, 1))):
        prior = Prior(covariance_strength=50.0)
        model = GaussianMixture(1, 2, "full", prior=prior, dtype=torch.float64)
        initialise(model, ArraySource(x))
        done = fit(model, source, Gradient(batch_size=len(source)), passes=3)
        found.append(done.history[-1]["objective"])
    assert found[0] == pytest.approx(found[1], abs=1e-9)


UNSTARTED = [EM(), OnlineEM(), TruncatedEM(candidates=2), Gradient()]


@pytest.mark.parametrize("algorithm", UNSTARTED, ids=lambda a: type(a).__name__)
def test_a_model_that_was_not_started_is_refused(algorithm):
    source = ArraySource(random_mixture("full", 2, 3, 2).sample((60,), seed=0))
    with pytest.raises(InputError, match="call initialise"):
        fit(GaussianMixture(3, 3), source, algorithm, passes=1)
