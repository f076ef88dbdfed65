"""Distances between sets of features against closed forms and loops, and the small classifier."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from sklearn.datasets import load_digits

from mogul import InputError
from mogul.evaluation.features import (
    Classifier,
    load_classifier,
    save_classifier,
    train_classifier,
)
from mogul.evaluation.frechet import frechet_distance, kernel_distance, precision_recall


def _normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _with_moments(mean, deviations, n=50):
    """Rows whose mean and covariance are exactly these: a diagonal one."""
    rows = _normal(n, len(mean))
    rows = torch.linalg.qr(rows - rows.mean(0))[0] * math.sqrt(n - 1)
    return rows * torch.tensor(deviations) + torch.tensor(mean)


def test_diagonal_gaussians_in_closed_form():
    a = _with_moments([0.0, 1.0, 2.0], [1.0, 2.0, 0.5])
    b = _with_moments([1.0, 1.0, 0.0], [2.0, 1.0, 0.5], n=70)
    # ‖μa − μb‖² + Σ (σa − σb)² = (1 + 0 + 4) + (1 + 1 + 0)
    assert frechet_distance(a, b) == pytest.approx(7.0)
    assert frechet_distance(b, a) == pytest.approx(7.0)


@pytest.mark.parametrize("n", [40, 8])  # 8 rows of 12 features: singular covariances
def test_against_the_root_of_a_product_of_matrices(n):
    a = _normal(n, 12) @ _normal(12, 12, seed=1)
    b = _normal(60, 12, seed=2) @ _normal(12, 12, seed=3) + 1
    cov_a, cov_b = np.cov(a.T.numpy()), np.cov(b.T.numpy())
    root = scipy.linalg.sqrtm(cov_a @ cov_b)
    expected = float((a.mean(0) - b.mean(0)).square().sum())
    expected += float(np.trace(cov_a + cov_b - 2 * root).real)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-5)


def test_a_set_has_no_distance_to_itself():
    for rows in (_normal(30, 5), 1e3 + _normal(3, 40), _normal(2, 1)):
        spread = float(rows.var(0).sum())
        assert 0 <= frechet_distance(rows, rows) < 1e-12 * max(spread, 1)
    assert frechet_distance(_normal(20, 3).float(), _normal(20, 3).float() + 2) == pytest.approx(12)


def test_kernel_distance_by_a_double_loop():
    a, b = _normal(6, 4), _normal(6, 4, seed=1) + 0.5

    def kernel(x, y):
        return (float(x @ y) / 4 + 1) ** 3

    def discrepancy(x, y):
        n = len(x)
        pairs = [(i, j) for i in range(n) for j in range(n)]
        within = sum(kernel(x[i], x[j]) + kernel(y[i], y[j]) for i, j in pairs if i != j)
        across = sum(kernel(x[i], y[j]) for i, j in pairs)
        return within / (n * (n - 1)) - 2 * across / n**2

    draw = torch.Generator().manual_seed(7)
    x, y = a[torch.randperm(6, generator=draw)], b[torch.randperm(6, generator=draw)]
    parts = [discrepancy(x[:3], y[:3]), discrepancy(x[3:], y[3:])]
    mean, error = kernel_distance(a, b, subsets=2, seed=7)
    assert mean == pytest.approx(np.mean(parts))
    assert error == pytest.approx(np.std(parts, ddof=1) / math.sqrt(2))


def test_kernel_distance_is_nought_on_average_and_grows_with_a_shift():
    a, b = _normal(1000, 16), _normal(1200, 16, seed=1)
    scores = []
    for seed in range(20):
        x, y = _normal(200, 16, seed=100 + seed), _normal(200, 16, seed=200 + seed)
        mean, error = kernel_distance(x, y)
        scores.append(mean / error)
    assert abs(np.mean(scores)) < 3 / math.sqrt(20) * np.std(scores)  # no bias
    assert np.max(np.abs(scores)) < 4  # and errors of the right size
    found = [kernel_distance(a, b + shift)[0] for shift in (0.0, 0.1, 0.3, 1.0)]
    assert sorted(found) == found
    assert found[1] > 3 * kernel_distance(a, b + 0.1)[1]
    assert kernel_distance(a, b, seed=3) == kernel_distance(a, b, seed=3)
    assert kernel_distance(a, b, seed=3) != kernel_distance(a, b, seed=4)
    assert kernel_distance(a, b, subsets=4, size=50) != kernel_distance(a, b, subsets=4)


def test_precision_and_recall_at_their_bounds():
    rows = _normal(1500, 6)  # more than one chunk
    assert precision_recall(rows, rows) == (1.0, 1.0)
    assert precision_recall(rows, rows + 100) == (0.0, 0.0)
    twins = torch.ones(10, 3)
    assert precision_recall(twins, twins) == (1.0, 1.0)


def test_precision_and_recall_by_hand():
    # On a line with k = 1: balls [-1, 1], [0, 2] (radius 1) and [7, 13] (radius 3) of real rows.
    real = torch.tensor([[0.0], [1.0], [10.0], [13.0]])
    fake = torch.tensor([[1.5], [2.5], [6.9], [-1.0]])
    # 1.5 and −1 lie in them; of the fakes' balls [0.5, 2.5], [1.5, 3.5], [2.5, 11.3], [-3.5, 1.5],
    # 13 is in none.
    assert precision_recall(real, fake, neighbours=1) == (0.5, 0.75)


def test_a_dropped_mode_lowers_recall_and_noise_lowers_precision():
    modes = 20 * torch.eye(4, dtype=torch.float64).repeat(100, 1)
    real, fake = modes + _normal(400, 4), modes + _normal(400, 4, seed=1)
    precision, recall = precision_recall(real, fake[modes[:, 0] == 0])
    assert precision > 0.8
    assert 0.5 < recall < 0.76
    precision, recall = precision_recall(real, fake + 10 * _normal(400, 4, seed=2))
    assert precision < 0.3


@pytest.mark.parametrize("measure", [frechet_distance, kernel_distance, precision_recall])
def test_bad_features_are_refused(measure):
    good = _normal(10, 3)
    for other in (_normal(10, 4), _normal(1, 3), _normal(10), _normal(0, 3)):
        with pytest.raises(InputError, match="came to be compared"):
            measure(good, other)
    for value in (math.nan, math.inf):
        with pytest.raises(InputError, match="cannot be compared"):
            measure(good, torch.full((10, 3), value))


def test_bad_settings_are_refused():
    rows = _normal(10, 3)
    for settings in ({"subsets": 1}, {"subsets": 0}, {"size": 1}, {"subsets": 3, "size": 4}):
        with pytest.raises(InputError, match="disjoint subsets"):
            kernel_distance(rows, rows, **settings)
    with pytest.raises(InputError, match="0 neighbours"):
        precision_recall(rows, rows, 0)
    with pytest.raises(InputError, match="at least 11 rows"):
        precision_recall(rows, rows, 10)


def _digits(side, pad):
    """Return scikit-learn's digits, enlarged three times and padded, with their labels."""
    data = load_digits()
    images = torch.tensor(data.images / 16, dtype=torch.float32)[:, None]
    images = torch.nn.functional.interpolate(images, size=side - 2 * pad, mode="bilinear")
    rows = torch.nn.functional.pad(images, [pad] * 4).flatten(1)
    return rows, torch.tensor(data.target)


@pytest.mark.parametrize(("side", "pad"), [(28, 2), (32, 0)])
def test_the_classifier_learns_digits(side, pad, tmp_path):
    rows, labels = _digits(side, pad)
    state = torch.get_rng_state()
    model = train_classifier(rows[:1000], labels[:1000], (side, side), epochs=2, batch_size=64)
    save_classifier(tmp_path / "classifier", model)
    loaded = load_classifier(tmp_path / "classifier")
    assert torch.equal(state, torch.get_rng_state())
    with torch.no_grad():
        logits, test = model(rows[1000:]), labels[1000:]
        assert torch.equal(logits, loaded(rows[1000:]))
    assert float((logits.argmax(1) == test).double().mean()) > 0.9
    features = model.features(rows[1000:])
    assert features.shape == (797, 128)
    assert not features.requires_grad
    torch.testing.assert_close(model.head(features), logits)
    assert torch.equal(features, loaded.train().features(rows[1000:]))
    assert loaded.training


def test_the_seed_determines_the_classifier():
    rows, labels = _digits(28, 2)

    def features(seed):
        model = train_classifier(rows[:128], labels[:128], (28, 28), 1, seed=seed)
        return model.features(rows[:5])

    assert torch.equal(features(1), features(1))
    assert not torch.equal(features(1), features(2))


def test_colours_lie_last_in_a_row():
    model = Classifier((28, 28, 3), n_classes=4)
    images = torch.rand(2, 28, 28, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model._images(images.flatten(1)), 2 * images.permute(0, 3, 1, 2) - 1)
    assert model(images.flatten(1)).shape == (2, 4)


def test_what_cannot_be_classified_is_refused(tmp_path):
    for shape in ((30, 30), (28, 32), (28, 28, 2), (28,)):
        with pytest.raises(InputError, match="28×28 or 32×32"):
            Classifier(shape)
    with pytest.raises(InputError, match="two to tell apart"):
        Classifier((28, 28), 1)
    model, rows = Classifier((28, 28)), torch.zeros(4, 784)
    with pytest.raises(InputError, match="came to a classifier"):
        model(torch.zeros(4, 783))
    with pytest.raises(InputError, match=r"\(n, 784\)"):
        model.features(torch.zeros(0, 784))
    with pytest.raises(InputError, match="cannot be classified"):
        model.features(torch.full((4, 784), math.nan))
    for labels in (torch.zeros(3).long(), torch.zeros(4), torch.tensor([0, 1, 2, -1])):
        with pytest.raises(InputError, match="one integer from 0"):
            train_classifier(rows, labels, (28, 28))
    with pytest.raises(InputError, match="0 epochs"):
        train_classifier(rows, torch.arange(4), (28, 28), epochs=0)
    with pytest.raises(InputError, match="No model file"):
        load_classifier(tmp_path / "none")


def test_files_of_other_things_are_refused(tmp_path):
    from mogul.compute.checkpoint import save_tensors

    path = tmp_path / "file"
    save_tensors(path, {}, {"model": "decoder", "format": 1})
    with pytest.raises(InputError, match="does not hold a classifier"):
        load_classifier(path)
    config = {"model": "classifier", "format": 1, "feature_shape": [28, 28], "n_classes": 10}
    save_tensors(path, {}, config)
    with pytest.raises(InputError, match="not a readable classifier"):
        load_classifier(path)


@pytest.mark.parametrize("measure", [frechet_distance, kernel_distance, precision_recall])
def test_features_beyond_the_range_of_powers_are_refused(measure):
    with pytest.raises(InputError, match="rescale"):
        measure(1e200 * _normal(40, 2), _normal(40, 2, seed=1))
