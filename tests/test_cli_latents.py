"""Outliers and latents on the command line, of every kind of model that has them."""

import csv
import json

import numpy as np
import pytest
import torch

from command_line import run_command
from mogul.evaluation import importance_log_likelihood
from mogul.opened import open_any
from mogul.tasks import encode, percentile_of, training_quantiles

KINDS = {
    "mixture": "--model mfa --components 2 --rank 1",
    "autoencoder": "--model vae --decoder linear --latents 2 --passes 20 --batch-size 20",
    "decoder": "--model decoder --decoder linear --latents 2 --algorithm pga --passes 20 "
    "--rate 1e-2 --step-size 1e-2 --scale 0.5",
}
FAR = (3, 40)  # rows of the test data that lie far from all others


@pytest.fixture
def run(monkeypatch, capsys):
    """A function that runs a command line in this process and returns its figures."""

    def figures(line):
        code, out, err = run_command(monkeypatch, capsys, *line.split(), "--json")
        assert code == 0, err
        return json.loads(out)

    return figures


def rows(n, seed):
    random = np.random.default_rng(seed)
    z = random.normal(size=(n, 2))
    return z @ [[1.0, 2.0, 0.0, 1.0], [0.0, 1.0, 1.0, -1.0]] + 0.3 * random.normal(size=(n, 4))


@pytest.fixture
def fitted(run, tmp_path, kind):
    np.save(tmp_path / "train.npy", rows(300, 0))
    test = rows(80, 1)
    test[list(FAR)] += [[9.0, -9.0, 9.0, 9.0], [4.0, -4.0, 4.0, 4.0]]
    np.save(tmp_path / "test.npy", test)
    run(f"fit {tmp_path / 'train.npy'} -o {tmp_path / 'm.mogul'} {KINDS[kind]}")
    return tmp_path / "m.mogul", tmp_path / "test.npy"


@pytest.mark.parametrize("kind", KINDS)
def test_what_lies_far_comes_first_below_a_quantile_of_the_training_rows(run, fitted, kind):
    model, test = fitted
    table = test.with_suffix(".csv")
    found = run(f"outliers {model} {test} -n 80 --fraction 0.02 -o {table}")
    name = "log_joint" if kind == "decoder" else "log_likelihood"
    assert found["rows"][:2] == list(FAR)
    opened = open_any(model, "cpu")
    values = opened.scores(opened.open(str(test))).numpy()
    np.testing.assert_allclose(found[f"{name}s"], np.sort(values), rtol=1e-6)
    usual = training_quantiles(opened.scores(opened.train()).numpy())
    np.testing.assert_allclose(found["threshold"], usual[20], rtol=1e-5)
    assert found["n_outliers"] == (values < found["threshold"]).sum()
    with table.open() as file:
        written = list(csv.DictReader(file))
    assert [row["outlier"] for row in written].count("yes") == found["n_outliers"]
    expected = percentile_of(np.sort(values), usual)
    np.testing.assert_allclose(
        [float(row["training_percentile"]) for row in written], expected, atol=1e-3
    )


@pytest.mark.parametrize("kind", ["autoencoder"])
def test_autoencoders_rank_rows_by_what_they_score_them_by(run, fitted, kind):
    model, test = fitted
    found = run(f"outliers {model} {test} -n 80")
    run(f"score {model} {test} -o {test.with_name('s.npy')}")
    scores = np.load(test.with_name("s.npy"))
    np.testing.assert_allclose(found["log_likelihoods"], np.sort(scores))
    opened = open_any(model, "cpu")
    exact = importance_log_likelihood(opened.model, opened.open(str(test)), 500).mean(500)
    assert scores.mean() == pytest.approx(exact)


@pytest.mark.parametrize("kind", ["decoder"])
def test_of_a_linear_decoder_scores_are_likelihoods_but_for_a_constant(fitted, kind):
    model, test = fitted
    opened = open_any(model, "cpu")
    source = opened.open(str(test))
    network, x = opened.model, source.take(range(80), torch.float64)
    with torch.no_grad():
        mean = network.decoder(torch.zeros(1, 2))[0].double()
        W = (network.decoder(torch.eye(2)).double() - mean).mT
    noise = network.likelihood.log_scale.detach().double().exp() ** 2
    covariance = W @ W.mT + noise * torch.eye(4, dtype=torch.float64)
    exact = torch.distributions.MultivariateNormal(mean, covariance).log_prob(x)
    # The posterior is as wide for every row, and the height of its density the same.
    precision = torch.eye(2, dtype=torch.float64) + W.mT @ W / noise
    height = 0.5 * torch.logdet(precision) - np.log(2 * np.pi)
    torch.testing.assert_close(opened.scores(source), exact + height, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", ["decoder"])
def test_training_data_may_have_moved(run, fitted, kind, monkeypatch, capsys):
    model, test = fitted
    expected = run(f"outliers {model} {test}")["threshold"]
    moved = test.with_name("moved.npy")
    test.with_name("train.npy").rename(moved)
    assert run(f"outliers {model} {test} --train {moved}")["threshold"] == expected
    code, _, err = run_command(monkeypatch, capsys, "outliers", str(model), str(test))
    assert code == 2
    assert "train.npy" in err


@pytest.mark.parametrize("kind", ["autoencoder"])
def test_rows_that_the_fit_held_out_are_no_training_rows(run, fitted, kind):
    model, test = fitted
    run(f"fit {test.with_name('train.npy')} -o {model} {KINDS[kind]} --test 0.5 --limit 200")
    assert open_any(model, "cpu").usual_scores().shape == (100,)


@pytest.mark.parametrize("kind", KINDS)
def test_latents_are_written_row_by_row(run, fitted, kind):
    model, test = fitted
    made = {ending: test.with_name(f"z{ending}") for ending in (".npy", ".npz", ".csv")}
    for path in made.values():
        assert run(f"encode {model} {test} -o {path}")["n"] == 80
    found = np.load(made[".npy"])
    opened = open_any(model, "cpu")
    x = opened.rows(opened.open(str(test)))
    with np.load(made[".npz"]) as held:
        np.testing.assert_array_equal(held["latents"], found)
        if kind == "mixture":
            resp = opened.mixture.responsibilities(x)
            np.testing.assert_array_equal(held["component"], resp.argmax(-1).numpy())
            np.testing.assert_allclose(held["responsibility"], resp.amax(-1).numpy())
    if kind == "autoencoder":
        expected = opened.model.posterior(x).mean
    elif kind == "decoder":
        expected = encode(opened.model, x).latents
    else:
        every = opened.mixture.factors(x)
        expected = every[torch.arange(80), resp.argmax(-1)]
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-5)
    with made[".csv"].open() as file:
        written = list(csv.DictReader(file))
    assert ("component" in written[0]) == (kind == "mixture")
    d = found.shape[1]
    read = [[float(row[f"latent_{i + 1}"]) for i in range(d)] for row in written]
    np.testing.assert_allclose(read, found, rtol=1e-5)
    assert run(f"encode {model} {test} -n 3 -o {made['.npy']}")["n"] == 3


def test_what_has_no_latents_says_so(run, tmp_path, monkeypatch, capsys):
    path = tmp_path / "m.mogul"
    run(f"fit digits -o {path} --model diagonal --components 2 --passes 2")
    for line, text in (
        (f"encode {path} digits:test -o {tmp_path / 'z.npy'}", "have no factors; fit ppca"),
        (f"outliers {path} digits:test --train digits", "leave --train out"),
    ):
        code, _, err = run_command(monkeypatch, capsys, *line.split())
        assert code == 2
        assert text in " ".join(err.split())
