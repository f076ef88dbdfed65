"""How values show themselves: in a line, and as tables of notebooks."""

from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from families import random_mixture
from mogul import EM, GaussianMixture, Mixture, fit, initialise, open_source
from mogul.algorithms import Fit, StopReason
from mogul.compute.notebook import html_table
from mogul.data import ArraySource
from mogul.distributions import Isotropic, Prior, families
from mogul.sklearn import MFA


class _Table(HTMLParser):
    """The cells of a table, row by row, and all text beside it."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.text, self._inside = [], "", False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._inside = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._inside = False

    def handle_data(self, data):
        if self._inside:
            self.rows[-1][-1] += data
        else:
            self.text += data


def test_a_mixture_in_a_line():
    logits = torch.tensor([0.1, 0.6, 0.2, 0.1]).log()
    mixture = Mixture(logits, torch.zeros(4, 3), Isotropic.of(torch.ones(4), 3))
    assert repr(mixture) == (
        "Mixture(family: isotropic, components: 4, features: 3, dtype: float32, device: cpu, "
        "heaviest: 1 (0.6), 2 (0.2), 0 (0.1))"
    )
    shared = random_mixture("factor-analysis", 5, 7, 1)
    assert "rank: 2, covariance: shared, dtype: float64" in repr(shared)
    batch = mixture.condition(torch.tensor([0]), torch.zeros(6, 1))
    assert "batch_shape: (6,)" in repr(batch)
    assert "heaviest" not in repr(batch)
    assert batch._repr_html_() is None  # notebooks then show the line
    parts = (logits.to("meta"), mixture.centres.to("meta"))
    nowhere = Mixture(*parts, mixture.covariance.map(lambda t: t.to("meta")))
    assert repr(nowhere).endswith("device: meta)")  # without values there are no weights to tell
    assert nowhere._repr_html_() is None


@pytest.mark.parametrize("n_covariances", [1, 30])
@pytest.mark.parametrize("name", sorted(families()))
def test_a_table_of_components_tells_the_heaviest(name, n_covariances):
    mixture = random_mixture(name, 30, 6, n_covariances)
    table = _Table(mixture._repr_html_())
    head, *rows = table.rows
    assert head == ["component", "weight", *(f"feature {i}" for i in range(4)), "size"]
    assert [int(row[0]) for row in rows] == mixture.weights.argsort(descending=True)[:20].tolist()
    k = int(rows[3][0])
    dense = mixture.covariance.dense().expand(30, -1, -1)[k]
    assert rows[3][1] == f"{mixture.weights[k]:.3g}"
    assert rows[3][3] == f"{mixture.means[k, 1]:.4g} ± {dense[1, 1].sqrt():.2g}"
    assert float(rows[3][-1]) == pytest.approx(float(dense.det()) ** (1 / 12), rel=0.01)
    left = 1 - mixture.weights.sort(descending=True).values[:20].sum()
    assert f"10 lighter components, {left:.1%} of the weight; 2 more features" in table.text


def test_small_mixtures_are_shown_whole():
    table = _Table(random_mixture("full", 2, 3, 2)._repr_html_())
    assert [len(row) for row in table.rows] == [6, 6, 6]
    assert "Left out" not in table.text


def test_a_fit_shows_its_end_and_what_to_do():
    source = open_source("digits")
    model = GaussianMixture(3, 64, "ppca", 2)
    initialise(model, source)
    found = fit(model, source, EM(), passes=12, validation=open_source("digits:test"))
    last = found.history[-1]
    line = (
        f"Fit(reason: pass limit, passes: 12, log-likelihood: {last['log_likelihood']:,.4f}, "
        f"held out: {last['validation']:,.4f}, seconds: {found.seconds:.2f})"
    )
    assert repr(found) == line
    table = _Table(found._repr_html_())
    assert table.rows[0] == ["pass", "log-likelihood", "held out", "seconds", "events"]
    assert [row[0] for row in table.rows[1:]] == [str(n) for n in range(3, 13)]
    assert table.rows[-1][1] == f"{last['log_likelihood']:,.4f}"
    assert line in table.text
    assert found.reason.advice in table.text
    assert "2 earlier passes" in table.text


def test_fits_without_a_likelihood_and_without_a_pass():
    row = {"pass": 1, "log_likelihood": None, "objective": -3.5, "validation": None}
    row |= {"seconds": 0.5, "events": ["<script>alert(1)</script>"], "evidence_bound": -3.0}
    found = Fit(None, [row], StopReason.CONVERGED, 0.5)
    assert "evidence bound: -3.0000, objective: -3.5000" in repr(found)
    assert "<script" not in found._repr_html_()
    assert _Table(found._repr_html_()).rows[1][-1] == "<script>alert(1)</script>"
    empty = Fit(None, [], StopReason.INTERRUPTED, 0.0)
    assert repr(empty) == "Fit(reason: interrupted, passes: 0, seconds: 0.00)"
    assert _Table(empty._repr_html_()).rows == [["pass", "seconds", "events"]]


def test_all_text_of_a_table_is_escaped():
    bad = "<b onclick='x'>&amp;"
    text = html_table(bad, [bad], [[bad]], bad)
    assert "<b " not in text
    table = _Table(text)
    assert table.rows == [[bad], [bad]]
    assert table.text == 2 * bad


def test_sources_in_a_line():
    assert repr(open_source("digits")) == (
        "ArraySource(name: digits, rows: 1,437, features: 64 (8×8), gaps: none, levels: 17)"
    )
    plain = ArraySource(np.full((10, 3), np.nan))
    assert repr(plain) == "ArraySource(name: array, rows: 10, features: 3, gaps: unknown)"
    calls = []

    def arrays():
        calls.append(1)
        yield np.zeros((5, 2))

    once = open_source(arrays())
    assert repr(once).endswith("rows: unknown, features: 2, gaps: unknown, passes: one)")
    assert len(calls) == 1
    assert "rows: 4" in repr(open_source(arrays(), rows=4))


def test_a_model_prints_what_it_is_made_of():
    model = GaussianMixture(4, 6, "mfa", 2, sharing="shared", prior=Prior())
    text = repr(model)
    assert "4, 6, covariance='factor-analysis', rank=2, sharing='shared'" in text
    assert "prior=Prior(" in text
    assert f"n_parameters={model.n_parameters}" in text
    assert "rank" not in repr(GaussianMixture(4, 6))


def test_estimators_keep_the_look_of_scikit_learn():
    assert repr(MFA(3, n_factors=2)) == "MFA(n_components=3, n_factors=2)"
    assert "sk-container" in MFA(3)._repr_html_()
