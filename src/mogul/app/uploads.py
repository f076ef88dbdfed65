"""Images that come from elsewhere, decoded without trust."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mogul.errors import InputError

FORMATS = ("PNG", "JPEG")
_MOST_PIXELS = 40_000_000


def decode_upload(content: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """Return the middle of an image, resized to a shape.

    Args:
        content: a PNG or JPEG file.
        shape: (height, width) of a grey image, or (height, width, 3).

    Returns:
        8-bit pixels of that shape.

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
                turned = ImageOps.exif_transpose(image)
                plain = _on_black(turned).convert("L" if len(shape) == 2 else "RGB")
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
    height, width = shape[:2]
    return np.asarray(ImageOps.fit(plain, (width, height), Image.Resampling.LANCZOS))


def _on_black(image: Image.Image) -> Image.Image:
    """Return an image without transparency, on black, as drawings for digits are."""
    if "transparency" not in image.info and "A" not in image.getbands():
        return image
    layered = image.convert("RGBA")
    ground = Image.new("RGBA", layered.size, "black")
    return Image.alpha_composite(ground, layered)
