"""Mistakes that users make, and what they are told."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sklearn.mixture
import torch
from sklearn.datasets import load_iris

from mogul import EM, GaussianMixture, Gradient, InputError, fit, initialise, open_source
from mogul.algorithms.base import StopReason
from mogul.cli.main import app
from mogul.data import ArraySource
from mogul.sklearn import BayesianGaussianMixture
from mogul.sklearn import GaussianMixture as Estimator
from mogul.tasks import find_outliers, predict, training_quantiles

X = load_iris().data


@pytest.fixture(scope="module")
def iris(tmp_path_factory):
    """A folder with iris, iris with gaps, and a model of it."""
    folder = tmp_path_factory.mktemp("iris")
    np.save(folder / "x.npy", X)
    gaps = np.where(np.random.default_rng(0).random(X.shape) < 0.2, np.nan, X)
    np.save(folder / "gaps.npy", gaps)
    with (folder / "gaps.csv").open("w") as file:
        file.write("a,b,c,d\n")
        file.writelines(",".join("" if np.isnan(v) else str(v) for v in r) + "\n" for r in gaps)
    run(["fit", folder / "x.npy", "-o", folder / "m.mogul", "--model", "full", "--components", "3"])
    return folder


def run(arguments) -> int:
    """Run the command line; return its exit code."""
    try:
        app([str(a) for a in arguments], standalone_mode=False)
    except SystemExit as stop:
        return int(stop.code or 0)
    except InputError:
        return 2
    return 0


def trained(n_components: int = 3) -> GaussianMixture:
    """A mixture of iris."""
    model, source = GaussianMixture(n_components, 4, dtype=torch.float64), open_source(X)
    initialise(model, source)
    fit(model, source, EM(), passes=10)
    return model.requires_grad_(False)


def test_a_row_in_which_a_column_is_missing_can_be_scored_and_filled(iris, tmp_path):
    (tmp_path / "one.csv").write_text("a,b,c,d\n5.1,3.5,,0.2\n")
    out = tmp_path / "filled.npy"
    command = ["inpaint", iris / "m.mogul", tmp_path / "one.csv", "--mask", "nan", "-o", out]
    assert run(command) == 0
    assert 1.0 < float(np.load(out)[0, 2]) < 2.0  # a setosa's petal


def test_all_rows_are_filled_in_an_array(iris, tmp_path):
    out = tmp_path / "filled.npy"
    assert run(["inpaint", iris / "m.mogul", iris / "gaps.csv", "--mask", "nan", "-o", out]) == 0
    filled = np.load(out)
    assert filled.shape == X.shape
    assert not np.isnan(filled).any()


def test_data_with_gaps_can_be_evaluated_and_reported(iris, tmp_path, capsys):
    assert run(["evaluate", iris / "m.mogul", iris / "gaps.npy", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["ndb"] is None
    assert np.isfinite(figures["log_likelihood"])
    assert np.isfinite(figures["reconstruction_mse"])
    page = tmp_path / "report.html"
    assert run(["report", iris / "m.mogul", iris / "gaps.npy", "-o", page]) == 0
    assert "NDB" not in page.read_text()


def test_rows_with_gaps_are_not_judged_as_outliers():
    mixture = trained()()
    quantiles = training_quantiles(mixture.log_prob(torch.as_tensor(X)).numpy())
    rows = X.copy()
    rows[3] = 50.0
    rows[5, :3] = np.nan
    found = find_outliers(mixture, ArraySource(rows), quantiles)
    assert found.index[0] == 3
    assert found.order[-1] == 5
    assert found.incomplete.sum() == 1


@pytest.mark.parametrize("command", ["fit", "score"])
def test_the_data_are_not_overwritten(iris, tmp_path, command):
    data = tmp_path / "x.npy"
    np.save(data, X)
    first = [] if command == "score" else ["--model", "full", "--components", "2"]
    model = [iris / "m.mogul"] if command == "score" else []
    assert run([command, *model, data, "-o", data, *first]) == 2
    assert np.array_equal(np.load(data), X)


def test_a_table_without_names_is_refused(tmp_path):
    path = tmp_path / "bare.csv"
    path.write_text("1,2\n3,4\n5,6\n")
    with pytest.raises(InputError, match="header"):
        open_source(path)


@pytest.mark.parametrize("seed", [-1, 10**30, np.int64(3)])
def test_any_integer_is_a_seed(seed):
    model = GaussianMixture(3, 4)
    initialise(model, open_source(X), seed=seed)
    assert model().sample((2,), seed=seed).shape == (2, 4)


def test_conditions_that_cannot_be_met():
    mixture = trained()()
    with pytest.raises(InputError, match="complete"):
        mixture.condition(torch.tensor([0, 1]), torch.tensor([5.0, torch.nan]).double())
    for features in ([0, 0], [-1, 2], [0, 9], []):
        with pytest.raises(InputError, match="from 0 to 3"):
            mixture.marginal(features)
    found = predict(mixture, [0, 1], torch.as_tensor(X[:5, :2]))
    assert found.mean.shape == (5, 2)


def test_a_model_that_was_not_started_is_refused():
    with pytest.raises(InputError, match="initialise"):
        fit(GaussianMixture(3, 4), open_source(X), EM())


def test_a_fit_that_got_worse_says_so():
    model = trained()
    model.requires_grad_(True)
    done = fit(model, open_source(X), Gradient(learning_rate=100.0), passes=2)
    assert done.reason is StopReason.FELL
    assert "smaller learning rate" in done.reason.advice


@pytest.mark.parametrize(
    "act",
    [
        lambda: fit(trained(), X, EM()),
        lambda: initialise(GaussianMixture(3, 4), X),
        lambda: trained()().log_prob(X),
        lambda: EM(batch_size=0),
        lambda: fit(trained(), open_source(X), EM(), tolerance=float("nan")),
        lambda: GaussianMixture(3, 4, dtype=torch.float16),
    ],
)
def test_values_of_a_wrong_type_are_refused_in_one_sentence(act):
    with pytest.raises(InputError):
        act()


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize("start", ["kmeans", "random"])
def test_the_bayesian_estimator_stops_where_that_of_scikit_learn_stops(kind, start):
    arguments = {
        "n_components": 5, "random_state": 0, "max_iter": 300, "covariance_type": kind,
        "init_params": start,
    }  # fmt: skip
    ours = BayesianGaussianMixture(**arguments).fit(X)
    theirs = sklearn.mixture.BayesianGaussianMixture(**arguments).fit(X)
    assert abs(ours.n_iter_ - theirs.n_iter_) <= 2
    assert np.abs(ours.weights_ - theirs.weights_).max() < 2e-3
    for name in (
        "weight_concentration_prior_", "mean_precision_prior_", "mean_prior_",
        "degrees_of_freedom_prior_", "covariance_prior_",
    ):  # fmt: skip
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-8)
    np.testing.assert_allclose(
        ours.weight_concentration_, theirs.weight_concentration_, rtol=0.2, atol=0.5
    )


def test_several_starts_draw_from_the_same_stream_as_scikit_learn():
    arguments = {"n_components": 3, "n_init": 3, "init_params": "k-means++", "random_state": 0}
    ours = Estimator(**arguments).fit(X)
    theirs = sklearn.mixture.GaussianMixture(**arguments).fit(X)
    np.testing.assert_allclose(ours.weights_, theirs.weights_, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"covariance_type": "diag"}, "covariance"), ({"n_components": 4}, "n_components")],
)
def test_warm_start_refuses_another_shape(change, message):
    estimator = Estimator(3, random_state=0, warm_start=True).fit(X)
    with pytest.raises(ValueError, match=message):
        estimator.set_params(**change).fit(X)


def test_warm_start_takes_a_new_floor():
    estimator = Estimator(3, random_state=0, warm_start=True).fit(X)
    estimator.set_params(reg_covar=0.5).fit(X)
    assert np.linalg.eigvalsh(estimator.covariances_).min() > 0.5 - 1e-9


@pytest.mark.parametrize(
    "bad",
    [
        {"weights_init": [1, 2, 3]},
        {"weights_init": [0.5, 0.6, -0.1]},
        {"means_init": np.full((3, 4), np.nan)},
        {"precisions_init": [np.triu(np.ones((4, 4)))] * 3},
        {"precisions_init": [-np.eye(4)] * 3},
    ],
)
def test_wrong_starts_are_value_errors_that_name_the_parameter(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Estimator(3, **bad).fit(X)


@pytest.mark.parametrize(
    "bad",
    [
        {"covariance_prior": -np.eye(4)},
        {"covariance_prior": np.triu(np.ones((4, 4)))},
        {"covariance_prior": np.eye(3)},
        {"mean_prior": [0, 0]},
        {"mean_prior": np.full(4, np.nan)},
    ],
)
def test_wrong_priors_are_value_errors_that_name_the_parameter(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        BayesianGaussianMixture(n_components=3, **bad).fit(X)


def test_the_bayesian_estimator_imputes():
    rows = X[:5].copy()
    rows[0, 2] = np.nan
    filled = BayesianGaussianMixture(n_components=3, random_state=0).fit(X).impute(rows)
    assert np.isfinite(filled).all()


@pytest.mark.parametrize(
    ("columns", "told"),
    [("Wind", "one text"), (["a", "b", "a"], "Column a was asked"), ([], "No columns")],
)
def test_columns_that_cannot_be_meant_are_told(iris, columns, told):
    with pytest.raises(InputError, match=told):
        open_source(iris / "gaps.csv", columns=columns)
    with pytest.raises(InputError, match=told):
        open_source([{"a": [1.0], "b": [2.0]}], columns=columns)


def test_columns_of_an_array_may_be_numbers(iris):
    assert torch.equal(
        open_source(iris / "x.npy", columns=[2, 0]).take(torch.arange(5)),
        open_source(X[:, [2, 0]]).take(torch.arange(5)),
    )
    with pytest.raises(InputError, match="no column 0"):
        open_source(iris / "gaps.csv", columns=[0])
    with pytest.raises(InputError, match="Column 0 was asked"):
        open_source(iris / "x.npy", columns=[0, 0])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"algorithm": EM}, r"such as EM\(\)"),
        ({"algorithm": "em"}, "'em'"),
        ({"passes": 2.5}, "passes is 2.5"),
        ({"passes": "3"}, "passes is '3'"),
        ({"passes": True}, "whole number"),
        ({"tolerance": "a"}, "tolerance is 'a'"),
        ({"tolerance": None}, "tolerance is None"),
        ({"validation": X}, "open_source"),
        ({"validation": ArraySource(X[:, :2])}, "2 features and the others 4"),
        ({"checkpoint": "m.mogul"}, r"give Checkpoint\(path\)"),
    ],
)
def test_settings_of_a_fit_that_make_no_sense_are_told(settings, told):
    given = {"algorithm": EM()} | settings
    with pytest.raises(InputError, match=told):
        fit(trained(), open_source(X), given.pop("algorithm"), **given)


def test_settings_of_a_fit_may_be_numbers_of_numpy():
    numbers = {"passes": np.int64(2), "tolerance": np.float32(0)}
    done = fit(trained(), open_source(X), EM(), **numbers)
    assert len(done.history) == 2


@pytest.mark.parametrize("passes", ["0", "-1"])
def test_no_passes_are_refused(iris, tmp_path, passes):
    command = ["fit", iris / "x.npy", "-o", tmp_path / "m.mogul", "--passes", passes]
    assert run(command) == 2
    assert not (tmp_path / "m.mogul").exists()


@pytest.mark.parametrize("shape", [(-1,), (2, -3), 3, "ab", (2.5,), None])
def test_a_sample_shape_that_makes_no_sense_is_told(shape):
    mixture = trained()()
    for draw in (mixture.sample, mixture.rsample):
        with pytest.raises((InputError, TypeError), match="Samples of shape"):
            draw(shape)


@pytest.mark.parametrize("values", [[5.0, 3.0], np.array([5.0, 3.0]), 5.0, torch.tensor(5.0)])
def test_values_to_condition_on_that_are_no_rows_are_told(values):
    with pytest.raises(InputError, match="give a tensor"):
        trained()().condition([0, 1], values)


def test_a_picture_that_is_missing_or_none_is_told(iris, tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).integers(0, 255, (9, 4, 4), np.uint8))
    run(["fit", tmp_path / "x.npy", "-o", tmp_path / "m.mogul", "--components", "1", "--rank", "1"])
    (tmp_path / "text.png").write_text("a,b")
    for name, told in (("absent.png", "There is no image"), ("text.png", "none of PNG")):
        command = ["denoise", "m.mogul", name, "--noise", "9", "-o", "out.png"]
        paths = [tmp_path / part if "." in part else part for part in command]
        with pytest.raises(InputError, match=told) as refused:
            app([str(path) for path in paths], standalone_mode=False)
        assert "BytesIO" not in str(refused.value)
        assert "Errno" not in str(refused.value)


def test_output_of_any_encoding_is_written(iris):
    done = subprocess.run(
        [sys.executable, "-m", "mogul", "show", str(iris / "m.mogul")],
        capture_output=True, timeout=120, check=False,
        env=os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b"log likelihood" in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device here that is always full")
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_output_to_a_full_device_is_told_in_words(form):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "mogul", "doctor", *form],
            stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "Error: The output is cut short: no space left on its device.\n"
