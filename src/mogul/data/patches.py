"""Patches of grey pictures as rows, and grey pictures from files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from mogul.data.images import decode_image
from mogul.errors import InputError

_LEVELS = 256


def read_grey(path: str | Path) -> np.ndarray:
    """Read an image file as grey levels from 0 to 255, (h, w), uint8; colours are turned grey.

    Raises:
        InputError: if it cannot be decoded.
    """
    return np.asarray(decode_image(Path(path).read_bytes, lambda: str(path), colour=False))


def from_levels(picture: np.ndarray) -> np.ndarray:
    """Return grey levels 0 … 255 of any real type as values in (0, 1), x = (y + ½)/256."""
    return ((picture + 0.5) / _LEVELS).astype(np.float32)


def random_patches(
    pictures: np.ndarray | Sequence[np.ndarray],
    n: int,
    shape: tuple[int, int] = (8, 8),
    centred: bool = True,
    seed: int = 0,
) -> np.ndarray:
    """Draw patches of grey pictures, all places alike.

    Levels of 8-bit pictures become (y + u)/256 with u uniform in (0, 1), as everywhere in mogul,
    so that even areas have a density.

    Args:
        pictures: (m, h, w), or any number of pictures (h, w); uint8, or floats from 0 to 1.
        n: how many patches.
        shape: height and width of a patch.
        centred: whether patches are returned less their own mean, which is better for denoising
            (`tasks.denoise_image`), or as they are.
        seed: seed of the places and of u.

    Returns:
        patches (n, *shape), float32.

    Raises:
        InputError: if a picture is no grey one or smaller than a patch, or n is below 1.
    """
    if n < 1 or len(pictures) == 0:
        raise InputError(
            f"{n} patches of {len(pictures)} pictures were asked for; give at least one of each."
        )
    windows = [sliding_window_view(_checked(picture, shape), shape) for picture in pictures]
    places = np.cumsum([0, *(w.shape[0] * w.shape[1] for w in windows)])
    random = np.random.default_rng(seed)
    drawn = random.integers(places[-1], size=n)
    patches = np.empty((n, *shape), np.float32)
    for i, window in enumerate(windows):
        own = (drawn >= places[i]) & (drawn < places[i + 1])
        top, left = np.divmod(drawn[own] - places[i], window.shape[1])
        found = window[top, left]
        if found.dtype == np.uint8:
            found = (found + random.random(found.shape, np.float32)) / _LEVELS
        patches[own] = found
    return patches - patches.mean((1, 2), keepdims=True) if centred else patches


def _checked(picture: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return a picture that is grey, real and large enough.

    Raises:
        InputError: if it is not.
    """
    picture = np.asarray(picture)
    grey = picture.ndim == 2 and (picture.dtype == np.uint8 or picture.dtype.kind == "f")
    if not grey or picture.shape[0] < shape[0] or picture.shape[1] < shape[1]:
        raise InputError(
            f"A picture of shape {picture.shape} and type {picture.dtype} came; give grey pictures "
            f"(h, w), uint8 or floats, of at least {shape[0]}×{shape[1]} pixels."
        )
    return picture
