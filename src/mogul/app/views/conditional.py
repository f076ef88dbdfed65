"""What some columns of a table say of others: the exact conditional of a mixture, drawn live."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from fastapi import APIRouter
from pydantic import BaseModel, Field

from mogul.app.columns import Columns, columns_of, finite_values, is_table
from mogul.app.densities import conditional, drawn, summary, top
from mogul.app.session import Session
from mogul.errors import InputError

NAME = "conditional"


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
        free = [i for i in range(mixture.n_features) if i not in set(fixed)]
        places = torch.tensor([free.index(t) for t in asked.targets])
        return {
            "log_prob": float(mixture.marginal(index).log_prob(values)) if fixed else 0.0,
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
