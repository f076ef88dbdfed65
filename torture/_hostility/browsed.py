"""The explorer in a real browser, over tables whose columns and paths are markup."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mogul.app.serve import beside
from mogul.app.session import Session
from mogul.opened import open_any
from torture._hostility.pages import command, write_table
from torture._hostility.payloads import PAYLOADS
from torture.outcome import Outcome

_COLUMNS = 6  # that are drawn at once
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_STATES = {"disabled", "checked", "selected", "hidden", "aria-busy"}  # of parts, as time goes by
# What there is on a page: names of elements, names of attributes, and what leads to a payload.
_HELD = """() => [...document.querySelectorAll('*')].flatMap(e => [
  `<${e.localName}>`, ...[...e.attributes].map(a => a.name),
  ...[...e.attributes].filter(a => ['href', 'src', 'action', 'srcdoc', 'style'].includes(a.name)
    && a.value.includes('pwned')).map(a => `${e.localName} ${a.name} ${a.value}`)])"""


def _fitted(folder: Path, name: str, columns: list[str]) -> dict[str, Path]:
    data = write_table(folder / f"{name}.csv", columns)
    mixture, network = folder / f"{name}.mogul", folder / f"{name}.mdn.mogul"
    command("fit", data, "-o", mixture, "--model", "full", "--components", "2", "--passes", "3")
    command("fit", data, "-o", network, "--model", "mdn", "--target", columns[-1], "--hidden", "4",
            "--components", "2", "--passes", "2")  # fmt: skip
    return {"mixture": mixture, "network": network}


def browsed(folder: Path, n: int) -> Outcome:
    """Open every view over tables with such columns; hold what there is against harmless names."""
    outcome = Outcome("names that are markup, in the explorer")
    found = next(filter(None, map(shutil.which, _BROWSERS)), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        found = None
    if found is None:
        outcome.note = "not tried: no browser here"
        return outcome
    with ExitStack() as stack:
        running = stack.enter_context(sync_playwright())
        browser = running.chromium.launch(executable_path=found, args=["--no-sandbox"])
        stack.callback(browser.close)
        twins = _fitted(folder / "twin", "table", [f"column {i}" for i in range(_COLUMNS)])
        known = {kind: _seen(browser, path, outcome)[0] for kind, path in twins.items()}
        views = 0
        for start in range(0, n, _COLUMNS):
            columns = list(PAYLOADS[start : start + _COLUMNS])
            columns += [f"{PAYLOADS[i]} {i}" for i in range(_COLUMNS - len(columns))]
            name = columns[0].replace("/", "∕")
            for kind, path in _fitted(folder / str(start), name, columns).items():
                held, opened = _seen(browser, path, outcome)
                views += opened
                odd = held - known[kind] - _STATES
                if odd:
                    outcome.failures.append(f"{kind} of {columns}: {sorted(odd)[:5]}")
            outcome.tried += min(_COLUMNS, n - start)
        outcome.note = f"{views} views opened; no dialog, no element and no request came of a name"
    return outcome


def _seen(browser: Any, model: Path, outcome: Outcome) -> tuple[set[str], int]:
    """Open every view of a model; return what elements there were, and how many views."""
    held: set[str] = set()
    with beside(Session(open_any(model, "cpu"))) as served:
        context = browser.new_context()
        page = context.new_page()
        host = served.address.split("/?")[0]

        def dialog(opened: Any) -> None:
            outcome.failures.append(f"{model.name}: a dialog: {opened.message}")
            opened.dismiss()

        def asked(request: Any) -> None:
            if not request.url.startswith((host, "data:", "blob:")):
                outcome.failures.append(f"{model.name}: asked for {request.url}")

        page.on("dialog", dialog)
        page.on("request", asked)
        page.on("pageerror", lambda e: outcome.failures.append(f"{model.name}: {e}"))
        page.goto(served.address)
        page.wait_for_selector("#tabs a")
        views = page.eval_on_selector_all("#tabs a", "tabs => tabs.map(t => t.hash)")
        for view in views:
            page.goto(f"{host}/{view}")
            page.wait_for_selector("main h2")
            page.wait_for_function("() => !document.querySelector('[aria-busy]')")
            held |= set(page.evaluate(_HELD))
        context.close()
    return held, len(views)
