"""Hooks of the documentation's build.

Formulas become MathML, which browsers draw by themselves, and nothing is loaded from elsewhere.
"""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

_FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<tex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL
)
_NOT_CONVERTED = re.compile(r'\\[A-Za-z]+|&(?!#?\w+;)|linebreak="newline"')
_ELSEWHERE = re.compile(r"""<(?!a\b)\w+[^>]*\s(?:src|href|srcset)=["']?(?:https?:)?//[^>]*>""")
_LONG = 45
_PRIME = '<mo lspace="0" rspace="0">&#x02032;</mo>'
_SPACE = '<mspace width="0.17em" />'


def on_page_content(page_html: str, page: Any, **_: Any) -> str:
    """Replace the formulas of a page.

    Raises:
        PluginError: if one is not understood; the message names the page and the formula.
    """
    where = page.file.src_uri
    return _FORMULA.sub(lambda found: _drawn(found, where), page_html)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Let a page pass that loads nothing from other hosts; links lead where they like.

    Raises:
        PluginError: naming what would be loaded.
    """
    if found := _ELSEWHERE.search(output):
        raise PluginError(f"{page.file.src_uri} loads from another host: {found[0]}")
    return output


def _drawn(found: re.Match[str], where: str) -> str:
    tex = html.unescape(found["tex"]).strip()
    display = "block" if found["tag"] == "div" else "inline"
    try:
        maths = convert(_one_letter(tex), display=display)
    except Exception as error:  # whatever a formula may do to the converter
        raise PluginError(f"{where}: the formula {tex} is not understood: {error!r}") from error
    if unknown := _NOT_CONVERTED.search(maths):
        raise PluginError(f"{where}: '{unknown[0]}' is left over, in the formula {tex}")
    long = " long" if len(tex) > _LONG else ""  # within a line, one that may not fit a phone
    return f'<{found["tag"]} class="formula{long}">{_spaced(maths)}</{found["tag"]}>'


def _one_letter(tex: str) -> str:
    r"""Write the alphabets of one letter in the way that the converter takes: \mathrm E."""
    tex = re.sub(r"\\mathrm\{(\w)\}", r"\\mathrm \1", tex)
    return re.sub(r"\\mathcal (\w)", r"\\mathcal{\1}", tex)


def _spaced(maths: str) -> str:
    """Space names of functions, bars and relations as in print; leave primes as they are raised."""
    maths = re.sub(r"(<mi>(?:log|ln)</mi>)(?!<mo[^>]*>&#x00028;)", rf"\1{_SPACE}", maths)
    maths = re.sub(r"<msup>(<mi>\w+</mi>)<mi>&#x02032;</mi></msup>", rf"\1{_PRIME}", maths)
    maths = maths.replace("<mi>&#x0007E;</mi>", "<mo>&#x0223C;</mo>")
    bare = r'<mo lspace="0" rspace="0" stretchy="false">\1'
    return re.sub(r"<mo stretchy=\"false\">(&#x0007C;|&#x02016;)", bare, maths)
