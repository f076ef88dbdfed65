"""Whole files of every format that is read, and how each is read to its end."""

from __future__ import annotations

import gzip
import io
import json
import math
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mogul import (
    EM,
    Checkpoint,
    GaussianMixture,
    InputError,
    fit,
    initialise,
    load_model,
    open_source,
    save_model,
)
from mogul.compute.checkpoint import load_tensors, save_tensors
from mogul.data import ArraySource
from mogul.models import MLP, LatentVariableModel, MixtureDensityNetwork, MLPDecoder
from mogul.models.files import load_fit
from torture._corruption.mutate import json_mutant, mutant

Read = Callable[[Path, int], None]
_Same = Callable[[bytes], bytes]


def _same(content: bytes) -> bytes:
    return content


@dataclass(frozen=True)
class Format:
    """Files of a format: their ending, whole ones, how they are read.

    `damage` makes a mutant of a file and a seed, and `wrap` packs it, so that the checksum of the
    package fits; `read` is told which of the files the damaged one was.
    """

    name: str
    ending: str
    contents: list[bytes]
    read: Read
    wrap: _Same = field(default=_same)
    damage: Callable[[bytes, int], bytes] = mutant


def formats() -> list[Format]:
    """Return all formats, with small files of each."""
    random = np.random.default_rng(0)
    numbers, pixels = random.normal(size=(40, 5)), random.integers(0, 256, (12, 9, 8), np.uint8)
    pictures = _pictures(pixels)
    npy = [_npy(numbers), _npy(numbers.astype(">f4")), _npy(np.asfortranarray(pixels))]
    idx = [_idx(pixels, 0x08), _idx(numbers.astype(">f8"), 0x0E)]
    tables = _tables(numbers, pixels)
    text = _texts(numbers)
    plain: list[Format] = [
        Format("npy", "x.npy", npy, read_rows),
        Format("npz", "x.npz", [_npz(numbers, False), _npz(numbers, True)], read_rows),
        Format("npz, inside", "x.npz", npy, read_rows, lambda c: _zip({"x.npy": c})),
        Format("idx", "x-idx3-ubyte", idx, read_rows),
        Format("idx.gz", "x-idx3-ubyte.gz", [_gzip(c) for c in idx], read_rows),
        Format("idx.gz, inside", "x-idx3-ubyte.gz", idx, read_rows, _gzip),
        Format("Parquet", "x.parquet", tables["parquet"], read_rows),
        Format("Arrow", "x.arrow", tables["arrow"], read_rows),
        Format("PNG", "x.png", pictures["PNG"], read_picture),
        Format("JPEG", "x.jpg", pictures["JPEG"], read_picture),
        Format("BMP, GIF, TIFF, WebP, PPM", "x.png", pictures["other"], read_picture),
        Format(
            "zip",
            "x.zip",
            [_zip(_members(pictures["PNG"])), _zip(_members(pictures["PNG"]), 0)],
            read_rows,
        ),
        Format(
            "tar", "x.tar", [_tar(_members(pictures["PNG"])), _tar({"0.npy": npy[0]})], read_rows
        ),
        Format("tar, inside", "x.tar", npy, read_rows, lambda c: _tar({"0.npy": c})),
        Format("CSV", "x.csv", text, read_rows),
        Format("CSV.gz", "x.csv.gz", [_gzip(c) for c in text], read_rows),
    ]
    return [*plain, *_models()]


def read_rows(path: Path, which: int = 0) -> None:
    """Read data as a fit would, and check what came.

    Raises:
        AssertionError: if rows are not what the source tells of them.
    """
    source = open_source(path)
    n = 0
    for batch in source.batches():
        if (
            batch.x.shape != (len(batch.index), source.n_features)
            or not batch.x.is_floating_point()
        ):
            raise AssertionError(f"a batch of {tuple(batch.x.shape)} of {batch.x.dtype}")
        if bool(batch.x.isinf().any()):
            raise AssertionError("a value is infinite")
        n += len(batch.x)
    if n != len(source):
        raise AssertionError(f"{n} rows came of {len(source)}")
    source.take([0, n - 1])


def read_picture(path: Path, which: int = 0) -> None:
    """Read a folder of one picture."""
    read_rows(path.parent)


class SameModel:
    """Reads a model file; one that is read must hold what was written."""

    def __init__(self, contents: list[bytes], path: str) -> None:
        """Read the whole files."""
        self._whole = []
        with tempfile.TemporaryDirectory() as folder:
            for content in contents:
                (Path(folder) / path).write_bytes(content)
                self._whole.append(_held(Path(folder) / path))

    def __call__(self, path: Path, which: int) -> None:
        """Read one, and compare.

        Raises:
            AssertionError: if it differs.
        """
        tensors, config, memory, model = _held(path)
        expected = self._whole[which]
        for mine, other in ((tensors, expected[0]), (memory, expected[2]), (model, expected[3])):
            if mine.keys() != other.keys() or not all(_equal(mine[k], other[k]) for k in mine):
                raise AssertionError("a tensor changed, and nothing was said")
        if json.dumps(config, sort_keys=True) != json.dumps(expected[1], sort_keys=True):
            raise AssertionError("the configuration changed, and nothing was said")


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and bool(torch.equal(a, b))


def _held(path: Path) -> tuple[dict, dict, dict, dict]:
    tensors, config, memory = load_fit(path)
    model = load_model(path)[0]
    return tensors, config, memory, dict(model.state_dict())


def read_model(path: Path, which: int = 0) -> None:
    """Read a model whose digests fit what it holds, whatever that is."""
    model, _ = load_model(path)
    if isinstance(model, GaussianMixture):
        model()


def _models() -> list[Format]:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "m.mogul"
        torch.manual_seed(0)
        source = ArraySource(np.random.default_rng(0).normal(size=(60, 4)))
        contents = []
        for model in (
            GaussianMixture(2, 4),
            GaussianMixture(2, 4, "ppca", 2, dtype=torch.float64),
        ):
            initialise(model, source)
            save_model(path, model, {"options": {"data": "x"}, "feature_shape": [4]})
            contents.append(path.read_bytes())
        neural = []
        for model in (
            LatentVariableModel(MLPDecoder(2, (5,), (3,)), 2, (5,)),
            MixtureDensityNetwork(MLP(2, (3,)), 2, 1),
        ):
            save_model(path, model)
            neural.append(path.read_bytes())
        kept, model = Checkpoint(path), GaussianMixture(2, 4)
        initialise(model, source)
        fit(model, source, EM(), passes=2, tolerance=0.0, checkpoint=kept)
        tensors, config = load_tensors(path)
        for row in config["extra"]["history"]:
            row["seconds"] = 0.0  # so that a seed tells a mutant
        save_tensors(path, tensors, config)
        held = path.read_bytes()
    whole = [*contents, *neural]
    return [
        Format("model", "m.mogul", whole, SameModel(whole, "m.mogul")),
        Format("checkpoint", "c.mogul", [held], SameModel([held], "c.mogul")),
        Format(
            "model, sealed anew",
            "s.mogul",
            [_about(c) for c in whole],
            Sealed(whole),
            damage=json_mutant,
        ),
    ]


def _about(content: bytes) -> bytes:
    """Return the configuration in a model file."""
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + length])["__metadata__"]["mogul"].encode()


class Sealed:
    """Writes a configuration into a model file with digests that fit it, as an adversary would."""

    def __init__(self, contents: list[bytes]) -> None:
        """Remember the files."""
        self._contents = contents

    def __call__(self, path: Path, which: int) -> None:
        """Put the damaged configuration in its place, and read the file.

        Raises:
            InputError: if it is no configuration.
        """
        damaged = path.read_bytes()
        path.write_bytes(self._contents[which])
        tensors, _ = load_tensors(path)
        config = json.loads(damaged)
        if not isinstance(config, dict):
            raise InputError("Only what is a dict can be sealed; this is for a file to be.")
        config.pop("sha256", None)
        save_tensors(path, tensors, config)
        read_model(path)


def _npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def _npz(array: np.ndarray, packed: bool) -> bytes:
    out = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(out, x=array)
    return out.getvalue()


def _idx(array: np.ndarray, code: int) -> bytes:
    head = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.tobytes()


def _gzip(content: bytes) -> bytes:
    return gzip.compress(content, 6, mtime=0)


def _zip(members: dict[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, kind)
    return out.getvalue()


def _tar(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in members.items():
            about = tarfile.TarInfo(name)
            about.size, about.mtime = len(content), 0.5  # needs a header of its own
            archive.addfile(about, io.BytesIO(content))
    return out.getvalue()


def _members(pictures: list[bytes]) -> dict[str, bytes]:
    return {f"{i}.png": pictures[0] for i in range(3)}


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)  # pyright: ignore[reportArgumentType]
    return out.getvalue()


def _pictures(pixels: np.ndarray) -> dict[str, list[bytes]]:
    grey = Image.fromarray(np.tile(pixels[0], (3, 3)))
    colour = Image.merge("RGB", [grey, grey.rotate(90).resize(grey.size), grey])
    deep = Image.fromarray(np.tile(pixels[1], (2, 2)).astype(np.uint16) * 257)
    return {
        "PNG": [_encoded(i, "PNG") for i in (grey, colour, colour.convert("RGBA"),
                                             colour.quantize(7), deep, grey.convert("1"))],
        "JPEG": [_encoded(grey, "JPEG"), _encoded(colour, "JPEG"),
                 _encoded(colour, "JPEG", progressive=True, quality=95),
                 _encoded(colour.convert("CMYK"), "JPEG")],
        "other": [_encoded(colour, "BMP"), _encoded(colour, "GIF"), _encoded(grey, "TIFF"),
                  _encoded(colour, "TIFF", compression="tiff_lzw"),
                  _encoded(colour, "TIFF", compression="jpeg"), _encoded(colour, "WEBP"),
                  _encoded(grey, "PPM")],
    }  # fmt: skip


def _texts(numbers: np.ndarray) -> list[bytes]:
    rows = "".join(",".join(f"{v:.4g}" for v in row) + "\n" for row in numbers)
    gaps = rows.replace("0.1", "").replace("-1.", "NA")
    quoted = "".join(",".join(f'"{v:.3g}"' for v in row) + "\r\n" for row in numbers)
    return [
        ("a,b,c,d,e\n" + part).encode() for part in (rows, gaps if _even(gaps) else rows, quoted)
    ]


def _even(rows: str) -> bool:
    return len({line.count(",") for line in rows.splitlines()}) == 1


def _tables(numbers: np.ndarray, pixels: np.ndarray) -> dict[str, list[bytes]]:
    import pyarrow
    from pyarrow import parquet

    columns = pyarrow.table({str(j): [None if v > 2 else v for v in numbers[:, j]]
                             for j in range(numbers.shape[1])})  # fmt: skip
    flat = pixels.reshape(len(pixels), -1)
    about = {b"mogul": json.dumps({"feature_shape": [9, 8], "levels": 256}).encode()}
    values = pyarrow.array(flat.ravel())
    lists = pyarrow.FixedSizeListArray.from_arrays(values, flat.shape[1])
    bytes_ = pyarrow.Array.from_buffers(
        pyarrow.binary(flat.shape[1]), len(flat), [None, pyarrow.py_buffer(flat.tobytes())]
    )
    made = [columns, *(pyarrow.table({"row": c}).replace_schema_metadata(about)
                       for c in (lists, bytes_))]  # fmt: skip
    assert math.prod(pixels.shape[1:]) == flat.shape[1]
    found: dict[str, list[bytes]] = {"parquet": [], "arrow": []}
    for table, kind in zip(made, ("snappy", "zstd", "lz4"), strict=True):
        out = io.BytesIO()
        parquet.write_table(table, out, row_group_size=20, compression=kind)
        found["parquet"].append(out.getvalue())
        out = io.BytesIO()
        with pyarrow.ipc.new_file(out, table.schema) as file:
            file.write_table(table, 20)
        found["arrow"].append(out.getvalue())
    return found
