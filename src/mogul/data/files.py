"""Arrays in files: .npy (memory-mapped), .npz, and idx (plain or gzipped)."""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from mogul.data.csv_files import damaged
from mogul.data.npy import array_of, read_header
from mogul.data.unpacked import Gunzipped, check_growth, read_member
from mogul.errors import InputError

_IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MOST_DIMENSIONS = 64  # of an array


def read_npy(path: Path) -> np.ndarray:
    """Map a .npy file into memory; rows are read when they are asked for.

    Raises:
        InputError: if the file is empty, damaged, or holds Python objects.
    """
    try:
        with path.open("rb") as file:
            return _mapped(path, file, path.stat().st_size)
    except (InputError, ValueError, OSError) as error:
        raise InputError(damaged(path, "a .npy array of numbers")) from error


def _mapped(path: Path, file: BinaryIO, have: int) -> np.ndarray:
    """Map the array of a .npy file, or of what begins at a place of another file."""
    head = read_header(file, have)
    if head.size == 0:
        return np.empty(head.shape, head.dtype)
    at = file.tell()
    return np.memmap(path, head.dtype, "r", offset=at, shape=head.shape, order=head.order)


def read_npz(path: Path) -> np.ndarray:
    """Open the one array of an .npz file, or its array called `x`; uncompressed, it is mapped.

    Raises:
        InputError: if the file is damaged, holds Python objects, or leaves the choice open.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            chosen = names[0] if len(names) == 1 else "x.npy"
            array = _member(path, archive, chosen) if chosen in names else None
    except Exception as error:  # damaged archives raise errors of many kinds
        if isinstance(error, InputError) and str(error).startswith(str(path)):
            raise
        raise InputError(damaged(path, "an .npz file of numbers")) from error
    if array is None:
        known = ", ".join(name.removesuffix(".npy") for name in names[:5])
        raise InputError(
            f"{path} holds {len(names)} arrays ({known or 'none'}); keep one, or call the data 'x'."
        )
    return array


def _member(path: Path, archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Map a member that is stored as it is into memory; unpack one that is compressed."""
    about = archive.getinfo(name)
    if about.compress_type != zipfile.ZIP_STORED:
        return array_of(read_member(path, archive, name))
    with path.open("rb") as file:
        file.seek(about.header_offset + 26)
        name_length, extra_length = np.frombuffer(file.read(4), "<u2")
        file.seek(about.header_offset + 30 + int(name_length) + int(extra_length))
        return _mapped(path, file, min(about.file_size, path.stat().st_size - file.tell()))


def read_idx(path: Path) -> np.ndarray:
    """Read an idx file (the format of MNIST); a plain one is memory-mapped.

    The format: two zero bytes, a type code, the number of dimensions, each dimension as a
    big-endian 32-bit integer, then the values (LeCun, Cortes & Burges 1998).

    Raises:
        InputError: if the file is empty, cut short, or has another magic number.
    """
    zipped = path.suffix == ".gz"
    try:
        with Gunzipped(path) if zipped else path.open("rb") as file:
            head = _idx_head(path, file.read(4 + 4 * 255))
            content = b""
            if zipped:  # the byte after the last leads to the end, where the checksum is
                check_growth(path, path.stat().st_size, head.need)
                file.seek(head.offset)
                content = file.read(head.need + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise InputError(damaged(path, "a whole gzip file" if zipped else "a file")) from error
    have = len(content) if zipped else path.stat().st_size - head.offset
    if have != head.need:
        raise InputError(_wrong_size(path, head, have))
    if head.need == 0:
        return np.empty(head.shape, head.dtype)
    if zipped:
        return np.frombuffer(content, head.dtype).reshape(head.shape)
    return np.memmap(path, head.dtype, mode="r", offset=head.offset, shape=head.shape)


class _IdxHead(NamedTuple):
    """What the head of an idx file tells: `need` bytes of values follow at `offset`."""

    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int
    need: int


def _idx_head(path: Path, head: bytes) -> _IdxHead:
    """Read the head of an idx file.

    Raises:
        InputError: if it is none, or tells of more values than the file can hold.
    """
    known = len(head) >= 4 and head[:2] == b"\0\0" and head[2] in _IDX_TYPES
    if not known or not 0 < head[3] <= _MOST_DIMENSIONS:
        raise InputError(
            f"{path} begins with {head[:4].hex(' ') or 'nothing'}, which is not the magic number "
            "of an idx file (00 00 type dimensions); give an idx file, or rename this one to what "
            "it is."
        )
    dtype, n_dims = np.dtype(_IDX_TYPES[head[2]]), head[3]
    offset = 4 + 4 * n_dims
    sizes = head[4:offset]
    shape = struct.unpack(f">{len(sizes) // 4}I", sizes[: len(sizes) // 4 * 4])
    found = _IdxHead(dtype, shape, offset, math.prod(shape) * dtype.itemsize)
    # Nothing that gzip makes is 1,032 times as small as what went in.
    if len(shape) < n_dims or found.need > 1032 * path.stat().st_size:
        raise InputError(_wrong_size(path, found, path.stat().st_size - offset))
    return found


def _wrong_size(path: Path, head: _IdxHead, have: int) -> str:
    return (
        f"{path} announces values of shape {head.shape}, {head.need:,} bytes, but holds "
        f"{max(have, 0):,}; the file is damaged: fetch it again."
    )
