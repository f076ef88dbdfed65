"""The history of a fit, as it was kept with the model or as it grows."""

from __future__ import annotations

import math
from typing import Any

from fastapi import APIRouter

from mogul.app.session import Session

NAME = "training"
_PLAIN = (int, float, str, bool)


def applies(session: Session) -> bool:
    """Whether there is a history, or one to come."""
    return session.live is not None or bool(session.opened.extra.get("history"))


def router(session: Session) -> APIRouter:
    """Return what answers the requests of this part."""
    api = APIRouter()

    @api.get("/history")
    def history() -> dict[str, Any]:
        """The passes so far."""
        live = session.live
        rows = session.opened.extra.get("history", []) if live is None else list(live.history)
        return {
            "rows": [{k: _said(v) for k, v in row.items() if _shown(v)} for row in rows],
            "passes": len(rows) if live is None else live.passes,
            "live": live is not None and not live.ended,
            "ready": session.ready,
        }

    return api


def _shown(value: Any) -> bool:
    return isinstance(value, _PLAIN) or (
        isinstance(value, list) and all(isinstance(v, str) for v in value)
    )


def _said(value: Any) -> Any:
    """Return a value as JSON can hold it, which has no word for infinities."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
