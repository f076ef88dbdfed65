"""NDB: the z-test and the divergence against hand-worked numbers, and its calibration."""

import math

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from mogul import InputError
from mogul.evaluation import BinModel
from mogul.evaluation.ndb import jensen_shannon


def _normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def _two_bins(n_left, n_right):
    return np.concatenate([np.full((n_left, 1), -1.0), np.full((n_right, 1), 1.0)])


@pytest.mark.parametrize(
    ("left", "differs"), [(59, False), (60, False), (61, True), (64, True), (36, True)]
)
def test_two_proportions_by_hand(left, differs):
    # p₁ = 0.5 of 1000, p₂ = left/100: with 0.64, pooled 0.5127, standard error 0.05243, z = 2.67;
    # with 0.59, z = 1.72; the critical value, 1.96, lies between those of 0.60 and 0.61.
    train = _two_bins(500, 500)
    found = BinModel(train, n_bins=2).compare(_two_bins(left, 100 - left))
    pooled = (500 + left) / 1100
    z = abs(left / 100 - 0.5) / math.sqrt(pooled * (1 - pooled) * (1 / 1000 + 1 / 100))
    assert (z > 1.959964) == bool(found.different[0]) == bool(found.different[1])
    assert found.ndb == 2 * found.different[0]
    assert found.different[0] == differs


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize(("scale", "origin"), [(1.0, 2.0**33), (1e-40, 0.0), (1e45, 0.0)])
def test_bins_do_not_depend_on_units_nor_on_the_origin(whiten, scale, origin):
    rows, other = _normal(600, 3), _normal(400, 3, seed=1) ** 3
    plain = BinModel(rows, 12, whiten).compare(other)
    moved = BinModel(scale * rows + origin, 12, whiten).compare(scale * other + origin)
    assert plain.ndb > 2
    np.testing.assert_allclose(moved.reference, plain.reference, atol=2e-3)
    np.testing.assert_allclose(moved.proportions, plain.proportions, atol=3e-3)


def test_the_level_of_significance_sets_the_critical_value():
    # z = 2.67 for 64 of 100 has the two-sided p-value 2(1 - Φ(2.67)) = 0.0076.
    train, other = _two_bins(500, 500), _two_bins(64, 36)
    z = 0.14 / math.sqrt((564 / 1100) * (536 / 1100) * (1 / 1000 + 1 / 100))
    p_value = math.erfc(z / math.sqrt(2))
    assert p_value == pytest.approx(0.0076, abs=1e-4)
    for level, ndb in ((p_value * 1.001, 2), (p_value * 0.999, 0)):
        assert BinModel(train, n_bins=2, significance=level).compare(other).ndb == ndb


def test_a_bin_that_is_empty_in_both_does_not_differ():
    with pytest.warns(ConvergenceWarning):  # two distinct rows cannot fill three bins
        bins = BinModel(_two_bins(50, 50), n_bins=3)
    found = bins.compare(_two_bins(0, 40))
    empty = found.reference == 0
    assert empty.sum() == 1
    np.testing.assert_array_equal(found.different, ~empty)
    assert found.ratio == pytest.approx(2 / 3)


def test_divergence_by_hand_and_at_its_bounds():
    p, q = np.array([0.5, 0.5]), np.array([1.0, 0.0])
    expected = 0.5 * (0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25))
    expected += 0.5 * math.log(1 / 0.75)
    assert jensen_shannon(p, q) == pytest.approx(expected)
    assert jensen_shannon(p, p) == pytest.approx(0.0, abs=1e-15)
    assert jensen_shannon(q, q[::-1]) == pytest.approx(math.log(2))
    rng = np.random.default_rng(0)
    for sharpness in (0.01, 0.1, 1.0, 10.0):  # from nearly one-hot, with zeros, to nearly even
        p, q = rng.dirichlet(np.full(20, sharpness), size=2)
        assert 0 < jensen_shannon(p, q) <= math.log(2) + 1e-12
        assert jensen_shannon(p, q) == pytest.approx(jensen_shannon(q, p))


def test_rows_of_the_same_distribution_differ_at_the_level_of_significance():
    ratios = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        bins = BinModel(rng.normal(size=(4000, 5)), n_bins=40, seed=seed)
        ratios += [bins.compare(rng.normal(size=(2000, 5))).ratio for _ in range(3)]
    # The bins are fitted to the training rows, which makes a few more of them differ.
    assert 0.02 < np.mean(ratios) < 0.12


def test_five_percent_of_fixed_bins_differ_under_the_null():
    # Bins that no sample can move (distinct values): the shares are binomial, as the test assumes.
    rng = np.random.default_rng(0)
    grid, ndb = np.arange(10.0), 0
    for _ in range(40):
        train = np.append(grid, rng.choice(grid, 2000))[:, None]
        bins = BinModel(train, n_bins=10)
        ndb += sum(bins.compare(rng.choice(grid, 2000)[:, None]).ndb for _ in range(5))
    assert 0.035 < ndb / 2000 < 0.065


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


def test_whitening_gives_constant_features_no_weight():
    # 0.1 has no exact mean in float32: its deviation is rounding noise, which must not divide.
    train, other = _normal(1000, 4).astype(np.float32), _normal(500, 4, seed=1).astype(np.float32)
    plain = BinModel(train, n_bins=10, whiten=True).compare(other)
    bins = BinModel(np.pad(train, ((0, 0), (0, 1)), constant_values=0.1), n_bins=10, whiten=True)
    padded = bins.compare(np.pad(other, ((0, 0), (0, 1)), constant_values=0.2))
    assert bins._scale[-1] == 1
    np.testing.assert_array_equal(plain.proportions, padded.proportions)


def test_many_features_use_a_sixth_of_them():
    train = _normal(60, 1200).astype(np.float32)
    bins = BinModel(train, n_bins=3)
    assert bins._centres.shape == (3, 200)
    unused = np.setdiff1d(np.arange(1200), bins._used)
    moved = train.copy()
    moved[:, unused] += 100
    assert bins.compare(moved).ndb == 0
    assert BinModel(train[:, :1000], n_bins=3)._centres.shape == (3, 1000)


def test_bins_are_those_of_the_nearest_centres():
    train = 3 + _normal(9000, 4)  # more rows than one chunk
    bins = BinModel(train, n_bins=6)
    found = bins.compare(train)
    np.testing.assert_array_equal(found.proportions, found.reference)
    assert (found.ndb, found.js, found.n) == (0, 0.0, 9000)
    centres = bins._centres * bins._scale + bins._shift
    nearest = np.square(train[:, None] - centres).sum(2).argmin(1)
    np.testing.assert_allclose(np.bincount(nearest) / 9000, found.reference, atol=3 / 9000)


def test_the_seed_determines_the_bins():
    train, other = _normal(300, 1100), _normal(200, 1100, seed=1)

    def compare(seed):
        bins = BinModel(train, n_bins=8, seed=seed)
        return bins._used, bins._centres, bins.compare(other).proportions

    for one, again, different in zip(compare(3), compare(3), compare(4), strict=True):
        np.testing.assert_array_equal(one, again)
        assert (one != different).any()


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
    with pytest.raises(InputError, match="1 bins"):
        BinModel(np.zeros((50, 3)), n_bins=1)
    with pytest.raises(InputError, match=r"significance of 1\.5"):
        BinModel(np.zeros((50, 3)), n_bins=2, significance=1.5)
    for shape in ((50,), (0, 3), (5, 0), (5, 3, 2)):
        with pytest.raises(InputError, match=r"\(n, D\)"):
            BinModel(np.zeros(shape), n_bins=2)
    for value in (np.nan, np.inf):
        with pytest.raises(InputError, match="cannot be binned"):
            BinModel(np.full((5, 3), value), n_bins=2)
