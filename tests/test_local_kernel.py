"""Scores and moments of chosen pairs are those of the dense twin, however they are cut."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from families import random_covariance, random_mixture
from mogul.distributions import FactorAnalysis, Full, LocalKernel, Mixture, families, local_kernel
from mogul.distributions.tiles import tiles

PAIRS = [(name, shared) for name in families() for shared in (False, True)]
K, D, N = 30, 6, 200


def _mixture(name, shared, far=0.0):
    found = random_mixture(name, K, D, 1 if shared else K)
    origin = torch.full((D,), far, dtype=torch.float64)
    return Mixture(found.logits, found.centres, found.covariance, origin)


def _kernel(mixture, dtype=torch.float64):
    covariance = mixture.covariance.map(lambda t: t.to(dtype))
    parts = (mixture.centres, mixture.log_weights, mixture.origin)
    return LocalKernel(covariance, *(t.to(dtype) for t in parts))


def _rows(far=0.0, n=N):
    generator = torch.Generator().manual_seed(5)
    return 3 * torch.randn(n, D, generator=generator, dtype=torch.float64) + far


def _pairs(p=500, seed=0):
    generator = torch.Generator().manual_seed(seed)
    which = torch.randperm(K * N, generator=generator)[:p]
    return which % K, which // K


@pytest.mark.parametrize("far", [0.0, 1e3])
@pytest.mark.parametrize(("name", "shared"), PAIRS)
def test_scores_are_those_of_the_dense_twin(name, shared, far):
    mixture, x = _mixture(name, shared, far), _rows(far)
    kernel, joint = _kernel(mixture), mixture.component_log_prob(x)
    rows = kernel.centred(x)
    component, row = _pairs()
    torch.testing.assert_close(kernel.score(rows, component, row), joint[row, component])
    generator = torch.Generator().manual_seed(1)
    held = torch.rand(N, K, generator=generator).argsort(-1)[:, :4]
    others = torch.randint(K, (K, 6), generator=generator)
    neighbours = torch.cat([torch.arange(K).unsqueeze(-1), others], -1)
    own, scores = kernel.search(rows, held, neighbours)
    torch.testing.assert_close(own, joint.gather(1, held))
    expected = joint.gather(1, neighbours[held].flatten(1)).view_as(scores)
    torch.testing.assert_close(scores, expected)


@pytest.mark.parametrize(("name", "shared"), PAIRS)
def test_moments_are_those_of_the_dense_twin(name, shared):
    mixture, x = _mixture(name, shared, 10.0), _rows(10.0)
    kernel = _kernel(mixture)
    component, row = _pairs()
    mass = torch.rand(500, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for half in (slice(0, 200), slice(200, 500)):  # what is added later adds
        kernel.add(kernel.centred(x), component[half], row[half], mass[half])
    resp = torch.zeros(N, K, dtype=torch.float64).index_put((row, component), mass)
    expected = mixture.covariance.statistics(x - 10.0, resp, mixture.centres)
    for field, value in expected.tensors().items():
        torch.testing.assert_close(getattr(kernel.moments, field), value, msg=field)


@pytest.mark.parametrize(("name", "shared"), PAIRS)
def test_tiles_of_any_size_give_the_same(name, shared, monkeypatch):
    mixture, x = _mixture(name, shared), _rows()
    component, row = _pairs()
    mass, found = torch.ones(500, dtype=torch.float64), []
    for values in (2**21, 200):
        monkeypatch.setattr(local_kernel, "_TILE_VALUES", values)
        monkeypatch.setattr(local_kernel, "_TABLE_VALUES", values)
        kernel = _kernel(mixture)
        kernel.add(x, component, row, mass)
        found.append([kernel.score(x, component, row), *kernel.moments.tensors().values()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_tiles_hold_every_pair_once_and_keep_components_apart(seed, most_rows, most_components):
    generator = torch.Generator().manual_seed(seed)
    p = int(torch.randint(1, 80, (), generator=generator))
    component = torch.randint(7, (p,), generator=generator).square() // 7
    row = torch.randint(50, (p,), generator=generator)
    apart = torch.rand(7, generator=generator) < 0.3
    seen = []
    for tile, is_apart in tiles(component, row, apart, most_rows, most_components):
        assert bool((apart[tile.component] == is_apart).all())
        assert len(tile.component) <= most_components
        assert tile.pair.numel() <= max(most_rows, len(tile.component))
        assert len(tile.component.unique()) == len(tile.component)
        inside = tile.pair < p
        assert torch.equal(row[tile.pair[inside]], tile.row[inside])
        owner = tile.component.unsqueeze(-1).expand_as(tile.pair)
        assert torch.equal(component[tile.pair[inside]], owner[inside])
        seen.append(tile.pair[inside])
    assert torch.equal(torch.cat(seen).sort().values, torch.arange(p))


@pytest.mark.parametrize("name", families())
def test_float32_keeps_the_digits_of_what_a_row_is_held_to(name):
    mixture, x = _mixture(name, False, 1e3), _rows(1e3)
    kernel = _kernel(mixture, torch.float32)
    component, row = _pairs()
    joint = mixture.component_log_prob(x.float().double())[row, component]
    found = kernel.score(kernel.centred(x.float()), component, row).double()
    assert float(((found - joint).abs() / (1 + 1e-5 * joint.abs())).max()) < 2e-3


def test_factors_that_dwarf_the_noise_lose_nothing_in_float32():
    generator = torch.Generator().manual_seed(0)
    loadings = 100 * torch.randn(K, D, 2, generator=generator, dtype=torch.float64)
    covariance = FactorAnalysis(loadings.float().double(), torch.full((K, D), 1e-2).double())
    centres = torch.randn(K, D, generator=generator, dtype=torch.float64).float().double()
    mixture = Mixture(torch.zeros(K, dtype=torch.float64), centres, covariance)
    x = mixture.sample((N,), seed=0).float().double()
    kernel, joint = _kernel(mixture, torch.float32), mixture.component_log_prob(x)
    best = joint.argmax(-1)
    rows = torch.arange(N)
    found = kernel.score(x.float(), best, rows).double()
    assert float((found - joint[rows, best]).abs().max()) < 1e-3
    kernel.add(x.float(), best, rows, torch.ones(N))
    resp = torch.nn.functional.one_hot(best, K).double()
    expected = covariance.statistics(x, resp, centres)
    torch.testing.assert_close(kernel.moments.projected, expected.projected, rtol=1e-5, atol=1e-4)


def test_collinear_covariances_lose_nothing_in_float32():
    base = random_covariance("full", K, D).dense()
    base[:, 0] = base[:, 1]
    base[:, :, 0] = base[:, :, 1]
    base[:, 0, 0] = base[:, 1, 1] * (1 + 1e-6)
    covariance = Full.from_covariance(base).map(lambda t: t.float().double())
    mixture = Mixture(torch.zeros(K).double(), torch.zeros(K, D).double(), covariance)
    x = mixture.sample((N,), seed=0).float().double()
    kernel, joint = _kernel(mixture, torch.float32), mixture.component_log_prob(x)
    component, row = _pairs()
    found = kernel.score(x.float(), component, row).double()
    error = (found - joint[row, component]).abs()
    assert float((error / joint[row, component].abs()).max()) < 1e-5


def test_rows_far_from_an_old_centre_keep_the_digits_of_their_covariance():
    covariance = random_covariance("full", 1, D)
    x = (1e3 + _rows(n=2000)).float()
    kernel = _kernel(Mixture(torch.zeros(1).double(), torch.zeros(1, D).double(), covariance),
                     torch.float32)  # fmt: skip
    kernel.add(x, torch.zeros(2000).long(), torch.arange(2000), torch.ones(2000))
    moments = kernel.moments
    shift = moments.shift[0]
    found = moments.second[0] / 2000 - shift.unsqueeze(-1) * shift
    torch.testing.assert_close(found, x.double().T.cov(correction=0), rtol=1e-5, atol=1e-5)
