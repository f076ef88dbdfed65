"""New rows drawn from a mixture over images."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from mogul.app.arrays import packed
from mogul.app.session import Session
from mogul.app.views.components import applies as applies

NAME = "samples"
_MOST = 64


def router(session: Session) -> APIRouter:
    """Return what answers the requests of this part."""
    api = APIRouter()

    @api.get("/samples")
    def draws(
        n: Annotated[int, Query(ge=1, le=_MOST)] = 32, seed: int = 0, noise: bool = False
    ) -> dict[str, Any]:
        """New images."""
        x = session.mixture.sample((n,), noise=noise, seed=seed)
        return {"pixels": packed(session.opened.to_pixels(x))}

    return api
