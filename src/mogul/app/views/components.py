"""Components of a mixture over images: their means by weight, and each with its factors."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from fastapi import APIRouter, Query

from mogul.app.arrays import packed
from mogul.app.session import Session
from mogul.errors import InputError
from mogul.opened import Opened
from mogul.tasks import characteristic, of_class

NAME = "components"
_MOST = 100  # in one answer
_SAMPLES = 12


def applies(session: Session) -> bool:
    """Whether the model is a mixture over images."""
    return session.ready and isinstance(session.opened, Opened) and session.opened.is_image


def router(session: Session) -> APIRouter:
    """Return what answers the requests of this part."""
    api = APIRouter()

    @api.get("/components")
    def wall(start: Annotated[int, Query(ge=0)] = 0) -> dict[str, Any]:
        """Components by falling weight, some at a time."""
        mixture = session.mixture
        order = mixture.log_weights.argsort(descending=True)[start : start + _MOST]
        return {
            "total": mixture.n_components,
            "index": order.tolist(),
            "weights": mixture.weights[order].tolist(),
            "means": packed(session.opened.to_pixels(mixture.means[order])),
        }

    @api.get("/components/{k}")
    def one(k: int) -> dict[str, Any]:
        """Mean, noise and principal loadings of a component, in the units of the model."""
        mixture = _component(session, k)
        found = characteristic(mixture)
        return {
            "weight": float(session.mixture.weights[k]),
            "mean": packed(found.mean[0]),
            "noise": packed(found.noise[0]),
            "directions": packed(found.directions[0]),
        }

    @api.get("/components/{k}/nearest")
    def nearest(k: int) -> dict[str, Any]:
        """The likeliest training images that the component is most responsible for."""
        _component(session, k)
        found = session.survey("train")
        rows = found.nearest[k]
        rows = rows[rows >= 0].tolist()
        x = session.take("train", rows)
        return {
            "rows": rows,
            "pixels": packed(session.opened.to_pixels(x)),
            "owned": int((found.component == k).sum()),
            "of": len(found.component),
        }

    @api.get("/components/{k}/samples")
    def draws(k: int, seed: int = 0, noise: bool = False) -> dict[str, Any]:
        """New images from one component."""
        x = _component(session, k).sample((_SAMPLES,), noise=noise, seed=seed)
        return {"pixels": packed(session.opened.to_pixels(x))}

    return api


def _component(session: Session, k: int) -> Any:
    """Return a component as a mixture of its own.

    Raises:
        InputError: if there is no such component.
    """
    with torch.no_grad():
        mixture = session.mixture
        if not 0 <= k < mixture.n_components:
            raise InputError(
                f"Component {k} was asked for; there are {mixture.n_components}, from 0."
            )
        return of_class(mixture, k)
