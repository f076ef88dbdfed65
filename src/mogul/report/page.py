"""A self-contained HTML page: sections of pictures, a table of figures, the commands."""

from __future__ import annotations

import base64
import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

import mogul
from mogul.compute.checkpoint import atomic_write
from mogul.report.pictures import to_png


@dataclass(frozen=True)
class Picture:
    """A picture on the page: inline SVG or a PNG, the text that replaces it, its caption."""

    alt: str
    caption: str
    svg: Markup = field(default_factory=Markup)
    png: str = ""


@dataclass(frozen=True)
class Table:
    """Numbers on the page: a heading per column, rows that begin with what they are of."""

    caption: str
    head: list[str]
    rows: list[list[str]]


Section = tuple[str, str, Sequence[Picture | Table]]  # heading, explanation, what is shown
Figure = tuple[str, str, str]  # name, value, what it means


@dataclass(frozen=True)
class Page:
    """What a page shows; `name` is that of the data, `commands` those that make it again."""

    name: str
    title: str
    subtitle: str
    figures: list[Figure]
    sections: list[Section]
    history: list[dict[str, Any]]
    commands: list[str]


def write_page(path: str | Path, page: Page) -> None:
    """Write the page atomically; it needs no other file and no network."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(
            lambda name: resources.files("mogul.report").joinpath(name).read_text("utf-8")
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("template.html").render(
        page=page,
        events=[(r["pass"], e) for r in page.history for e in r["events"]],
        version=mogul.__version__,
        today=datetime.date.today().isoformat(),
    )
    atomic_write(path, text.encode())


def encoded(picture: np.ndarray) -> str:
    """Return an 8-bit picture as PNG in base64."""
    return base64.b64encode(to_png(picture)).decode()
