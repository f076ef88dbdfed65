"""The latents of a decoder: a map to decode from, lines between rows, components of the prior."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from fastapi import APIRouter, Query
from pydantic import BaseModel, Field
from torch import Tensor

from mogul.app.arrays import packed
from mogul.app.cloud import cloud, labels, prior, summary
from mogul.app.session import Session
from mogul.data import column_names
from mogul.errors import InputError
from mogul.opened import OpenedAutoencoder, OpenedDecoder
from mogul.tasks import decode_rows, of_class

NAME = "latents"
_OUTLINED = 100  # components drawn over the map
_MOST = 50  # components in one answer
_SAMPLES = 12
_STEPS = 10  # pictures of a line
_FINE = 61  # places on it where the density is told

Coordinate = Annotated[float, Field(allow_inf_nan=False)]


class Place(BaseModel):
    """A point of the map; what is decoded lies in the plane through a row's latents, or the mean's.

    Off the map's plane, a row's latents are kept as they are.
    """

    at: Annotated[list[Coordinate], Field(min_length=2, max_length=2)]
    through: Literal["row", "mean"] = "row"


class Line(BaseModel):
    """Two latents of the map, by their place in it."""

    start: int
    end: int


def applies(session: Session) -> bool:
    """Whether the model has latents."""
    return session.ready and isinstance(session.opened, OpenedDecoder)


def router(session: Session) -> APIRouter:
    """Return what answers the requests of this part."""
    api = APIRouter()

    @api.get("/latents")
    def mapped() -> dict[str, Any]:
        """Where latents of rows lie, and where the prior has its components."""
        found, density = cloud(session), prior(session)
        order = _by_weight(density)[:_OUTLINED]
        variance = found.latents.var(0).sum()
        within = found.points.var(0).sum() / variance if variance > 0 else torch.ones(())
        return {
            "points": packed(found.points),
            "rows": found.rows.tolist(),
            "of": found.of,
            "means": isinstance(session.opened, OpenedAutoencoder),
            "latents": session.decoder.model.n_latents,
            "share": float(within) if len(found.rows) > 1 else 1.0,
            "outlines": packed(found.plane.outlines(density, order, 1.0)),
            "weights": density.weights[order].tolist(),
            "components": density.n_components,
            "names": [] if session.opened.is_image else _names(session.decoder),
        }

    @api.get("/latents/groups")
    def groups() -> dict[str, Any]:
        """The group of every latent: its row's class, or the component most responsible for it."""
        classes = labels(session)
        if classes is not None:
            names, group = classes.unique(return_inverse=True)
            return _grouped("class", [str(int(n)) for n in names], group)
        density = prior(session)
        what = "component of the prior"
        if density.n_components == 1:
            density, what = summary(session), "component of a mixture fitted to the latents"
        group = density.responsibilities(cloud(session).latents).argmax(-1).cpu()
        return _grouped(what, [str(k) for k in range(density.n_components)], group)

    @api.post("/latents/decode")
    def decode(place: Place) -> dict[str, Any]:
        """What the decoder makes of a point of the map, and the row with the nearest latents."""
        found = cloud(session)
        point = torch.tensor(place.at).to(found.points)
        z = found.plane.lift(point)
        anchor = found.nearest(point)
        if place.through == "row":
            z = found.latents[anchor] + found.plane.axes @ (point - found.points[anchor])
        near = int((found.latents - z).square().sum(-1).argmin())
        return {
            "decoded": _shown(session, _decoded(session, z.unsqueeze(0))),
            "log_prior": _log_prior(session, z.unsqueeze(0))[0],
            "latents": z.tolist(),
            "through": int(found.rows[anchor]) if place.through == "row" else None,
            "place": near,
            "row": int(found.rows[near]),
            "nearest": _rows(session, found.of, [int(found.rows[near])]),
        }

    @api.post("/latents/line")
    def line(ends: Line) -> dict[str, Any]:
        """What lies on the straight line between the latents of two rows."""
        found = cloud(session)
        a, b = (found.latents[found.index(i)] for i in (ends.start, ends.end))
        coarse, fine = (torch.linspace(0, 1, n).to(a).unsqueeze(-1) for n in (_STEPS, _FINE))
        rows = [int(found.rows[i]) for i in (ends.start, ends.end)]
        return {
            "decoded": _shown(session, _decoded(session, torch.lerp(a, b, coarse))),
            "share": fine.squeeze(-1).tolist(),
            "log_prior": _log_prior(session, torch.lerp(a, b, fine)),
            "rows": rows,
            "ends": _rows(session, found.of, rows),
        }

    @api.get("/latents/components")
    def wall(start: Annotated[int, Query(ge=0)] = 0) -> dict[str, Any]:
        """Decoded means of the prior's components by falling weight, some at a time.

        Raises:
            InputError: if there are not so many.
        """
        density = prior(session)
        if start >= density.n_components:
            raise InputError(
                f"Components from {start} on were asked for; there are {density.n_components}, "
                "counted from 0."
            )
        order = _by_weight(density)[start : start + _MOST]
        return {
            "total": density.n_components,
            "index": order.tolist(),
            "weights": density.weights[order].tolist(),
            "decoded": _shown(session, _decoded(session, density.means[order])),
        }

    @api.get("/latents/components/{k}")
    def one(k: int, seed: int = 0) -> dict[str, Any]:
        """New rows whose latents come from one component of the prior."""
        density = of_class(prior(session), k)
        z = density.sample((_SAMPLES,), seed=seed)
        return {"decoded": _shown(session, _decoded(session, z))}

    return api


def _by_weight(density: Any) -> Tensor:
    return density.log_weights.argsort(descending=True, stable=True)


def _grouped(what: str, names: list[str], group: Tensor) -> dict[str, Any]:
    return {"what": what, "names": names, "group": group.tolist()}


def _decoded(session: Session, z: Tensor) -> Tensor:
    """Return latents (n, d) as rows.

    Raises:
        InputError: if the decoder overflows there.
    """
    x = decode_rows(session.decoder.model, z)
    if not bool(x.isfinite().all()):
        raise InputError(
            "The decoder gives no finite values so far out; choose a place nearer to those of rows."
        )
    return x


def _log_prior(session: Session, z: Tensor) -> list[float]:
    return prior(session).log_prob(z).tolist()


def _shown(session: Session, x: Tensor) -> dict[str, Any]:
    """Return rows (n, D) as pictures, or of a table as values."""
    if session.opened.is_image:
        return {"pixels": packed(session.opened.to_pixels(x))}
    return {"values": packed(x)}


def _rows(session: Session, of: str | None, rows: list[int]) -> dict[str, Any] | None:
    return None if of is None else _shown(session, session.take(of, rows))


def _names(opened: OpenedDecoder) -> list[str]:
    """Return the names of the features of a table; their numbers, where it has none any more."""
    options = opened.extra["options"]
    try:
        names = options.get("columns") or column_names(options["data"])
    except InputError:
        names = []
    fit = len(names) == opened.n_features
    return list(names) if fit else [str(i) for i in range(opened.n_features)]
