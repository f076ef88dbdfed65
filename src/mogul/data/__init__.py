"""Where batches come from."""

from mogul.data.pixels import PixelScale
from mogul.data.sources import ArraySource, check_columns

__all__ = ["ArraySource", "PixelScale", "check_columns"]
