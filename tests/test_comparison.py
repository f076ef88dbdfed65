"""The table of features: the pages show it, and what it says of scikit-learn holds."""

from pathlib import Path

import pytest
from benchmarks.features import LIBRARIES, checked, table
from benchmarks.peers import scikit_learn
from benchmarks.peers.claims import FEATURES, FULL, Claim, ClaimError, Library

ROOT = Path(__file__).parents[1]


def test_the_page_shows_the_table_and_its_notes():
    assert table(LIBRARIES) in (ROOT / "docs" / "comparison.md").read_text()


def test_the_readme_shows_the_short_table():
    assert table(LIBRARIES, short=True) in (ROOT / "README.md").read_text()


def test_the_evidence_has_a_line_for_every_cell_with_its_mark():
    pages = (ROOT / "docs" / "comparison_evidence.md").read_text().split("\n## ")[1:]
    assert [page.split()[0] for page in pages] == [library.name for library in LIBRARIES]
    for page, library in zip(pages, LIBRARIES, strict=True):
        lines = [line for line in page.splitlines() if line.startswith("- ")]
        for line, (key, feature) in zip(lines, FEATURES.items(), strict=True):
            assert line.startswith(f"- {library.mark(key)} {feature.name}: ")
            assert "DOES NOT HOLD" not in line


@pytest.mark.parametrize("feature", FEATURES)
def test_claims_about_scikit_learn_hold(feature):
    assert scikit_learn.LIBRARY.check(feature, FEATURES[feature].words)


def test_claims_name_rows_of_the_table():
    for library in LIBRARIES:
        assert set(library.claims) <= set(FEATURES), library.name


def test_a_false_claim_is_found_and_an_absent_library_is_named():
    boast = Library("json", "json", "torch", {"flows": Claim(FULL, lambda: 1 / 0)})
    with pytest.raises(ClaimError, match="division by zero"):
        boast.check("flows", "flow")
    with pytest.raises(ClaimError, match="names like"):
        boast.check("files", "loads")
    assert len(checked(boast)[1]) == 1
    absent = Library("none", "no_such_thing", "no-such-thing", boast.claims)
    assert checked(absent) == (["not installed"], [])
