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
from mogul.compute.collective import Group
from mogul.compute.prefetch import ahead
from mogul.data import ArraySource, ColumnarSource, write_store
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


INT16 = {"a": pa.array([1, 2, 3, None], pa.int16()), "b": pa.array([1, 2, 3, 4], pa.int8())}
LISTS = {"v": pa.array([[1, 2], [3, 4], [5, None], [6, 7]], pa.list_(pa.int32(), 2))}
WIDE = {
    "a": pa.array([1, 2**53 + 1, 3, 4], pa.int64()),
    "b": pa.array([0.5, 1, 2, 3], pa.float32()),
}
TRUTH = {"a": pa.array([True, False, None, True]), "b": pa.array([0.5, 1, 2, 3], pa.float32())}


@pytest.mark.parametrize("table", [INT16, LISTS, WIDE, TRUTH])
@pytest.mark.parametrize("group", [1, 2, 4])
def test_rows_taken_are_those_of_batches_whatever_their_types(tmp_path, table, group):
    path = write(tmp_path / "t.parquet", pa.table(table), group)
    source = open_source(path)
    whole = torch.cat([b.x for b in source.batches(3, torch.float64)])
    np.testing.assert_array_equal(source.take(range(4), torch.float64), whole)
    if table is not LISTS:
        columns = [
            [np.nan if v is None else float(v) for v in c.to_pylist()] for c in table.values()
        ]
        np.testing.assert_array_equal(whole, np.array(columns).T)
    write_store(open_source(path), tmp_path / "again.parquet", row_group=2)
    again = open_source(tmp_path / "again.parquet").take(range(4), torch.float64)
    np.testing.assert_array_equal(again, whole)


def test_files_of_unlike_types_are_read_as_the_wider(tmp_path):
    for i, kind in enumerate([pa.float32(), pa.float64(), pa.int8()]):
        table = pa.table({"a": pa.array([1, 2, 3], kind), "b": pa.array([4, 5, 6], kind)})
        write(tmp_path / f"{i}.parquet", table, 2)
    source = open_source(tmp_path)
    expected = np.tile([[1, 4], [2, 5], [3, 6]], (3, 1))
    np.testing.assert_array_equal(source.take(range(9), torch.float64), expected)
    np.testing.assert_array_equal(torch.cat([b.x for b in source.batches(4)]), expected)


def test_rows_beyond_the_last_are_refused(tmp_path):
    source = ColumnarSource(write(tmp_path / "t.parquet", table_of(rows_of(9)), 4), limit=2)
    with pytest.raises(InputError, match="rows 0 to 1, and 2 to 2 came"):
        source.take([2])


def test_columns_that_share_a_name_are_refused(tmp_path):
    table = pa.Table.from_arrays([pa.array([1.0]), pa.array([2.0])], names=["a", "a"])
    with pytest.raises(InputError, match="several columns called a"):
        open_source(write(tmp_path / "t.parquet", table, 4))
    (tmp_path / "t.csv").write_text("a,a\n1,2\n3,4\n")
    with pytest.raises(InputError, match="several columns called a"):
        open_source(tmp_path / "t.csv")


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_damaged_files_are_told_by_name(tmp_path, ending):
    path = write(tmp_path / f"t.{ending}", table_of(rows_of(500)), 100)
    whole = path.read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"x" * 100):
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"t\.{ending} .*cannot be read"):
            open_source(path)


def test_random_orders_hold_every_row_once(tmp_path):
    source = open_source(write(tmp_path / "t.parquet", table_of(rows_of(500)), 37))
    first, second = (source.order(torch.Generator().manual_seed(s)) for s in (0, 1))
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(500))
    assert not torch.equal(first, second)


def test_shares_are_whole_row_groups_and_together_all_rows(tmp_path):
    rows = rows_of(500)
    source = open_source(write(tmp_path / "t.parquet", table_of(rows), 60))
    parts = [source.shard(Group(rank, 3)) for rank in range(3)]
    assert {len(part) % 60 for part in parts[:-1]} == {0}
    for part in parts:
        index = torch.cat([b.index for b in part.batches(25)])
        x = torch.cat([b.x for b in part.batches(25, torch.float64)])
        np.testing.assert_array_equal(x, rows[index])
        np.testing.assert_array_equal(part.take(range(len(part)), torch.float64), rows[index])
    assert sum(map(len, parts)) == 500
    with pytest.raises(InputError, match=r"9 row group\(s\) for 10 processes"):
        source.shard(Group(0, 10))
