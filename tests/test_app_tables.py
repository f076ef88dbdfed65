"""The explorer's answers over tables and density networks, against the library's own."""

import csv
import json
import math

import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid
from sklearn.datasets import load_diabetes, load_iris

from explored import array, client_of, fitted, opened_session
from mogul import InputError
from mogul.distributions import modes
from mogul.opened import open_model, open_network
from mogul.tasks import percentile_of

NAMES = ["sepal length", "<img src=x onerror=alert(1)>", "petal length", "petal width"]
INTERVAL = torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)


def write(path, rows, names):
    with path.open("w", newline="") as file:
        cells = [["" if math.isnan(v) else v for v in row] for row in rows.tolist()]
        csv.writer(file).writerows([names, *cells])
    return str(path)


def mixture_file(path, data, components=3, covariance="gmm", more=""):
    """Fit a mixture to a file of data."""
    command = f"{data} --model {covariance} --components {components} --passes 15 --json {more}"
    return fitted(path, command)


def client(path, data=None):
    return client_of(opened_session(path, data))


def answered(response):
    assert response.status_code == 200, response.text
    return response.json()


def posted(page, path, asked):
    """Send what a client may send too: JSON in which NaN and Infinity stand."""
    return page.post(path, content=json.dumps(asked), headers={"content-type": "application/json"})


def refused(response):
    assert response.status_code == 400, response.text
    return response.json()["error"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tables")


@pytest.fixture(scope="module")
def rows():
    """Iris with a gap in row 7."""
    found = load_iris().data.copy()
    found[7, 1] = np.nan
    return found


@pytest.fixture(scope="module")
def iris(folder, rows):
    return mixture_file(folder / "iris.mogul", write(folder / "iris.csv", rows, NAMES))


@pytest.fixture(scope="module")
def page(iris):
    return client(iris)


@pytest.fixture(scope="module")
def mixture(iris):
    return open_model(iris).mixture


@pytest.fixture(scope="module")
def network_file(folder):
    x, y = load_diabetes(return_X_y=True)
    rows = np.column_stack([x[:, [2, 8, 3]], y, x[:, 1]])
    names = ["bmi", "s5", "bp", "progress", "sex"]
    rows[3, 4] = np.nan
    data = write(folder / "diabetes.csv", rows, names)
    rows[5, 0] = np.nan
    write(folder / "gaps.csv", rows, names)
    command = f"{data} --model mdn --target progress,sex --hidden 16 --components 3 --passes 5"
    return fitted(folder / "network.mogul", f"{command} --json")


@pytest.fixture(scope="module")
def predictor(network_file, folder):
    return client(network_file, str(folder / "gaps.csv"))


@pytest.fixture(scope="module")
def network(network_file):
    return open_network(network_file).model


def test_views_of_each_kind_of_model(page, predictor, folder):
    views = ["pairs", "conditional", "rows", "outliers", "training"]
    assert answered(page.get("/api/model"))["views"] == views
    assert "predicted" in answered(predictor.get("/api/model"))["views"]
    assert not set(views[:3]) & set(answered(predictor.get("/api/model"))["views"])
    one = mixture_file(folder / "one.mogul", write(folder / "one.csv", np.eye(9)[:, :1], ["a"]), 1)
    assert answered(client(one).get("/api/model"))["views"] == [
        "pairs", "rows", "outliers", "training",
    ]  # fmt: skip


def test_columns_go_by_name_and_range(page, rows):
    found = answered(page.get("/api/table"))
    assert found["names"] == NAMES
    np.testing.assert_allclose(found["low"], np.nanmin(rows, 0))
    np.testing.assert_allclose(found["high"], np.nanmax(rows, 0))
    assert found["low"][1] <= found["typical"][1] <= found["high"][1]
    assert found["targets"] == 0


def test_rows_by_number_tell_gaps_as_null(page, rows):
    found = answered(page.get("/api/table/train?index=7&index=0"))["values"]
    assert found[0] == [rows[7, 0], None, rows[7, 2], rows[7, 3]]
    assert found[1] == rows[0].tolist()
    assert "150" in refused(page.get("/api/table/train?index=150"))


def test_columns_without_names_go_by_number(folder):
    np.save(folder / "plain.npy", load_iris().data)
    model = mixture_file(folder / "plain.mogul", str(folder / "plain.npy"))
    assert answered(client(model).get("/api/table"))["names"][3] == "column 3"


def test_without_data_ranges_are_those_that_the_model_expects(folder):
    data = write(folder / "gone.csv", load_iris().data, ["a", "b", "c", "d"])
    model = mixture_file(folder / "gone.mogul", data)
    (folder / "gone.csv").unlink()
    page = client(model)
    found = answered(page.get("/api/table"))
    expected = open_model(model).mixture.icdf(torch.tensor([0.001, 0.999], dtype=torch.float64))
    np.testing.assert_allclose(found["low"], expected[0], rtol=1e-6)
    np.testing.assert_allclose(found["high"], expected[1], rtol=1e-6)
    pairs = answered(page.get("/api/pairs"))
    assert pairs["rows"] == []
    assert "gone.csv" in pairs["why"]
    assert len(pairs["components"]["index"]) == 3
    asked = {"columns": [0], "values": [5.0], "targets": [1]}
    assert answered(page.post("/api/conditional", json=asked))["curve"]


def test_a_constant_column_has_a_range(folder):
    data = np.column_stack([np.random.default_rng(0).normal(size=50), np.full(50, 3.0)])
    model = mixture_file(folder / "c.mogul", write(folder / "c.csv", data, ["a", "b"]), 1, "diag")
    found = answered(client(model).get("/api/table"))
    assert found["low"][1] < 3 < found["high"][1]
    assert answered(client(model).get("/api/pairs"))["columns"] == [0, 1]


def test_pairs_are_the_marginals_of_the_mixture(page, mixture, rows):
    found = answered(page.get("/api/pairs?column=3&column=1&components=2"))
    assert found["columns"] == [3, 1]
    assert found["names"] == [NAMES[3], NAMES[1]]
    of = mixture.marginal(torch.tensor([3, 1]))
    order = of.weights.argsort(descending=True)[:2]
    parts = found["components"]
    assert parts["index"] == order.tolist()
    assert parts["total"] == 3
    np.testing.assert_allclose(parts["weights"], of.weights[order])
    np.testing.assert_allclose(parts["means"], of.means[order], rtol=1e-6)
    low, high = np.array(found["ranges"]).T
    width = high - low
    dense = of.covariance.dense()[order].double().numpy()
    np.testing.assert_allclose(
        np.array(parts["covariances"]) * width * width[:, None], dense, rtol=1e-5
    )
    np.testing.assert_allclose(np.array(parts["centres"]) * width + low, parts["means"], rtol=1e-6)
    np.testing.assert_allclose(parts["deviations"], np.sqrt(np.diagonal(dense, 0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(array(found["places"]) * width + low, rows[:, [3, 1]], rtol=1e-5)
    seen = torch.from_numpy(rows).float()
    assert found["owners"] == mixture.responsibilities(seen).argmax(-1).tolist()
    for i, (side, bars) in enumerate(zip(found["densities"], found["histograms"], strict=True)):
        x = low[i] + width[i] * np.array(side["at"])
        density = of.marginal(torch.tensor([i])).log_prob(torch.from_numpy(x)[:, None].float())
        np.testing.assert_allclose(side["density"], density.exp() * width[i], rtol=1e-4, atol=1e-6)
        assert np.mean(bars) == pytest.approx(1)  # densities, as the curve is one


def test_pairs_begin_with_columns_in_which_components_differ(folder):
    random = np.random.default_rng(0)
    data = random.normal(size=(300, 7)) * [1, 1, 1e4, 1, 1, 1, 1]
    data[:, 5] += 8 * (np.arange(300) % 2)
    path = write(folder / "far.csv", data, list("abcdefg"))
    found = answered(client(mixture_file(folder / "far.mogul", path, 2)).get("/api/pairs"))
    assert len(found["columns"]) == 4
    assert 5 in found["columns"]


def test_pairs_draw_a_part_of_many_rows(folder):
    np.save(folder / "many.npy", np.random.default_rng(0).normal(size=(5000, 2)))
    model = mixture_file(folder / "many.mogul", str(folder / "many.npy"), 1)
    found = answered(client(model).get("/api/pairs"))
    assert len(found["rows"]) == 2000
    assert found["rows"][0] == 0
    assert found["rows"][-1] == 4999
    assert found["of"] == 5000


def test_pairs_refuse_what_is_not_there(page, folder):
    assert "Column 9" in refused(page.get("/api/pairs?column=9"))
    assert "once" in refused(page.get("/api/pairs?column=1&column=1"))
    assert "train or shown" in refused(page.get("/api/pairs?set=other"))
    np.save(folder / "seven.npy", np.random.default_rng(0).normal(size=(40, 7)))
    seven = client(mixture_file(folder / "seven.mogul", str(folder / "seven.npy"), 1))
    query = "&".join(f"column={i}" for i in range(7))
    assert "at most 6" in refused(seven.get(f"/api/pairs?{query}"))


def test_each_component_counts_its_rows(page, mixture, rows):
    found = answered(page.get("/api/pairs/owned"))
    owners = mixture.responsibilities(torch.from_numpy(rows).float()).argmax(-1)
    assert found["counts"] == torch.bincount(owners, minlength=3).tolist()
    assert found["of"] == 150


@pytest.mark.parametrize("row", [0, 7])
def test_a_row_is_judged(page, iris, mixture, rows, row):
    found = answered(page.get(f"/api/table/train/{row}/score"))
    x = torch.from_numpy(rows[[row]]).float()
    assert found["log_likelihood"] == pytest.approx(float(mixture.log_prob(x)), rel=1e-5)
    resp = mixture.responsibilities(x)[0]
    for k, weight in zip(*found["responsibilities"].values(), strict=True):
        assert weight == pytest.approx(float(resp[k]), abs=1e-6)
    value = np.array([found["log_likelihood"]])
    expected = float(percentile_of(value, open_model(iris).quantiles)[0])
    assert found["percentile"] == (None if row == 7 else pytest.approx(expected))
    assert found["whole"] == (row != 7)


@pytest.mark.parametrize("zoom", [False, True])
def test_a_conditional_curve(page, mixture, zoom):
    fixed, values = torch.tensor([0, 2]), torch.tensor([6.1, 4.2])
    asked = {"columns": [0, 2], "values": [6.1, 4.2], "targets": [3], "zoom": zoom}
    found = answered(page.post("/api/conditional", json=asked))
    given = mixture.condition(fixed, values)
    assert found["free"] == [1, 3]
    expected = float(mixture.marginal(fixed).log_prob(values))
    assert found["log_prob"] == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(found["mean"], given.mean, rtol=1e-5)
    np.testing.assert_allclose(found["deviation"], given.variance.sqrt(), rtol=1e-5)
    quantiles = given.icdf(INTERVAL)
    for name, one in zip(("low", "median", "high"), quantiles, strict=True):
        np.testing.assert_allclose(found[name], one, rtol=1e-5)
    for k, weight in zip(*found["responsibilities"].values(), strict=True):
        assert weight == pytest.approx(float(given.weights[k]), abs=1e-6)
    of, alone = given.marginal(torch.tensor([1])), mixture.marginal(torch.tensor([3]))
    x = torch.tensor(found["curve"]["x"]).unsqueeze(-1)
    density = of.log_prob(x).exp()
    np.testing.assert_allclose(found["curve"]["density"], density, rtol=1e-4, atol=1e-6)
    beside = alone.log_prob(x).exp()
    np.testing.assert_allclose(found["curve"]["beside"], beside, rtol=1e-4, atol=1e-6)


def test_a_conditional_map(page, mixture):
    asked = {"columns": [1], "values": [3.0], "targets": [3, 0]}
    found = answered(page.post("/api/conditional", json=asked))["heat"]
    of = mixture.condition(torch.tensor([1]), torch.tensor([3.0])).marginal(torch.tensor([2, 0]))
    share = array(found["density"])
    x, y = (np.linspace(*found[side], 96) for side in ("x", "y"))
    points = torch.tensor(np.stack(np.meshgrid(x, y), -1), dtype=torch.float32)
    density = of.log_prob(points).exp().double().numpy()
    np.testing.assert_allclose(share, density / density.max(), rtol=1e-3, atol=1e-6)
    total = density.sum() * (x[1] - x[0]) * (y[1] - y[0])
    assert total == pytest.approx(1, abs=0.01)
    for level, mass in zip(found["levels"], (0.5, 0.9), strict=True):
        assert share[share >= level].sum() / share.sum() == pytest.approx(mass, abs=0.01)


@pytest.mark.parametrize("covariance", ["gmm", "mfa", "diag"])
@pytest.mark.parametrize(("scale", "shift"), [(1e-6, 0.0), (1.0, 0.0), (1e7, 1e9), (1.0, 1e6)])
def test_conditional_densities_integrate_to_one(folder, covariance, scale, shift):
    random = np.random.default_rng(0)
    data = random.standard_t(3, size=(400, 4)) @ random.normal(size=(4, 4)) * scale + shift
    np.save(folder / "range.npy", data)
    more = "--dtype float64" + (" --rank 2" if covariance == "mfa" else "")
    data_file = str(folder / "range.npy")
    model = mixture_file(folder / "range.mogul", data_file, 4, covariance, more)
    page = client(model)
    for zoom in (False, True):
        for value in (data[:, 0].min(), np.median(data[:, 0]), data[:, 0].max()):
            asked = {"columns": [0], "values": [value], "targets": [2], "zoom": zoom}
            found = answered(page.post("/api/conditional", json=asked))["curve"]
            assert trapezoid(found["density"], found["x"]) == pytest.approx(1, abs=5e-3)


def test_with_nothing_fixed_the_density_is_the_marginal(page, mixture):
    asked = {"columns": [], "values": [], "targets": [2]}
    found = answered(page.post("/api/conditional", json=asked))
    assert found["log_prob"] == pytest.approx(0.0)
    assert found["free"] == [0, 1, 2, 3]
    x = torch.tensor(found["curve"]["x"], dtype=torch.float64).unsqueeze(-1)
    expected = mixture.marginal(torch.tensor([2])).log_prob(x).exp()
    np.testing.assert_allclose(found["curve"]["density"], expected.numpy(), rtol=1e-4, atol=1e-9)


def test_what_is_fixed_is_compared_with_the_training_rows(page, mixture, rows, folder):
    def compared(columns, values):
        asked = {"columns": columns, "values": values, "targets": [3]}
        return answered(page.post("/api/conditional", json=asked))

    index = torch.tensor([1, 2])
    x = torch.from_numpy(rows).float()[:, index]
    scores = mixture.marginal(index).log_prob(x[~x.isnan().any(-1)])
    for values in ([3.1, 4.5], [4.6, 6.9], [30.0, -20.0]):
        found = compared([1, 2], values)
        own = float(mixture.marginal(index).log_prob(torch.tensor(values)))
        assert found["compared"]["of"] == 149  # one row has a gap there
        assert found["compared"]["below"] == int((scores < own).sum())
        assert found["compared"]["least"] == pytest.approx(float(scores.min()), rel=1e-5)
    assert found["compared"]["below"] == 0
    assert compared([], [])["compared"] is None
    gone = write(folder / "gone.csv", rows, NAMES)
    lonely = mixture_file(folder / "gone.mogul", gone)
    (folder / "gone.csv").unlink()
    asked = {"columns": [0], "values": [5.0], "targets": [3]}
    assert answered(client(lonely).post("/api/conditional", json=asked))["compared"] is None


def test_conditionals_refuse_what_cannot_be(page):
    def why(**given):
        asked = {"columns": [0], "values": [5.0], "targets": [3]} | given
        return refused(posted(page, "/api/conditional", asked))

    assert "Column 4" in why(columns=[4])
    assert "Column -1" in why(targets=[-1])
    assert "leave at least one free" in why(columns=[0, 1, 2, 3], values=[5, 3, 4, 1])
    assert "choose a free column" in why(targets=[0])
    assert "once" in why(targets=[3, 3])
    assert "once" in why(columns=[0, 0], values=[5, 5])
    assert "one for each" in why(values=[5.0, 3.0])
    assert f"{NAMES[1]} is nan" in why(columns=[1], values=[math.nan])
    assert "finite" in why(values=[math.inf])
    assert "float32" in why(values=[1e39])
    assert "so far" in why(values=[1e30])
    assert "values" in why(values=["5,0 cm"])
    assert "targets" in why(targets=[])
    assert "targets" in why(targets=[1, 2, 3])


def test_gaps_are_filled_by_the_conditional(page, mixture):
    asked = {"values": [5.8, None, 4.0, None], "draws": 4, "seed": 3}
    found = answered(page.post("/api/complete", json=asked))
    given = mixture.condition(torch.tensor([0, 2]), torch.tensor([5.8, 4.0]))
    assert found["missing"] == [1, 3]
    np.testing.assert_allclose(found["mean"], given.mean, rtol=1e-5)
    np.testing.assert_allclose(found["deviation"], given.variance.sqrt(), rtol=1e-5)
    low, _, high = given.icdf(INTERVAL)
    np.testing.assert_allclose(found["low"], low, rtol=1e-5)
    np.testing.assert_allclose(found["high"], high, rtol=1e-5)
    np.testing.assert_allclose(found["draws"], given.sample((4,), seed=3), rtol=1e-5)
    row = torch.tensor([[5.8, math.nan, 4.0, math.nan]])
    assert found["log_likelihood"] == pytest.approx(float(mixture.log_prob(row)), rel=1e-5)
    np.testing.assert_allclose(found["mean"], mixture.complete(row).mean[0, [1, 3]], rtol=1e-5)
    assert found["percentile"] is None


def test_whole_rows_and_empty_ones(page, mixture, iris):
    found = answered(page.post("/api/complete", json={"values": [5.8, 3.0, 4.0, 1.2]}))
    x = torch.tensor([[5.8, 3.0, 4.0, 1.2]])
    assert found["missing"] == []
    assert found["log_likelihood"] == pytest.approx(float(mixture.log_prob(x)), rel=1e-5)
    value = np.array([found["log_likelihood"]])
    assert found["percentile"] == pytest.approx(
        float(percentile_of(value, open_model(iris).quantiles)[0])
    )
    found = answered(page.post("/api/complete", json={"values": [None] * 4}))
    np.testing.assert_allclose(found["mean"], mixture.mean, rtol=1e-5)
    assert found["log_likelihood"] == pytest.approx(0, abs=1e-5)


def test_rows_that_are_refused(page):
    def why(values):
        return refused(posted(page, "/api/complete", {"values": values}))

    assert "give 4" in why([1.0])
    assert "finite" in why([1.0, 2.0, math.inf, None])
    assert f"{NAMES[1]} is nan" in why([1.0, math.nan, 2.0, None])
    assert "values.2" in why([1.0, 2.0, "many", None])
    assert "so far" in why([1e30, None, None, None])


def test_wide_rows_by_low_rank_components(folder):
    random = np.random.default_rng(0)
    data = random.normal(size=(300, 3)) @ random.normal(size=(3, 200))
    np.save(folder / "wide.npy", data + 0.1 * random.normal(size=(300, 200)))
    model = mixture_file(folder / "wide.mogul", str(folder / "wide.npy"), 2, "mfa", "--rank 3")
    mixture, values = open_model(model).mixture, [float(v) for v in data[0]]
    values[50:150] = [None] * 100
    found = answered(client(model).post("/api/complete", json={"values": values}))
    seen = [i for i, v in enumerate(values) if v is not None]
    given = mixture.condition(torch.tensor(seen), torch.tensor([values[i] for i in seen]))
    np.testing.assert_allclose(found["mean"], given.mean, rtol=1e-3, atol=1e-4)
    assert len(found["high"]) == 100


def test_predictions(predictor, network):
    inputs = [0.01, -0.02, 0.03]
    found = answered(predictor.post("/api/predicted", json={"inputs": inputs, "targets": [0]}))
    mixture = network(torch.tensor(inputs))
    np.testing.assert_allclose(found["mean"], mixture.mean, rtol=1e-5)
    np.testing.assert_allclose(found["deviation"], mixture.variance.sqrt(), rtol=1e-5)
    for name, one in zip(("low", "median", "high"), mixture.icdf(INTERVAL), strict=True):
        np.testing.assert_allclose(found[name], one, rtol=1e-5)
    of = mixture.marginal(torch.tensor([0]))
    peaks = modes(of)
    np.testing.assert_allclose(found["modes"], peaks.points[peaks.above(0.02)], rtol=1e-5)
    x = torch.tensor(found["curve"]["x"]).unsqueeze(-1)
    density = of.log_prob(x).exp()
    np.testing.assert_allclose(found["curve"]["density"], density, rtol=1e-4, atol=1e-7)
    assert trapezoid(found["curve"]["density"], x[:, 0]) == pytest.approx(1, abs=5e-3)


def test_predictions_of_two_targets(predictor, network):
    asked = {"inputs": [0.01, -0.02, 0.03], "targets": [1, 0], "zoom": True}
    found = answered(predictor.post("/api/predicted", json=asked))
    of = network(torch.tensor(asked["inputs"])).marginal(torch.tensor([1, 0]))
    x, y = (np.linspace(*found["heat"][side], 96) for side in ("x", "y"))
    points = torch.tensor(np.stack(np.meshgrid(x, y), -1), dtype=torch.float32)
    density = of.log_prob(points).exp().numpy()
    share = array(found["heat"]["density"])
    np.testing.assert_allclose(share, density / density.max(), rtol=1e-2, atol=1e-5)
    peaks = modes(of)
    np.testing.assert_allclose(found["modes"], peaks.points[peaks.above(0.02)], rtol=1e-4)


def test_predictions_along_an_input(predictor, network):
    asked = {"inputs": [0.01, -0.02, 0.03], "input": 1, "target": 0}
    found = answered(predictor.post("/api/predicted/along", json=asked))
    at = torch.tensor(found["at"])
    line = torch.tensor(asked["inputs"]).repeat(len(at), 1)
    line[:, 1] = at
    mixture = network(line).marginal(torch.tensor([0]))
    np.testing.assert_allclose(found["quantiles"], mixture.icdf(INTERVAL)[..., 0], rtol=1e-4)
    up = torch.linspace(*found["y"], 121)
    density = mixture.log_prob(up.reshape(-1, 1, 1).expand(-1, len(at), 1)).exp()
    expected = density / density.amax(0)
    np.testing.assert_allclose(array(found["density"]), expected, rtol=1e-2, atol=1e-4)
    points = found["points"]
    assert len(points["x"]) == len(points["y"]) == len(points["near"]) == 442
    assert 0.2 < np.mean(points["near"]) < 0.3


def test_gaps_in_the_rows_of_a_network(predictor):
    found = answered(predictor.get("/api/table/shown?index=5&index=3"))["values"]
    assert [[i for i, v in enumerate(row) if v is None] for row in found] == [[0], [4]]
    assert answered(predictor.get("/api/table"))["targets"] == 2
    along = {"inputs": [0.0, 0.0, 0.0], "input": 0, "target": 1}
    points = answered(predictor.post("/api/predicted/along", json=along))["points"]
    assert len(points["x"]) == 441  # one training row misses the target


def test_predictions_refuse_what_cannot_be(predictor):
    def why(path="", **given):
        asked = {"inputs": [0.0, 0.0, 0.0], "targets": [0], "input": 0} | given
        return refused(posted(predictor, f"/api/predicted{path}", asked))

    assert "one for each" in why(inputs=[0.0])
    assert "bp is nan" in why(inputs=[0.0, 0.0, math.nan])
    assert "finite" in why(inputs=[math.inf, 0.0, 0.0])
    assert "so far" in why(inputs=[1e308, 0.0, 0.0])
    assert "there are 2" in why(targets=[2])
    assert "once" in why(targets=[1, 1])
    assert "there are 2" in why("/along", target=-1)
    assert "there are 3" in why("/along", input=3)


def test_models_of_other_kinds_refuse(page, predictor):
    asked = {"columns": [0], "values": [0.0], "targets": [1]}
    assert "no mixture" in refused(predictor.post("/api/conditional", json=asked))
    assert "no targets" in refused(
        page.post("/api/predicted", json={"inputs": [0.0], "targets": [0]})
    )


def test_data_without_the_columns_of_a_network_are_refused_before_anything_is_served(
    network_file, folder
):
    def why(data):
        with pytest.raises(InputError) as refusal:
            opened_session(network_file, str(data))
        return str(refusal.value)

    np.save(folder / "narrow.npy", np.zeros((5, 3)))
    few = write(folder / "few.csv", np.zeros((4, 2)), ["s5", "bmi"])
    for data, came in (
        (few, "has no column"),
        (folder / "narrow.npy", "go by number, here 0 to 2"),
        ("digits", "has rows of shape (8, 8)"),
    ):
        assert came in why(data)
        assert "from bmi, s5, bp: give a table with all of these columns" in why(data)
