"""Columns of a table as the page knows them: what they are called, and where values lie."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mogul.app.session import MOST_ROWS, Session
from mogul.data import DataSource, column_names, holds_columns, is_csv
from mogul.errors import InputError
from mogul.opened import Opened, OpenedNetwork

_MOST_VALUES = 10_000_000  # that ranges are found among
_TAIL = 1e-3  # beyond the ends of a range, where there are no data to tell it
_WIDE = 3.0  # deviations to either side, where a network knows no more


@dataclass(frozen=True)
class Columns:
    """Names of the D columns, and least, greatest and median value of each, (D,) in float64.

    Ranges are never empty: of a column that is constant they reach to either side of it.
    """

    names: list[str]
    low: Tensor
    high: Tensor
    typical: Tensor

    def checked(self, index: list[int]) -> list[int]:
        """Return numbers of columns.

        Raises:
            InputError: if one is not there, or comes twice.
        """
        for i in index:
            if not 0 <= i < len(self.names):
                raise InputError(
                    f"Column {i} was asked for; there are {len(self.names)}, counted from 0."
                )
        if len(set(index)) < len(index):
            raise InputError(f"Columns {index} came; name every one once.")
        return index


def is_table(session: Session) -> bool:
    """Whether the model is a mixture over the rows of a table."""
    return session.ready and isinstance(session.opened, Opened) and not session.opened.is_image


def columns_of(session: Session) -> Columns:
    """Return what is known of the columns that a model is of.

    A network's are its inputs, and then its targets. Ranges are those of the training data, or else
    of the data shown, or, where both are missing, those that the model expects.
    """
    names = _names(session)
    for which in ("train", "shown"):
        if which in session.sources:
            low, high, typical = _ranges(session.sources[which])
            break
    else:
        low, high, typical = _expected(session)
    unit = torch.where(low == 0, 1.0, low.abs())
    wider = torch.where(high > low, 0.0, unit)
    return Columns(names, low - wider, high + wider, typical)


def finite_values(columns: Columns, index: list[int], values: list[float], like: Any) -> Tensor:
    """Return values of some columns as a model wants them, (m,).

    Raises:
        InputError: if a value is not finite, in the type of the model, or their number is wrong.
    """
    if len(values) != len(index):
        raise InputError(f"{len(values)} values came for {len(index)} columns; give one for each.")
    found = torch.tensor(values, dtype=like.dtype, device=like.device)
    bad = (~found.isfinite()).nonzero().flatten().tolist()
    if bad:
        raise InputError(
            f"The value of {columns.names[index[bad[0]]]} is {values[bad[0]]}; give a finite "
            f"number, within what {like.dtype} holds."
        )
    return found


def plain(values: Tensor) -> list[Any]:
    """Return values (m,) or (n, m) as lists, NaN and infinity as None, which JSON can say."""
    if values.dim() > 1:
        return [plain(row) for row in values]
    return [v if math.isfinite(v) else None for v in values.tolist()]


def _names(session: Session) -> list[str]:
    opened = session.opened
    if isinstance(opened, OpenedNetwork):
        return [*opened.extra["inputs"], *opened.extra["targets"]]
    for options in (opened.extra["options"], *(s.options for s in session.sources.values())):
        known = _listed(str(options.get("data", "")), tuple(options.get("columns", ())))
        if len(known) == opened.n_features:
            return list(known)
    return [f"column {i}" for i in range(opened.n_features)]


@lru_cache(maxsize=4)
def _listed(data: str, chosen: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the columns that were read from data, if they have any."""
    named = Path(data).exists() and (is_csv(data) or holds_columns(Path(data)))
    if not named:  # columns of arrays go by number
        return tuple(f"column {name}" for name in chosen)
    return chosen or tuple(column_names(data))


@lru_cache(maxsize=4)
def _ranges(source: DataSource) -> tuple[Tensor, Tensor, Tensor]:
    """Return least, greatest and median values of the first rows of a source, each (D,)."""
    n = min(MOST_ROWS, max(1000, _MOST_VALUES // source.n_features), len(source))
    x = source.head(n, torch.float64)
    missing = x.isnan()
    low = torch.where(missing, torch.inf, x).amin(0)
    high = torch.where(missing, -torch.inf, x).amax(0)
    empty = missing.all(0)  # in the rows that were looked at
    low, high = torch.where(empty, 0.0, low), torch.where(empty, 1.0, high)
    return low, high, torch.where(empty, 0.5, x.nanmedian(0).values)


def _expected(session: Session) -> tuple[Tensor, Tensor, Tensor]:
    """Return where the model expects values of the columns, each (D,)."""
    if isinstance(session.opened, OpenedNetwork):
        model = session.opened.model
        middle = torch.cat([model.centre, model.head.shift]).double().cpu()
        away = _WIDE * torch.cat([model.spread, model.head.scale]).double().cpu()
        return middle - away, middle + away, middle
    p = torch.tensor([_TAIL, 1 - _TAIL, 0.5], dtype=torch.float64)
    low, high, middle = session.mixture.icdf(p).double().cpu()
    return low, high, middle
