"""`mogul fit --watch`: a page that answers during a fit, and about its model after it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

import numpy as np
import pytest

from browser import page_of
from command_line import run_command
from explored import fitted
from mogul import load_model
from mogul.app.serve import beside
from mogul.app.session import Live, Session
from mogul.cli.watch import watched
from mogul.opened import open_any

SECONDS = 120  # that anything may take
FOREVER = 1_000_000  # passes
MIXTURE = "digits --model mfa --components 3 --rank 1 --limit 200 --tolerance 0"
KINDS = {
    "mixture": (MIXTURE, {"components", "samples", "training"}),
    "decoder": (
        "digits --model decoder --decoder mlp --limit 40 --latents 2 --particles 2",
        {"latents", "samples", "training"},
    ),
    "vae": ("digits --model vae --limit 120 --latents 2", {"latents", "samples", "training"}),
    "mdn": ("{table} --model mdn --target y", {"training"}),
}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("watch") / "table.csv"
    x = np.random.default_rng(0).normal(size=(200, 1))
    np.savetxt(path, np.hstack([x, np.sin(x)]), delimiter=",", header="x,y", comments="")
    return path


def heeds_ctrl_c():
    """Let a process be interrupted even if this one, run in the background, is not."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def watching(options, path):
    """Start a fit that is watched; yields the process and a function that asks its page."""
    command = [sys.executable, "-m", "mogul", "fit", *options.split(), "-o", str(path), "--json"]
    running = subprocess.Popen(
        [*command, "--watch"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"}, preexec_fn=heeds_ctrl_c,
    )  # fmt: skip
    try:
        address = re.search(r"http://\S+", running.stderr.readline()).group()
        base, token = address.split("/?token=")

        def ask(name):
            asked = urllib.request.Request(
                f"{base}/api/{name}", headers={"Authorization": f"Bearer {token}"}
            )
            return json.load(urllib.request.urlopen(asked, timeout=SECONDS))

        yield running, ask
    finally:
        running.kill()
        running.communicate()


def until(holds):
    """Return the first answer of a kind, or fail when it takes too long."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        found = holds()
        if found:
            return found
    pytest.fail("What was waited for did not come.")


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_goes_from_a_fit_to_its_model(kind, table, tmp_path):
    options, views = KINDS[kind]
    path = tmp_path / "m.mogul"
    with watching(options.format(table=table) + " --passes 4", path) as (running, ask):
        until(lambda: not ask("history")["live"])
        history, about = ask("history"), ask("model")
        assert [row["pass"] for row in history["rows"]] == [1, 2, 3, 4]
        assert history["passes"] == 4
        assert history["ready"]
        assert views <= set(about["views"])
        assert about["title"] == "m.mogul"
        assert not about["live"]
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=SECONDS)
    assert running.returncode == 0, err
    assert json.loads(out)["passes"] == 4  # and nothing but this line
    kept = load_model(path)[1]["history"]
    assert [row["objective"] for row in kept] == [row["objective"] for row in history["rows"]]


def test_a_history_grows_and_ctrl_c_ends_the_fit_as_without_a_page(tmp_path):
    path = tmp_path / "m.mogul"
    with watching(f"{MIXTURE} --passes {FOREVER}", path) as (running, ask):
        first = until(lambda: ask("history")["rows"])
        more = until(lambda: found if len(found := ask("history")["rows"]) > len(first) else None)
        assert more[: len(first)] == first
        about = ask("model")
        assert about["live"]
        assert about["views"] == ["training"]
        assert about["title"] == "Fitting m.mogul"
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=SECONDS)
    assert running.returncode == 130
    assert not out
    assert "--resume" in err
    assert len(load_model(path)[1]["history"]) >= len(more)


def test_ctrl_c_ends_a_network_that_is_watched_and_keeps_it(table, tmp_path):
    path = tmp_path / "m.mogul"
    options = f"{table} --model mdn --target y --held-out 0 --passes {FOREVER}"
    with watching(options, path) as (running, ask):
        until(lambda: ask("history")["rows"])
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=SECONDS)
    assert running.returncode == 130
    assert not out
    assert "--resume" in err
    assert load_model(path)[1]["history"]


def test_the_history_of_a_fit_that_goes_on_begins_with_what_was_made(tmp_path):
    path = tmp_path / "m.mogul"
    fitted(path, f"{MIXTURE} --passes 2 --json")
    with watching(f"{MIXTURE} --passes 4 --resume", path) as (_, ask):
        until(lambda: not ask("history")["live"])
        assert [row["pass"] for row in ask("history")["rows"]] == [1, 2, 3, 4]


def test_a_fit_that_fails_ends_its_page_and_tells_why(monkeypatch, capsys, tmp_path):
    line = ["fit", "digits", "-o", tmp_path / "m.mogul", "--components", 5000, "--watch"]
    code, _, err = run_command(monkeypatch, capsys, *line)
    assert code == 2
    assert "5000 components" in err.replace(",", "")
    address = re.search(r"http://\S+", err).group()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(address, timeout=SECONDS)


def test_what_the_page_needs_is_asked_for_before_the_fit(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    path = tmp_path / "m.mogul"
    code, out, err = run_command(monkeypatch, capsys, "fit", "digits", "-o", path, "--watch")
    assert code == 2
    assert "mogul[app]" in err
    assert not out
    assert not path.exists()


def test_of_several_processes_the_first_serves(monkeypatch, tmp_path):
    monkeypatch.setenv("RANK", "1")
    with watched(True, tmp_path / "m.mogul", {}) as live:
        assert live is None


def test_the_page_follows_a_fit_by_itself(browser, tmp_path):
    path = fitted(tmp_path / "m.mogul", f"{MIXTURE} --passes 3 --json")
    history = load_model(path)[1]["history"]
    live = Live("m.mogul", 0)
    session = Session(live=live)
    with beside(session) as served, page_of(browser, served.address) as page:
        page.get_by_text("parameters started").wait_for()
        assert page.locator("#tabs a").count() == 1
        live.passes = 3
        page.get_by_text("Pass 1 of at most 3").wait_for()
        page.get_by_text("Charts begin with the first pass").wait_for()
        for row in history[:2]:
            live.history.append(row)
        page.get_by_text("Pass 3 of at most 3").wait_for()
        page.locator("figure svg path.line").first.wait_for()
        live.history.append(history[2])
        page.get_by_text("All 3 passes are made").wait_for()
        session.open(open_any(path, "cpu"))
        live.ended = True
        page.get_by_role("link", name="Components").wait_for()
        assert page.locator("#title").inner_text() == "m.mogul"


def test_figures_that_are_not_finite_do_not_break_the_page(tmp_path):
    from explored import client_of

    row = {"pass": 1, "objective": float("nan"), "validation": float("-inf"), "seconds": 1.0}
    found = client_of(Session(live=Live("m", 2, [row]))).get("/api/history").json()
    assert found["rows"] == [{"pass": 1, "objective": None, "validation": None, "seconds": 1.0}]
