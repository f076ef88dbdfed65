"""Means and deviations of columns, and what depends on them: many equal rows."""

import math

import numpy as np
import pytest
import torch

from mogul import GaussianMixture, InputError, initialise, open_source
from mogul.compute.columns import column_deviations, column_means
from mogul.models import MLP, MixtureDensityNetwork
from mogul.sklearn import KMeans

N = 50_000  # whose sum is rounded often enough


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [1 / 3, -0.1, 1e-30, 12345.678, 1e30])
def test_equal_rows_have_their_own_mean_and_no_deviation(value, dtype):
    x = torch.full((3, N, 2), value, dtype=dtype)
    assert torch.equal(column_means(x), x[:, 0])
    assert torch.equal(column_deviations(x), torch.zeros(3, 2, dtype=dtype))


def test_means_and_deviations_are_numpys():
    x = np.random.default_rng(0).normal(3, [1, 1e-9, 1e9], size=(1000, 3))
    x[::7, 1] = np.nan
    exact = [math.fsum(c[np.isfinite(c)]) / np.isfinite(c).sum() for c in x.T]
    assert column_means(torch.tensor(x)).tolist() == pytest.approx(exact, rel=1e-13)
    assert column_deviations(torch.tensor(x)).numpy() == pytest.approx(np.nanstd(x, 0), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_many_equal_rows_have_no_scale(dtype):
    rows = np.broadcast_to(np.random.default_rng(0).normal(size=3), (2**20, 3))
    for components in (1, 3):
        with pytest.raises(InputError, match="All rows are equal"):
            initialise(GaussianMixture(components, 3, dtype=dtype), open_source(rows))


def test_a_constant_column_of_many_rows_is_constant():
    x = np.random.default_rng(0).normal(size=(N, 3))
    x[:, 1] = 0.1
    model = GaussianMixture(2, 3, dtype=torch.float64)
    initialise(model, open_source(x))
    assert model.origin[1].item() in x[:, 1]
    network = MixtureDensityNetwork(MLP(2), 2, 1, dtype=torch.float64)
    network.set_units(torch.tensor(x))
    assert network.varies.tolist() == [True, False]


def test_k_means_of_equal_rows_is_the_row():
    centre = KMeans(1).fit(np.full((N, 2), 1 / 3)).cluster_centers_
    assert np.array_equal(centre, np.full((1, 2), 1 / 3))
