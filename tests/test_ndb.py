"""NDB: the z-test and the divergence against hand-worked numbers, and its calibration."""

import math

import numpy as np
import pytest

from mogul import InputError
from mogul.evaluation import BinModel
from mogul.evaluation.ndb import jensen_shannon


def _normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def _two_bins(n_left, n_right):
    return np.concatenate([np.full((n_left, 1), -1.0), np.full((n_right, 1), 1.0)])


@pytest.mark.parametrize(("left", "differs"), [(59, False), (63, False), (64, True), (36, True)])
def test_two_proportions_by_hand(left, differs):
    # p₁ = 0.5 of 1000, p₂ = left/100: with 0.64, pooled 0.5127, standard error 0.05243, z = 2.67;
    # with 0.59, z = 1.72; the critical value is 1.96.
    train = _two_bins(500, 500)
    found = BinModel(train, n_bins=2).compare(_two_bins(left, 100 - left))
    pooled = (500 + left) / 1100
    z = abs(left / 100 - 0.5) / math.sqrt(pooled * (1 - pooled) * (1 / 1000 + 1 / 100))
    assert (z > 1.959964) == bool(found.different[0]) == bool(found.different[1])
    assert found.ndb == 2 * found.different[0]
    if left in (59, 64):
        assert found.different[0] == differs


def test_divergence_by_hand_and_at_its_bounds():
    p, q = np.array([0.5, 0.5]), np.array([1.0, 0.0])
    expected = 0.5 * (0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25))
    expected += 0.5 * math.log(1 / 0.75)
    assert jensen_shannon(p, q) == pytest.approx(expected)
    assert jensen_shannon(p, p) == pytest.approx(0.0, abs=1e-15)
    assert jensen_shannon(q, q[::-1]) == pytest.approx(math.log(2))


def test_rows_of_the_same_distribution_differ_at_the_level_of_significance():
    ratios = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        bins = BinModel(rng.normal(size=(4000, 5)), n_bins=40, seed=seed)
        ratios += [bins.compare(rng.normal(size=(2000, 5))).ratio for _ in range(3)]
    # The bins are fitted to the training rows, which makes a few more of them differ.
    assert 0.02 < np.mean(ratios) < 0.12


def test_a_dropped_mode_is_found():
    centres = 10 * _normal(5, 3)

    def draw(n_modes, n, seed):
        modes = np.random.default_rng(seed).integers(0, n_modes, n)
        return centres[modes] + _normal(n, 3, seed=seed + 1)

    bins = BinModel(draw(5, 5000, 1), n_bins=20)
    whole, part = bins.compare(draw(5, 2000, 3)), bins.compare(draw(4, 2000, 5))
    assert whole.ndb <= 4
    assert part.ndb >= 10
    assert part.js > 10 * whole.js
    assert part.proportions.sum() == pytest.approx(1.0)


def test_whitening_ignores_the_units():
    train, other = _normal(1000, 4), 1.2 * _normal(500, 4, seed=1)
    units = np.array([1.0, 32.0, 1 / 64, 1024.0])
    plain = BinModel(train, n_bins=10, whiten=True).compare(other)
    scaled = BinModel(train * units, n_bins=10, whiten=True).compare(other * units)
    np.testing.assert_array_equal(plain.proportions, scaled.proportions)
    constant = np.column_stack([train, np.ones(1000)])
    assert np.isfinite(BinModel(constant, n_bins=10, whiten=True).compare(constant).js)


def test_many_features_use_a_sixth_of_them():
    train = _normal(60, 1200).astype(np.float32)
    bins = BinModel(train, n_bins=3)
    assert bins._centres.shape == (3, 200)
    unused = np.setdiff1d(np.arange(1200), bins._used)
    moved = train.copy()
    moved[:, unused] += 100
    assert bins.compare(moved).ndb == 0


def test_bad_rows_are_refused():
    bins = BinModel(_normal(50, 3), n_bins=4)
    with pytest.raises(InputError, match=r"\(n, 3\)"):
        bins.compare(np.zeros((5, 4)))
    with pytest.raises(InputError, match="cannot be binned"):
        bins.compare(np.full((5, 3), np.nan))
    with pytest.raises(InputError, match="at least one row"):
        bins.compare(np.zeros((0, 3)))
    with pytest.raises(InputError, match="60 bins"):
        BinModel(np.zeros((50, 3)), n_bins=60)
