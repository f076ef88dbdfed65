"""Rows of a table by pairs of columns, with the components of a mixture as ellipses."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import torch
from fastapi import APIRouter, Query

from mogul.app.arrays import packed
from mogul.app.columns import Columns, columns_of, plain
from mogul.app.columns import is_table as applies
from mogul.app.densities import spread
from mogul.app.session import Session
from mogul.distributions import Mixture
from mogul.errors import InputError

__all__ = ["NAME", "applies", "router"]

NAME = "pairs"
MOST_COLUMNS = 6
_COLUMNS = 4  # to begin with
_ROWS = 2_000  # drawn
_BINS = 36
_POINTS = 200  # of a density
_COMPONENTS = 200  # in one answer


def router(session: Session) -> APIRouter:
    """Return what answers the requests of this part."""
    api = APIRouter()

    @api.get("/pairs")
    def pairs(
        column: Annotated[list[int] | None, Query(max_length=64)] = None,
        set: str = "train",
        components: Annotated[int, Query(ge=1, le=_COMPONENTS)] = 20,
    ) -> dict[str, Any]:
        """Rows, marginal densities and component ellipses of some columns.

        Places are told as shares of the range of their column, 0 to 1.
        """
        columns, mixture = columns_of(session), session.mixture
        chosen = _few(columns.checked(column)) if column else _telling(mixture)
        of = mixture.marginal(torch.tensor(chosen))
        ranges = [spread((float(columns.low[i]), float(columns.high[i]))) for i in chosen]
        return {
            "columns": chosen,
            "names": [columns.names[i] for i in chosen],
            "ranges": ranges,
            "most": MOST_COLUMNS,
            "components": _components(of, components, ranges),
            "densities": _densities(of, ranges),
            **_rows(session, set, columns, chosen, ranges),
        }

    @api.get("/pairs/owned")
    def owned(set: str = "train") -> dict[str, Any]:
        """How many rows each component is most responsible for."""
        found = session.survey(set)
        counts = np.bincount(found.component, minlength=session.mixture.n_components)
        return {"counts": counts.tolist(), "of": len(found.component)}

    return api


def _few(chosen: list[int]) -> list[int]:
    """Return the columns, if they are few enough to be drawn.

    Raises:
        InputError: if they are not.
    """
    if len(chosen) > MOST_COLUMNS:
        raise InputError(f"{len(chosen)} columns were asked for; choose at most {MOST_COLUMNS}.")
    return chosen


def _telling(mixture: Mixture) -> list[int]:
    """Return the columns whose values differ most between components, in their own deviations."""
    w = mixture.weights.unsqueeze(-1)
    away = (w * (mixture.means - mixture.mean).square()).sum(0)
    share = away / mixture.variance
    best = share.sort(descending=True, stable=True).indices[:_COLUMNS]
    return sorted(best.tolist())


def _units(ranges: list[tuple[float, float]]) -> tuple[torch.Tensor, torch.Tensor]:
    low, high = torch.tensor(ranges, dtype=torch.float64).mT
    return low, high - low


def _components(of: Mixture, n: int, ranges: list[tuple[float, float]]) -> dict[str, Any]:
    """Return the heaviest components: in the units of the data, and as shares of the ranges."""
    order = of.log_weights.argsort(descending=True)[:n]
    low, width = _units(ranges)
    means = of.means[order].double().cpu()
    dense = of.covariance.dense().double().cpu()
    dense = dense.expand(of.n_components, *dense.shape[1:])[order.cpu()]
    deviations = dense.diagonal(dim1=-2, dim2=-1).sqrt()
    return {
        "total": of.n_components,
        "index": order.tolist(),
        "weights": of.weights[order].tolist(),
        "means": means.tolist(),
        "deviations": deviations.tolist(),
        "centres": ((means - low) / width).tolist(),
        "covariances": (dense / width / width.unsqueeze(-1)).tolist(),
    }


def _densities(of: Mixture, ranges: list[tuple[float, float]]) -> list[dict[str, Any]]:
    """Return the marginal density of every column, per share of its range."""
    found = []
    for i, (low, high) in enumerate(ranges):
        at = torch.linspace(0, 1, _POINTS, dtype=torch.float64)
        x = (low + at * (high - low)).to(of.means).unsqueeze(-1)
        density = of.marginal(torch.tensor([i])).log_prob(x).exp().double() * (high - low)
        found.append({"at": at.tolist(), "density": plain(density)})
    return found


def _rows(
    session: Session,
    name: str,
    columns: Columns,
    chosen: list[int],
    ranges: list[tuple[float, float]],
) -> dict[str, Any]:
    """Return evenly spread rows of a set, the component that explains each, and histograms.

    Bars are densities per share of the range, as `_densities` are.
    """
    if name not in session.sources and name in session.missing:
        return {"rows": [], "why": session.missing[name]}
    n = len(session.source(name))
    rows = np.unique(np.linspace(0, n - 1, min(n, _ROWS)).round().astype(int)).tolist()
    low, width = _units(ranges)
    x = session.take(name, rows, torch.float64).cpu()[:, chosen]
    at = ((x - low) / width).numpy()
    known = [c[~np.isnan(c)] for c in at.T]
    bars = [_BINS * np.histogram(c, _BINS, (0, 1))[0] / max(len(c), 1) for c in known]
    resp = session.mixture.responsibilities(session.take(name, rows))
    return {
        "rows": rows,
        "of": n,
        "places": packed(at),
        "owners": resp.argmax(-1).tolist(),
        "histograms": [bar.tolist() for bar in bars],
    }
