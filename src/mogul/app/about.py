"""What the page is told first: the model, and which parts of the page apply to it."""

from __future__ import annotations

from typing import Any, Protocol

from fastapi import APIRouter

import mogul
from mogul.app.session import Session
from mogul.app.views import (
    components,
    conditional,
    drawing,
    latents,
    outliers,
    pairs,
    pictures,
    predicted,
    rows,
    samples,
    table,
    training,
)
from mogul.opened import Opened, OpenedAutoencoder, OpenedDecoder, OpenedNetwork


class View(Protocol):
    """A part of the page; the script of the same name in static/views shows it."""

    NAME: str

    def applies(self, session: Session) -> bool:
        """Whether there is anything to show of the model, in this part."""
        ...

    def router(self, session: Session) -> APIRouter:
        """Return what answers the requests of this part."""
        ...


VIEWS: tuple[View, ...] = (  # pyright: ignore[reportAssignmentType]
    components, latents, drawing, pairs, conditional, rows, predicted, outliers, samples, training,
    pictures, table,
)  # fmt: skip


def about(session: Session) -> dict[str, Any]:
    """Return what the page needs to know before anything else."""
    views = [view.NAME for view in VIEWS if view.applies(session)]
    live = session.live
    common = {"version": mogul.__version__, "views": views, "live": bool(live and not live.ended)}
    if not session.ready:
        subtitle = "The fit is under way; when it has ended, this page is about its model."
        return common | {"title": f"Fitting {live.name}" if live else "", "subtitle": subtitle}
    opened = session.opened
    extra = opened.extra
    return common | {
        "title": opened.path.name,
        "subtitle": _subtitle(session),
        "shape": list(opened.feature_shape),
        "image": opened.is_image,
        "levels": extra.get("levels") or 256,
        "scored": isinstance(opened, Opened),
        "searched": isinstance(opened, OpenedDecoder),
        "features": opened.n_features,
        "figures": {k: v for k, v in extra.get("figures", {}).items() if _plain(v)},
        "settings": {k: v for k, v in opened.config.items() if _plain(v)},
        "command": extra.get("command", ""),
        "sets": {
            name: {"name": source.name, "rows": len(source)}
            for name, source in session.sources.items()
        },
        "missing": session.missing,
    }


def _plain(value: Any) -> bool:
    return isinstance(value, str | int | float | None) and value is not None


def _subtitle(session: Session) -> str:
    opened = session.opened
    data = opened.extra["options"].get("data", "data")
    if isinstance(opened, OpenedNetwork):
        return f"A mixture density network that predicts {', '.join(opened.extra['targets'])}"
    if isinstance(opened, OpenedAutoencoder):
        return f"A variational autoencoder of {opened.model.n_latents} latents, fitted to {data}"
    if isinstance(opened, OpenedDecoder):
        return f"A decoder of {opened.model.n_latents} latents, trained by particles on {data}"
    mixture, config = session.mixture, opened.config
    factors = f" with {config['rank']} factors each" if config.get("rank") else ""
    what = f"A mixture of {mixture.n_components} {config['covariance']} components"
    return f"{what}{factors}, fitted to {data}"
