"""Damaged and hostile files are refused in words, or read as what they are."""

import gzip
import io
import json
import struct
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torture._corruption.claims import claims

from mogul import GaussianMixture, InputError, load_model, open_source, save_model
from mogul.data.unpacked import check_growth
from mogul.models import MLPDecoder
from mogul.models.decoder import LatentVariableModel

SMALL = [name for name in claims() if "bomb" not in name and "one line" not in name]


@pytest.mark.parametrize("name", SMALL)
def test_a_file_made_to_harm_is_refused(tmp_path, name):
    with pytest.raises(InputError) as caught:
        claims()[name](tmp_path)
    assert "\n" not in str(caught.value)


def npy(shape, order="False", kind="<f8", values=b""):
    head = f"{{'descr': '{kind}', 'fortran_order': {order}, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + values


@pytest.mark.parametrize("content", [npy((2,))[:-2], npy("(2, 2"), npy((3, 2), values=bytes(40))])
def test_headers_of_arrays_that_cannot_be_read_are_told(tmp_path, content):
    (tmp_path / "x.npy").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", content)
    for name in ("x.npy", "x.npz"):
        with pytest.raises(InputError, match=f"{name}.* cannot be read"):
            open_source(tmp_path / name)


def test_a_stored_array_ends_where_its_member_ends(tmp_path):
    """The header tells of one row more than the member has; other bytes of the file follow it."""
    content = npy((3, 2), values=np.arange(4.0).tobytes())
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", content)
        archive.writestr("y.npy", bytes(1000))
    with pytest.raises(InputError, match="cannot be read"):
        open_source(tmp_path / "x.npz")


def test_sound_archives_are_read(tmp_path):
    x = np.random.default_rng(0).normal(size=(30, 4))
    np.savez(tmp_path / "stored.npz", x=x)
    np.savez_compressed(tmp_path / "packed.npz", np.asfortranarray(x), y=x[:2])
    with pytest.raises(InputError, match=r"holds 2 arrays \(y, arr_0\)|holds 2 arrays"):
        open_source(tmp_path / "packed.npz")
    np.savez_compressed(tmp_path / "packed.npz", np.asfortranarray(x))
    for name in ("stored.npz", "packed.npz"):
        np.testing.assert_array_equal(open_source(tmp_path / name).take([0, 29], torch.float64),
                                      x[[0, 29]])  # fmt: skip


def test_what_grows_beyond_measure_is_refused_and_what_is_merely_large_is_not():
    check_growth("x", 10, 2**26)
    check_growth("x", 2**30, 200 * 2**30)
    with pytest.raises(InputError, match="unpack it and give the unpacked file"):
        check_growth("x", 10, 2**26 + 1)


def test_a_line_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("mogul.data.csv_files._LINE", 1000)
    monkeypatch.setattr("mogul.data.csv_files._BLOCK", 100)
    for name, text in (
        ("x.csv", "a,b\n" + "1" * 2000),
        ("h.csv", "a" * 2000),
        ("q.csv", '"' * 5000),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match="a line of more than"):
            open_source(tmp_path / name)


def test_a_table_whose_first_line_is_empty_is_refused(tmp_path):
    (tmp_path / "x.csv").write_text("\n1\n2\n")
    with pytest.raises(InputError, match="cannot be read as a CSV file"):
        open_source(tmp_path / "x.csv")


@pytest.mark.parametrize("packing", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_a_damaged_picture_in_an_archive_is_told_by_name(tmp_path, packing):
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 20), np.uint8)).save(out, "PNG")
    with zipfile.ZipFile(tmp_path / "x.zip", "w", packing) as archive:
        archive.writestr("a.png", out.getvalue())
    content = bytearray((tmp_path / "x.zip").read_bytes())
    content[60:90] = bytes(30)
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.png cannot be unpacked"):
        open_source(tmp_path / "x.zip")


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_rows_that_cannot_be_decoded_are_told_by_file(tmp_path, ending):
    import pyarrow
    from pyarrow import parquet

    path = tmp_path / f"x.{ending}"
    table = pyarrow.table({"a": np.random.default_rng(0).normal(size=500)})
    if ending == "parquet":
        parquet.write_table(table, path, compression="zstd")
        middle = 60
    else:
        options = pyarrow.ipc.IpcWriteOptions(compression="zstd")
        with pyarrow.ipc.new_file(path, table.schema, options=options) as file:
            file.write_table(table)
        middle = path.stat().st_size // 2
    content = bytearray(path.read_bytes())
    content[middle : middle + 40] = bytes(40)
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"x.{ending} .*damaged"):
        for _ in open_source(path).batches():
            pass


def about(path):
    with safe_open(str(path), "pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # ruff: ignore[in-dict-keys]
        return tensors, json.loads(file.metadata()["mogul"])


def test_the_same_bytes_of_another_type_or_shape_are_told(tmp_path):
    path = tmp_path / "m.mogul"
    save_model(path, GaussianMixture(2, 2))
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"F32"', b'"I32"', 1))
    with pytest.raises(InputError, match=r"damaged.*/layout"):
        load_model(path)
    tensors, told = about_of(path, content)
    tensors["centres"] = tensors["centres"].view(4, 1)
    save_file(tensors, path, {"mogul": json.dumps(told)})
    with pytest.raises(InputError, match=r"damaged.*/layout"):
        load_model(path)


def about_of(path, content):
    path.write_bytes(content)
    return about(path)


@pytest.mark.parametrize("renamed", ["sha256", "/layout", "/configuration"])
def test_digests_under_a_damaged_name_are_missed(tmp_path, renamed):
    path = tmp_path / "m.mogul"
    save_model(path, GaussianMixture(2, 2))
    other = renamed.replace("2", "3").replace("a", "b")
    path.write_bytes(path.read_bytes().replace(renamed.encode(), other.encode()))
    with pytest.raises(InputError, match="damaged"):
        load_model(path)


def test_a_model_in_use_does_not_change_with_its_file(tmp_path):
    path = tmp_path / "m.mogul"
    model = LatentVariableModel(MLPDecoder(2, (5,), (3,)), 2, (5,))
    model.particles = torch.ones(7, 3, 2)
    save_model(path, model)
    held = load_model(path)[0]
    with path.open("r+b") as file:  # written over in its place, as `cp` does
        file.write(b"\xff" * path.stat().st_size)
    assert bool((held.particles == 1).all())


def test_a_gzip_file_of_labels_is_checked_to_its_end(tmp_path):
    content = bytearray(gzip.compress(b"\0\0\x08\x01" + struct.pack(">I", 50) + bytes(range(50))))
    content[-6] ^= 1  # in the checksum
    (tmp_path / "x-idx1-ubyte.gz").write_bytes(content)
    with pytest.raises(InputError, match="whole gzip file"):
        open_source(tmp_path / "x-idx1-ubyte.gz")
