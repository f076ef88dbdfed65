"""Folders and zip files of images, decoded to one array of 8-bit pixels."""

from __future__ import annotations

import io
import re
import warnings
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from mogul.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
Size = tuple[int, int]


def read_images(
    path: Path,
    crop: Size | None = None,
    size: Size | None = None,
    colour: bool | None = None,
    rows: slice = slice(None),
) -> np.ndarray:
    """Decode the images of a folder (with its sub-folders) or a zip file, in natural name order.

    Args:
        path: folder or zip file.
        crop: height and width of a central crop, taken first.
        size: height and width to resize to, taken second (antialiased).
        colour: three channels, or grey; None does as the first image is.
        rows: which of the images, in order.

    Returns:
        pixels 0 … 255, (n, height, width) if grey or (n, height, width, 3) if colour, uint8.

    Raises:
        InputError: if there are no images, one cannot be decoded, or their sizes differ.
    """
    names, read = _list_zip(path) if path.is_file() else _list_folder(path)
    names = sorted((n for n in names if _is_image(n)), key=_natural)
    if not names:
        raise InputError(
            f"{path} holds no images; give a folder or zip file with {', '.join(SUFFIXES[:4])} "
            "files or the like."
        )
    names = names[rows]
    if colour is None:
        colour = _decode(names[0], read, None, None, None).ndim == 3

    def decode(name: str) -> np.ndarray:
        return _decode(name, read, crop, size, colour)

    first = decode(names[0])
    out = np.empty((len(names), *first.shape), np.uint8)
    with ThreadPoolExecutor() as pool:
        for i, pixels in enumerate(pool.map(decode, names)):
            if pixels.shape != first.shape:
                raise InputError(
                    f"{path}: {names[i]} is {_describe(pixels)} but {names[0]} is "
                    f"{_describe(first)}; all images must be of one size: give a crop or a size."
                )
            out[i] = pixels
    return out


def reshaped(pixels: np.ndarray, crop: Size | None, size: Size | None) -> np.ndarray:
    """Crop and resize images held as an array, as `read_images` does those in files.

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
        return _change(Image.fromarray(pixels[number]), f"number {number}", crop, size)

    with ThreadPoolExecutor() as pool:
        return np.stack(list(pool.map(change, range(len(pixels)))))


def _list_folder(path: Path) -> tuple[list[str], Callable[[str], bytes]]:
    names = [str(p.relative_to(path)) for p in path.rglob("*") if p.is_file()]
    return names, lambda name: (path / name).read_bytes()


def _list_zip(path: Path) -> tuple[list[str], Callable[[str], bytes]]:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(
            f"{path} cannot be read as a zip file; it may be empty or cut short: fetch it again."
        ) from error
    # Reading one ZipFile from several threads is safe: it locks its file object.
    return archive.namelist(), archive.read


def _is_image(name: str) -> bool:
    parts = Path(name).parts
    hidden = any(part.startswith((".", "__MACOSX")) for part in parts)
    return name.lower().endswith(SUFFIXES) and not hidden


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Order img2 before img10."""
    pieces = re.split(r"(\d+)", name)
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in pieces]


def _decode(
    name: str,
    read: Callable[[str], bytes],
    crop: Size | None,
    size: Size | None,
    colour: bool | None,
) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(read(name)))
            if colour is None:
                colour = image.mode not in ("1", "L", "LA", "I", "I;16", "F")
            image = image.convert("RGB" if colour else "L")
    except (
        UnidentifiedImageError,
        Image.DecompressionBombWarning,
        Image.DecompressionBombError,
        zipfile.BadZipFile,
        OSError,
        SyntaxError,
        ValueError,
    ) as error:
        raise InputError(
            f"Image {name} cannot be decoded ({error}); replace or remove it."
        ) from error
    return _change(image, name, crop, size)


def _change(image: Image.Image, name: str, crop: Size | None, size: Size | None) -> np.ndarray:
    if crop is not None:
        image = _centre_crop(image, crop, name)
    if size is not None:
        image = image.resize((size[1], size[0]), Image.Resampling.LANCZOS)
    return np.asarray(image)


def _centre_crop(image: Image.Image, crop: Size, name: str) -> Image.Image:
    height, width = crop
    if height > image.height or width > image.width:
        raise InputError(
            f"Image {name} is {image.height}×{image.width} pixels, smaller than the crop "
            f"{height}×{width}; choose a smaller crop."
        )
    top, left = (image.height - height) // 2, (image.width - width) // 2
    return image.crop((left, top, left + width, top + height))


def _describe(pixels: np.ndarray) -> str:
    return "×".join(map(str, pixels.shape))
