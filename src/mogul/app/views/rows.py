"""Rows of a table with gaps: what is missing, inferred from what is there."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from fastapi import APIRouter
from pydantic import BaseModel, Field
from torch import Tensor

from mogul.app.columns import columns_of, finite_values, plain
from mogul.app.columns import is_table as applies
from mogul.app.densities import conditional, summary
from mogul.app.session import Session
from mogul.app.views.table import judged
from mogul.errors import InputError

__all__ = ["NAME", "applies", "router"]

NAME = "rows"
_MOST_DRAWS = 20


class Asked(BaseModel):
    """A row, null where a value is missing."""

    values: list[float | None]
    draws: Annotated[int, Field(ge=0, le=_MOST_DRAWS)] = 5
    seed: int = 0


def router(session: Session) -> APIRouter:
    """Return what answers the requests of this part."""
    api = APIRouter()

    @api.post("/complete")
    def complete(asked: Asked) -> dict[str, Any]:
        """The missing values of a row given the others: mean, deviation, interval and draws."""
        row = _row(session, asked.values)
        seen, missing = ~row.isnan(), row.isnan().nonzero().flatten().tolist()
        found = judged(session, row.unsqueeze(0)) | {"missing": missing}
        if not missing:
            return found
        index, mixture = seen.nonzero().flatten(), session.mixture
        given = conditional(mixture, index, row[index]) if len(index) else mixture
        return found | {
            **summary(given),
            "draws": plain(given.sample((asked.draws,), seed=asked.seed)),
        }

    return api


def _row(session: Session, values: list[float | None]) -> Tensor:
    """Return a row as the mixture wants it, (D,), NaN where a value is missing.

    Raises:
        InputError: if it has another width, or a value is not finite.
    """
    mixture = session.mixture
    if len(values) != mixture.n_features:
        raise InputError(
            f"A row of {len(values)} values came; give {mixture.n_features}, null for those that "
            "are missing."
        )
    known = {i: v for i, v in enumerate(values) if v is not None}
    row = mixture.means.new_full((mixture.n_features,), torch.nan)
    row[list(known)] = finite_values(
        columns_of(session), list(known), list(known.values()), mixture
    )
    return row
