"""The .npy format, read without trust: sizes that a header claims are held against those there."""

from __future__ import annotations

import io
import math
from typing import BinaryIO, Literal, NamedTuple

import numpy as np

from mogul.errors import InputError

_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class Header(NamedTuple):
    """What a header says of the values after it: `size` is how many bytes they take."""

    shape: tuple[int, ...]
    order: Literal["C", "F"]
    dtype: np.dtype
    size: int


def read_header(file: BinaryIO, have: int) -> Header:
    """Read the header of a .npy file, and leave the file where its values begin.

    Args:
        file: the file, at its begin.
        have: how many bytes it has from there, at most.

    Raises:
        InputError: if it is damaged, holds Python objects, or claims more values than there are.
    """
    begin = file.tell()
    try:
        shape, fortran, dtype = _READERS[np.lib.format.read_magic(file)](file)
    except Exception as error:  # the header is a Python literal, which fails in many ways
        raise InputError("it has no header of an array") from error
    size = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or min(shape, default=0) < 0:
        raise InputError(f"its header tells of values of type {dtype} and shape {shape}")
    if size > have - (file.tell() - begin):
        raise InputError(f"its header tells of more values, {shape}, than there are")
    return Header(shape, "F" if fortran else "C", dtype, size)


def array_of(content: bytes) -> np.ndarray:
    """Return the array in the content of a .npy file, which is not copied.

    Raises:
        InputError: as `read_header` does, or for a shape that no array can have.
    """
    file = io.BytesIO(content)
    head = read_header(file, len(content))
    try:
        values = np.frombuffer(content, np.uint8, head.size, file.tell())
        return values.view(head.dtype).reshape(head.shape, order=head.order)
    except (ValueError, TypeError) as error:
        raise InputError(f"no array has the shape {head.shape} of {head.dtype}") from error
