"""Criteria with correct counts, and a selection that finds the truth."""

import json
import sys

import numpy as np
import pytest
import sklearn.mixture
import torch
from PIL import Image
from sklearn.datasets import load_iris

from families import random_mixture
from mogul import EM, GaussianMixture, InputError, fit, initialise
from mogul.cli import main
from mogul.data import ArraySource
from mogul.evaluation import information_criteria, prune_factors, select
from mogul.tasks import predict


@pytest.mark.parametrize(
    ("name", "sharing", "theirs"),
    [
        ("full", "own", "full"),
        ("full", "shared", "tied"),
        ("diagonal", "own", "diag"),
        ("isotropic", "own", "spherical"),
    ],
)
def test_criteria_agree_with_scikit_learn(name, sharing, theirs):
    truth = random_mixture("full", 3, 4, 3)
    truth.centres *= 4
    x = truth.sample((400,), seed=0)
    model = GaussianMixture(3, 4, name, None, sharing, dtype=torch.float64)
    initialise(model, ArraySource(x))
    fit(model, ArraySource(x), EM(), passes=300, tolerance=1e-12)
    found = information_criteria(model, ArraySource(x))
    reference = sklearn.mixture.GaussianMixture(
        3, covariance_type=theirs, tol=1e-12, max_iter=2000, random_state=0, reg_covar=0.0,
        means_init=model().means.detach().numpy(), n_init=1,
    ).fit(x.numpy())  # fmt: skip
    assert found.bic == pytest.approx(reference.bic(x.numpy()), rel=1e-4)
    assert found.aic == pytest.approx(reference.aic(x.numpy()), rel=1e-4)
    resp = model().responsibilities(x).detach()
    entropy = -float((resp * resp.clamp_min(1e-300).log()).sum())
    assert found.icl == pytest.approx(found.bic + 2 * entropy, rel=1e-9)


def test_bic_finds_the_truth():
    truth = random_mixture("diagonal", 3, 3, 3, seed=3)
    truth.centres *= 3
    source = ArraySource(truth.sample((800,), seed=0))
    found = select(source, ("full", "diagonal"), (2, 3, 4), sharings=("own",), jobs=1)
    best = found.candidates[0]
    assert (best.covariance, best.components) == ("diagonal", 3)
    assert found.model.n_components == 3
    values = [c.criteria.bic for c in found.candidates if not c.trouble]
    assert values == sorted(values)
    again = information_criteria(found.model, source)
    assert again.bic == pytest.approx(best.criteria.bic)


def test_selection_of_factors_by_validation():
    truth = random_mixture("factor-analysis", 1, 8, 1)
    train, test = truth.sample((2000,), seed=0), truth.sample((2000,), seed=1)
    found = select(
        ArraySource(train), ("mfa",), (1,), (1, 2, 3), ("own",), "validation",
        validation=ArraySource(test), n_init=1, jobs=1,
    )  # fmt: skip
    assert found.candidates[0].rank == 2
    with pytest.raises(InputError, match="held-out"):
        select(ArraySource(train), criterion="validation")
    with pytest.raises(InputError, match="bic, aic"):
        select(ArraySource(train), criterion="dic")
    with pytest.raises(InputError, match="nothing to fit"):
        select(ArraySource(train), ("ppca",), (1,), (8,))


@pytest.mark.parametrize("name", ["ppca", "factor-analysis"])
def test_components_get_their_own_number_of_factors(name):
    generator = torch.Generator().manual_seed(0)

    def cluster(n, rank, centre):
        W = 2 * torch.randn(6, rank, generator=generator)
        z = torch.randn(n, rank, generator=generator)
        return z @ W.T + 0.3 * torch.randn(n, 6, generator=generator) + centre

    x = torch.cat([cluster(600, 1, 0.0), cluster(600, 3, 30.0)]).double()
    model = GaussianMixture(2, 6, name, 4, dtype=torch.float64)
    initialise(model, ArraySource(x))
    fit(model, ArraySource(x), EM(), passes=100)
    before = information_criteria(model, ArraySource(x)).bic
    ranks = prune_factors(model, ArraySource(x))
    order = model().means.detach()[:, 0].argsort()
    assert [ranks[k] for k in order] == [1, 3]
    after = information_criteria(model, ArraySource(x))
    assert after.bic < before
    per = [model.family.n_parameters(6, rank) for rank in (1, 3)]
    assert after.n_parameters == 1 + 12 + sum(per)
    with pytest.raises(InputError, match="ppca or factor-analysis"):
        prune_factors(GaussianMixture(2, 6), ArraySource(x))


def test_regression_is_the_conditional_mean_and_its_variance():
    truth = random_mixture("full", 3, 3, 3)
    joint = truth.sample((40_000,), seed=0)
    features = torch.tensor([0, 2])
    found = predict(truth, features, joint[:, features])
    residual = joint[:, 1] - found.mean[:, 0]
    # The best prediction leaves residuals of the stated variance, uncorrelated with the inputs.
    assert float(residual.mean()) == pytest.approx(0.0, abs=0.02)
    assert float(residual.var()) == pytest.approx(float(found.variance.mean()), rel=0.03)
    assert abs(float((residual * joint[:, 0]).mean())) < 0.03
    assert found.sample(5, seed=0).shape == (5, 40_000, 1)


def _run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["mogul", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    return capsys.readouterr().out


def test_select_command(monkeypatch, capsys, tmp_path):
    np.save(tmp_path / "iris.npy", load_iris().data)
    model, plot = tmp_path / "best.mogul", tmp_path / "bic.svg"
    out = _run(
        monkeypatch, capsys, "select", tmp_path / "iris.npy", "--families", "full,diag",
        "--components", "1-3", "--jobs", 1, "-o", model, "--plot", plot, "--json",
    )  # fmt: skip
    found = json.loads(out)
    assert found["covariance"] == "full"
    assert found["components"] == 2  # what BIC says of iris in the literature
    assert len(found["candidates"]) == 10  # own 1–3 and shared 2–3, of two families
    assert plot.read_text().startswith("<svg")
    shown = json.loads(_run(monkeypatch, capsys, "show", model, "--json"))
    assert shown["n_components"] == 2


@pytest.mark.parametrize(("dims", "algorithm"), [(1, "em"), (2, "gradient"), (3, "em")])
def test_mixture_demo(monkeypatch, capsys, tmp_path, dims, algorithm):
    line = ["--dims", dims, "--algorithm", algorithm, "--samples", 300, "--iterations", 12]
    picture = tmp_path / "m.png"
    out = _run(monkeypatch, capsys, "demo", "mixture", *line, "-o", picture, "--json")
    found = json.loads(out)
    assert found["log_likelihood"] > found["log_likelihood_truth"] - 0.1
    assert abs(found["log_likelihood_em"] - found["log_likelihood_gradient"]) < 0.05
    assert picture.exists()
    with Image.open(picture.with_suffix(".gif")) as moving:
        assert getattr(moving, "n_frames", 1) == 13  # where it starts, and after every pass


def test_mixture_demo_starts_where_it_is_told(monkeypatch, capsys, tmp_path):
    reached = {}
    for start in ("k-means++", "k-means", "random"):
        line = ["--start", start, "--samples", 300, "--iterations", 1, "-o", tmp_path / "m.png"]
        out = _run(monkeypatch, capsys, "demo", "mixture", *line, "--json")
        reached[start] = json.loads(out)["log_likelihood"]
    assert reached["random"] < min(reached["k-means"], reached["k-means++"]) - 0.1


def test_weights_that_sum_to_one_are_no_numbers_of_rows():
    x = random_mixture("full", 2, 3, 2).sample((100,), seed=0)
    model = GaussianMixture(2, 3, dtype=torch.float64)
    initialise(model, ArraySource(x))
    share = np.full(100, 0.01)
    with pytest.raises(InputError, match="count rows"):
        information_criteria(model, ArraySource(x, share))
    whole = information_criteria(model, ArraySource(x))
    assert information_criteria(model, ArraySource(x, 100 * share)).bic == pytest.approx(whole.bic)
