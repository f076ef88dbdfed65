"""Parquet and Arrow files give what the same rows give in memory."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from command_line import run_command
from mogul import EM, GaussianMixture, InputError, fit, initialise, open_source
from mogul.compute.prefetch import ahead
from mogul.data import ArraySource, ColumnarSource
from mogul.data.streams import ABOUT

NAMES = list("abcd")


def rows_of(n=500, seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=(n, 4)) + 3 * random.integers(0, 2, size=(n, 1))


def table_of(rows, names=NAMES):
    return pa.table(dict(zip(names, rows.T.copy(), strict=True)))


def write(path, table, group):
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=group)
    else:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as out:
            for batch in table.to_batches(max_chunksize=group):
                out.write_batch(batch)
    return path


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
@pytest.mark.parametrize(("group", "size"), [(500, 64), (77, 1000), (100, 33), (1, 10)])
def test_batches_are_all_rows_in_order(tmp_path, ending, group, size):
    rows = rows_of(200)
    source = open_source(write(tmp_path / f"t.{ending}", table_of(rows), group))
    assert isinstance(source, ColumnarSource)
    assert len(source) == 200
    assert source.feature_shape == (4,)
    batches = list(source.batches(size, torch.float64))
    assert max(len(b.x) for b in batches) <= size
    np.testing.assert_array_equal(torch.cat([b.x for b in batches]).numpy(), rows)
    np.testing.assert_array_equal(torch.cat([b.index for b in batches]), np.arange(200))
    picked = [150, 3, 3, 199, 0]
    np.testing.assert_array_equal(source.take(picked, torch.float64), rows[picked])


@pytest.mark.parametrize("gaps", [False, True])
def test_em_on_files_is_em_in_memory(tmp_path, gaps):
    rows = rows_of(600)
    if gaps:
        rows[::5, 1] = np.nan
    (tmp_path / "shards").mkdir()
    for i, part in enumerate(np.split(rows, [100, 130, 400])):
        write(tmp_path / "shards" / f"part-{i}.parquet", table_of(part), 90)
    found = []
    for source in (ArraySource(rows), open_source(tmp_path / "shards")):
        model = GaussianMixture(2, 4, "full", dtype=torch.float64)
        initialise(model, ArraySource(rows))
        history = fit(model, source, EM(), passes=8, tolerance=0.0).history
        found.append([row["log_likelihood"] for row in history])
    np.testing.assert_allclose(found[0], found[1], rtol=0, atol=1e-10)


def test_starts_do_not_depend_on_where_rows_are(tmp_path):
    rows = rows_of(300)
    path = write(tmp_path / "t.parquet", table_of(rows), 70)
    found = []
    for source in (ArraySource(rows), open_source(path)):
        model = GaussianMixture(3, 4, "diagonal", dtype=torch.float64)
        initialise(model, source, seed=5)
        found.append(model.centres.detach())
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


def test_columns_weights_nulls_and_limits(tmp_path):
    rows = rows_of(100)
    table = table_of(rows).append_column("w", pa.array(np.arange(100.0)))
    table = table.append_column("n", pa.array([None if i % 3 else i for i in range(100)]))
    path = write(tmp_path / "t.parquet", table, 30)
    source = ColumnarSource(path, ["c", "n"], weight="w", limit=65)
    assert len(source) == 65
    batches = list(source.batches(20, torch.float64))
    x, weight = (torch.cat([b[i] for b in batches]).numpy() for i in (0, 1))
    np.testing.assert_array_equal(x[:, 0], rows[:65, 2])
    expected = [float("nan") if i % 3 else i for i in range(65)]
    np.testing.assert_array_equal(x[:, 1], expected)
    np.testing.assert_array_equal(weight, np.arange(65.0))
    assert open_source(path, columns=["b", "a"]).take([7], torch.float64).tolist() == [
        rows[7, [1, 0]].tolist()
    ]


def test_lists_are_images_of_the_shape_that_the_file_tells(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, size=(50, 4, 3), dtype=np.uint8)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(pixels.ravel()), 12)
    about = {ABOUT: json.dumps({"feature_shape": [4, 3], "levels": 256})}
    table = pa.table({"pixels": lists}).replace_schema_metadata(about)
    source = open_source(write(tmp_path / "t.parquet", table, 20), seed=3)
    twin = open_source(pixels, seed=3)
    assert source.feature_shape == (4, 3)
    assert source.is_image
    np.testing.assert_array_equal(source.take(range(50)), twin.take(range(50)))
    np.testing.assert_array_equal(torch.cat([b.x for b in source.batches(7)]), twin.take(range(50)))
    np.testing.assert_array_equal(source.to_pixels(source.take([4])), pixels[[4]])


@pytest.mark.parametrize(
    ("column", "text"),
    [
        (pa.array(["x", "y"]), "not numbers"),
        (pa.array([[1.0], [1.0, 2.0]]), "of one length"),
        (pa.array([float("inf"), 1.0]), "row 0, column 0 is infinite"),
    ],
)
def test_columns_that_cannot_be_read_are_told(tmp_path, column, text):
    path = write(tmp_path / "t.parquet", pa.table({"a": column}), 10)
    with pytest.raises(InputError, match=text):
        list(open_source(path).batches())


def test_commands_keep_to_the_columns_of_a_fit(tmp_path, monkeypatch, capsys):
    path, model = write(tmp_path / "t.parquet", table_of(rows_of(80)), 30), tmp_path / "m.mogul"
    fitting = f"fit {path} -o {model} --model full --components 2 --columns b,d --json"
    code, _, err = run_command(monkeypatch, capsys, *fitting.split())
    assert code == 0, err
    code, out, err = run_command(monkeypatch, capsys, "score", str(model), str(path), "--json")
    assert code == 0, err
    assert json.loads(out)["n"] == 80


def test_errors_name_files_and_columns(tmp_path):
    path = write(tmp_path / "t.parquet", table_of(rows_of(5)), 10)
    with pytest.raises(InputError, match="no column z; its columns are a, b, c, d"):
        open_source(path, columns=["z"])
    with pytest.raises(InputError, match="size apply to image files and arrays of images"):
        open_source(path, size=(8, 8))
    write(tmp_path / "u.parquet", table_of(rows_of(5), list("abcx")), 10)
    with pytest.raises(InputError, match=r"u\.parquet has no column d"):
        open_source(tmp_path)
    negative = pa.table({"a": [1.0, 2.0], "w": [1.0, -1.0]})
    source = ColumnarSource(write(tmp_path / "w.parquet", negative, 10), weight="w")
    with pytest.raises(InputError, match="negative or missing"):
        list(source.batches())
    with pytest.raises(InputError, match="no rows"):
        open_source(write(tmp_path / "empty.parquet", table_of(rows_of(0)), 10))


@given(n=st.integers(0, 20), depth=st.integers(1, 5), stop=st.integers(0, 20))
@settings(max_examples=30, deadline=None)
def test_reading_ahead_changes_nothing(n, depth, stop):
    assert list(ahead(iter(range(n)), depth)) == list(range(n))
    some = ahead(iter(range(n)), depth)
    assert [value for _, value in zip(range(stop), some, strict=False)] == list(range(min(n, stop)))


def test_what_fails_while_reading_ahead_is_raised_in_its_place():
    def broken():
        yield 1
        raise InputError("cut short")

    items = ahead(broken(), 3)
    assert next(items) == 1
    with pytest.raises(InputError, match="cut short"):
        next(items)
