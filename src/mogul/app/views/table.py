"""Tables as other parts ask for them: columns, rows by number, and how likely a row is."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import torch
from fastapi import APIRouter, Query
from torch import Tensor

from mogul.app.columns import columns_of, plain
from mogul.app.densities import top
from mogul.app.session import Session
from mogul.opened import OpenedNetwork
from mogul.tasks import percentile_of

NAME = "table"
_MOST = 100  # rows in one answer


def applies(session: Session) -> bool:
    """It is no part of the page by itself."""
    return False


def router(session: Session) -> APIRouter:
    """Return what answers the requests of this part."""
    api = APIRouter()

    @api.get("/table")
    def columns() -> dict[str, Any]:
        """Names and ranges of the columns, of which a network's targets come last."""
        found, opened = columns_of(session), session.opened
        return {
            "targets": opened.model.n_features if isinstance(opened, OpenedNetwork) else 0,
            "names": found.names,
            "low": found.low.tolist(),
            "high": found.high.tolist(),
            "typical": found.typical.tolist(),
        }

    @api.get("/table/{name}")
    def rows(name: str, index: Annotated[list[int], Query(max_length=_MOST)]) -> dict[str, Any]:
        """Rows of a set by number, null where a value is missing."""
        return {"rows": index, "values": plain(session.take(name, index, torch.float64))}

    @api.get("/table/{name}/{row}/score")
    def score(name: str, row: int) -> dict[str, Any]:
        """How likely a row is, among the training rows, and which components explain it."""
        values = session.take(name, [row], torch.float64)
        return {"row": row, "values": plain(values[0])} | judged(session, session.take(name, [row]))

    return api


def judged(session: Session, x: Tensor) -> dict[str, Any]:
    """Return how likely what is known of a row (1, D) is, and its responsibilities.

    The percentile is that among the training rows, of a row without gaps.
    """
    mixture = session.mixture
    value = float(mixture.log_prob(x))
    whole, known = not bool(x.isnan().any()), "quantiles" in session.opened.extra
    rank = None
    if whole and known:
        rank = float(percentile_of(np.array([value]), session.opened.quantiles)[0])
    return {
        "log_likelihood": value,
        "whole": whole,
        "percentile": rank,
        "responsibilities": top(mixture.responsibilities(x)[0]),
    }
