"""Rows in order of likelihood, beside a threshold that the training rows set."""

from __future__ import annotations

from typing import Any

import numpy as np
from fastapi import APIRouter

from mogul.app.arrays import packed
from mogul.app.session import Session
from mogul.opened import Opened

NAME = "outliers"
_BINS = 60
_MOST = 2_000  # rows that are told by number, the least likely first


def applies(session: Session) -> bool:
    """Whether the model is a mixture, and there are rows to judge."""
    known = session.ready and isinstance(session.opened, Opened) and "shown" in session.sources
    return known and "quantiles" in session.opened.extra


def router(session: Session) -> APIRouter:
    """Return what answers the requests of this part."""
    api = APIRouter()

    @api.get("/outliers")
    def ranked() -> dict[str, Any]:
        """Log-likelihoods of the rows shown, the least first, and the training quantiles."""
        found = session.survey("shown")
        whole = np.flatnonzero(~found.incomplete)
        order = whole[np.argsort(found.log_likelihood[whole], kind="stable")]
        values = found.log_likelihood[order]
        quantiles = session.opened.quantiles
        low, high = min(values[:1].tolist() + quantiles[:1]), max(values.tolist() + quantiles[-1:])
        left = float(np.percentile(values, 0.5)) if len(values) else low
        edges = np.linspace(max(low, left - (high - left)), high, _BINS + 1)
        counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
        return {
            "n": len(order),
            "of": len(session.source("shown")),
            "with_gaps": int(found.incomplete.sum()),
            "rows": order[:_MOST].tolist(),
            "log_likelihoods": values[:_MOST].tolist(),
            "all": packed(values),
            "quantiles": quantiles,
            "edges": edges.tolist(),
            "counts": counts.tolist(),
        }

    return api
