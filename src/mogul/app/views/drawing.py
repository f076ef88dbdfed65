"""In-painting while a mask is drawn: the image filled in, its uncertainty, and alternatives."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import torch
from fastapi import APIRouter
from pydantic import BaseModel, Field
from torch import Tensor

from mogul.app.arrays import Packed, packed
from mogul.app.session import Session
from mogul.app.views.pictures import Image
from mogul.data.pixels import stretch
from mogul.errors import InputError
from mogul.opened import Opened, OpenedDecoder
from mogul.tasks import LatentInpainting, inpaint, inpaint_latent, percentile_of

NAME = "drawing"
_MOST_SAMPLES = 8
# Steps of a decoder's search for latents along a stroke, from those of the stroke so far and, for a
# new image, from anywhere; and of the chain that draws from them.
_NEXT, _FIRST, _BURN_IN, _SPACING = 24, 48, 20, 4


class Asked(BaseModel):
    """An image and its mask (height, width), 1 where it is observed.

    Of decoders, what is not `settled` is searched for in few steps, from the latents `start` (1, d)
    of the answer before if they are given; else as thoroughly as `inpaint_latent` does by itself.
    """

    image: Image
    mask: Packed
    samples: Annotated[int, Field(ge=0, le=_MOST_SAMPLES)] = 4
    noise: bool = False
    seed: int = 0
    settled: bool = True
    start: Packed | None = None


def applies(session: Session) -> bool:
    """Whether the model is of images, and may fill in their hidden parts."""
    opened_kind = (Opened, OpenedDecoder)
    return session.ready and isinstance(session.opened, opened_kind) and session.opened.is_image


def router(session: Session) -> APIRouter:
    """Return what answers the requests of this part."""
    api = APIRouter()

    @api.post("/inpaint")
    def fill(asked: Asked) -> dict[str, Any]:
        """The hidden part of an image, given the rest."""
        opened, x = session.opened, asked.image.rows(session)
        observed = _observed(opened.feature_shape, asked.mask.unpacked()) & ~x.isnan()
        if isinstance(opened, Opened):
            done = inpaint(opened.mixture, x, observed, asked.samples, asked.noise, asked.seed)
            scores = {"observed": float(done.log_likelihood), "what": "log p(observed part)"}
            spread = "uncertainty"
        else:
            done = _searched(session, asked, x, observed)
            scores = {
                "observed": float(done.log_joint),
                "what": "log p(observed part, z)",
                "latents": packed(done.latents),
            }
            spread = "spread of what is decoded"  # without the noise of single pixels
        mean = opened.to_pixels(done.mean)
        deviation = done.deviation.cpu().numpy().reshape(mean.shape)
        return {
            "mean": packed(mean),
            "deviation": packed(stretch(deviation)),
            "largest_deviation": float(deviation.max()),
            "deviation_of": spread,
            "samples": packed(opened.to_pixels(done.samples.reshape(-1, opened.n_features))),
            **scores,
        }

    @api.post("/score")
    def score(image: Image) -> dict[str, Any]:
        """How likely an image is as a whole, beside the training images."""
        mixture, x = session.mixture, image.rows(session)
        value = float(mixture.log_prob(x))
        resp = mixture.responsibilities(x)[0]
        top = resp.topk(min(5, len(resp)))
        whole = not bool(x.isnan().any())
        rank = percentile_of(np.array([value]), session.opened.quantiles)
        return {
            "log_likelihood": value,
            "percentile": float(rank[0]) if whole else None,
            "components": top.indices.tolist(),
            "responsibilities": top.values.tolist(),
            "pixels": packed(session.opened.to_pixels(x.nan_to_num(0.5))),
        }

    return api


def _searched(session: Session, asked: Asked, x: Tensor, observed: Tensor) -> LatentInpainting:
    """Return the image filled in by a decoder."""
    model = session.decoder.model
    if asked.settled:
        return inpaint_latent(model, x, observed, asked.samples, seed=asked.seed)
    start = None if asked.start is None else torch.from_numpy(asked.start.unpacked().copy())
    steps = _FIRST if start is None else _NEXT
    return inpaint_latent(
        model, x, observed, asked.samples, steps, asked.seed, start, _BURN_IN, _SPACING
    )


def _observed(shape: tuple[int, ...], mask: np.ndarray) -> Tensor:
    """Return the mask of a row, (1, D), from one of pixels.

    Raises:
        InputError: if it has another height or width than the images.
    """
    if mask.shape != shape[:2]:
        raise InputError(f"A mask of shape {mask.shape} came; images are of {shape[:2]}.")
    seen = torch.from_numpy(mask != 0)
    if len(shape) == 3:
        seen = seen.unsqueeze(-1).expand(shape)
    return seen.reshape(1, -1)
