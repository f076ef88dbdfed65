"""Photograph the explorer: `MOGUL_DATA=folder python docs/make_screenshots.py NAME MODEL [DATA]`.

NAME is one of the views, such as components or drawing; MODEL is the file of a model that has it.
The picture is written to docs/pictures/explorer-NAME.png. It needs Chromium.
"""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from mogul.app import Session
from mogul.app.serve import beside
from mogul.opened import open_any

_FOLDER = Path(__file__).parent / "pictures"
_SIZE = {"width": 1180, "height": 800}
_COLOURS = 128  # few enough for a small file


def _components(page: Page) -> None:
    sliders = page.locator("section.card .sliders input")
    sliders.nth(0).fill("1.6")
    sliders.nth(1).fill("-1.2")
    page.get_by_text("Most responsible for").wait_for()


def _drawing(page: Page) -> None:
    page.get_by_text("log p(observed part)").wait_for()
    page.locator(".wall button").nth(9).click()
    page.get_by_role("button", name="none", exact=True).click()
    page.locator(".sliders input").fill("3")
    page.evaluate("scrollTo(0, 0)")
    box = page.locator("canvas.paint").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.15 * box["width"], box["y"] + 0.2 * box["height"])
    page.mouse.down()
    for x, y in ((0.85, 0.15), (0.2, 0.3), (0.85, 0.35), (0.3, 0.45)):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=12)
    page.mouse.up()


ACTS: dict[str, Callable[[Page], None]] = {"components": _components, "drawing": _drawing}


def photograph(view: str, model: str, data: str | None = None) -> bytes:
    """Return a PNG of a view of a model."""
    with beside(Session(open_any(Path(model), "cpu"), data)) as served, sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport=_SIZE)  # pyright: ignore[reportArgumentType]
        page.goto(f"{served.address}#{view}")
        page.wait_for_selector("main h2")
        ACTS.get(view, lambda page: None)(page)
        page.wait_for_function("() => !document.querySelector('[aria-busy]')")
        page.wait_for_timeout(500)
        taken = page.screenshot()
        browser.close()
    return taken


def main() -> None:
    """Write one picture."""
    taken = Image.open(io.BytesIO(photograph(*sys.argv[1:])))
    path = _FOLDER / f"explorer-{sys.argv[1]}.png"
    taken.convert("RGB").quantize(_COLOURS).save(path, optimize=True)


if __name__ == "__main__":
    main()
