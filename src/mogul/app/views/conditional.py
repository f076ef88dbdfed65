"""What some columns of a table say of others: the exact conditional of a mixture, drawn live."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any

import numpy as np
import torch
from fastapi import APIRouter
from pydantic import BaseModel, Field
from torch import Tensor

from mogul.app.columns import Columns, columns_of, finite_values, is_table
from mogul.app.densities import conditional, drawn, summary, top
from mogul.app.session import Session
from mogul.errors import InputError

NAME = "conditional"
_COMPARED = 1_000  # training rows


class Asked(BaseModel):
    """Columns with the values they are fixed at, and one or two free ones to look at.

    `zoom` shows where their density is, and else the range of the data at least.
    """

    columns: list[int]
    values: list[float]
    targets: Annotated[list[int], Field(min_length=1, max_length=2)]
    zoom: bool = False


def applies(session: Session) -> bool:
    """Whether the model is a mixture over a table of several columns."""
    return is_table(session) and session.opened.n_features > 1


def router(session: Session) -> APIRouter:
    """Return what answers the requests of this part."""
    api = APIRouter()

    @api.post("/conditional")
    def condition(asked: Asked) -> dict[str, Any]:
        """The density of the targets given what is fixed, and a summary of all free columns."""
        mixture, columns = session.mixture, columns_of(session)
        fixed = _fixed(columns, asked)
        values = finite_values(columns, fixed, asked.values, mixture)
        index = torch.tensor(fixed)
        given = conditional(mixture, index, values) if fixed else mixture
        log_prob = float(mixture.marginal(index).log_prob(values)) if fixed else 0.0
        free = [i for i in range(mixture.n_features) if i not in set(fixed)]
        places = torch.tensor([free.index(t) for t in asked.targets])
        return {
            "log_prob": log_prob,
            "compared": _compared(session, tuple(fixed), log_prob),
            "free": free,
            **summary(given),
            "responsibilities": top(given.weights),
            **drawn(
                given.marginal(places),
                [(float(columns.low[t]), float(columns.high[t])) for t in asked.targets],
                asked.zoom,
                mixture.marginal(torch.tensor(asked.targets)),
            ),
        }

    return api


def _compared(session: Session, fixed: tuple[int, ...], log_prob: float) -> dict[str, Any] | None:
    """Return how many training rows are less likely than this in the columns that are fixed.

    None where nothing is fixed, or no training row is at hand that has all of these columns.
    """
    if not fixed or "train" not in session.sources:
        return None
    scores = _scores(session, fixed)
    if not len(scores):
        return None
    return {
        "below": int((scores < log_prob).sum()),
        "of": len(scores),
        "least": float(scores.min()),
    }


@lru_cache(maxsize=16)
def _scores(session: Session, fixed: tuple[int, ...]) -> Tensor:
    """Return log-densities of evenly spread training rows under the marginal of some columns."""
    n = len(session.source("train"))
    rows = np.unique(np.linspace(0, n - 1, min(n, _COMPARED)).round().astype(int)).tolist()
    index = torch.tensor(fixed)
    x = session.take("train", rows)[:, index]
    return session.mixture.marginal(index).log_prob(x[~x.isnan().any(-1)]).cpu()


def _fixed(columns: Columns, asked: Asked) -> list[int]:
    """Return the columns that are fixed, if any are.

    Raises:
        InputError: if all are, or one of the targets is among them.
    """
    fixed, targets = columns.checked(asked.columns), columns.checked(asked.targets)
    if len(fixed) == len(columns.names):
        raise InputError("Every column is fixed; leave at least one free to look at.")
    both = [t for t in targets if t in fixed]
    if both:
        raise InputError(
            f"{columns.names[both[0]]} is fixed, and to be looked at; choose a free column."
        )
    return fixed
