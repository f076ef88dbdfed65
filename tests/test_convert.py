"""What `mogul convert` writes is what it read, and is whole or absent."""

import io
import json
import os
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from command_line import run_command
from mogul import InputError, open_source
from mogul.data import ArraySource, ColumnarSource, PixelScale, write_store
from mogul.data.streams import ABOUT

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (50, 4, 3), dtype=np.uint8)
ROWS = RANDOM.normal(size=(90, 3))


def rows_of(source, dtype=torch.float64, size=13):
    return torch.cat([batch.x for batch in source.batches(size, dtype)])


def convert(monkeypatch, capsys, *arguments):
    code, out, err = run_command(monkeypatch, capsys, "convert", *arguments, "--json")
    assert code == 0, err
    return json.loads(out)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 60),
    group=st.integers(1, 70),
    per_file=st.none() | st.integers(1, 40),
    kind=st.sampled_from(["float32", "float64", "pixels", "int16", "lists"]),
    ending=st.sampled_from([".parquet", ".arrow"]),
)
def test_rows_come_back_as_they_were(tmp_path_factory, n, group, per_file, kind, ending):
    shape = (n, 2, 3) if kind in ("pixels", "lists") else (n, 3)
    rows = np.random.default_rng(n).integers(0, 256, shape)
    rows = rows.astype({"pixels": "uint8", "lists": "float32"}.get(kind, kind))
    if kind == "float64":
        rows[::4, 1] = np.nan
    source = open_source(rows, seed=4)
    folder = tmp_path_factory.mktemp("store")
    path = folder / ("store" if per_file else f"store{ending}")
    assert write_store(source, path, row_group=group, rows_per_file=per_file) == n
    assert [p.name for p in folder.iterdir()] == [path.name]
    again = open_source(path, seed=4)
    assert again.feature_shape == source.feature_shape
    torch.testing.assert_close(rows_of(again), rows_of(source), rtol=0, atol=0, equal_nan=True)
    found = next(iter(again.blocks(10)))().rows.dtype
    expected = {"int16": torch.float64, "lists": torch.float32, "pixels": torch.uint8}
    assert found == expected.get(kind, getattr(torch, kind, None))
    if per_file:
        assert len(list(path.iterdir())) == -(-n // per_file)
    elif ending == ".parquet":
        assert pq.ParquetFile(path).metadata.num_row_groups == -(-n // group)


def test_pixels_stay_pixels(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "images"
    folder.mkdir()
    for i, image in enumerate(PIXELS):
        Image.fromarray(image).save(folder / f"{i}.png")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for i, image in enumerate(PIXELS):
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "PNG")
            info = tarfile.TarInfo(f"{i}.png")
            info.size = len(buffer.getvalue())
            archive.addfile(info, io.BytesIO(buffer.getvalue()))
    np.save(tmp_path / "x.npy", PIXELS)
    twin = open_source(PIXELS, seed=1)
    for data in (folder, tmp_path / "x.tar", tmp_path / "x.npy"):
        for ending in ("parquet", "arrow"):
            path = tmp_path / f"store.{ending}"
            figures = convert(monkeypatch, capsys, data, "-o", path)
            assert figures["n"] == 50
            source = open_source(path, seed=1)
            assert source.feature_shape == (4, 3)
            assert source.scale == PixelScale(256, True, 1)
            assert torch.equal(rows_of(source), rows_of(twin))
    schema = pa.ipc.open_file(tmp_path / "store.arrow").schema
    assert schema.field(0).type == pa.list_(pa.uint8(), 12)
    assert json.loads(schema.metadata[ABOUT]) == {"feature_shape": [4, 3], "levels": 256}
    convert(monkeypatch, capsys, folder, "-o", path, "--crop", "2x2", "--limit", "7")
    np.testing.assert_array_equal(
        next(iter(open_source(path).blocks()))().rows.numpy(), PIXELS[:7, 1:3, 0:2].reshape(7, 4)
    )


def test_known_data_sets_keep_their_levels(tmp_path, monkeypatch, capsys):
    path = tmp_path / "digits.parquet"
    convert(monkeypatch, capsys, "digits", "-o", path)
    source, twin = open_source(path), open_source("digits")
    assert source.scale.levels == 17
    assert torch.equal(rows_of(source), rows_of(twin))


def test_tables_keep_names_gaps_and_weights(tmp_path, monkeypatch, capsys):
    lines = ["a,w,text,b", *[f"{i},{i % 3},x,{'NA' if i % 4 else i * 0.5}" for i in range(50)]]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    path = tmp_path / "t.parquet"
    told = convert(
        monkeypatch, capsys, tmp_path / "t.csv", "-o", path, "--columns", "b,a", "--weight", "w",
        "--row-group", "20",
    )  # fmt: skip
    assert (told["feature_shape"], told["weight"]) == ("2", "w")
    assert pq.read_schema(path).names == ["b", "a", "w"]
    assert np.isnan(pq.read_table(path).column("b").to_numpy()).sum() == 37
    source = open_source(path)
    assert source.columns == ["b", "a"]
    batches = list(source.batches(10, torch.float64))
    expected = [[np.nan if i % 4 else i * 0.5, i] for i in range(50)]
    np.testing.assert_array_equal(torch.cat([b.x for b in batches]), expected)
    weight = torch.cat([b.weight for b in batches])
    np.testing.assert_array_equal(weight, [i % 3 for i in range(50)])
    again = tmp_path / "again.arrow"
    convert(monkeypatch, capsys, path, "-o", again)
    twice = torch.cat([b.weight for b in open_source(again).batches(10, torch.float64)])
    assert torch.equal(twice, weight)
    assert open_source(path, columns=["a"]).take([4], torch.float64).tolist() == [[4.0]]


def test_a_folder_of_any_name_holds_files_that_are_read(tmp_path):
    write_store(ArraySource(ROWS), tmp_path / "rows.v2", rows_per_file=40)
    assert len(list((tmp_path / "rows.v2").glob("*.parquet"))) == 3
    np.testing.assert_array_equal(rows_of(open_source(tmp_path / "rows.v2")), ROWS)


def test_one_pass_of_an_iterator_is_written(tmp_path):
    write_store(open_source(row for row in ROWS), tmp_path / "x.parquet", row_group=17)
    np.testing.assert_array_equal(rows_of(open_source(tmp_path / "x.parquet")), ROWS)


class _Broken(ArraySource):
    """Rows that fail half-way."""

    def __init__(self, error):
        super().__init__(ROWS)
        self.error = error

    def blocks(self, size=8192):
        yield from list(super().blocks(size))[:2]
        raise self.error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), InputError("x"), OSError(28, "No space")])
@pytest.mark.parametrize("per_file", [None, 20])
def test_what_is_interrupted_leaves_nothing(tmp_path, error, per_file):
    path = tmp_path / ("store" if per_file else "x.parquet")
    if not per_file:
        path.write_bytes(b"before")
    expected = InputError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected, match="No space" if expected is not type(error) else None):
        write_store(_Broken(error), path, row_group=10, rows_per_file=per_file)
    left = list(tmp_path.iterdir())
    assert left == ([] if per_file else [path])
    assert per_file or path.read_bytes() == b"before"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_disk_is_told(tmp_path, monkeypatch):
    real = type(tmp_path).open

    def full(self, mode="r", *arguments, **options):
        if mode == "wb":
            return open("/dev/full", "wb", buffering=0)
        return real(self, mode, *arguments, **options)

    monkeypatch.setattr(type(tmp_path), "open", full)
    with pytest.raises(InputError, match=r"No space left.*enough room"):
        write_store(ArraySource(ROWS), tmp_path / "x.parquet")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "x.csv"}, "must end in"),
        ({"path": "absent/x.parquet"}, "not a writable folder"),
        ({"path": "x.parquet", "row_group": 0}, "row_group is 0"),
        ({"path": "x", "rows_per_file": 0}, "rows_per_file is 0"),
        ({"path": "", "rows_per_file": 3}, "exists"),
        ({"path": "x.arrow", "rows_per_file": 3}, "name of a file.* call it .*x, or leave"),
        ({"path": "x.parquet", "rows_per_file": 3}, "name of a file"),
        ({"path": "x.parquet", "names": ["a", "b"]}, "2 different name"),
        ({"path": "x.parquet", "weight": "w"}, "no column w of weights"),
    ],
)
def test_what_cannot_be_written_is_told(tmp_path, options, message):
    path = tmp_path / options.pop("path")
    with pytest.raises(InputError, match=message):
        write_store(ArraySource(ROWS), path, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_store_fits_as_its_data_do(tmp_path, monkeypatch, capsys):
    np.save(tmp_path / "x.npy", ROWS)
    convert(monkeypatch, capsys, tmp_path / "x.npy", "-o", tmp_path / "s", "--rows-per-file", "40")
    assert isinstance(open_source(tmp_path / "s"), ColumnarSource)
    found = []
    for data in (tmp_path / "x.npy", tmp_path / "s"):
        fitting = ["fit", data, "-o", tmp_path / "m.mogul", "--model", "full", "--components", "2"]
        code, out, err = run_command(monkeypatch, capsys, *fitting, "--dtype", "float64", "--json")
        assert code == 0, err
        found.append(json.loads(out)["log_likelihood"])
    assert found[0] == pytest.approx(found[1], abs=1e-10)


def test_a_feature_called_weight_stays_beside_the_weights(tmp_path):
    table = pa.table({"weight": [10.0, 20.0, 30.0], "h": [1.0, 2.0, 3.0], "w": [1.0, 0.0, 2.0]})
    pq.write_table(table, tmp_path / "w.parquet")
    write_store(ColumnarSource(tmp_path / "w.parquet", weight="w"), tmp_path / "again.parquet")
    (batch,) = open_source(tmp_path / "again.parquet").batches(dtype=torch.float64)
    assert batch.x.tolist() == [[10, 1], [20, 2], [30, 3]]
    assert batch.weight.tolist() == [1, 0, 2]
