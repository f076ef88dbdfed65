"""The page for people who come from other libraries: every block prints what stands beside it."""

import contextlib
import io
import re
import warnings
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "coming_from.md").read_text()
MODULES = {
    "mogul": "mogul",
    "scikit-learn": "sklearn",
    "pomegranate": "pomegranate",
    "torch-mfa": "mfa",
    "Pyro": "pyro",
}
BLOCKS = re.findall(r'```python title="(.*?)"\n(.*?)```', PAGE, re.DOTALL)


def stated(block: str) -> list[str]:
    """The outcomes that a block states: comments beside its prints, and lines of comment alone."""
    beside = r"^(?:    )?print\(.*\)  # (.*)$"
    return [a or b for a, b in re.findall(rf"{beside}|^# (.*)$", block, re.MULTILINE)]


@pytest.mark.parametrize(
    ("library", "block"),
    [pytest.param(*found, id=f"{i}-{found[0]}") for i, found in enumerate(BLOCKS)],
)
def test_a_block_prints_what_stands_beside_it(library, block):
    pytest.importorskip(MODULES[library], reason=f"{library} is not installed")
    printed = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(printed):
        warnings.simplefilter("ignore")
        exec(compile(block, "example", "exec"), {})
    if "print(" in block:
        assert printed.getvalue().splitlines() == stated(block)


def test_every_library_is_there_and_every_block_of_the_page_is_run():
    assert {library for library, _ in BLOCKS} == set(MODULES)
    assert PAGE.count("```") == 2 * len(BLOCKS)
