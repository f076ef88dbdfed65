"""Tables on the command line: names of columns in and out, text, separators."""

import csv
import json
import shlex

import numpy as np
import pytest
import torch
from PIL import Image

import mogul
from command_line import run_command
from mogul.cli import completion
from mogul.cli.options import listed
from mogul.data import ArraySource, open_streaming, wild_columns
from mogul.errors import InputError

NAMES = ["bill (mm, mean)", "mass", "depth"]


@pytest.fixture
def run(monkeypatch, capsys):
    """A function that runs a command line in this process."""
    return lambda *arguments: run_command(monkeypatch, capsys, *arguments)


def figures(result):
    """Return what a command printed with --json."""
    code, out, err = result
    assert code == 0, err
    return json.loads(out)


def write(path, names, rows, delimiter=","):
    """Write a table; return its path."""
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([names, *rows])
    return path


def read(path):
    """Return the names and the cells of a CSV file."""
    with path.open(newline="") as file:
        names, *rows = csv.reader(file)
    return names, rows


def rows_of(n=120, seed=0):
    """Rows of three columns of unlike units, in three groups."""
    random = np.random.default_rng(seed)
    group = np.arange(n) % 3
    spread = random.normal(size=(n, 3)) * [1.0, 30.0, 0.02]
    return (np.stack([40 + 3 * group, 1000 + 300 * group, 0.1 * group], 1) + spread).round(4)


@pytest.fixture
def table(tmp_path):
    """A CSV file of such rows."""
    return write(tmp_path / "rows.csv", NAMES, rows_of().tolist())


@pytest.fixture
def model(run, table, tmp_path):
    """A model of them."""
    path = tmp_path / "m.mogul"
    figures(run("fit", table, "-o", path, "--components", 3, "--rank", 1, "--json"))
    return path


def test_rows_are_written_with_the_names_of_the_columns(run, model, table, tmp_path):
    out, array = tmp_path / "out.csv", tmp_path / "out.npy"
    for line in (["sample", model, "-n", 7], ["reconstruct", model, table, "-n", 7]):
        for path in (out, array):
            assert figures(run(*line, "-o", path, "--json"))["n"] == 7
        names, rows = read(out)
        assert names == NAMES
        np.testing.assert_array_equal(np.array(rows, np.float32), np.load(array))


def test_other_tables_are_read_by_the_names_of_the_columns(run, model, table, tmp_path):
    turned = write(
        tmp_path / "turned.csv", [*NAMES[::-1], "n"], np.c_[rows_of()[:, ::-1], np.arange(120)]
    )
    first, second = (figures(run("score", model, data, "--json")) for data in (table, turned))
    assert first["log_likelihood"] == second["log_likelihood"]
    code, _, err = run("score", model, write(tmp_path / "b.csv", ["mass", "b", "c"], rows_of()))
    assert code == 2
    assert 'has no column "bill (mm, mean)", depth; its columns are mass, b, c' in err


def test_imputed_tables_keep_what_was_observed_to_the_last_digit(run, model, tmp_path):
    rows = [[f"{v:.9g}" for v in row] for row in rows_of(9, seed=1)]
    rows[0][0], rows[3][1], rows[5][2] = "41.123456789", "1234567.875", "7"
    rows[1][1] = rows[2][2] = ""
    gaps, out = write(tmp_path / "gaps.csv", NAMES, rows), tmp_path / "out.csv"
    figures(run("inpaint", model, gaps, "-o", out, "--json"))
    figures(run("inpaint", model, gaps, "-o", tmp_path / "out.npy", "--json"))
    names, found = read(out)
    filled = np.load(tmp_path / "out.npy")
    assert names == NAMES
    for i, j in np.ndindex(9, 3):
        if rows[i][j]:
            np.testing.assert_array_equal(float(found[i][j]), float(rows[i][j]))
        else:
            assert np.float32(found[i][j]) == filled[i, j]
    assert found[5][2] == "7"
    assert found[3][1] == "1234567.875"


def test_tables_of_columns_without_names_can_be_read_again(run, tmp_path):
    np.save(tmp_path / "x.npy", np.c_[rows_of(), 2e6 + 1e5 * rows_of()[:, 0]])
    path, out = tmp_path / "m.mogul", tmp_path / "out.csv"
    for columns, names in (([], "0123"), (["--columns", "2,0"], "20")):
        options = [*columns, "--model", "full", "--components", 2, "--json"]
        figures(run("fit", tmp_path / "x.npy", "-o", path, *options))
        figures(run("sample", path, "-n", 5, "-o", out, "--json"))
        assert read(out)[0] == [f"column {i}" for i in names]
        assert "e" not in str(read(out)[1])
        assert len(mogul.open_source(out)) == 5


def test_images_are_no_tables(run, tmp_path):
    path = tmp_path / "m.mogul"
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(30, 4, 4)))
    figures(run("fit", tmp_path / "x.npy", "-o", path, "--components", 1, "--rank", 1, "--json"))
    code, _, err = run("sample", path, "-o", tmp_path / "out.csv")
    assert code == 2
    assert "images of shape (4, 4); write a .png or .npy file" in " ".join(err.split())
    assert not (tmp_path / "out.csv").exists()


def test_text_columns_are_named_with_the_option_that_leaves_them_out(run, tmp_path):
    rows = [[*row, "ABC"[i % 3], i, "" if i % 7 else "x"] for i, row in enumerate(rows_of())]
    path = write(tmp_path / "t.csv", [*NAMES, "kind", "n", "note"], rows)
    line = ["fit", path, "-o", tmp_path / "m.mogul", "--components", 1, "--model", "full"]
    code, _, err = run(*line)
    assert code == 2
    assert "column kind: 'A' is not a number" in err
    assert "Columns that hold text: kind, note." in err
    option = err[err.index("--columns") :].split(" (columns=")[0]
    assert figures(run(*line, *shlex.split(option), "--json"))["n"] == 120
    _, extra = mogul.load_model(tmp_path / "m.mogul")
    assert extra["options"]["columns"] == [*NAMES, "n"]
    with pytest.raises(InputError, match=r"hold text: kind, note\. No other holds numbers"):
        mogul.open_source(path, columns=["kind", "note"])
    with pytest.raises(InputError, match="hold text: kind, note"):
        list(open_streaming(path).batches())


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a,b", ["a", "b"]),
        (" a , b ", ["a", "b"]),
        ('"a,b",c', ["a,b", "c"]),
        ('c, "a,b"', ["c", "a,b"]),
        ('"say ""x""",size 5"', ['say "x"', 'size 5"']),
        ("", [""]),
    ],
)
def test_names_are_split_as_in_a_csv_file(text, names):
    assert listed(text) == names


def test_quotes_that_do_not_end_are_told():
    with pytest.raises(InputError, match="hold a comma in double quotes"):
        listed('a,"b')


def test_names_with_spaces_around_them_can_be_chosen(tmp_path):
    path = write(tmp_path / "t.csv", ["a", " b "], [[1, 2], [3, 4]])
    assert mogul.open_source(path, columns=["b"]).take([0, 1]).flatten().tolist() == [2, 4]


@pytest.mark.parametrize("with_arrow", [True, False])
@pytest.mark.parametrize("quoted", [True, False])
def test_tabs_separate_cells_of_tsv_files(tmp_path, monkeypatch, with_arrow, quoted):
    if not with_arrow:
        monkeypatch.setattr("mogul.data.csv_files._by_arrow", lambda table, block: None)
    names = ["a, first", "b"]
    path = write(tmp_path / "t.tsv", names, [[1, 2.5], ["NA", 4], [5, 6]], "\t")
    if quoted:
        path.write_text(path.read_text().replace("2.5", '"2.5"'))
    for source in (mogul.open_source(path), open_streaming(path)):
        assert len(source) == 3
        assert source.columns == names
        np.testing.assert_array_equal(source.head(3), [[1, 2.5], [np.nan, 4], [5, 6]])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "a;b\n1,5;2\n", "separated by semicolons.* Save it with commas"),
        ("t.csv", "1;2\n3;4\n", "separated by semicolons"),
        ("t.csv", "a, x\tb\n1\t2\n", "separated by tabs.* Call it .tsv"),
        ("t.tsv", "a,b\n1,2\n", "separated by commas.* Call it .csv"),
        ("t.tsv", "a;b\n1;2\n", "separated by semicolons"),
    ],
)
def test_other_separators_are_refused_with_the_remedy(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        mogul.open_source(tmp_path / name)


def test_a_column_alone_and_names_with_semicolons_are_read(tmp_path):
    for text, shape in (("a\n1\n2\n", (1,)), ("x (a; b),c\n1,2\n3,4\n", (2,))):
        (tmp_path / "t.csv").write_text(text)
        assert mogul.open_source(tmp_path / "t.csv").feature_shape == shape


def test_a_share_of_the_rows_is_held_out(run, table, tmp_path):
    path, rows = tmp_path / "m.mogul", rows_of()
    line = ["fit", table, "-o", path, "--components", 2, "--model", "full", "--test", 0.2, "--json"]
    found = figures(run(*line, "--seed", 3, "--dtype", "float64"))
    assert (found["n"], found["test_rows"]) == (96, 24)
    model, extra = mogul.load_model(path)
    train = mogul.open_source(**extra["options"])
    test = mogul.open_source(**extra["options"] | {"split": "test"})
    for source in (train, test):  # the rows of the file that they say they are
        np.testing.assert_array_equal(
            source.take(range(len(source)), torch.float64), rows[np.asarray(source.numbers)]
        )
    numbers = [np.asarray(source.numbers) for source in (train, test)]
    assert sorted(np.concatenate(numbers)) == list(range(120))
    mean = mogul.algorithms.mean_log_likelihood
    np.testing.assert_allclose(found["log_likelihood"], mean(model(), train), rtol=1e-9)
    np.testing.assert_allclose(found["test_log_likelihood"], mean(model(), test), rtol=1e-9)
    judged = figures(run("evaluate", path, "--bins", 5, "--json"))  # on these rows, unasked
    np.testing.assert_allclose(judged["log_likelihood"], found["test_log_likelihood"], rtol=1e-9)
    assert judged["n"] == 24
    assert figures(run("score", path, table, "--json"))["n"] == 120
    assert figures(run(*line, "--seed", 4))["n"] == 96
    other = mogul.open_source(**mogul.load_model(path)[1]["options"])
    assert np.asarray(other.numbers).tolist() != numbers[0].tolist()
    code, _, err = run(*line[:-2], 0.3, "--resume")
    assert code == 2
    assert "read otherwise" in " ".join(err.split())


@pytest.mark.parametrize(
    ("model", "options"),
    [("vae", ["--latents", 1, "--passes", 2]), ("mdn", ["--target", "mass", "--passes", 2])],
)
def test_networks_hold_out_a_share_too(run, table, tmp_path, model, options):
    path = tmp_path / "m.mogul"
    found = figures(
        run("fit", table, "-o", path, "--model", model, *options, "--test", 0.25, "--json")
    )
    assert found.get("test_rows", found.get("test_n")) == 30
    assert figures(run("evaluate", path, "--json"))["n"] == 30
    assert len(mogul.open_source(**mogul.load_model(path)[1]["options"])) == 90


def test_models_are_chosen_by_rows_held_out(run, table, tmp_path):
    path = tmp_path / "m.mogul"
    line = ["select", table, "--components", "1,3", "--families", "diagonal", "--jobs", 1]
    found = figures(run(*line, "--criterion", "validation", "--test", 0.25, "-o", path, "--json"))
    assert found["components"] == 3
    assert len(mogul.open_source(**mogul.load_model(path)[1]["options"])) == 90


@pytest.mark.parametrize(
    ("share", "message"),
    [
        ("1.5", "--test 1.5 is no share of the rows"),
        ("0.001", "0.001 of them for tests would be 0"),
        ("no.csv", "no data set or file called 'no.csv'"),
    ],
)
def test_what_is_no_share_is_told(run, table, tmp_path, share, message):
    code, _, err = run("fit", table, "-o", tmp_path / "m.mogul", "--test", share)
    assert code == 2
    assert message in " ".join(err.split())


def test_streamed_rows_are_not_split(tmp_path):
    mogul.data.write_store(mogul.open_source(rows_of()), tmp_path / "t.parquet")
    for data in (tmp_path / "t.parquet", iter([rows_of()])):
        with pytest.raises(InputError, match="streamed are not split"):
            mogul.open_source(data, test_share=0.1)


def test_images_of_a_folder_are_split(tmp_path):
    for i in range(8):
        Image.fromarray(np.full((4, 4), i, np.uint8)).save(tmp_path / f"{i}.png")
    parts = [
        mogul.open_source(tmp_path, test_share=0.25, split=split, dequantise=False, seed=1)
        for split in ("train", "test")
    ]
    assert [len(part) for part in parts] == [6, 2]
    values = [(256 * part.take(range(len(part)))[:, 0] - 0.5).tolist() for part in parts]
    for part, found in zip(parts, values, strict=True):
        np.testing.assert_allclose(found, np.asarray(part.numbers), atol=1e-4)


def test_a_report_says_whether_rows_were_held_out(run, model, table, tmp_path):
    page = tmp_path / "r.html"
    for arguments in ([model], [model, table]):
        found = figures(run("report", *arguments, "-o", page, "--json"))
        assert (found["held_out"], found["ndb_held_out"], found["ndb_bins"]) == (False, None, 12)
        assert "none were held out" in page.read_text()
    other = write(tmp_path / "other.csv", NAMES, rows_of(60, seed=5))
    assert figures(run("report", model, other, "-o", page, "--json"))["held_out"]
    text = page.read_text()
    assert "60 held-out rows" in text
    assert all(name in text for name in NAMES)
    assert "pixel" not in text
    code, out, err = run("report", model, "-o", page)
    assert code == 0
    assert "report is of training rows" in " ".join(err.split())
    assert "12 bins, because there are 120 training rows" in " ".join(err.split())
    code, out, _ = run("evaluate", model, table)
    assert code == 0
    assert "on its training data" in " ".join(out.split())


def test_an_unknown_model_is_told_with_all_that_there_are(run, table, tmp_path):
    code, _, err = run("fit", table, "-o", tmp_path / "m.mogul", "--model", "foo")
    assert code == 2
    assert all(f" {name}" in err or f"({name}" in err for name in completion.MODELS)


@pytest.mark.parametrize("criterion", ["bic", "validation"])
def test_the_table_of_select_fits_in_80_columns(run, table, criterion):
    line = ["--components", "1,2", "--families", "factor-analysis", "--ranks", 2, "--n-init", 1]
    code, out, _ = run("select", table, *line, "--jobs", 1, "--criterion", criterion, "--test", 0.2)
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert out.count("│ factor-analysis × 2") == 3  # each in one line
    assert "│ factor-analysis × 2, shared" in out
    assert ("validation ┃" in out) == (criterion == "validation")


def test_noise_of_tables_is_measured_by_the_deviations_of_columns(run, tmp_path):
    out = []
    for scale in (1.0, 1e6):  # the units of a column
        path, model = tmp_path / "t.csv", tmp_path / "m.mogul"
        write(path, NAMES, (rows_of() * [scale, 1, 1]).tolist())
        line = ["fit", path, "-o", model, "--model", "mfa", "--rank", 1, "--components", 1]
        figures(run(*line, "--dtype", "float64", "--seed", 1, "--json"))
        code, shown, _ = run("show", model)
        assert code == 0
        assert "noise and factors relative to the deviations" in " ".join(shown.split())
        out.append([float(cell) for cell in shown.split("│ 0 ")[1].split("│")[1:4]])
    weight, noise, factor = out[0]
    np.testing.assert_allclose(out[1], out[0], rtol=1e-3)
    assert weight == 1
    np.testing.assert_allclose(noise**2 + factor**2, 1.0, atol=0.02)  # of a component alone


@pytest.mark.parametrize("kind", ["full", "vae", "mdn"])
def test_scores_of_weighted_rows_have_a_weighted_mean(run, tmp_path, kind):
    rows, weights = rows_of(), np.arange(120) % 5
    table = write(tmp_path / "w.csv", [*NAMES, "w"], np.c_[rows, weights])
    plain = write(tmp_path / "plain.csv", NAMES, rows)
    store, model, out = (tmp_path / name for name in ("w.parquet", "m.mogul", "s.npy"))
    told = figures(run("convert", table, "-o", store, "--weight", "w", "--json"))
    assert told["feature_shape"] == "3"
    options = {"full": ["--components", 2], "vae": ["--latents", 1, "--passes", 2],
               "mdn": ["--target", "mass", "--passes", 2]}[kind]  # fmt: skip
    figures(run("fit", plain, "-o", model, "--model", kind, *options, "--json"))
    found = figures(run("score", model, store, "-o", out, "--json"))
    scores = np.load(out).astype(float)
    mean = np.average(scores, weights=weights)
    np.testing.assert_allclose(found["log_likelihood"], mean, rtol=1e-6)
    assert abs(mean - scores.mean()) > 1e-4
    assert found["total_weight"] == weights.sum()
    found = figures(run("score", model, plain, "-o", out, "--json"))
    np.testing.assert_allclose(found["log_likelihood"], np.load(out).mean(), rtol=1e-6)
    assert "total_weight" not in found
    if kind == "vae":
        scores = np.load(out).astype(float)
        error = scores.std(ddof=1) / len(scores) ** 0.5
        np.testing.assert_allclose(found["standard_error"], error, rtol=1e-6)


def test_wild_cells_are_told_by_column_and_row(run, table, tmp_path):
    rows = [list(map(str, row)) for row in rows_of()]
    rows[41][1], rows[7][1] = "1e9", ""
    wild, model = write(tmp_path / "wild.csv", NAMES, rows), tmp_path / "m.mogul"
    line = ["-o", model, "--components", 2, "--model", "full"]
    code, _, err = run("fit", wild, *line)
    assert code == 0
    assert "warning: column mass: 1e+09 in row 41 (counted from 0) is far off" in err
    (told,) = figures(run("fit", wild, *line, "--json"))["warnings"]
    floor = mogul.load_model(model)[0].floor[1] ** 0.5  # what the fit was held to
    least = float(told.split("narrower than ")[1].split(". Mend")[0])
    np.testing.assert_allclose(least, float(floor), rtol=0.01)  # gaps stand at the mean there
    for share in (0.3, 0.7):  # the number of the row is that in the file
        found = figures(run("fit", wild, *line, "--test", share, "--json")).get("warnings", [])
        assert all("row 41" in text for text in found)
    assert "warnings" not in figures(run("fit", table, *line, "--json"))
    code, _, err = run("select", wild, "--components", 1, "--families", "full", "--jobs", 1)
    assert code == 0
    assert "column mass: 1e+09 in row 41" in err


def test_ordinary_tables_have_no_wild_columns():
    random = np.random.default_rng(0)
    ordinary = np.stack([
        random.normal(size=5000) * 1e6, random.standard_t(3, 5000), random.exponential(size=5000),
        np.exp(random.normal(size=5000)), np.arange(5000) % 2 * 1e9, np.arange(5000) == 17,
        np.full(5000, np.nan), np.full(5000, 3.0),
    ], 1)  # fmt: skip
    assert wild_columns(ArraySource(ordinary)) == []
    assert wild_columns(mogul.open_source("digits")) == []
    ordinary[4321, 1] = -1e7
    (found,) = wild_columns(ArraySource(ordinary))
    assert (found.name, found.row, found.value) == ("1", 4321, -1e7)
    np.testing.assert_allclose(found.deviation, ordinary[:, 1].std(), rtol=1e-9)
    np.testing.assert_allclose(found.quartiles, np.quantile(ordinary[:, 1], [0.25, 0.75]))
