"""The explorer in a real browser, over tables whose columns and paths are markup."""

from __future__ import annotations

import re
import shutil
from contextlib import ExitStack
from importlib import resources
from pathlib import Path
from typing import Any

from mogul.app.serve import beside
from mogul.app.session import Session
from mogul.data.text_columns import joined_names
from mogul.opened import open_any
from torture._hostility.pages import command, write_table
from torture._hostility.payloads import PAYLOADS
from torture.outcome import Outcome

_COLUMNS = 6  # that are drawn at once
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_MADE = re.compile(r"""(?:\b(?:el|svg)\("|<)(\w+)""")  # elements that scripts and the page make
# What no element of the page has: each is told with what makes it strange.
_STRANGE = """own => [...document.querySelectorAll('*')].flatMap(e => {
  const named = [...e.attributes].filter(a => a.name.startsWith('on')
    || ['srcdoc', 'formaction', 'autofocus', 'http-equiv', 'ping', 'background'].includes(a.name)
    || (['href', 'src', 'action', 'style'].includes(a.name) && a.value.includes('pwned')));
  const made = own.includes(e.localName)
    && (e.localName !== 'script' || e.getAttribute('src')?.startsWith('/static/'));
  return made && !named.length ? [] : [e.cloneNode(false).outerHTML];
})"""


def _own_elements() -> list[str]:
    """Return the names of all elements that the page and its scripts make."""
    static = resources.files("mogul.app") / "static"
    files = [p for p in Path(str(static)).rglob("*") if p.suffix in (".js", ".html")]
    return sorted({name for p in files for name in _MADE.findall(p.read_text("utf-8"))})


def _fitted(folder: Path, name: str, columns: list[str]) -> dict[str, Path]:
    data = write_table(folder / f"{name}.csv", columns)
    mixture, network = folder / f"{name}.mogul", folder / f"{name}.mdn.mogul"
    command("fit", data, "-o", mixture, "--model", "full", "--components", "2", "--passes", "3")
    target = joined_names(columns[-1:])
    command("fit", data, "-o", network, "--model", "mdn", "--target", target, "--hidden", "4",
            "--components", "2", "--passes", "2")  # fmt: skip
    return {"mixture": mixture, "network": network}


def browsed(folder: Path, n: int) -> Outcome:
    """Open every view over tables with such columns; look for what no page of ours has."""
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
        views = 0
        for start in range(0, n, _COLUMNS):
            columns = list(PAYLOADS[start : start + _COLUMNS])
            columns += [f"{PAYLOADS[i]} {i}" for i in range(_COLUMNS - len(columns))]
            name = columns[0].replace("/", "∕")
            for kind, path in _fitted(folder / str(start), name, columns).items():
                text, opened = _seen(browser, path, outcome)
                views += opened
                hidden = [c for c in columns if _plain(c) not in _plain(text)]
                if hidden:
                    outcome.failures.append(f"{kind}: {hidden[0]} is not shown as it is")
            outcome.tried += min(_COLUMNS, n - start)
        outcome.note = f"{views} views opened; every name is shown as it is"
    return outcome


def _seen(browser: Any, model: Path, outcome: Outcome) -> tuple[str, int]:
    """Open every view of a model; return all text there was, and how many views."""
    own, text = _own_elements(), ""
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
        for number, view in enumerate(views):
            page.goto(f"{host}/?{number}{view}", wait_until="networkidle")
            page.wait_for_selector("main h2")
            page.wait_for_function("() => !document.querySelector('[aria-busy]')")
            text += page.evaluate("document.documentElement.textContent")
            strange = page.evaluate(_STRANGE, own)
            outcome.failures += [f"{model.name} {view}: {element}" for element in strange]
        context.close()
    return text, len(views)


def _plain(text: str) -> str:
    """Return a text without white space, which pages may set otherwise."""
    return "".join(text.split())
