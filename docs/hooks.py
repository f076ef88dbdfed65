"""Hooks of the documentation's build: formulas become MathML, which browsers draw by themselves."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

_FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<tex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL
)


def on_page_content(page_html: str, page: Any, **_: Any) -> str:
    """Replace the formulas of a page.

    Raises:
        PluginError: if one is not understood; the message names the page and the formula.
    """
    where = page.file.src_uri
    return _FORMULA.sub(lambda found: _drawn(found, where), page_html)


def _drawn(found: re.Match[str], where: str) -> str:
    tex = html.unescape(found["tex"]).strip()
    display = "block" if found["tag"] == "div" else "inline"
    try:
        maths = convert(tex, display=display)
    except Exception as error:  # whatever a formula may do to the converter
        raise PluginError(f"{where}: the formula {tex} is not understood: {error!r}") from error
    if unknown := re.search(r"\\[A-Za-z]+", maths):
        raise PluginError(f"{where}: {unknown[0]} is not known, in the formula {tex}")
    return f'<{found["tag"]} class="formula">{maths}</{found["tag"]}>'
