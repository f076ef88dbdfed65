"""Tasks against the closed forms they stand for."""

import numpy as np
import pytest
import torch

from families import random_mixture
from mogul import EM, GaussianMixture, InputError, fit, initialise, open_source
from mogul.algorithms import log_likelihoods
from mogul.data import ArraySource, hide_half, hide_random
from mogul.distributions import Mixture, families
from mogul.evaluation import inpainting_error, reconstruction_error
from mogul.tasks import (
    characteristic,
    find_outliers,
    inpaint,
    nearest_rows,
    percentile_of,
    reconstruct,
    training_quantiles,
)

FAMILIES = list(families())


@pytest.mark.parametrize("name", FAMILIES)
def test_inpainting_is_conditioning(name):
    mixture = random_mixture(name, 3, 6, 3)
    x = mixture.sample((5,), seed=0)
    observed = torch.tensor([True, True, False, True, False, False]).expand(5, -1)
    done = inpaint(mixture, torch.where(observed, x, torch.nan), n_samples=2, seed=1)
    a, b = torch.tensor([0, 1, 3]), torch.tensor([2, 4, 5])
    exact = mixture.condition(a, x[:, a])
    torch.testing.assert_close(done.mean[:, b], exact.mean)
    torch.testing.assert_close(done.deviation[:, b], exact.variance.sqrt())
    torch.testing.assert_close(done.log_likelihood, mixture.marginal(a).log_prob(x[:, a]))
    assert (done.deviation[:, a] == 0).all()
    assert done.samples.shape == (2, 5, 6)
    torch.testing.assert_close(done.samples[:, :, a], x[:, a].expand(2, -1, -1))
    again = inpaint(mixture, x, observed, n_samples=2, seed=1)
    torch.testing.assert_close(done.samples, again.samples, rtol=0, atol=0)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("far", [1e6, 1e9])
def test_deviations_of_what_is_hidden_do_not_depend_on_where_clusters_lie(name, far):
    near = random_mixture(name, 3, 4, 3)
    apart = torch.tensor([0.0, -far, far], dtype=torch.float64).unsqueeze(-1)
    mixture = Mixture(near.logits, near.centres + apart, near.covariance)
    x = mixture.means[1:2].clone()
    x[0, [0, 2]] = torch.nan
    exact = mixture.condition([1, 3], x[:, [1, 3]]).variance.sqrt()
    assert (exact > 0.1).all()
    torch.testing.assert_close(inpaint(mixture, x).deviation[:, [0, 2]], exact)


def test_the_nearest_rows_are_found_far_from_the_origin_and_beside_gaps():
    rows = torch.randn(300, 4, generator=torch.Generator().manual_seed(0)) + 1e4
    gaps = rows.clone()
    gaps[250:, 2] = torch.nan
    source = ArraySource(gaps.numpy())
    wanted = rows[:40]
    assert torch.equal(nearest_rows(source, wanted + 1e-3), wanted)
    with pytest.raises(InputError, match="all have gaps"):
        nearest_rows(ArraySource(gaps[250:].numpy()), wanted)
    with pytest.raises(InputError, match="NaN or infinite"):
        nearest_rows(source, gaps)


def test_inpainting_refuses_a_mask_of_another_shape():
    mixture = random_mixture("ppca", 2, 4, 2)
    with pytest.raises(InputError, match="mask has shape"):
        inpaint(mixture, torch.zeros(3, 4), torch.ones(3, 5, dtype=torch.bool))
    with pytest.raises(InputError, match="boolean"):
        inpaint(mixture, torch.zeros(3, 4), torch.ones(3, 4))
    with pytest.raises(InputError, match="zero or more"):
        inpaint(mixture, torch.zeros(3, 4), n_samples=-1)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("n_covariances", [1, 3])
def test_reconstruction_is_the_posterior_mean_of_the_noise_free_part(name, n_covariances):
    mixture = random_mixture(name, 3, 5, n_covariances)
    x = mixture.sample((7,), seed=0)
    resp = mixture.responsibilities(x)
    expected = torch.zeros_like(x)
    for k in range(3):
        signal = torch.zeros(5, 5, dtype=x.dtype)
        if mixture.loadings is not None:
            W = mixture.loadings.expand(3, -1, -1)[k]
            signal = W @ W.T
        dense = mixture.covariance.dense().expand(3, -1, -1)[k]
        deviation = (x - mixture.means[k]) @ torch.linalg.inv(dense) @ signal
        expected += resp[:, k, None] * (mixture.means[k] + deviation)
    torch.testing.assert_close(reconstruct(mixture, x), expected)
    error = float((expected - x).square().mean())
    assert reconstruction_error(mixture, x) == pytest.approx(error)


@pytest.mark.parametrize("name", ["ppca", "factor-analysis"])
@pytest.mark.parametrize("n_covariances", [1, 3])
@pytest.mark.parametrize("gaps", [False, True])
def test_factors_are_the_posterior_means_of_the_joint_gaussian(name, n_covariances, gaps):
    mixture = random_mixture(name, 3, 5, n_covariances)
    x = mixture.sample((7,), seed=0)
    if gaps:
        x[::2, 1] = x[3, 0] = torch.nan
    found = mixture.factors(x)
    W = mixture.loadings.expand(3, -1, -1)
    assert found.shape == (7, 3, W.shape[-1])
    for n in range(7):
        seen = ~x[n].isnan()
        for k in range(3):
            dense = mixture.covariance.dense().expand(3, -1, -1)[k][seen][:, seen]
            expected = W[k][seen].mT @ torch.linalg.solve(dense, (x[n] - mixture.means[k])[seen])
            torch.testing.assert_close(found[n, k], expected)


def test_factors_rebuild_what_reconstruct_does():
    mixture = random_mixture("ppca", 3, 5, 3)
    x = mixture.sample((7,), seed=0)
    each = mixture.means + torch.einsum("kdh,nkh->nkd", mixture.loadings, mixture.factors(x))
    rebuilt = (mixture.responsibilities(x).unsqueeze(-1) * each).sum(1)
    torch.testing.assert_close(rebuilt, reconstruct(mixture, x))


def test_families_without_factors_say_so():
    with pytest.raises(InputError, match="have no factors"):
        random_mixture("full", 2, 3, 2).factors(torch.zeros(1, 3))


def test_outliers_come_first_and_the_threshold_is_a_quantile():
    mixture = random_mixture("ppca", 2, 4, 2)
    train, test = mixture.sample((2000,), seed=0), mixture.sample((500,), seed=1)
    test[123] += 50
    quantiles = training_quantiles(log_likelihoods(mixture, ArraySource(train)).numpy())
    found = find_outliers(mixture, ArraySource(test), quantiles, 0.02)
    assert found.order[0] == 123
    assert found.index[0] == 123
    assert 1 <= found.n_below <= 30
    assert (found.log_likelihood[found.index] < found.threshold).all()
    ordered = found.log_likelihood[found.order]
    assert (np.diff(ordered) >= 0).all()
    train_below = (log_likelihoods(mixture, ArraySource(train)).numpy() < found.threshold).mean()
    assert train_below == pytest.approx(0.02, abs=0.002)
    assert percentile_of(np.array([found.threshold]), quantiles)[0] == pytest.approx(2.0, abs=0.1)
    with pytest.raises(InputError, match="between 0 and 1"):
        find_outliers(mixture, ArraySource(test), quantiles, 2.0)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("n_covariances", [1, 3])
def test_components_are_ordered_and_their_directions_carry_the_covariance(name, n_covariances):
    mixture = random_mixture(name, 3, 5, n_covariances)
    found = characteristic(mixture)
    assert (found.weight.diff() <= 0).all()
    covariance = found.directions.mT @ found.directions
    dense = mixture.covariance.dense().expand(3, -1, -1)[found.index]
    if mixture.loadings is not None:
        torch.testing.assert_close(covariance + torch.diag_embed(found.noise.square()), dense)
        assert (found.directions.norm(dim=-1).diff(dim=-1) <= 1e-9).all()
        torch.testing.assert_close(found.along(0, 2.0), found.mean + 2 * found.directions[:, 0])
    else:
        assert found.directions.shape[1] == 0
    assert len(characteristic(mixture, 2).index) == 2


def test_a_mixture_in_paints_digits_better_than_the_mean():
    train, test = open_source("digits"), open_source("digits:test")
    model = GaussianMixture(10, 64, covariance="mfa", rank=4)
    initialise(model, train)
    fit(model, train, EM(), passes=10)
    model.requires_grad_(False)
    x, mean = test.take(range(len(test))), train.take(range(len(train))).mean(0)
    for observed in (
        hide_half(len(x), (8, 8), "right"),
        hide_random(len(x), (8, 8), 0.5),
    ):
        filled = inpaint(model(), x, observed).mean
        by_mean = inpainting_error(x, mean.expand_as(x), observed)
        assert inpainting_error(x, filled, observed) < 0.6 * by_mean
