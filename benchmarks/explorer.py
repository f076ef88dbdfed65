"""The explorer over a fitted MNIST model: its first paint, and its answers while one draws.

MOGUL_DATA=folder python -m benchmarks explorer [MODEL] [--strokes]

Without a model file it fits one, by `mogul fit mnist --model mppca --components 50 --rank 6`.
With --strokes in-painting alone is timed, which decoders and autoencoders can do too: while one
draws, and the whole search when the pointer rests.
The page is opened in Chromium; times are the browser's own.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Browser, Page, Response, sync_playwright

_FIT = "mnist --model mppca --components 50 --rank 6 --passes 10 --json"
_ROUNDS = 7
_STROKES = 40
_PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
_WALL = "() => new Promise(done => { const look = () => document.querySelectorAll('.wall canvas')" \
    ".length >= 40 ? done(performance.now()) : requestAnimationFrame(look); look(); })"  # fmt: skip


def mogul(*arguments: str) -> list[str]:
    """Return the command that runs mogul."""
    return [sys.executable, "-m", "mogul", *arguments]


def help_seconds() -> float:
    """Return the median CPU seconds of `mogul --help`."""
    taken = []
    for _ in range(_ROUNDS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(mogul("--help"), check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(taken)


def first_paints(browser: Browser, address: str) -> tuple[float, float]:
    """Return medians in ms from navigation to the first content, and to the wall of components."""
    content, walls = [], []
    for _ in range(_ROUNDS):
        context = browser.new_context()
        page = context.new_page()
        page.goto(address)
        walls.append(page.evaluate(_WALL))
        content.append(page.evaluate(_PAINT))
        context.close()
    return statistics.median(content), statistics.median(walls)


def strokes(page: Page, asked: Callable[[Response], bool]) -> tuple[float, float]:
    """Return the median and the 95th percentile, in ms, of answers to a mask that grows."""
    box = page.locator("canvas.paint").bounding_box()
    assert box is not None
    taken = []
    for stroke in range(_STROKES):
        x = box["x"] + box["width"] * (0.1 + 0.4 * (stroke % 8) / 8)
        y = box["y"] + box["height"] * (0.1 + 0.8 * stroke / _STROKES)
        with page.expect_response(asked) as answered:
            page.mouse.move(x, y)
            page.mouse.down()
            page.mouse.up()
        answered.value.finished()
        taken.append(answered.value.request.timing["responseEnd"])
    ordered = sorted(taken)
    return statistics.median(ordered), ordered[int(0.95 * len(ordered))]


def rests(page: Page) -> float:
    """Return the median, in ms, of whole searches that follow a stroke."""
    box = page.locator("canvas.paint").bounding_box()
    assert box is not None
    taken = []
    for stroke in range(_ROUNDS):
        with page.expect_response(_is_whole) as answered:
            page.mouse.click(box["x"] + box["width"] * 0.2, box["y"] + (0.1 + 0.1 * stroke) * 200)
        answered.value.finished()
        taken.append(answered.value.request.timing["responseEnd"])
    return statistics.median(taken)


def _is_whole(response: Response) -> bool:
    return "inpaint" in response.url and '"settled":true' in (response.request.post_data or "")


def _is_short(response: Response) -> bool:
    return "inpaint" in response.url and not _is_whole(response)


def main() -> None:
    """Print one line for each figure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?")
    parser.add_argument("--strokes", action="store_true")
    given = parser.parse_args()
    model, content, wall, whole = given.model, 0.0, 0.0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        if model is None:
            model = str(Path(folder) / "mnist.mogul")
            fit = mogul("fit", *_FIT.split(), "-o", model)
            subprocess.run(fit, check=True, stdout=subprocess.DEVNULL)
        since = time.perf_counter()
        serving = subprocess.Popen(
            mogul("explore", model, "--no-browser"), stdout=subprocess.PIPE, text=True,
            env=os.environ,
        )  # fmt: skip
        try:
            assert serving.stdout is not None
            address = serving.stdout.readline().strip()
            started = time.perf_counter() - since
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=shutil.which("chromium"), args=["--no-sandbox"]
                )
                if not given.strokes:
                    content, wall = first_paints(browser, address)
                page = browser.new_page()
                page.goto(address + "#drawing")
                page.get_by_text("log p(observed part").wait_for()
                median, slow = strokes(page, _is_short if given.strokes else _is_whole)
                if given.strokes:
                    whole = rests(page)
        finally:
            serving.terminate()
            serving.wait()
    print("| figure | measured |\n|---|---|")
    if not given.strokes:
        print(f"| `mogul --help`, CPU | {help_seconds():.2f} s |")
    print(f"| `mogul explore`, until its address is printed | {started:.1f} s |")
    if not given.strokes:
        print(f"| from opening the address to the first paint | {content:.0f} ms |")
        print(f"| … to the wall of components | {wall:.0f} ms |")
    print(f"| in-painting while drawing, median | {median:.0f} ms |")
    print(f"| … 95th percentile | {slow:.0f} ms |")
    if given.strokes:
        print(f"| when the pointer rests, median | {whole:.0f} ms |")


if __name__ == "__main__":
    main()
