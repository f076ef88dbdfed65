"""New rows: from a mixture over images, or decoded from latents of one's choice."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from fastapi import APIRouter, Query
from torch import Tensor

from mogul.app.arrays import packed
from mogul.app.cloud import MOST_SUMMARISED, prior, summary
from mogul.app.session import Session
from mogul.distributions import Mixture
from mogul.errors import InputError
from mogul.opened import Opened, OpenedDecoder

NAME = "samples"
_MOST = 64
_LATENTS = {"prior": prior, "mixture": summary}


def applies(session: Session) -> bool:
    """Whether the model is of images, and can make new ones."""
    kinds = (Opened, OpenedDecoder)
    return session.ready and isinstance(session.opened, kinds) and session.opened.is_image


def router(session: Session) -> APIRouter:
    """Return what answers the requests of this part."""
    api = APIRouter()

    @api.get("/samples")
    def draws(
        n: Annotated[int, Query(ge=1, le=_MOST)] = 32,
        seed: int = 0,
        noise: bool = False,
        latents: Literal["prior", "mixture"] | None = None,
    ) -> dict[str, Any]:
        """New images; of a decoder, from latents of the prior or of a mixture fitted to them.

        Raises:
            InputError: if latents are chosen, and the model has none.
        """
        opened = session.opened
        if isinstance(opened, OpenedDecoder):
            density = _LATENTS[latents or "prior"](session)
            pixels = opened.to_pixels(_decoded(session, density, n, seed, noise))
            return {
                "pixels": packed(pixels),
                "components": density.n_components,
                "most_rows": MOST_SUMMARISED,
            }
        if latents is not None:
            raise InputError("A mixture over rows has no latents to choose; leave `latents` out.")
        x = session.mixture.sample((n,), noise=noise, seed=seed)
        return {"pixels": packed(opened.to_pixels(x))}

    return api


@torch.no_grad()
def _decoded(session: Session, density: Mixture, n: int, seed: int, noise: bool) -> Tensor:
    return session.decoder.model.sample(n, seed, density, noise)
