"""Images that come from elsewhere, decoded without trust."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mogul.errors import InputError

FORMATS = ("PNG", "JPEG")
_MOST_PIXELS = 40_000_000
_UPRIGHT = 1  # what cameras write for an image that need not be turned
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Upload:
    """An image of the model's shape: 8-bit `pixels`, and in words what was `done` to make them."""

    pixels: np.ndarray
    done: list[str]


def decode_upload(content: bytes, shape: tuple[int, ...]) -> Upload:
    """Return the middle of an image, resized to a shape.

    Args:
        content: a PNG or JPEG file.
        shape: (height, width) of a grey image, or (height, width, 3).

    Returns:
        the image, with what was done to it.

    Raises:
        InputError: if the content is no such file, is damaged, or holds too many pixels.
    """
    if len(shape) not in (2, 3):
        raise InputError(f"The model is of rows of shape {shape}, not of images.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                if image.width * image.height > _MOST_PIXELS:
                    raise InputError(
                        f"The image has {image.width} × {image.height} pixels; give one of at most "
                        f"{_MOST_PIXELS:,}."
                    )
                return _fitted(image, shape)
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise InputError(
            "The file is not an image that can be read; give a PNG or JPEG file, or save it as one."
        ) from error
    except Exception as error:  # decoders of damaged files raise errors of many kinds
        raise InputError(
            f"The file is no image that can be read ({type(error).__name__}: {error}); give a PNG "
            "or JPEG file that is whole."
        ) from error


def _fitted(image: Image.Image, shape: tuple[int, ...]) -> Upload:
    done, (height, width) = [], shape[:2]
    if image.getexif().get(_ORIENTATION, _UPRIGHT) != _UPRIGHT:
        done.append("turned as the camera says")
    image = ImageOps.exif_transpose(image)
    if "transparency" in image.info or "A" in image.getbands():
        done.append("laid on black where it is transparent")  # as drawings for digits are
        layered = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layered.size, "black"), layered)
    mode = "L" if len(shape) == 2 else "RGB"
    plain = image.convert(mode)
    if mode == "L" and image.mode not in ("L", "1", "I", "I;16", "F"):
        done.append("turned grey")
    cut = _middle(plain.size, (width, height))
    if cut != plain.size:
        done.append(f"cut to the middle {_by(cut)} of {_by(plain.size)} pixels")
    if cut != (width, height):
        done.append(f"resized from {_by(cut)} to {_by((width, height))} pixels")
    fitted = ImageOps.fit(plain, (width, height), Image.Resampling.LANCZOS)
    return Upload(np.asarray(fitted), done)


def _middle(size: tuple[int, int], wanted: tuple[int, int]) -> tuple[int, int]:
    """Return the largest part of an image with the proportions wanted, in whole pixels."""
    scale = min(size[0] / wanted[0], size[1] / wanted[1])
    return round(scale * wanted[0]), round(scale * wanted[1])


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} × {size[1]}"
