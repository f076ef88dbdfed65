"""Masks of observed features: True where a value is seen, False where it is to be inferred."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mogul.data.files import read_npy
from mogul.errors import InputError

SIDES = ("left", "right", "top", "bottom")
_FORMS = (
    f"{', '.join(SIDES)} (the hidden half), centre, rectangle:TOP,LEFT,HEIGHT,WIDTH, "
    "random:FRACTION, nan (what is missing already), or the path of a .npy mask"
)


def hide_rectangle(
    n: int, feature_shape: tuple[int, ...], top: int, left: int, height: int, width: int
) -> Tensor:
    """Return a mask (n, D) that hides one rectangle of every image, in all channels.

    Raises:
        InputError: if rows are not images, or the rectangle leaves the image.
    """
    rows, columns = _image_size(feature_shape)
    inside = min(top, left) >= 0 and top + height <= rows and left + width <= columns
    if not inside or height < 1 or width < 1:
        raise InputError(
            f"A rectangle at row {top}, column {left}, of {height}×{width} pixels came for images "
            f"of {rows}×{columns}; it must lie inside the image."
        )
    mask = torch.ones(feature_shape, dtype=torch.bool)
    mask[top : top + height, left : left + width] = False
    return mask.reshape(1, -1).repeat(n, 1)


def hide_half(n: int, feature_shape: tuple[int, ...], side: str) -> Tensor:
    """Return a mask (n, D) that hides the left, right, top or bottom half of every image.

    Raises:
        InputError: if rows are not images, or there is no such side.
    """
    rows, columns = _image_size(feature_shape)
    if side not in SIDES:
        raise InputError(f"Unknown side '{side}'; choose one of: {', '.join(SIDES)}.")
    height = rows if side in ("left", "right") else rows // 2
    width = columns if side in ("top", "bottom") else columns // 2
    top = rows - height if side == "bottom" else 0
    left = columns - width if side == "right" else 0
    return hide_rectangle(n, feature_shape, top, left, height, width)


def hide_random(n: int, feature_shape: tuple[int, ...], fraction: float, seed: int = 0) -> Tensor:
    """Return a mask (n, D) that hides each pixel (all its channels) with a probability.

    Raises:
        InputError: if the fraction is not between 0 and 1.
    """
    if not 0 < fraction < 1:
        raise InputError(f"The fraction to hide is {fraction}; it must lie between 0 and 1.")
    generator = torch.Generator().manual_seed(seed)
    channels = feature_shape[2] if len(feature_shape) == 3 else 1
    pixels = int(np.prod(feature_shape)) // channels
    seen = torch.rand(n, pixels, generator=generator) >= fraction
    return seen.repeat_interleave(channels, dim=1)


def read_mask(path: Path, n: int, feature_shape: tuple[int, ...]) -> Tensor:
    """Read a .npy mask, non-zero where observed: one for all rows, or one per row.

    It has the shape of a row or of all rows, with or without the channels of colour images.

    Raises:
        InputError: if its shape is another one, or its type is not boolean or integer.
    """
    mask = read_npy(path)
    if mask.dtype.kind not in "bui":
        raise InputError(
            f"{path}: a mask of type {mask.dtype} came; it must be boolean, True where observed."
        )
    one = [feature_shape] + ([feature_shape[:2]] if len(feature_shape) == 3 else [])
    if mask.shape in one:
        mask = np.broadcast_to(mask, (n, *mask.shape))
    if mask.shape not in [(n, *shape) for shape in one]:
        allowed = ", ".join(str(s) for s in [*one, *[(n, *shape) for shape in one]])
        raise InputError(
            f"{path}: a mask of shape {mask.shape} came for {n} row(s) of shape {feature_shape}; "
            f"it must have one of the shapes {allowed}."
        )
    if mask.shape[1:] != feature_shape:
        mask = np.broadcast_to(mask[..., None], (n, *feature_shape))
    return torch.from_numpy(np.array(mask, dtype=bool)).reshape(n, -1)


def parse_mask(spec: str, n: int, feature_shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Return the mask (n, D) that a short description stands for.

    Args:
        spec: left, right, top or bottom (the hidden half), centre, rectangle:TOP,LEFT,HEIGHT,WIDTH,
            random:FRACTION, nan (hide nothing but what is missing already), or the path of a .npy
            mask.
        n: number of rows.
        feature_shape: shape of a row.
        seed: seed of random masks.

    Returns:
        the boolean mask, True where observed.

    Raises:
        InputError: if the description is not understood, or does not fit the rows.
    """
    kind, _, numbers = spec.partition(":")
    if spec == "nan":
        return torch.ones(n, math.prod(feature_shape), dtype=torch.bool)
    if kind in SIDES:
        return hide_half(n, feature_shape, kind)
    if kind == "centre":
        rows, columns = _image_size(feature_shape)
        box = (rows // 4, columns // 4, max(rows // 2, 1), max(columns // 2, 1))
        return hide_rectangle(n, feature_shape, *box)
    if spec.endswith(".npy") and Path(spec).is_file():
        return read_mask(Path(spec), n, feature_shape)
    try:
        if kind == "random":
            return hide_random(n, feature_shape, float(numbers), seed)
        if kind == "rectangle":
            top, left, height, width = (int(number) for number in numbers.split(","))
            return hide_rectangle(n, feature_shape, top, left, height, width)
    except InputError:
        raise
    except ValueError:
        pass
    raise InputError(f"The mask '{spec}' is not understood; give {_FORMS}.")


def _image_size(feature_shape: tuple[int, ...]) -> tuple[int, int]:
    if len(feature_shape) < 2:
        raise InputError(
            f"This mask is for images, but rows of shape {feature_shape} came; use "
            "random:FRACTION or a .npy mask."
        )
    return feature_shape[0], feature_shape[1]
