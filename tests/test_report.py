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
    assert "In-painting" not in page.text
    assert "bits per dimension" not in page.text


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
