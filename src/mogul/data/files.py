"""Arrays in files: .npy (memory-mapped), .npz, and idx (plain or gzipped)."""

from __future__ import annotations

import gzip
import math
import zipfile
import zlib
from pathlib import Path

import numpy as np

from mogul.data.csv_files import damaged
from mogul.errors import InputError

_IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_npy(path: Path) -> np.ndarray:
    """Map a .npy file into memory; rows are read when they are asked for.

    Raises:
        InputError: if the file is empty, damaged, or holds Python objects.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(damaged(path, "a .npy array of numbers")) from error


def read_npz(path: Path) -> np.ndarray:
    """Open the one array of an .npz file, or its array called `x`; uncompressed, it is mapped.

    Raises:
        InputError: if the file is damaged, holds Python objects, or leaves the choice open.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            names = file.files
            chosen = names[0] if len(names) == 1 else "x"
            array = _member(path, file, chosen) if chosen in names else None
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(damaged(path, "an .npz file of numbers")) from error
    if array is None:
        raise InputError(
            f"{path} holds {len(names)} arrays ({', '.join(names[:5]) or 'none'}); keep one, or "
            "call the data 'x'."
        )
    return array


def _member(path: Path, file: np.lib.npyio.NpzFile, name: str) -> np.ndarray:
    """Map a member that is stored as it is into memory; unpack one that is compressed."""
    info = zipfile.ZipFile(path).getinfo(f"{name}.npy")
    if info.compress_type != zipfile.ZIP_STORED:
        return file[name]
    with path.open("rb") as raw:
        raw.seek(info.header_offset + 26)
        name_length, extra_length = np.frombuffer(raw.read(4), "<u2")
        raw.seek(info.header_offset + 30 + int(name_length) + int(extra_length))
        version = np.lib.format.read_magic(raw)
        read = np.lib.format.read_array_header_1_0
        if version != (1, 0):
            read = np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(raw)
        if dtype.hasobject or 0 in shape:
            return file[name]
        order = "F" if fortran else "C"
        return np.memmap(path, dtype, mode="r", offset=raw.tell(), shape=shape, order=order)


def read_idx(path: Path) -> np.ndarray:
    """Read an idx file (the format of MNIST); a plain one is memory-mapped.

    The format: two zero bytes, a type code, the number of dimensions, each dimension as a
    big-endian 32-bit integer, then the values (LeCun, Cortes & Burges 1998).

    Raises:
        InputError: if the file is empty, cut short, or has another magic number.
    """
    zipped = path.suffix == ".gz"
    content = _gunzip(path) if zipped else b""
    with path.open("rb") as file:
        head = content[:1024] if zipped else file.read(1024)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _IDX_TYPES or head[3] == 0:
        raise InputError(
            f"{path} begins with {head[:4].hex(' ') or 'nothing'}, which is not the magic number "
            "of an idx file (00 00 type dimensions); give an idx file, or rename this one to what "
            "it is."
        )
    dtype, n_dims = np.dtype(_IDX_TYPES[head[2]]), head[3]
    offset = 4 + 4 * n_dims
    shape = tuple(int(n) for n in np.frombuffer(head[4:offset], ">u4"))
    have = (len(content) if zipped else path.stat().st_size) - offset
    need = math.prod(shape) * dtype.itemsize
    if len(shape) < n_dims or have != need:
        raise InputError(
            f"{path} announces values of shape {shape}, {need:,} bytes, but holds "
            f"{max(have, 0):,}; the file is damaged: fetch it again."
        )
    if zipped:
        return np.frombuffer(content, dtype, offset=offset).reshape(shape)
    if need == 0:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, mode="r", offset=offset, shape=shape)


def _gunzip(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            return file.read()
    except (EOFError, OSError, zlib.error) as error:
        raise InputError(damaged(path, "a whole gzip file")) from error
