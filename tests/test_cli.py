"""Every command as a user types it: figures, files, and errors in one sentence."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import mogul
from command_line import run_command
from mogul import InputError
from mogul.cli import main
from mogul.cli.fit_mixture import overfitted
from mogul.cli.main import app
from mogul.distributions import families


@pytest.fixture
def run(monkeypatch, capsys):
    """A function that runs a command line in this process."""
    return lambda *arguments: run_command(monkeypatch, capsys, *arguments)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A small model of digits, fitted by the command line."""
    path = tmp_path_factory.mktemp("model") / "digits.mogul"
    with pytest.MonkeyPatch.context() as patch:
        line = f"mogul fit digits -o {path} --model mfa --components 5 --rank 3 --passes 5 --json"
        patch.setattr(sys, "argv", line.split())
        with pytest.raises(SystemExit):
            main()
    return path


def _figures(result):
    code, out, _ = result
    assert code == 0
    return json.loads(out)


@pytest.mark.parametrize("module", [["-m", "mogul"], ["-c", "from mogul.cli import main; main()"]])
def test_version(module):
    done = subprocess.run(
        [sys.executable, *module, "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"mogul {mogul.__version__}\n"


@pytest.mark.parametrize("line", ["--help", "fit --help", "doctor --help", "--version"])
def test_help_does_not_wait_for_heavy_libraries(line):
    heavy = {"torch", "numpy", "scipy", "sklearn", "matplotlib", "PIL", "jinja2", "pandas"}
    code = (
        f"import sys; sys.argv = ['mogul', *{line.split()}]; from mogul.cli import main\n"
        f"try: main()\nfinally: print('imported:', sorted({heavy} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "mogul" in done.stdout
    assert done.stdout.splitlines()[-1] == "imported: []"


@pytest.mark.parametrize("name", [*families(), "mppca", "mfa", "gmm", "diag", "spherical"])
def test_fit_every_family_by_name_and_alias(run, tmp_path, name):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(60, 3)))
    path = tmp_path / "m.mogul"
    found = _figures(
        run(
            "fit", tmp_path / "x.npy", "-o", path, "--model", name, "--components", 2, "--passes",
            3, "--dtype", "float64", "--json",
        )
    )  # fmt: skip
    assert found["n"] == 60
    assert found["bits_per_dim"] is None
    model, extra = mogul.load_model(path)
    x = mogul.open_source(tmp_path / "x.npy")
    reached = mogul.algorithms.mean_log_likelihood(model(), x)
    assert found["log_likelihood"] == pytest.approx(reached, abs=1e-9)
    assert extra["command"].startswith("mogul fit ")
    assert len(extra["history"]) <= 3


def test_a_fit_from_which_pixels_are_hidden(run, tmp_path):
    path = tmp_path / "half.mogul"
    line = ["fit", "digits", "-o", path, "--components", 3, "--rank", 2, "--passes", 3, "--json"]
    found = _figures(run(*line, "--hide", 0.5))
    model, extra = mogul.load_model(path)
    model.requires_grad_(False)
    whole = mogul.open_source("digits")
    reached = mogul.algorithms.mean_log_likelihood(model(), whole)
    assert found["log_likelihood"] == pytest.approx(reached, abs=1e-3)  # of whole rows
    assert extra["history"][-1]["log_likelihood"] < 0.7 * reached  # of those the fit saw
    source = whole.with_gaps(0.5)
    seen = mogul.GaussianMixture(3, 64, covariance="ppca", rank=2)
    mogul.initialise(seen, source)
    mogul.fit(seen, source, mogul.EM(), passes=3)
    torch.testing.assert_close(model.centres, seen.centres.detach())
    for options, message in (
        (("--resume", "--passes", 5), "--hide 0.5, and None came"),
        (("--hide", 1.5), "between 0 and 1"),
        (("--hide", 0.5, "--model", "vae"), "--hide: a vae has no use"),
    ):
        code, _, err = run(*line, *options)
        assert code == 2
        assert message in " ".join(err.split())
    assert _figures(run(*line, "--hide", 0.5, "--resume", "--passes", 5))["passes"] == 5


def test_score(run, digits, tmp_path):
    found = _figures(run("score", digits, "digits:test", "-o", tmp_path / "s.csv", "--json"))
    table = np.genfromtxt(tmp_path / "s.csv", delimiter=",", names=True)
    assert found["n"] == len(table) == 360
    assert found["log_likelihood"] == pytest.approx(table["log_likelihood"].mean())
    assert found["bits_per_dim"] == pytest.approx(
        np.log2(17) - found["log_likelihood"] / (64 * np.log(2))
    )
    assert ((table["training_percentile"] >= 0) & (table["training_percentile"] <= 100)).all()
    _figures(run("score", digits, "digits:test", "-o", tmp_path / "s.npy", "--json"))
    np.testing.assert_allclose(np.load(tmp_path / "s.npy"), table["log_likelihood"])


def test_sample(run, digits, tmp_path):
    for noise in ("--noise", "--no-noise"):
        _figures(run("sample", digits, "-o", tmp_path / "s.npy", "-n", 9, noise, "--json"))
        assert np.load(tmp_path / "s.npy").shape == (9, 8, 8)
    _figures(run("sample", digits, "-o", tmp_path / "s.png", "-n", 9, "--json"))
    assert Image.open(tmp_path / "s.png").size == (3 * 48 + 2 * 3, 3 * 48 + 2 * 3)


def test_outliers(run, digits, tmp_path):
    found = _figures(
        run("outliers", digits, "digits:test", "-n", 5, "-o", tmp_path / "o.csv", "--json")
    )
    assert len(found["rows"]) == 5
    assert found["log_likelihoods"] == sorted(found["log_likelihoods"])
    assert found["n_outliers"] > 0
    assert len((tmp_path / "o.csv").read_text().splitlines()) == 6
    code, out, _ = run("outliers", digits, "digits:test", "-o", tmp_path / "o.png")
    assert code == 0
    assert str(found["rows"][0]) in out
    assert (tmp_path / "o.png").exists()


def test_reconstruct_and_inpaint(run, digits, tmp_path):
    found = _figures(
        run("reconstruct", digits, "digits:test", "-o", tmp_path / "r.npy", "-n", 4, "--json")
    )
    assert np.load(tmp_path / "r.npy").shape == (4, 8, 8)
    assert 0 < found["reconstruction_mse"] < 0.05
    line = ["inpaint", digits, "digits:test", "-n", 4, "--mask", "left", "--json", "-o"]
    found = _figures(run(*line, tmp_path / "i.npz"))
    with np.load(tmp_path / "i.npz") as file:
        assert file["samples"].shape == (3, 4, 8, 8)
        assert not file["observed"][:, :, :4].any()
        assert (file["deviation"][:, :, 4:] == 0).all()
    assert 0 < found["inpainting_mse"] < 0.2
    for suffix in ("png", "npy"):
        _figures(run(*line, tmp_path / f"i.{suffix}"))
        assert (tmp_path / f"i.{suffix}").exists()


def test_inpaint_fills_what_is_nan(run, tmp_path):
    x = np.random.default_rng(0).normal(size=(50, 4))
    np.save(tmp_path / "x.npy", x)
    x[0, 1] = np.nan
    np.save(tmp_path / "gaps.npy", x)
    model = tmp_path / "m.mogul"
    _figures(
        run("fit", tmp_path / "x.npy", "-o", model, "--model", "full", "--components", 2, "--json")
    )
    line = ["inpaint", model, tmp_path / "gaps.npy", "--mask", "nan", "--json"]
    found = _figures(run(*line, "-n", 50, "-o", tmp_path / "f.npy"))
    assert found["inpainting_mse"] is None
    filled = np.load(tmp_path / "f.npy")
    assert np.isfinite(filled).all()
    np.testing.assert_allclose(filled[1:], x[1:], rtol=1e-5, atol=1e-6)


def test_evaluate_prints_the_promised_figures(run, digits):
    found = _figures(run("evaluate", digits, "--bins", 10, "--json"))
    promised = {"log_likelihood", "bits_per_dim", "ndb", "ndb_bins", "js", "n", "seconds"}
    assert promised <= found.keys()
    assert found["ndb_bins"] == 10
    assert found["n"] == 360


def test_show(run, digits, tmp_path):
    found = _figures(run("show", digits, "-o", tmp_path / "c.png", "--json"))
    assert found["covariance"] == "factor-analysis"
    assert sum(found["weights"]) == pytest.approx(1.0, abs=1e-5)
    code, out, _ = run("show", digits)
    assert code == 0
    assert "factor 1" in out


def test_the_same_seed_gives_the_same_model(run, tmp_path):
    for name in ("a", "b"):
        line = ["--components", 3, "--rank", 2, "--passes", 2, "--seed", 5, "--json"]
        _figures(run("fit", "digits", "-o", tmp_path / f"{name}.mogul", *line))
    a, b = (mogul.load_model(tmp_path / f"{n}.mogul")[0].state_dict() for n in "ab")
    assert all(bool((a[key] == b[key]).all()) for key in a)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "empty.npy", "-o", "out"], "is empty"),
        (["fit", "flat.npy", "-o", "out"], "1-D|shape (5,)"),
        (["fit", "text.npy", "-o", "out"], "real numbers"),
        (
            ["fit", "gap.npy", "-o", "out", "--components", "1", "--model", "full"],
            "olumn 1 is NaN in every row",
        ),
        (["fit", "cut-idx3-ubyte.gz", "-o", "out"], "cut short"),
        (["fit", "magic-idx3-ubyte", "-o", "out"], "magic number"),
        (["fit", "few.npy", "-o", "out", "--model", "full"], "only 4 row(s)"),
        (["fit", "few.npy", "-o", "out", "--model", "banana"], "'banana'"),
        (["fit", "few.npy", "-o", "absent/out"], "not a writable folder"),
        (["fit", "few.npy", "-o", "out", "--dtype", "float16"], "float32, float64"),
        (["fit", "few.npy", "-o", "out", "--device", "tpu9"], "Unknown device"),
        (["fit", "digits", "-o", "out", "--crop", "tall"], "HEIGHTxWIDTH"),
        (["inpaint", "MODEL", "digits", "-o", "out.npy", "--mask", "mask.npy"], "shape (3, 3)"),
        (["inpaint", "MODEL", "digits", "-o", "out.txt"], "must end in"),
        (["score", "MODEL", "few.npy"], "shape (3,)"),
        (["score", "few.npy", "digits"], "not a mogul model"),
        (["evaluate", "MODEL", "--bins", "100000"], "100000 bins"),
        (["report", "MODEL", "-o", "out.pdf"], "must end in .html"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    run, digits, tmp_path, monkeypatch, arguments, message
):
    (tmp_path / "empty.npy").touch()
    np.save(tmp_path / "flat.npy", np.zeros(5))
    np.save(tmp_path / "text.npy", np.array([["a", "b"]]))
    np.save(tmp_path / "gap.npy", np.array([[1.0, np.nan], [2.0, np.nan]]))
    np.save(tmp_path / "few.npy", np.random.default_rng(0).normal(size=(4, 3)))
    np.save(tmp_path / "mask.npy", np.ones((3, 3), bool))
    (tmp_path / "cut-idx3-ubyte.gz").write_bytes(b"\x1f\x8b\x08\x00")
    (tmp_path / "magic-idx3-ubyte").write_bytes(b"\x89PNG1234")
    before = sorted(tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*[digits if a == "MODEL" else a for a in arguments])
    assert code == 2
    assert out == ""
    assert "Traceback" not in err
    last = err.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    assert any(part in last for part in message.split("|"))
    assert sorted(tmp_path.iterdir()) == before


def test_demo_writes_a_report(run, tmp_path):
    found = _figures(run("demo", "-o", tmp_path / "demo", "--json"))
    page = (tmp_path / "demo" / "report.html").read_text()
    assert found["report"].endswith("report.html")
    assert "mogul fit digits" in page


def test_online_em_on_the_command_line(run, tmp_path):
    line = f"fit digits -o {tmp_path}/online --components 4 --rank 2 --passes 3 --json".split()
    online = _figures(run(*line, "--algorithm", "online-em", "--batch-size", "100"))
    batch = _figures(run(*line, "--algorithm", "em"))
    assert online["passes"] == batch["passes"] == 3
    assert online["log_likelihood"] > batch["log_likelihood"]
    for options, told in [
        (["--algorithm", "pga"], "choose em, online-em or truncated-em"),
        (["--batch-size", "100"], "--batch-size: em has no use"),
        (["--algorithm", "online-em", "--tolerance", "0"], "--tolerance: online-em has no use"),
    ]:
        code, _, error = run(*line, *options)
        assert code != 0
        assert told in " ".join(error.split())


@pytest.mark.parametrize("start", ["afk-mc2", "truncated-k-means"])
def test_truncated_em_on_the_command_line(run, tmp_path, start):
    line = ["fit", "digits", "--model", "ppca", "--rank", "2", "--components", "150", "--json"]
    line += ["--tolerance", "0"]
    numbers = ["--candidates", "2", "--neighbours", "6", "--random", "2"]
    how = [*line, "--algorithm", "truncated-em", *numbers, "--start", start]
    whole = _figures(run(*how, "-o", tmp_path / "whole", "--passes", "4"))
    _figures(run(*how, "-o", tmp_path / "cut", "--passes", "2"))
    resumed = _figures(run(*how, "-o", tmp_path / "cut", "--passes", "4", "--resume"))
    assert whole["passes"] == resumed["passes"] == 4
    assert resumed["log_likelihood"] == whole["log_likelihood"]
    loud = [option for option in how if option != "--json"]
    _, _, told = run(*loud, "-o", tmp_path / "told", "--passes", "1")
    row = mogul.load_model(tmp_path / "told")[1]["history"][0]
    reached = f"{row['log_likelihood']:,.3f} nats per row, free energy {row['free_energy']:,.3f}"
    assert f"pass 1: {reached}, held out" in " ".join(told.split())
    code, _, error = run(
        *line, "-o", tmp_path / "cut", "--passes", "6", "--resume",
        "--algorithm", "truncated-em", "--candidates", "4",
    )  # fmt: skip
    assert code == 2
    assert "go on with the same numbers" in " ".join(error.split())
    for options, told in [
        (["--candidates", "2"], "--candidates: em has no use"),
        (["--algorithm", "online-em", "--random", "1"], "--tolerance, --random: online-em has no"),
        (["--algorithm", "truncated-em", "--batch-size", "9"], "--batch-size: truncated-em has no"),
        (["--algorithm", "truncated-em", "--neighbours", "0"], "give at least one"),
        (["--start", "kmeans"], "afk-mc2, truncated-k-means"),
    ]:
        code, _, error = run(*line, "-o", tmp_path / "none", *options)
        assert code == 2
        assert told in " ".join(error.split())


def test_a_fit_that_overfits_says_after_which_pass():
    history = [{"validation": v} for v in (-5.0, -3.0, -2.0, -4.0, -9.0)]
    assert "after pass 3 (-2.00 nats)" in (overfitted(history) or "")
    assert "--passes 3" in (overfitted(history) or "")
    assert overfitted(history[:3]) is None
    assert overfitted([{"validation": None}]) is None


def test_rows_with_gaps_have_scores_but_no_percentile(run, tmp_path):
    x = np.random.default_rng(0).normal(size=(60, 3))
    np.savetxt(tmp_path / "whole.csv", x, delimiter=",", header="a,b,c", comments="")
    x[3, 1] = np.nan
    np.savetxt(tmp_path / "gaps.csv", x, delimiter=",", header="a,b,c", comments="")
    model, scores = tmp_path / "m.mogul", tmp_path / "scores.csv"
    whole, gaps = tmp_path / "whole.csv", tmp_path / "gaps.csv"
    assert run("fit", whole, "-o", model, "--model", "full", "--components", 1)[0] == 0
    assert run("score", model, gaps, "-o", scores)[0] == 0
    lines = scores.read_text().splitlines()
    assert lines[4].startswith("3,-")
    assert lines[4].endswith(",")
    assert all(not line.endswith(",") for line in lines[1:4] + lines[5:])
    assert run("inpaint", model, gaps, "-o", tmp_path / "filled.npy")[0] == 0  # gaps, by default
    filled = np.load(tmp_path / "filled.npy")
    assert np.isfinite(filled).all()
    np.testing.assert_allclose(filled[0], x[0], rtol=1e-6)


def test_columns_of_a_table_are_scored_by_their_names(tmp_path):
    rows = np.random.default_rng(0).normal(size=(60, 2)) * [1, 5]
    model = str(tmp_path / "m.mogul")

    def written(name, header, x):
        np.savetxt(tmp_path / name, x, delimiter=",", header=header, comments="", fmt="%.6f")
        return str(tmp_path / name)

    def scores(data):
        output = tmp_path / "scores.npy"
        app(["score", model, data, "-o", str(output)], standalone_mode=False)
        return np.load(output)

    data = written("a.csv", "a,b", rows)
    app(["fit", data, "-o", model, "--model", "full", "--components", "1"], standalone_mode=False)
    expected = scores(data)
    np.testing.assert_array_equal(scores(written("b.csv", "b,a", rows[:, ::-1])), expected)
    more = np.column_stack([rows[:, 1], np.arange(60), rows[:, 0]])
    np.testing.assert_array_equal(scores(written("c.csv", "b,label,a", more)), expected)
    with pytest.raises(InputError, match="no column a, b; its columns are x, y"):
        scores(written("d.csv", "x,y", rows))
