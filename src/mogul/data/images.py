"""Encoded images and arrays, one to a row, decoded when rows are asked for."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from PIL import Image, UnidentifiedImageError

from mogul.compute.prefetch import made_ahead
from mogul.data.members import Members, is_image
from mogul.data.npy import array_of
from mogul.errors import InputError

Size = tuple[int, int]
_CHUNK = 64  # images decoded by one thread at a time
_MOST_PIXELS = 2**26  # of an image
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")


class Encoded:
    """Rows decoded from the members of a folder or archive; it is cut and called, not held.

    Args:
        members: images, or .npy files, each a row.
        crop: height and width of a central crop of images, taken first.
        size: height and width to resize to, taken second (antialiased).
        colour: three channels, or grey; None does as the first image is.

    Raises:
        InputError: if the first cannot be decoded, or options for images came for arrays.
    """

    def __init__(
        self,
        members: Members,
        crop: Size | None = None,
        size: Size | None = None,
        colour: bool | None = None,
    ) -> None:
        """Decode the first, to know the shape of all.

        Raises:
            InputError: as the class says.
        """
        name = members.name(0)
        if not is_image(name) and (crop or size or colour is not None):
            raise InputError(
                f"{members.path} holds .npy files; crop, size and colour apply to images."
            )
        if is_image(name) and colour is None:
            colour = decode_image(partial(members.read, 0), lambda: name).mode == "RGB"
        self._members, self._rows = members, range(members.n)
        self._images = is_image(name)
        self._crop, self._size, self._colour = crop, size, colour
        first = self._decoded(0)
        self._first, self.dtype = name, first.dtype
        self.shape: tuple[int, ...] = (members.n, *first.shape)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._rows)

    def __getitem__(self, rows: slice | np.ndarray) -> Encoded:
        """Return some of the rows, still to be decoded."""
        part = copy.copy(self)
        part._rows = (
            self._rows[rows] if isinstance(rows, slice) else [self._rows[i] for i in rows.tolist()]
        )
        part.shape = (len(part._rows), *self.shape[1:])
        return part

    @property
    def nbytes(self) -> int:
        """Bytes of all rows decoded."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __call__(self, index: Iterable[int]) -> np.ndarray:
        """Decode rows by number, (m, *shape).

        Raises:
            InputError: if one cannot be decoded, or is of another size than the first.
        """
        index = list(index)
        out = np.empty((len(index), *self.shape[1:]), self.dtype)
        for place, i in enumerate(index):
            row = self._decoded(self._rows[i])
            if row.shape != self.shape[1:] or row.dtype != self.dtype:
                raise InputError(
                    f"{self._members.path}: {self._members.name(self._rows[i])} is "
                    f"{_describe(row)} but {self._first} is {_describe(self.shape[1:])} of "
                    f"{self.dtype}; all images must be of one size: give a crop or a size."
                )
            out[place] = row
        return out

    def decoded(self) -> np.ndarray:
        """Decode all rows, on several threads, (n, *shape)."""
        out = np.empty(self.shape, self.dtype)
        starts = range(0, len(self), _CHUNK)
        jobs = (partial(self, range(s, min(s + _CHUNK, len(self)))) for s in starts)
        for start, rows in zip(starts, made_ahead(jobs), strict=True):
            out[start : start + len(rows)] = rows
        return out

    def _decoded(self, number: int) -> np.ndarray:
        read = partial(self._members.read, number)
        name = partial(self._members.name, number)  # asked for in errors only: it may take a read
        if not self._images:
            return _array(read(), name)
        image = decode_image(read, name, self._colour)
        return np.asarray(changed(image, name, self._crop, self._size))


def reshaped(pixels: np.ndarray, crop: Size | None, size: Size | None) -> np.ndarray:
    """Crop and resize images held as an array, as `Encoded` does those in files.

    Args:
        pixels: (n, height, width) or (n, height, width, 3), uint8.
        crop: height and width of a central crop, taken first.
        size: height and width to resize to, taken second (antialiased).

    Returns:
        the images as they were if neither is given.

    Raises:
        InputError: if the images are smaller than the crop.
    """
    if crop is None and size is None:
        return pixels

    def change(number: int) -> np.ndarray:
        image = Image.fromarray(pixels[number])
        return np.asarray(changed(image, lambda: f"number {number}", crop, size))

    with ThreadPoolExecutor() as pool:
        return np.stack(list(pool.map(change, range(len(pixels)))))


def decode_image(
    read: Callable[[], bytes], name: Callable[[], str], colour: bool | None = None
) -> Image.Image:
    """Read and decode an image, in colour or grey; None does as it is.

    Raises:
        InputError: if it cannot be decoded.
    """
    try:
        content = read()
    except FileNotFoundError as error:
        raise InputError(f"There is no image {name()}; give a path that exists.") from error
    except Exception as error:  # archives raise errors of many kinds
        raise InputError(
            f"Image {name()} cannot be read ({error}); replace or remove it."
        ) from error
    try:
        # Others are not asked: that of PostScript starts another program.
        image = Image.open(io.BytesIO(content), formats=_FORMATS)
        if image.width * image.height > _MOST_PIXELS:  # before any is decoded
            raise InputError(f"{image.width} × {image.height} pixels, over {_MOST_PIXELS:,}")
        return coloured(image, colour)
    except UnidentifiedImageError as error:
        raise InputError(
            f"Image {name()} cannot be decoded: it is none of {', '.join(_FORMATS)}, or damaged; "
            "replace or remove it."
        ) from error
    except Exception as error:  # decoders of damaged files raise errors of many kinds
        raise InputError(
            f"Image {name()} cannot be decoded ({error}); replace or remove it."
        ) from error


def coloured(image: Image.Image, colour: bool | None) -> Image.Image:
    """Return an image in colour or grey; None does as it is."""
    if colour is None:
        colour = image.mode not in ("1", "L", "LA", "I", "I;16", "F")
    return image.convert("RGB" if colour else "L")


def changed(
    image: Image.Image, name: Callable[[], str], crop: Size | None, size: Size | None
) -> Image.Image:
    """Crop and resize an image.

    Raises:
        InputError: if it is smaller than the crop.
    """
    if crop is not None:
        image = _centre_crop(image, crop, name)
    if size is not None:
        image = image.resize((size[1], size[0]), Image.Resampling.LANCZOS)
    return image


def _centre_crop(image: Image.Image, crop: Size, name: Callable[[], str]) -> Image.Image:
    height, width = crop
    if height > image.height or width > image.width:
        raise InputError(
            f"Image {name()} is {image.height}×{image.width} pixels, smaller than the crop "
            f"{height}×{width}; choose a smaller crop."
        )
    top, left = (image.height - height) // 2, (image.width - width) // 2
    return image.crop((left, top, left + width, top + height))


def _array(content: bytes, name: Callable[[], str]) -> np.ndarray:
    """Read a .npy file of one row.

    Raises:
        InputError: if it is damaged, or holds Python objects.
    """
    try:
        return np.atleast_1d(array_of(content))
    except InputError as error:
        raise InputError(
            f"{name()} cannot be read as a .npy array ({error}); replace or remove it."
        ) from error


def _describe(shape: np.ndarray | tuple[int, ...]) -> str:
    if isinstance(shape, np.ndarray):
        return f"{_describe(shape.shape)} of {shape.dtype}"
    return "×".join(map(str, shape))
