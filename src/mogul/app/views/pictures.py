"""Images as other parts ask for them: rows of data by number, and files that people upload."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import torch
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from torch import Tensor

from mogul.app.arrays import Packed, packed
from mogul.app.session import Session
from mogul.app.uploads import decode_upload
from mogul.data import PixelScale
from mogul.errors import InputError

NAME = "pictures"
_MOST = 200  # in one answer


class Image(BaseModel):
    """An image that a request is about: a row of data, or 8-bit pixels."""

    set: str = "shown"
    row: int | None = None
    pixels: Packed | None = None

    def rows(self, session: Session) -> Tensor:
        """Return the image as the model wants it, (1, D).

        Raises:
            InputError: if there is no such row, or the pixels are of another shape.
        """
        if self.row is not None:
            return session.take(self.set, [self.row])
        if self.pixels is None:
            raise InputError("An image needs either the number of a row or pixels; neither came.")
        return values_of(session, self.pixels.unpacked())


def values_of(session: Session, pixels: np.ndarray) -> Tensor:
    """Return an image of 8-bit pixels as the model wants it, (1, D): each at the middle of its bin.

    Raises:
        InputError: if it has another shape.
    """
    opened = session.opened
    if pixels.dtype != np.uint8 or pixels.shape != opened.feature_shape:
        raise InputError(
            f"Pixels of shape {pixels.shape} and type {pixels.dtype} came; the model is of 8-bit "
            f"images of shape {opened.feature_shape}."
        )
    levels = opened.extra.get("levels") or 256
    grey = torch.from_numpy(np.round(pixels.reshape(1, -1) * ((levels - 1) / 255)))
    like = session.mixture if hasattr(opened, "mixture") else opened.model  # type: ignore[union-attr]
    return PixelScale(levels).forward(grey, torch.zeros(1), like.dtype).to(like.device)


def applies(session: Session) -> bool:
    """It is no part of the page by itself."""
    return False


def router(session: Session) -> APIRouter:
    """Return what answers the requests of this part."""
    api = APIRouter()

    @api.get("/rows/{name}")
    def rows(name: str, index: Annotated[list[int], Query(max_length=_MOST)]) -> dict[str, Any]:
        """Images of a set of rows, by number."""
        x = session.take(name, index)
        return {"rows": index, "pixels": packed(session.opened.to_pixels(x))}

    @api.post("/upload")
    async def upload(request: Request) -> dict[str, Any]:
        """A PNG or JPEG file as an image of the model's shape, and what was done to make it one."""
        content = await request.body()
        opened = session.opened
        found = decode_upload(content, opened.feature_shape)
        levels = opened.extra.get("levels") or 256
        rounded = [f"rounded to the {levels} grey values of the data"] if levels < 256 else []
        return {"pixels": packed(found.pixels), "done": found.done + rounded}

    return api
