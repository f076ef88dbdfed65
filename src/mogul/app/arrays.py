"""Arrays in JSON: their shape, their type, and their bytes in base64."""

from __future__ import annotations

import base64
import binascii
import math
from typing import Any

import numpy as np
from pydantic import BaseModel, Field
from torch import Tensor

from mogul.errors import InputError

_TYPES = {"u1": np.uint8, "f4": np.float32}
_MOST_BYTES = 2**22


class Packed(BaseModel):
    """An array that came with a request; `type` is u1 (8-bit) or f4 (float32, little-endian)."""

    shape: list[int] = Field(max_length=3)
    type: str
    data: str = Field(max_length=2 * _MOST_BYTES)

    def unpacked(self) -> np.ndarray:
        """Return the array.

        Raises:
            InputError: if shape, type and bytes disagree.
        """
        try:
            content = base64.b64decode(self.data, validate=True)
        except (binascii.Error, ValueError) as error:
            raise InputError(f"The bytes of an array are no base64: {error}.") from error
        kind = _TYPES.get(self.type)
        needed = -1 if kind is None else math.prod(self.shape) * np.dtype(kind).itemsize
        if kind is None or min(self.shape, default=0) < 0 or len(content) != needed:
            raise InputError(
                f"An array of shape {self.shape} and type '{self.type}' came with {len(content)} "
                "bytes; types are u1 and f4, and the bytes must be as many as the values need."
            )
        return np.frombuffer(content, dtype=np.dtype(kind).newbyteorder("<")).reshape(self.shape)


def packed(array: np.ndarray | Tensor) -> dict[str, Any]:
    """Return an array as what JSON can hold: 8-bit values as they are, others as float32."""
    values = array.detach().cpu().numpy() if isinstance(array, Tensor) else np.asarray(array)
    kind = "u1" if values.dtype == np.uint8 else "f4"
    content = np.ascontiguousarray(values, dtype=np.dtype(_TYPES[kind]).newbyteorder("<"))
    data = base64.b64encode(content.tobytes()).decode()
    return {"shape": list(values.shape), "type": kind, "data": data}
