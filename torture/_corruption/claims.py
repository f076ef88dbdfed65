"""Files made to harm: they claim what is not there, grow, or name what is not theirs."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.torch import save

from mogul import GaussianMixture, load_model, save_model
from mogul.compute.checkpoint import load_tensors, save_tensors
from mogul.models import MLP, LatentVariableModel, MixtureDensityNetwork, MLPDecoder
from torture._corruption.files import read_rows

_HUGE = 2**60
_GROWN = 2**31  # bytes that a bomb unpacks to
_TEXT = 2**29  # the same of tables, of which every byte takes four in memory
Claim = Callable[[Path], None]


def claims() -> dict[str, Claim]:
    """Return what makes such a file in a folder, and reads it; each must raise InputError."""
    return {
        ".npy of 2^60 values": _data("x.npy", _npy((_HUGE,))),
        ".npy of 2^30 rows": _data("x.npy", _npy((2**30, 8))),
        ".npy of -1 rows": _data("x.npy", _npy((-1, 8))),
        ".npy of Python objects": _data("x.npy", _npy((2, 2), "|O")),
        ".npy with code for a type": _data("x.npy", _npy((2, 2), "__import__('os').system('x')")),
        ".npz of 2^60 values": _data("x.npz", _zip({"x.npy": _npy((_HUGE, 2))})),
        ".npz that is a pickle": _data("x.npz", b"cposix\nsystem\n(S'false'\ntR."),
        ".npy that is a pickle": _data("x.npy", b"cposix\nsystem\n(S'false'\ntR."),
        ".npz bomb": _data("x.npz", lambda: _zip_bomb("x.npy", _npy((_GROWN // 8, 1)))),
        "idx of 2^96 values": _data("x-idx3-ubyte", b"\0\0\x08\x03" + b"\xff" * 12),
        "idx.gz of 2^96 values": _data("x-idx3-ubyte.gz", gzip.compress(
            b"\0\0\x08\x03" + b"\xff" * 12)),
        "idx.gz bomb": _data("x-idx2-ubyte.gz", lambda: _gz(
            b"\0\0\x08\x02" + struct.pack(">2I", 2**15, _GROWN >> 15), b"\0", _GROWN)),
        "CSV.gz bomb": _data("x.csv.gz", lambda: _gz(b"a,b\n", b"1,2\n")),
        "CSV.gz bomb in one line": _data("x.csv.gz", lambda: _gz(b"a,b\n", b"1")),
        "CSV.gz bomb in a header": _data("x.csv.gz", lambda: _gz(b"", b"a")),
        "CSV.gz bomb in quotes": _data("x.csv.gz", lambda: _gz(b'a,b\n"', b'"')),
        "CSV in one line": _data("x.csv", lambda: b"a,b\n" + b"1" * 2**27),
        "zip bomb": _data("x.zip", _zip_bomb),
        "zip bomb that tells of 10 bytes": _data("x.zip", lambda: _zip_bomb(told=10)),
        "zip of members that climb out": _outside,
        "zip of unknown packing": _data("x.zip", lambda: _zip({"x.png": b"x"}).replace(
            b"\x14\0\0\0\x08\0", b"\x14\0\0\0\x63\0")),
        "tar of a member of 2^60 bytes": _data("x.tar", lambda: _tar(_HUGE)),
        "tar of a header of 2^60 bytes": _data("x.tar", lambda: _tar(_HUGE, tarfile.XHDTYPE)),
        "picture of 60,000 × 60,000 pixels": _picture(_png(60_000)),
        "picture of 9,000 × 9,000 pixels": _picture(_png(9_000)),
        "picture that is PostScript": _picture(_postscript()),
        "picture that is SVG": _picture(b"<svg onload='alert(1)' xmlns='http://www.w3.org/2000/svg'/>"),
        "Parquet of odd shapes": _table({"feature_shape": [_HUGE, 2]}),
        "Parquet of odd levels": _table({"levels": "many"}),
        "Parquet of pixels that are numbers": _table({"levels": 256}),
        "Parquet told by a list": _table([1]),
        "Parquet told by brackets": _table(None, b"[" * 100_000),
        "model that is a pickle": _model_of(b"cposix\nsystem\n(S'false'\ntR."),
        "model of a header of 2^60 bytes": _model_of(struct.pack("<Q", _HUGE) + b"{}"),
        "model of brackets": _model_of(_nested()),
        **{f"model of {name}": _configured(*change) for name, change in _CONFIGURED.items()},
        "model whose numbers are integers": _as_integers,
    }  # fmt: skip


_CONFIGURED: dict[str, tuple[str, Callable[[dict], object]]] = {
    "2^40 components": ("mixture", lambda c: c.update(n_components=2**40)),
    "2^40 features": ("mixture", lambda c: c.update(n_features=2**40)),
    "more components than tensors": ("mixture", lambda c: c.update(n_components=3)),
    "another family": ("mixture", lambda c: c.update(covariance="diagonal")),
    "an unknown argument": ("mixture", lambda c: c.update(x=1)),
    "the type torch.load": ("mixture", lambda c: c.update(dtype="load")),
    "another type": ("mixture", lambda c: c.update(dtype="float64")),
    "layers of 2^20 units": (
        "decoder", lambda c: c["decoder_arguments"].update(hidden=[2**20, 2**20])),
    "an unknown decoder": ("decoder", lambda c: c.update(decoder="os.system")),
    "a network of 2^20 units": (
        "network", lambda c: c["backbone_arguments"].update(hidden=[2**20, 2**20])),
    "a network of 2^40 components": ("network", lambda c: c.update(n_components=2**40)),
}  # fmt: skip


def _data(name: str, content: bytes | Callable[[], bytes]) -> Claim:
    def read(folder: Path) -> None:
        (folder / name).write_bytes(content() if callable(content) else content)
        read_rows(folder / name)

    return read


def _picture(content: bytes) -> Claim:
    def read(folder: Path) -> None:
        (folder / "x.png").write_bytes(content)
        read_rows(folder)

    return read


def _npy(shape: tuple[int, ...], kind: str = "<f8") -> bytes:
    head = repr({"descr": kind, "fortran_order": False, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head


def _zip(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def _zip_bomb(name: str = "x.png", head: bytes = b"", told: int = 0) -> bytes:
    """Return a zip file of a member of zeros after a head, which may tell of another size."""
    packing = zlib.compressobj(wbits=-15)
    begun = packing.compress(head) + packing.flush(zlib.Z_FULL_FLUSH)
    part = packing.compress(bytes(2**20)) + packing.flush(zlib.Z_FULL_FLUSH)
    packed = begun + part * (_GROWN >> 20) + packing.flush()
    size = told or len(head) + _GROWN
    about = struct.pack("<5H3I2H", 20, 0, zipfile.ZIP_DEFLATED, 0, 33, 0, len(packed), size,
                        len(name), 0)  # fmt: skip
    local = b"PK\3\4" + about + name.encode() + packed
    central = b"PK\1\2" + struct.pack("<H", 20) + about + bytes(14) + name.encode()
    end = struct.pack("<4H2IH", 0, 0, 1, 1, len(central), len(local), 0)
    return local + central + b"PK\5\6" + end


def _gz(head: bytes, again: bytes, size: int = _TEXT) -> bytes:
    """Return gzip of something that repeats, as many members, each a whole gzip file."""
    return gzip.compress(head) + gzip.compress(again * (2**20 // len(again))) * (size >> 20)


def _tar(size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    about = tarfile.TarInfo("x.png")
    about.size, about.type = size, kind
    return about.tobuf(tarfile.GNU_FORMAT) + bytes(1024)


def _outside(folder: Path) -> None:
    """Read an archive of members with names that lead elsewhere, and look whether they came there.

    Raises:
        AssertionError: if anything was written beside the archive.
    """
    names = ("../out.png", "/tmp/out.png", "a/../../out.png", "C:\\out.png")
    (folder / "in").mkdir()
    (folder / "in" / "x.zip").write_bytes(_zip({name: b"no picture" for name in names}))
    try:
        read_rows(folder / "in" / "x.zip")
    finally:
        found = sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))
        if found != ["in", "in/x.zip"] or Path("/tmp/out.png").exists():
            raise AssertionError(f"a member was written: {found}")


def _png(side: int) -> bytes:
    """Return a PNG file that tells of more pixels than it holds."""
    out = io.BytesIO()
    Image.new("L", (8, 8)).save(out, "PNG")
    head = b"IHDR" + struct.pack(">2I", side, side) + out.getvalue()[24:29]
    return out.getvalue()[:12] + head + struct.pack(">I", zlib.crc32(head)) + out.getvalue()[33:]


def _postscript() -> bytes:
    out = io.BytesIO()
    Image.new("L", (8, 8)).save(out, "EPS")
    return out.getvalue()


def _table(about: object, content: bytes | None = None) -> Claim:
    def read(folder: Path) -> None:
        import pyarrow
        from pyarrow import parquet

        told = json.dumps(about).encode() if content is None else content
        table = pyarrow.table({"a": np.arange(5.0), "b": np.arange(5.0)})
        parquet.write_table(table.replace_schema_metadata({"mogul": told}), folder / "x.parquet")
        read_rows(folder / "x.parquet")

    return read


def _model_of(content: bytes) -> Claim:
    def read(folder: Path) -> None:
        (folder / "m.mogul").write_bytes(content)
        load_model(folder / "m.mogul")

    return read


def _nested() -> bytes:
    return save({}, {"mogul": "[" * 100_000})


def _written(kind: str, path: Path) -> None:
    made = {
        "mixture": lambda: GaussianMixture(2, 4),
        "decoder": lambda: LatentVariableModel(MLPDecoder(2, (5,), (3,)), 2, (5,)),
        "network": lambda: MixtureDensityNetwork(MLP(2, (3,)), 2, 1),
    }
    save_model(path, made[kind]())


def _configured(kind: str, change: Callable[[dict], object]) -> Claim:
    """Return what writes a model of changed arguments, with digests that fit them."""

    def read(folder: Path) -> None:
        path = folder / "m.mogul"
        _written(kind, path)
        tensors, config = load_tensors(path)
        change(config["arguments"])
        save_tensors(path, tensors, config)
        load_model(path)

    return read


def _as_integers(folder: Path) -> None:
    """Tell of the same bytes as integers, which leaves the digests of bytes as they were."""
    path = folder / "m.mogul"
    _written("mixture", path)
    path.write_bytes(path.read_bytes().replace(b'"F32"', b'"I32"'))
    load_model(path)
