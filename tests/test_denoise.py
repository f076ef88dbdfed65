"""Denoising against closed forms: conditioning on noisy rows, limits, pictures, the command."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_sample_images

import mogul
from command_line import run_command
from families import random_mixture
from mogul import EM, GaussianMixture, InputError, Mixture, fit, initialise
from mogul.data import ArraySource, from_levels, random_patches, read_grey
from mogul.distributions import Full, Isotropic, families
from mogul.evaluation import peak_signal_to_noise
from mogul.tasks import denoise_image, denoise_rows, of_centred_patches, one_gaussian

FAMILIES = list(families())
EVERY = pytest.mark.parametrize("name", FAMILIES)
SHARED = pytest.mark.parametrize("n_covariances", [1, 3])


def _dense(mixture):
    return mixture.covariance.dense().expand(mixture.n_components, -1, -1)


@EVERY
@SHARED
def test_noise_and_precisions_equal_the_dense_twin(name, n_covariances):
    covariance = random_mixture(name, 3, 6, n_covariances).covariance
    noisy, eye = covariance.with_noise(0.7), torch.eye(6, dtype=torch.float64)
    assert type(noisy) is type(covariance)
    torch.testing.assert_close(noisy.dense(), covariance.dense() + 0.7 * eye)
    diagonal, A, B = covariance.precision_parts()
    precision = torch.diag_embed(diagonal) + A @ B.mT
    torch.testing.assert_close(precision @ covariance.dense(), eye.expand_as(precision))
    torch.testing.assert_close(
        covariance.precision_diagonal(), precision.diagonal(dim1=-2, dim2=-1)
    )


@EVERY
def test_noise_is_added_in_the_type_of_the_parameters(name):
    covariance = random_mixture(name, 3, 6, 3).covariance.map(torch.Tensor.float)
    assert covariance.with_noise(0.1).variances.dtype == torch.float32
    assert covariance.precision_parts()[0].dtype == torch.float64


@EVERY
@SHARED
def test_the_posterior_mean_is_that_of_the_joint_mixture_of_clean_and_noisy_rows(
    name, n_covariances
):
    mixture, noise = random_mixture(name, 3, 5, n_covariances), 0.8
    y = mixture.sample((11,), seed=0) + noise
    S = _dense(mixture)
    noisy = S + noise**2 * torch.eye(5, dtype=S.dtype)
    joint = torch.cat([torch.cat([S, S], -1), torch.cat([S, noisy], -1)], -2)
    both = Mixture(mixture.logits, mixture.centres.repeat(1, 2), Full.from_covariance(joint))
    exact = both.condition(torch.arange(5, 10), y).mean
    torch.testing.assert_close(denoise_rows(mixture, y, noise), exact, rtol=1e-8, atol=1e-8)


@EVERY
@settings(max_examples=10, deadline=None)
@given(noise=st.floats(0.01, 30), seed=st.integers(0, 1000))
def test_the_posterior_mean_is_the_row_plus_the_gradient_of_its_density(name, noise, seed):
    mixture = random_mixture(name, 4, 3, 4, seed)
    y = (3 * mixture.sample((6,), seed=seed)).requires_grad_()
    density = mixture.with_noise(noise**2).log_prob(y).sum()
    (gradient,) = torch.autograd.grad(density, y)
    expected = (y + noise**2 * gradient).detach()
    torch.testing.assert_close(
        denoise_rows(mixture, y.detach(), noise), expected, rtol=1e-6, atol=1e-6
    )


@EVERY
@SHARED
def test_no_noise_leaves_rows_and_boundless_noise_leaves_the_mean(name, n_covariances):
    mixture = random_mixture(name, 3, 5, n_covariances)
    y = mixture.sample((8,), seed=0)
    torch.testing.assert_close(denoise_rows(mixture, y, 0.0), y, rtol=0, atol=0)
    torch.testing.assert_close(denoise_rows(mixture, y, 1e-7), y, rtol=0, atol=1e-10)
    far = denoise_rows(mixture, y, 1e6)
    torch.testing.assert_close(far, mixture.mean.expand_as(y), rtol=1e-5, atol=1e-5)


@EVERY
def test_float32_is_within_1e_4_of_float64_far_from_zero(name):
    mixture = random_mixture(name, 5, 40, 5)
    origin = torch.full((40,), 100.0, dtype=torch.float64)
    double = Mixture(mixture.logits, mixture.centres, mixture.covariance, origin)
    single = Mixture(
        mixture.logits.float(), mixture.centres.float(),
        mixture.covariance.map(torch.Tensor.float), origin.float(),
    )  # fmt: skip
    y = double.sample((50,), seed=0).float()
    error = denoise_rows(single, y, 0.5).double() - denoise_rows(double, y.double(), 0.5)
    assert error.abs().max() < 1e-4


def test_rows_are_the_same_in_any_batch():
    mixture = random_mixture("ppca", 20, 4, 20)
    y = mixture.sample((20_000,), seed=0)  # several batches
    some = denoise_rows(mixture, y[16_000:17_000], 0.4)
    torch.testing.assert_close(denoise_rows(mixture, y, 0.4)[16_000:17_000], some)


def test_denoising_lowers_the_mean_squared_error_to_that_of_the_posterior():
    # One standard normal component: the error of y is σ², that of the posterior σ²/(1 + σ²).
    mixture = Mixture(torch.zeros(1), torch.zeros(1, 3), Isotropic.of(torch.ones(1), 3))
    x = mixture.sample((50_000,), seed=0)
    y = x + torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    error = float((denoise_rows(mixture, y, 1.0) - x).square().mean())
    assert error == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize(
    ("rows", "noise", "match"),
    [
        (torch.zeros(2, 3), 1.0, "features"),
        (torch.zeros(4), 1.0, "Rows of shape"),
        (torch.full((2, 4), torch.nan), 1.0, "NaN or infinite"),
        (torch.full((2, 4), torch.inf), 1.0, "NaN or infinite"),
        (torch.zeros(2, 4), -1.0, "noise of -1"),
        (torch.zeros(2, 4), math.nan, "noise of nan"),
    ],
)
def test_what_cannot_be_denoised_is_refused(rows, noise, match):
    with pytest.raises(InputError, match=match):
        denoise_rows(random_mixture("full", 2, 4, 2), rows, noise)


def test_mixtures_of_a_batch_are_refused_and_no_rows_give_none():
    mixture = random_mixture("full", 2, 4, 2)
    with pytest.raises(InputError, match="one mixture"):
        denoise_rows(mixture.expand((3,)), torch.zeros(3, 4), 1.0)
    assert denoise_rows(mixture, torch.zeros(0, 4), 1.0).shape == (0, 4)


@EVERY
@SHARED
def test_one_gaussian_has_the_moments_of_the_mixture(name, n_covariances):
    mixture = random_mixture(name, 3, 5, n_covariances)
    whole = one_gaussian(mixture)
    torch.testing.assert_close(whole.mean, mixture.mean)
    torch.testing.assert_close(whole.variance, mixture.variance)
    x = mixture.sample((400_000,), seed=0)
    torch.testing.assert_close(whole.covariance.dense()[0], torch.cov(x.T), rtol=0, atol=0.1)


def _of_patches(centred, **options):
    """Return a mixture of 3×4 patches."""
    mixture = random_mixture("ppca", 3, 12, 3)
    centres = mixture.centres - centred * mixture.centres.mean(-1, keepdim=True)
    return Mixture(mixture.logits, centres + 5 * (not centred), mixture.covariance, **options)


@pytest.mark.parametrize("centred", [True, False])
def test_a_picture_is_the_mean_of_its_patches(centred):
    mixture = _of_patches(centred)
    assert of_centred_patches(mixture) == centred
    y = torch.randn(7, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    total, count = torch.zeros_like(y), torch.zeros_like(y)
    for i in range(5):
        for j in range(6):
            patch = y[i : i + 3, j : j + 4]
            mean = patch.mean() if centred else 0.0
            clean = denoise_rows(mixture, (patch - mean).reshape(1, 12), 0.6) + mean
            total[i : i + 3, j : j + 4] += clean.reshape(3, 4)
            count[i : i + 3, j : j + 4] += 1
    torch.testing.assert_close(denoise_image(mixture, y, 0.6, (3, 4)), total / count)


def test_bands_of_a_picture_join(monkeypatch):
    mixture = _of_patches(True)
    y = torch.randn(20, 15, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = denoise_image(mixture, y, 0.6, (3, 4))
    monkeypatch.setattr("mogul.tasks.denoise._BAND", 30)
    torch.testing.assert_close(denoise_image(mixture, y, 0.6, (3, 4)), whole)


@pytest.mark.parametrize("shape", [(3, 4), (3, 9), (11, 4), (13, 17)])
def test_averaging_preserves_pictures_that_denoising_leaves(shape):
    y = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(denoise_image(_of_patches(True), y, 0.0, (3, 4)), y)


def test_an_even_picture_stays_even_whatever_its_level():
    # Components of centred patches at zero: what has no contrast gets none.
    mixture = Mixture(
        torch.zeros(2), torch.zeros(2, 16), Isotropic.of(torch.tensor([0.01, 1.0]), 16)
    )
    even = torch.full((12, 10), 0.3)
    torch.testing.assert_close(denoise_image(mixture, even, 0.2, (4, 4)), even)


def test_pictures_that_do_not_fit_are_refused():
    mixture = _of_patches(True)
    for image in (torch.zeros(2, 9), torch.zeros(9, 9, 3)):
        with pytest.raises(InputError, match="a grey one"):
            denoise_image(mixture, image, 0.1, (3, 4))
    with pytest.raises(InputError, match="rows of 12"):
        denoise_image(mixture, torch.zeros(9, 9), 0.1, (3, 3))


def _photographs():
    return [np.asarray(Image.fromarray(i).convert("L")) for i in load_sample_images().images]


def _elsewhere():
    """Return a part of the second photograph that the tests do not restore."""
    return [_photographs()[1][:, :250]]


def _fitted(patches):
    n = len(patches)
    source = ArraySource(patches.reshape(n, -1))
    model = GaussianMixture(10, source.n_features, covariance="mfa", rank=3)
    initialise(model, source)
    fit(model, source, EM(), passes=5)
    model.requires_grad_(False)
    return model()


def test_a_photograph_is_restored_better_than_by_one_gaussian():
    test = _photographs()[1]
    mixture = _fitted(random_patches(_elsewhere(), 5000))
    assert of_centred_patches(mixture)
    assert not of_centred_patches(_fitted(random_patches(_elsewhere(), 1000, centred=False)))
    clean, noise = torch.from_numpy(from_levels(test[100:220, 250:400])), 25 / 256
    noisy = clean + noise * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    reached = [
        peak_signal_to_noise(clean, picture)
        for picture in (
            noisy, denoise_image(one_gaussian(mixture), noisy, noise),
            denoise_image(mixture, noisy, noise),
        )
    ]  # fmt: skip
    assert reached[0] == pytest.approx(20 * math.log10(256 / 25), abs=0.1)
    assert reached[1] > reached[0] + 4
    assert reached[2] > reached[1] + 1.5


def test_psnr():
    clean = torch.zeros(4, 4)
    assert peak_signal_to_noise(clean, clean + 0.1) == pytest.approx(20)
    assert peak_signal_to_noise(clean, clean + 0.1, peak=10.0) == pytest.approx(40)
    assert peak_signal_to_noise(clean, clean) == math.inf


def test_patches_are_pieces_of_their_pictures():
    rng = np.random.default_rng(0)
    pictures = [rng.random((9, 11)), rng.random((8, 30)), rng.random((40, 9))]
    found = random_patches(pictures, 200, centred=False, seed=1)
    assert found.shape == (200, 8, 8)
    assert found.dtype == np.float32
    windows = [np.lib.stride_tricks.sliding_window_view(p, (8, 8)) for p in pictures]
    every = np.concatenate([w.reshape(-1, 64) for w in windows]).astype(np.float32)
    known = {row.tobytes() for row in every}
    assert all(row.tobytes() in known for row in found.reshape(200, 64))
    assert len({row.tobytes() for row in found}) > 60  # of 97 places
    np.testing.assert_array_equal(found, random_patches(pictures, 200, centred=False, seed=1))
    assert not np.array_equal(found, random_patches(pictures, 200, centred=False, seed=2))
    centred = random_patches(pictures, 200, seed=1)
    np.testing.assert_allclose(
        centred, found - found.mean((1, 2), keepdims=True), rtol=0, atol=1e-7
    )


def test_levels_are_dequantised_as_everywhere():
    picture = np.arange(256, dtype=np.uint8).reshape(16, 16)
    found = random_patches(picture[None], 500, centred=False)
    assert found.min() >= 0
    assert found.max() <= 1
    floor = np.floor(found * 256)
    # Levels of a row of the picture; a float32 may round up to the next one.
    assert (np.diff(floor, axis=2) == 1).mean() > 0.999
    assert 0.45 < (found * 256 - floor).mean() < 0.55
    assert from_levels(picture)[0, 3] == pytest.approx(3.5 / 256)


@pytest.mark.parametrize(
    ("pictures", "n", "match"),
    [
        ([np.zeros((7, 20))], 5, "at least 8×8"),
        ([np.zeros((20, 20, 3))], 5, "grey pictures"),
        ([np.zeros((20, 20), np.int64)], 5, "int64"),
        ([np.zeros((20, 20))], 0, "0 patches"),
        ([], 5, "of 0 pictures"),
    ],
)
def test_patches_that_cannot_be_drawn_are_refused(pictures, n, match):
    with pytest.raises(InputError, match=match):
        random_patches(pictures, n)


@pytest.fixture
def run(monkeypatch, capsys):
    """A function that runs a command line in this process."""
    return lambda *arguments: run_command(monkeypatch, capsys, *arguments)


@pytest.fixture
def fitted(run, tmp_path):
    """A function that fits a model to patches by the command line, and returns its path."""

    def make(patches, name, *more):
        np.save(tmp_path / "patches.npy", patches)
        line = ["fit", tmp_path / "patches.npy", "-o", tmp_path / name, "--passes", 4, *more]
        code, _, err = run(*line, "--json")
        assert code == 0, err
        return tmp_path / name

    return make


MFA = ("--model", "mfa", "--components", 5, "--rank", 2)


@pytest.fixture
def picture(tmp_path):
    """A small picture in a file, in colour."""
    path = tmp_path / "picture.png"
    Image.fromarray(load_sample_images().images[1][150:210, 300:380]).save(path)
    return path


def _figures(result):
    code, out, err = result
    assert code == 0, err
    return json.loads(out)


@pytest.mark.parametrize("form", ["centred", "flat", "as they are", "levels"])
def test_the_command_restores_a_picture(run, fitted, picture, tmp_path, form):
    patches = random_patches(_elsewhere(), 3000, centred=form in ("centred", "flat"))
    if form == "flat":
        patches = patches.reshape(len(patches), -1)
    if form == "levels":
        patches = np.floor(256 * patches).clip(0, 255).astype(np.uint8)
    model = fitted(patches, "m.mogul", *MFA)
    line = ["denoise", model, picture, "--noise", 25, "--json", "-o"]
    found = _figures(run(*line, tmp_path / "out.png", "--clean"))
    assert found["noisy_psnr"] == pytest.approx(20.17, abs=0.3)
    assert found["psnr"] > found["noisy_psnr"] + 3
    shown = read_grey(tmp_path / "out.png")
    assert shown.shape == (60, 3 * 80 + 2 * 3)  # clean, noisy and restored, side by side
    np.testing.assert_array_equal(shown[:, :80], read_grey(picture))
    restored = shown[:, -80:]
    error = peak_signal_to_noise(
        *(torch.from_numpy(p.astype(float)) for p in (read_grey(picture), restored)), 255.0
    )
    assert error == pytest.approx(found["psnr"], abs=0.1)


def test_the_command_takes_pictures_that_are_noisy(run, fitted, picture, tmp_path):
    model = fitted(random_patches(_elsewhere(), 3000), "m.mogul", *MFA)
    found = _figures(
        run("denoise", model, picture, "--noise", 10, "-o", tmp_path / "out.npy", "--json")
    )
    assert "psnr" not in found
    mixture = mogul.load_model(model)[0]()
    y = torch.from_numpy(from_levels(read_grey(picture)))
    expected = denoise_image(mixture, y, 10 / 256).detach() * 256 - 0.5
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-3)


def test_the_report_compares_models_with_none_and_with_one_gaussian(run, fitted, picture, tmp_path):
    patches = random_patches(_elsewhere(), 3000)
    first = fitted(patches, "first.mogul", *MFA)
    others = [
        fitted(patches, "second.mogul", *MFA[:-1], 4),
        fitted(patches, "third.mogul", "--model", "diagonal", "--components", 9),
        fitted(patches, "fourth.mogul", "--model", "full", "--components", 2),
    ]
    line = ["denoise", first, picture, "--noise", 25, "--clean", "-o", tmp_path / "page.html"]
    more = [argument for other in others for argument in ("--against", other)]
    found = _figures(run(*line, *more, "--json"))
    assert found["noisy_psnr"] < found["one_gaussian_psnr"] < found["psnr"]
    page = (tmp_path / "page.html").read_text()
    assert page.count("<img") == 7  # clean, noisy, one Gaussian, four models
    assert page.count("<svg") == 2  # along components, along rank
    for shown in ("psnr", "noisy_psnr", "one_gaussian_psnr"):
        assert f"{found[shown]:.2f} dB" in page
    assert "third.mogul (9 components, 0 factors)" in page
    assert "fourth.mogul (2 components)" in page
    _figures(run(*line, "--json"))
    assert (tmp_path / "page.html").read_text().count("<svg") == 0


def test_the_command_refuses_what_it_cannot_do(run, fitted, picture, tmp_path):
    table = np.random.default_rng(0).normal(size=(60, 3))
    model = fitted(table, "t.mogul", "--components", 2)
    out = tmp_path / "out.png"

    def refused(*arguments):
        code, _, err = run("denoise", *arguments)
        assert code == 2
        return err

    assert "no patches of a grey picture" in refused(model, picture, "--noise", 5, "-o", out)
    good = fitted(random_patches(_elsewhere(), 500), "g.mogul", "--components", 2, *MFA[:2])
    assert "--clean" in refused(good, picture, "--noise", 5, "-o", tmp_path / "page.html")
    more = ("--against", good)
    assert "--against" in refused(good, picture, "--noise", 5, "-o", out, *more)
    assert "noise of -" in refused(good, picture, "--noise", -5, "-o", out)
    assert "There is no image" in refused(good, tmp_path / "none.png", "--noise", 5, "-o", out)
    assert "is read" in refused(good, picture, "--noise", 5, "-o", picture)
    assert not out.exists()
