"""EM on data with gaps: it maximises the likelihood of what is observed, for every family."""

import itertools

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal

from families import random_mixture
from mogul import EM, GaussianMixture, InputError, fit, initialise, open_source
from mogul.data import ArraySource, ResidentSource
from mogul.distributions import families
from mogul.evaluation import bits_per_dim
from mogul.models.gaussian_mixture import SHARINGS

PAIRS = [(name, sharing) for name in families() for sharing in SHARINGS]


def _model(name, sharing, k, d, dtype=torch.float64):
    rank = 2 if families()[name].low_rank else None
    return GaussianMixture(k, d, covariance=name, rank=rank, sharing=sharing, dtype=dtype)


def _holes(x, fraction=0.3, seed=0):
    hidden = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) < fraction
    return torch.where(hidden, torch.nan, x)


@pytest.mark.parametrize("name", families())
def test_likelihood_of_partly_observed_rows_is_the_marginal_one(name):
    mixture = random_mixture(name, 3, 5, 3)
    x = _holes(mixture.sample((40,), seed=0), 0.4)
    dense = mixture.covariance.dense()
    for row, ours in zip(x, mixture.log_prob(x), strict=True):
        a = (~row.isnan()).nonzero().squeeze(-1)
        if len(a) == 0:
            assert abs(float(ours)) < 1e-12
            continue
        terms = [
            MultivariateNormal(mixture.means[k][a], dense[k][a][:, a]).log_prob(row[a])
            for k in range(3)
        ]
        exact = (torch.stack(terms) + mixture.log_weights).logsumexp(0)
        torch.testing.assert_close(ours, exact, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "sharing"), PAIRS)
@pytest.mark.parametrize("seed", [0, 1])
def test_observed_likelihood_never_falls(name, sharing, seed):
    x = _holes(random_mixture("full", 3, 6, 3, seed).sample((300,), seed=seed), 0.3, seed)
    x[7] = torch.nan
    source = ArraySource(x)
    model = _model(name, sharing, 3, 6)
    initialise(model, source, seed=seed)
    history = fit(model, source, EM(batch_size=130), passes=30, tolerance=0.0).history
    values = [row["log_likelihood"] for row in history]
    for before, after in itertools.pairwise(values):
        assert after >= before - 1e-10 * abs(before)
    assert values[-1] > values[0]


@pytest.mark.parametrize(("name", "sharing"), PAIRS)
def test_a_step_on_complete_rows_is_the_step_for_complete_data(name, sharing):
    x = random_mixture("full", 3, 5, 3).sample((200,), seed=0)
    model = _model(name, sharing, 3, 5)
    initialise(model, ArraySource(x))
    weight = torch.rand(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    reached = []
    start = model.state_dict()
    start = {key: value.clone() for key, value in start.items()}
    for gaps in (False, True):
        model.load_state_dict(start)
        for _ in range(2):
            kernel = model.expectation(gaps)
            kernel.expect(x[:120], weight[:120])
            kernel.expect(x[120:], weight[120:])
            moments = kernel.moments
            model.maximise(moments)
        reached.append(model().log_prob(x).detach())
    if sharing == "own" or not families()[name].low_rank:
        torch.testing.assert_close(reached[0], reached[1], rtol=1e-9, atol=1e-9)
    else:
        # With shared loadings the two steps are different exact ascents to the same optimum:
        # one fixes the means first, the other solves for means and loadings together.
        assert abs(float((reached[0] - reached[1]).mean())) < 0.1


@pytest.mark.parametrize(("name", "sharing"), PAIRS)
def test_where_it_converges_the_gradient_of_the_observed_likelihood_vanishes(name, sharing):
    x = _holes(random_mixture("full", 2, 4, 2).sample((300,), seed=0), 0.3)
    model = _model(name, sharing, 2, 4)
    initialise(model, ArraySource(x))
    fit(model, ArraySource(x), EM(), passes=1500, tolerance=1e-13)
    (-model().log_prob(x).mean()).backward()
    for parameter in model.parameters():
        if parameter.grad is not None:
            assert parameter.grad.abs().max() < 3e-4


@pytest.mark.parametrize("name", families())
def test_missing_values_cost_little_when_factors_explain_them(name):
    truth = random_mixture("ppca", 2, 10, 2)
    x = truth.sample((2000,), seed=0)
    test = truth.sample((1000,), seed=1)
    reached = []
    for data in (x, _holes(x, 0.3)):
        model = _model(name, "own", 2, 10)
        initialise(model, ArraySource(data))
        fit(model, ArraySource(data), EM(), passes=60)
        reached.append(float(model().log_prob(test).detach().mean()))
    assert reached[1] > reached[0] - 0.25


@pytest.mark.parametrize("name", families())
def test_float32_with_gaps_reaches_float64(name):
    x = _holes(random_mixture("full", 3, 5, 3).sample((400,), seed=0))
    reached = []
    for dtype in (torch.float32, torch.float64):
        model = _model(name, "own", 3, 5, dtype)
        initialise(model, ArraySource(x))
        fit(model, ArraySource(x), EM(), passes=10, tolerance=0.0)
        reached.append(float(model().log_prob(x).detach().mean()))
    assert abs(reached[0] - reached[1]) < 2e-3


def test_a_feature_that_one_component_never_sees_keeps_its_parameters_finite():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(50, 4)), 20 + rng.normal(size=(50, 4))])
    x[:50, 3] = np.nan
    for name in families():
        model = _model(name, "own", 2, 4)
        initialise(model, ArraySource(x))
        fit(model, ArraySource(x), EM(), passes=20)
        assert model().log_prob(torch.tensor(x)).isfinite().all()
        assert all(bool(t.isfinite().all()) for t in model.state_dict().values())


@pytest.mark.parametrize("name", families())
def test_responsibilities_and_reconstructions_know_gaps(name):
    mixture = random_mixture(name, 3, 5, 3)
    x = _holes(mixture.sample((30,), seed=0))
    resp = mixture.responsibilities(x)
    torch.testing.assert_close(resp.sum(-1), torch.ones(30, dtype=torch.float64))
    rebuilt = mixture.reconstruct(x)
    assert rebuilt.isfinite().all()
    whole = mixture.sample((5,), seed=1)
    none_hidden = mixture.complete(whole).reconstruction
    torch.testing.assert_close(none_hidden, mixture.reconstruct(whole))


def test_gaps_made_on_purpose_are_the_same_in_every_pass():
    whole = open_source("digits")
    source = whole.with_gaps(0.3, seed=1)
    x = source.take(range(len(source)))
    hidden = x.isnan()
    assert abs(float(hidden.double().mean()) - 0.3) < 0.01
    torch.testing.assert_close(x[~hidden], whole.take(range(len(whole)))[~hidden])
    for size in (7, 8192):
        again = torch.cat([batch.x for batch in source.batches(size)])
        torch.testing.assert_close(again, x, equal_nan=True)
    torch.testing.assert_close(source.take([900, 3]), x[[900, 3]], equal_nan=True)
    other = whole.with_gaps(0.3, seed=2).take(range(len(whole))).isnan()
    assert abs(float((other & hidden).double().mean()) - 0.09) < 0.01  # independent draws
    held = ResidentSource(source, "cpu")  # which rounds noise to 1/256 of a level elsewhere
    torch.testing.assert_close(held.take(range(len(held))), x, equal_nan=True)
    assert bits_per_dim(whole, 60.0) is not None
    assert bits_per_dim(source, 60.0) is None
    assert not whole.take(range(5)).isnan().any()


def test_gaps_do_not_follow_the_noise_of_pixels():
    source = open_source("digits")
    levels = source.take(range(1000)).double() * 17
    noise, hidden = levels - levels.floor(), source.with_gaps(0.5).take(range(1000)).isnan()
    assert abs(float(noise[hidden].mean() - noise[~hidden].mean())) < 0.01


def test_gaps_hide_whole_pixels_of_colour_images():
    images = np.random.default_rng(0).integers(0, 256, (20, 6, 6, 3), dtype=np.uint8)
    hidden = open_source(images).with_gaps(0.5).take(range(20)).isnan().reshape(20, 36, 3)
    assert (hidden.any(-1) == hidden.all(-1)).all()
    assert 0.4 < float(hidden.double().mean()) < 0.6


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0, float("nan")])
def test_a_share_to_hide_lies_between_zero_and_one(fraction):
    with pytest.raises(InputError, match="between 0 and 1"):
        ArraySource(np.ones((3, 2))).with_gaps(fraction)


def test_rows_on_a_device_get_no_gaps():
    with pytest.raises(InputError, match="with_gaps before resident"):
        ResidentSource(ArraySource(np.ones((3, 2))), "cpu").with_gaps(0.5)
