"""The report is one file that needs nothing else and escapes what it shows."""

import html.parser
import re

import numpy as np
import pytest
import torch

from mogul import EM, GaussianMixture, fit, initialise, open_source
from mogul.algorithms import log_likelihoods
from mogul.data import ArraySource
from mogul.evaluation import evaluate
from mogul.evaluation.ndb import fitting_bins
from mogul.report import ReportData, tile, to_png, write_report
from mogul.tasks import find_outliers, training_quantiles


class _Page(html.parser.HTMLParser):
    """What a page holds: tags, attributes, and whether tags close in order."""

    def __init__(self):
        super().__init__()
        self.open, self.found, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def _report(path, train, test, name="ppca"):
    model = GaussianMixture(4, train.n_features, name, 2 if name == "ppca" else None)
    initialise(model, train)
    fitted = fit(model, train, EM(), passes=3, validation=test)
    model.requires_grad_(False)
    mixture = model()
    quantiles = training_quantiles(log_likelihoods(mixture, train).numpy())
    data = ReportData(
        mixture, model.config(), train, test, evaluate(mixture, train, test, n_bins=10),
        find_outliers(mixture, test, quantiles), fitted.history,
        "mogul fit <script>alert(1)</script>", "mogul report",
    )  # fmt: skip
    write_report(path, data)
    page = _Page()
    page.feed(path.read_text())
    assert page.open == []
    return page, path.read_text()


def test_images(tmp_path):
    train, test = open_source("digits", limit=300), open_source("digits:test", limit=100)
    page, text = _report(tmp_path / "r.html", train, test)
    images = [attributes for tag, attributes in page.found if tag == "img"]
    assert len(images) >= 9
    assert all(a["alt"] and a["src"].startswith("data:image/png;base64,") for a in images)
    assert sum(tag == "svg" for tag, _ in page.found) == 3
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    # Nothing is fetched: no address but XML namespaces and in-page links.
    for attribute in ("src", "href", "xlink:href"):
        values = [a[attribute] for _, a in page.found if attribute in a]
        assert all(v.startswith(("#", "data:")) for v in values)
    assert not re.search(r"url\((?!#)", text)
    for word in ("bits per dimension", "NDB / bins", "In-painting", "Outliers", "held-out"):
        assert word in page.text


def test_tables(tmp_path):
    x = np.random.default_rng(0).normal(size=(300, 3))
    page, _ = _report(tmp_path / "r.html", ArraySource(x[:200]), ArraySource(x[200:]), "full")
    assert sum(tag == "svg" for tag, _ in page.found) == 4
    for word in ("In-painting", "bits per dimension", "pixel", "features"):
        assert word not in page.text
    assert "factor 1" not in page.text


def _cells(text, caption):
    """Return the cells of the table under a caption, row by row."""
    part = text[text.index(caption) :]
    part = part[: part.index("</table>")]
    return [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row) for row in part.split("<tr>")[1:]]


@pytest.mark.parametrize("sharing", ["own", "shared"])
def test_components_of_tables_are_told_by_name_in_the_units_of_the_columns(tmp_path, sharing):
    random = np.random.default_rng(0)
    factor = random.normal(size=(900, 1)) * [[3.0, 0.02, 0.0]]
    x = factor + random.normal(size=(900, 3)) * [1.0, 0.005, 20.0]
    x[:, 2] += np.where(np.arange(900) % 3 == 0, 5000.0, 1000.0)
    source = ArraySource(x)
    model = GaussianMixture(2, 3, "mfa", 1, sharing, dtype=torch.float64)
    initialise(model, source)
    fit(model, source, EM(), passes=200)
    model.requires_grad_(False)
    quantiles = training_quantiles(log_likelihoods(model(), source).numpy())
    data = ReportData(
        model(), model.config(), source, source, evaluate(model(), source, source),
        find_outliers(model(), source, quantiles), [], "", "", held_out=False,
        columns=["length, <b>", "width", "mass"],
    )  # fmt: skip
    write_report(tmp_path / "r.html", data)
    text = (tmp_path / "r.html").read_text()
    head, *rows = _cells(text, "Weights; mean")
    assert "66.7" in head[2]
    assert "33.3" in head[3]
    assert [row[0] for row in rows] == ["length, &lt;b&gt;", "width", "mass"]
    means = [float(cell.split(" ± ")[0].replace(",", "")) for cell in rows[2][1:]]
    np.testing.assert_allclose(means, [7000 / 3, 1000, 5000], atol=5)
    wide = [float(cell.split(" ± ")[1]) for cell in rows[0][2:]]
    np.testing.assert_allclose(wide, 10**0.5, rtol=0.1)
    told = re.findall(r"[\w ]+: loadings and noise", text)
    order = model().weights.argsort(descending=True).tolist()
    assert [t.split(":")[0].strip() for t in told] == (
        [f"Component {k}" for k in order] if sharing == "own" else ["All components"]
    )
    parts = [model().loadings, model().covariance.noise_variances.sqrt().unsqueeze(-1)]
    expected = torch.cat(parts, -1).abs().numpy()
    for k, caption in zip(order, told, strict=False):
        found = [[float(cell) for cell in row[1:]] for row in _cells(text, caption)[1:]]
        digits = [[0.005], [0.00005], [0.5]]  # half of the last digit
        assert (np.abs(np.abs(found) - expected[k % len(expected)]) <= digits).all()
    assert "held-out" not in text.split("</style>")[1]
    assert "none were held out" in text
    assert "row 0" not in text


def test_outliers_of_tables_are_numbered_as_in_their_file(tmp_path):
    x = np.random.default_rng(0).normal(size=(400, 2))
    test = open_source(x, test_share=0.5, split="test")
    wild = int(np.asarray(test.numbers)[17])
    x[wild, 1] = 90.0
    x[int(np.asarray(test.numbers)[3]), 0] = np.nan  # has gaps, and is not judged
    train, test = (open_source(x, test_share=0.5, split=s) for s in ("train", "test"))
    _, text = _report(tmp_path / "r.html", train, test, "diagonal")
    first = _cells(text, "The least likely rows, numbered")[1]
    assert first[0] == str(wild)
    assert first[2:4] == ["column 1", "90.00"]
    assert float(first[4]) > 50


def test_a_table_of_one_column(tmp_path):
    x = np.random.default_rng(0).normal(size=(300, 1))
    page, _ = _report(tmp_path / "r.html", ArraySource(x[:200]), ArraySource(x[200:]), "full")
    assert "The distribution of column 0" in page.text


def test_bins_are_fewer_of_small_data():
    assert [fitting_bins(n) for n in (1, 15, 150, 990, 1000, 60_000)] == [2, 2, 15, 99, 100, 100]
    x = ArraySource(np.random.default_rng(0).normal(size=(150, 2)))
    found = evaluate(GaussianMixture(1, 2, "full")(), x, x)
    assert found.samples is not None
    assert found.samples.n_bins == 15


def test_evaluation_is_honest_about_a_perfect_and_a_wrong_model():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3000, 4, generator=generator)
    train, test = ArraySource(x[:2000]), ArraySource(x[2000:])
    model = GaussianMixture(1, 4, "full")  # the standard normal, which is the truth
    right = evaluate(model(), train, test, n_bins=20)
    with torch.no_grad():
        model.centres += 1.0
    wrong = evaluate(model(), train, test, n_bins=20)
    assert right.samples.ndb <= 4
    assert wrong.samples.ndb >= 12
    assert right.held_out.ndb == wrong.held_out.ndb
    assert right.log_likelihood == pytest.approx(-2 * (1 + np.log(2 * np.pi)), abs=0.1)
    assert wrong.log_likelihood < right.log_likelihood - 1


def test_tiles():
    images = np.arange(5, dtype=np.uint8)[:, None, None] * np.ones((1, 48, 50), np.uint8)
    grid = tile(images, 3)
    assert grid.shape == (2 * 48 + 3, 3 * 50 + 2 * 3)
    assert grid[60, 60] == 4
    assert to_png(grid).startswith(b"\x89PNG")
