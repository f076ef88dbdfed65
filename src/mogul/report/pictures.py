"""Rows of images as one picture, and pictures as PNG bytes."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

_GAP = 3
_GAP_GREY = 200
_LEAST_SIDE = 48  # small images are enlarged to about this many pixels, so that one can see them


def tile(images: np.ndarray, columns: int) -> np.ndarray:
    """Lay images (n, h, w[, 3]) of 8-bit pixels out in a grid, row by row, small ones enlarged."""
    factor = max(1, round(_LEAST_SIDE / images.shape[1]))
    images = images.repeat(factor, axis=1).repeat(factor, axis=2)
    n, height, width = images.shape[:3]
    rows = -(-n // columns)
    shape = (rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, *images.shape[3:])
    out = np.full(shape, _GAP_GREY, np.uint8)
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + _GAP), (i % columns) * (width + _GAP)
        out[top : top + height, left : left + width] = image
    return out


def stack_rows(rows: list[np.ndarray]) -> np.ndarray:
    """Lay out lists of images, each (m, h, w[, 3]), one list per row."""
    return tile(np.concatenate(rows), len(rows[0]))


def to_png(picture: np.ndarray) -> bytes:
    """Encode an 8-bit picture (h, w[, 3])."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def as_pixels(figure: Figure) -> np.ndarray:
    """Draw a figure as an 8-bit RGB picture."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return np.asarray(Image.open(buffer).convert("RGB"))
