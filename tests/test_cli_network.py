"""Mixture density networks on the command line: fit, predict, score, evaluate, report."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from command_line import run_command

QUICK = "--model mdn --hidden 16 --passes 20 --components 2 --json"


@pytest.fixture
def run(monkeypatch, capsys):
    """A function that runs a command line in this process."""
    return lambda line: run_command(monkeypatch, capsys, *line.split())


def write(path, rows, names):
    with path.open("w") as file:
        csv.writer(file).writerows([names, *rows])
    return path


@pytest.fixture
def table(tmp_path):
    random = np.random.default_rng(0)
    x = random.normal(size=(150, 2))
    y = np.stack([x[:, 0], x[:, 0] + x[:, 1]], 1) + 0.3 * random.normal(size=(150, 2))
    rows = np.round(np.hstack([y[:, :1], x, y[:, 1:]]), 4)
    write(tmp_path / "test.csv", rows[100:].tolist(), ["low", "a", "b", "high"])
    write(tmp_path / "inputs.csv", rows[100:, [2, 1]].tolist(), ["b", "a"])
    np.save(tmp_path / "rows.npy", rows)
    return write(tmp_path / "train.csv", rows[:100].tolist(), ["low", "a", "b", "high"])


def test_from_a_table_to_a_page(run, table):
    folder = table.parent
    model, test = folder / "m.mogul", folder / "test.csv"
    code, out, err = run(f"fit {table} -o {model} {QUICK} --target high,low --test {test}")
    assert code == 0, err
    fitted = json.loads(out)
    assert fitted["test_n"] == 50
    code, out, err = run(f"evaluate {model} {test} --json")
    assert code == 0, err
    found = json.loads(out)
    assert found["log_likelihood"] == pytest.approx(fitted["test_log_likelihood"])
    assert {"rmse_low", "crps_high", "coverage_90_low", "energy_score"} <= set(found)
    scored = json.loads(run(f"score {model} {test} -o {folder / 's.csv'} --json")[1])
    assert scored["log_likelihood"] == pytest.approx(found["log_likelihood"], abs=1e-5)
    shown = json.loads(run(f"show {model} --json")[1])
    assert shown["targets"] == ["high", "low"]
    assert shown["inputs"] == ["a", "b"]
    assert shown["passes"] == fitted["passes"]
    assert "figures" not in shown
    assert run(f"show {model} -o {folder / 'd.png'} --json")[0] == 0
    drawn = np.asarray(Image.open(folder / "d.png")).astype(int)
    half = drawn.shape[1] // 2
    for side in (drawn[:, :half], drawn[:, half:]):  # bands, and density: blue on white
        assert (side[..., 2] - side[..., 0] > 30).mean() > 0.02
    page = folder / "r.html"
    code, _, err = run(f"report {model} {test} -o {page}")
    assert code == 0, err
    text = page.read_text()
    assert all(word in text for word in ("Can it be trusted about low?", "CRPS of high", "<svg"))


def test_predictions_need_no_targets(run, table):
    folder = table.parent
    model = folder / "m.mogul"
    assert run(f"fit {table} -o {model} {QUICK} --target high --columns a,b")[0] == 0
    found = folder / "p.csv"
    code, _, err = run(f"predict {model} {folder / 'inputs.csv'} -o {found} --quantiles 0.1,0.9")
    assert code == 0, err
    with found.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 50
    assert all(float(r["quantile_0.1"]) < float(r["mean"]) < float(r["quantile_0.9"]) for r in rows)
    arrays = folder / "p.npz"
    assert run(f"predict {model} {folder / 'inputs.csv'} -o {arrays} --samples 7")[0] == 0
    with np.load(arrays) as held:
        assert held["samples"].shape == (7, 50, 1)
        assert held["means"].shape == (50, 2, 1)
        np.testing.assert_allclose(held["weights"].sum(1), 1, rtol=1e-5)
        np.testing.assert_allclose(
            held["mean"][:, 0], [float(r["mean"]) for r in rows], rtol=1e-4, atol=1e-4
        )


def test_columns_of_arrays_go_by_number(run, table):
    folder = table.parent
    model, rows = folder / "m.mogul", folder / "rows.npy"
    code, _, err = run(f"fit {rows} -o {model} {QUICK} --target 3 --columns 1,2")
    assert code == 0, err
    code, out, err = run(f"evaluate {model} {rows} --json")
    assert code == 0, err
    assert json.loads(out)["n"] == 150


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("fit {data} -o {model} --model mdn", "name them by --target, from: low, a, b, high"),
        ("fit {data} -o {model} --model mdn --target high,none", "has no column none; its columns"),
        ("fit {data} -o {model} --model mdn --target high --hidden wide", "whole numbers"),
        ("fit {data} -o {model} --model mdn --target high --rank 1", "no factors"),
        ("fit {data} -o {model} --model mdn --target high --latents 2", "an mdn has no use"),
        ("fit {data} -o {model} --model full --target high", "a mixture has no use"),
        ("fit digits -o {model} --model mdn --target 3", "give a table"),
        ("fit {data} -o {model} --model mdn --target high --size 8x8", "apply to images"),
    ],
)
def test_fits_say_what_is_wrong(run, table, line, text):
    code, _, err = run(line.format(data=table, model=table.parent / "m.mogul"))
    assert code == 2
    assert text in " ".join(err.split())


def test_commands_say_what_is_wrong(run, table):
    folder = table.parent
    model, other = folder / "m.mogul", folder / "o.mogul"
    assert run(f"fit {table} -o {model} {QUICK} --target high")[0] == 0
    assert run(f"fit {table} -o {other} --model full --components 1 --json")[0] == 0
    empty = write(folder / "empty.csv", [[1, 2, 3, ""], [2, 1, 3, ""]], ["low", "a", "b", "high"])
    for line, text in (
        (f"sample {model} -o {folder / 's.npy'}", "use predict"),
        (f"outliers {model} {table}", "use predict"),
        (f"predict {other} {table} -o {folder / 'p.csv'}", "--model mdn"),
        (f"predict {model} {table} -o {folder / 'p.csv'} --quantiles 2", "between 0 and 1"),
        (f"evaluate {model}", "held-out data"),
        (f"evaluate {model} {table} --bins 5", "--bins: an mdn has no use"),
        (f"predict {model} {table} -o {folder / 'p.csv'} --samples 3", "for an .npz file"),
        (f"report {model} {empty} -o {folder / 'r.html'}", "have no value"),
        (f"score {model} {empty}", "No row of"),
    ):
        code, _, err = run(line)
        assert code == 2, line
        assert text in " ".join(err.split())


@pytest.mark.parametrize("name", ["cost($)_and_price($)", r"$\frac{x$"])
def test_dollars_in_names_are_dollars(run, tmp_path, name):
    random = np.random.default_rng(0)
    table, model = tmp_path / "t.csv", tmp_path / "m.mogul"
    write(table, random.normal(size=(120, 2)).round(3).tolist(), ["a", name])
    code, _, err = run(f"fit {table} -o {model} {QUICK} --target {name}")
    assert code == 0, err
    assert run(f"report {model} {table} -o {tmp_path / 'r.html'}")[0] == 0
    assert run(f"show {model} -o {tmp_path / 'd.png'}")[0] == 0
    page = (tmp_path / "r.html").read_text()
    assert f">{name}</text>" in page
