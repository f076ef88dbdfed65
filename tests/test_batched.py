"""Batched fits are the single fits, side by side."""

import pytest
import torch

from families import random_mixture
from mogul import EM, GaussianMixture, InputError, fit
from mogul.algorithms import fit_batched
from mogul.data import ArraySource
from mogul.distributions import families


@pytest.mark.parametrize("name", families())
def test_each_data_set_gets_the_fit_it_would_get_alone(name):
    x = torch.stack([random_mixture("full", 2, 4, 2, s).sample((120,), seed=s) for s in range(5)])
    start = fit_batched(x, 2, name, 2, passes=1, tolerance=0.0)
    done = fit_batched(x, 2, name, 2, passes=9, tolerance=0.0)
    assert done.mixture.batch_shape == (5,)
    for b in range(5):
        model = GaussianMixture(
            2, 4, name, 2 if families()[name].low_rank else None, dtype=torch.float64
        )
        model.load(start.select(b))
        fit(model, ArraySource(x[b]), EM(), passes=8, tolerance=0.0)
        torch.testing.assert_close(
            done.select(b).log_prob(x[b]), model().log_prob(x[b]).detach(), rtol=1e-8, atol=1e-8
        )
        assert float(done.select(b).log_prob(x[b]).mean()) == pytest.approx(
            float(done.log_likelihood[b])
        )


@pytest.mark.parametrize("name", families())
def test_float32_stays_float32(name):
    x = random_mixture("full", 2, 4, 2).sample((120,), seed=0)
    single, double = fit_batched(x.float(), 2, name), fit_batched(x, 2, name)
    assert single.mixture.dtype == torch.float32
    assert single.select(0).log_prob(x.float()).dtype == torch.float32
    assert float(single.log_likelihood) == pytest.approx(float(double.log_likelihood), abs=5e-3)


def test_the_best_of_many_starts_is_kept():
    x = random_mixture("full", 5, 3, 5).sample((300,), seed=0)
    done = fit_batched(x, 5, "full", starts=20)
    assert done.log_likelihood.shape == (20,)
    best = float(done.best().log_prob(x).mean())
    assert best == pytest.approx(float(done.log_likelihood.max()))
    assert best >= float(fit_batched(x, 5, "full").log_likelihood[0])


def test_weights_pad_data_sets_of_unequal_size():
    x = random_mixture("full", 2, 3, 2).sample((60,), seed=0)
    padded = torch.stack([x, torch.cat([x[:40], torch.full((20, 3), 99.0).double()])])
    weight = torch.ones(2, 60)
    weight[1, 40:] = 0
    done = fit_batched(padded, 1, "full", weight=weight)
    alone = fit_batched(x[:40], 1, "full")
    torch.testing.assert_close(done.select(1).means, alone.select(0).means)
    torch.testing.assert_close(
        done.select(1).covariance.dense(), alone.select(0).covariance.dense()
    )


def test_bad_data_are_refused():
    with pytest.raises(InputError, match="complete data sets"):
        fit_batched(torch.full((3, 2), torch.nan), 1)
    with pytest.raises(InputError, match="only 3 row"):
        fit_batched(torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(0)), 4)
    with pytest.raises(InputError, match="equal rows"):
        fit_batched(torch.ones(2, 3, 2), 1)
    with pytest.raises(InputError, match="from 1 to 1"):
        fit_batched(torch.eye(2), 1, "ppca", 2)
