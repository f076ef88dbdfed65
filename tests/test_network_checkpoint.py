"""Fits of mixture density networks that stop and go on end as those that never stopped."""

import csv
import json
import os
import signal

import numpy as np
import pytest
import torch

from command_line import run_command
from mogul import EM, Checkpoint, GaussianMixture, InputError, fit, initialise, load_model
from mogul.algorithms import StopReason, Supervised
from mogul.data import ArraySource
from mogul.models import MLP, MixtureDensityNetwork

ROWS, PASSES = 120, 30
CASES = ["plain", "gaps and weights", "all rows"]


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Let rates fall after few steps."""
    monkeypatch.setattr("mogul.algorithms.supervised._LEAST_STEPS", 20)


def rows():
    random = np.random.default_rng(0)
    y = random.uniform(size=(ROWS, 1))
    return np.hstack([y + 0.3 * np.sin(2 * np.pi * y) + 0.05 * random.normal(size=(ROWS, 1)), y])


def source_of(case):
    x, weight = rows(), None
    if case == "gaps and weights":
        x[::7, 1] = np.nan
        weight = np.random.default_rng(1).integers(1, 4, size=ROWS).astype(float)
    return ArraySource(x, weight)


def algorithm(case="plain", seed=3):
    return Supervised(1e-2, 8, held_out=0.0 if case == "all rows" else 0.2, patience=2, seed=seed)


def network():
    torch.manual_seed(0)
    return MixtureDensityNetwork(MLP(1, (16,)), 3, 1, dtype=torch.float64)


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert torch.equal(tensor, b[name]), name


def without_times(history):
    return [row | {"seconds": None} for row in history]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("kind", "after"), [(signal.SIGTERM, 330), (signal.SIGINT, 1210)])
@pytest.mark.parametrize("case", CASES)
def test_a_fit_that_a_signal_stops_goes_on_to_the_same_bits(tmp_path, case, after, kind):
    source, whole, path, seen_rows = source_of(case), network(), tmp_path / "m.mogul", [0]
    undisturbed = fit(whole, source, algorithm(case), passes=PASSES)

    def seen(n):
        before, seen_rows[0] = seen_rows[0], seen_rows[0] + n
        if before < after <= seen_rows[0]:
            os.kill(os.getpid(), kind)

    kept = Checkpoint(path)
    stopped = fit(network(), source, algorithm(case), passes=PASSES, seen=seen, checkpoint=kept)
    assert stopped.reason is StopReason.INTERRUPTED
    assert 0 < len(stopped.history) < len(undisturbed.history)
    anew = network()
    with torch.no_grad():
        anew.head.linear.weight.normal_()  # what goes on does not depend on what it is put into
    kept = Checkpoint(path, resume=True)
    done = fit(anew, source, algorithm(case), passes=PASSES, checkpoint=kept)
    assert_equal(state(whole), state(anew))
    assert done.reason is undisturbed.reason
    assert without_times(done.history) == without_times(undisturbed.history)


@pytest.mark.parametrize("case", CASES)
def test_what_a_killed_fit_left_goes_on_to_the_same_bits(tmp_path, case):
    source, path, copies, whole = source_of(case), tmp_path / "m.mogul", [], network()

    class Copying(Checkpoint):
        def save(self, model, source, saved):
            super().save(model, source, saved)
            copies.append(path.read_bytes())

    expected = fit(whole, source, algorithm(case), passes=PASSES, checkpoint=Copying(path)).history
    if case != "all rows":  # so that there is a rate and best parameters to keep
        assert any("learning rate fell" in e for row in expected for e in row["events"])
        assert expected[-1]["held_out"] < expected[-1]["best_held_out"]
    for number in sorted({1, 10, len(copies) // 2, len(copies) - 3}):
        path.write_bytes(copies[number - 1])
        anew, kept = network(), Checkpoint(path, resume=True)
        done = fit(anew, source, algorithm(case), passes=PASSES, checkpoint=kept)
        assert_equal(state(whole), state(anew))
        assert [r["objective"] for r in done.history] == [r["objective"] for r in expected]


def test_best_parameters_are_those_of_all_passes_and_the_last_are_kept_beside_them(tmp_path):
    source, path = ArraySource(rows()), tmp_path / "m.mogul"
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(3))
    held_out = ArraySource(source.take(order[:24], torch.float64))
    whole, cut = network(), network()
    fit(whole, source, algorithm(), passes=9)
    for passes in (5, 5, 9):  # made, asked for again, and gone on with
        kept, cut = Checkpoint(path, resume=path.exists()), network()
        done = fit(cut, source, algorithm(), passes=passes, checkpoint=kept)
        kept.finish(cut, source, {"history": done.history, "rows": ROWS})
        assert_equal(state(load_model(path)[0]), state(cut))
        assert algorithm().score(cut, held_out) == pytest.approx(
            done.history[-1]["best_held_out"], abs=1e-12
        )
    assert_equal(state(whole), state(cut))


@pytest.mark.parametrize("other", [algorithm(seed=4), algorithm("all rows")])
def test_other_rows_held_out_are_refused(tmp_path, other):
    source, path = ArraySource(rows()), tmp_path / "m.mogul"
    fit(network(), source, algorithm(), passes=2, checkpoint=Checkpoint(path))
    with pytest.raises(InputError, match="held other rows out"):
        fit(network(), source, other, passes=4, checkpoint=Checkpoint(path, resume=True))


def test_a_network_that_another_algorithm_would_go_on_with_is_refused(tmp_path):
    source, path = ArraySource(rows()), tmp_path / "m.mogul"
    mixture = GaussianMixture(2, 2)
    initialise(mixture, source)
    fit(mixture, source, EM(), passes=2, checkpoint=Checkpoint(path))
    with pytest.raises(InputError, match="another model"):
        fit(network(), source, algorithm(), passes=4, checkpoint=Checkpoint(path, resume=True))


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """A function that runs the fit of a table, and another for any command line."""
    table = tmp_path / "t.csv"
    with table.open("w") as file:
        csv.writer(file).writerows([["x", "y"], *rows().round(4).tolist()])
    line = (
        f"fit {table} --model mdn --target y --hidden 16 --components 2 --patience 2 "
        f"--batch-size 8 --passes {PASSES}"
    )

    def run(text):
        return run_command(monkeypatch, capsys, *text.split())

    return lambda more: run(f"{line} {more}"), run


def test_the_command_stops_at_a_signal_keeps_the_best_and_goes_on(tmp_path, monkeypatch, command):
    fitting, run = command
    whole, cut = tmp_path / "whole.mogul", tmp_path / "cut.mogul"
    assert fitting(f"-o {whole} --json")[0] == 0
    keep, asked = Checkpoint.save, []

    def save(self, model, source, saved):
        keep(self, model, source, saved)
        if len(saved.history) == 12 and not asked:
            asked.append(os.kill(os.getpid(), signal.SIGTERM))

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoint, "save", save)
        code, out, err = fitting(f"-o {cut}")
    assert code == 130
    assert not out
    assert "holds 12 whole pass(es). The same command with --resume goes on" in " ".join(
        err.split()
    )
    held, facts = load_model(cut)
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(0))[:12]
    rows_held_out = ArraySource(np.round(rows(), 4)[order])
    assert Supervised().score(held, rows_held_out) == pytest.approx(
        facts["history"][-1]["best_held_out"], abs=1e-9
    )
    shown = json.loads(run(f"show {cut} --json")[1])
    assert shown["stopped"] == "before its end"
    assert shown["passes"] == 12
    code, out, err = fitting(f"-o {cut} --resume --json")
    assert code == 0, err
    found = json.loads(out)
    assert_equal(state(load_model(whole)[0]), state(load_model(cut)[0]))
    expected, history = load_model(whole)[1]["history"], load_model(cut)[1]["history"]
    assert [row["held_out"] for row in history] == [row["held_out"] for row in expected]
    assert found["passes"] == len(expected)
    assert " && mogul" in load_model(cut)[1]["command"]


def test_the_command_refuses_to_go_on_with_something_else(tmp_path, command):
    fitting, run = command
    path, other = tmp_path / "m.mogul", tmp_path / "o.mogul"
    assert fitting(f"-o {path} --passes 3 --json")[0] == 0
    assert run(f"fit {tmp_path / 't.csv'} --model full --components 1 -o {other}")[0] == 0
    for line, text in (
        (f"-o {tmp_path / 'none.mogul'} --resume", "no fit in"),
        (f"-o {path} --passes 3 --resume", "made 3 passes before"),
        (f"-o {path} --passes 5 --resume --hidden 8", "another model"),
        (f"-o {path} --passes 5 --resume --dtype float32", "another model"),
        (f"-o {path} --passes 5 --resume --seed 1", "read otherwise"),
        (f"-o {path} --passes 5 --resume --columns y", "at least one of each"),
        (f"-o {path} --passes 5 --resume --limit 50", "read otherwise"),
        (f"-o {other} --passes 50 --resume", "another model"),
    ):
        code, _, err = fitting(line)
        assert code == 2, line
        assert text in " ".join(err.split()), line
