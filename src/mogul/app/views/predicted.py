"""What a mixture density network says of its targets, while its inputs are moved."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import torch
from fastapi import APIRouter
from pydantic import BaseModel, Field
from torch import Tensor

from mogul.app.arrays import packed
from mogul.app.columns import Columns, columns_of, finite_values, plain
from mogul.app.densities import INTERVAL, Range, drawn, spread, summary
from mogul.app.session import Session
from mogul.distributions import Mixture, modes
from mogul.errors import InputError
from mogul.models import MixtureDensityNetwork
from mogul.opened import OpenedNetwork

NAME = "predicted"
_FAINT = 0.02  # of the highest mode: density from which another is told
_ALONG, _UP = 121, 121  # points of a map along an input, and along a target
_ROWS = 2_000  # drawn over it
_NEAR = 0.25  # of these rows, whose other inputs are the nearest to those that are held


class Asked(BaseModel):
    """Values of all inputs, and one or two targets to look at, counted from 0 among the targets."""

    inputs: list[float]
    targets: Annotated[list[int], Field(min_length=1, max_length=2)]
    zoom: bool = False


class AskedAlong(BaseModel):
    """Values of all inputs, of which one is moved over its range, and the target to look at."""

    inputs: list[float]
    input: int
    target: int = 0


def applies(session: Session) -> bool:
    """Whether the model predicts columns from others."""
    return session.ready and isinstance(session.opened, OpenedNetwork)


def router(session: Session) -> APIRouter:
    """Return what answers the requests of this part."""
    api = APIRouter()

    @api.post("/predicted")
    def predicted(asked: Asked) -> dict[str, Any]:
        """The density of some targets given the inputs, and a summary of every target."""
        opened, columns = session.network, columns_of(session)
        x = _inputs(opened, columns, asked.inputs)
        chosen = _targets(opened, asked.targets)
        mixture = _mixture(session, x)
        looked_at = mixture.marginal(torch.tensor(chosen))
        peaks = modes(looked_at)
        shown = peaks.above(_FAINT)
        return {
            **summary(mixture),
            "modes": plain(peaks.points[shown]),
            **drawn(looked_at, [_range(opened, columns, t) for t in chosen], asked.zoom),
        }

    @api.post("/predicted/along")
    def along(asked: AskedAlong) -> dict[str, Any]:
        """The density of a target along one input, all others held, and rows to compare."""
        opened, columns = session.network, columns_of(session)
        held = _inputs(opened, columns, asked.inputs)
        j, target = _input(opened, asked.input), _targets(opened, [asked.target])[0]
        left, right = float(columns.low[j]), float(columns.high[j])
        line = held.repeat(_ALONG, 1)
        line[:, j] = torch.linspace(left, right, _ALONG, dtype=torch.float64).to(line)
        mixture = _mixture(session, line).marginal(torch.tensor([target]))
        quantiles = mixture.icdf(torch.tensor(INTERVAL, dtype=torch.float64))[..., 0]
        own = spread(_range(opened, columns, target))
        bottom = min(own[0], float(quantiles.min()))
        top = max(own[1], float(quantiles.max()))
        up = torch.linspace(bottom, top, _UP, dtype=torch.float64).to(line)
        log_density = mixture.log_prob(up.reshape(-1, 1, 1).expand(-1, _ALONG, 1)).double()
        # Each input's density by itself, so that broad ones are seen beside sharp ones.
        share = (log_density - log_density.amax(0)).exp()
        return {
            "x": [left, right],
            "y": [bottom, top],
            "density": packed(share),
            "quantiles": plain(quantiles),
            "at": plain(line[:, j]),
            **_points(session, held, j, target),
        }

    return api


def _mixture(session: Session, x: Tensor) -> Mixture:
    """Return p(targets | inputs) of inputs (..., n_inputs).

    Raises:
        InputError: if inputs are so far from the data that the network overflows.
    """
    with torch.no_grad():
        mixture = session.network.model(x)
    parts = (mixture.logits, mixture.centres, mixture.variances)
    if not all(bool(part.isfinite().all()) for part in parts):
        raise InputError(
            "The inputs lie so far from the training data that the network answers with no finite "
            "numbers; give values nearer to them."
        )
    return mixture


def _inputs(opened: OpenedNetwork, columns: Columns, values: list[float]) -> Tensor:
    """Return the inputs as the network wants them, (n_inputs,).

    Raises:
        InputError: if a value is not finite, or their number is wrong.
    """
    return finite_values(columns, list(range(opened.model.n_inputs)), values, opened.model)


def _input(opened: OpenedNetwork, number: int) -> int:
    """Return the number of an input.

    Raises:
        InputError: if it is not there.
    """
    if not 0 <= number < opened.model.n_inputs:
        raise InputError(
            f"Input {number} was asked for; there are {opened.model.n_inputs}, counted from 0."
        )
    return number


def _targets(opened: OpenedNetwork, numbers: list[int]) -> list[int]:
    """Return the numbers of targets.

    Raises:
        InputError: if one is not there, or comes twice.
    """
    n = opened.model.n_features
    if len(set(numbers)) < len(numbers) or not all(0 <= t < n for t in numbers):
        raise InputError(
            f"Targets {numbers} were asked for; there are {n}, counted from 0: name each once."
        )
    return numbers


def _range(opened: OpenedNetwork, columns: Columns, target: int) -> Range:
    column = opened.model.n_inputs + target
    return float(columns.low[column]), float(columns.high[column])


def _points(session: Session, held: Tensor, j: int, target: int) -> dict[str, Any]:
    """Return one input and one target of training rows, and which are near in all other inputs."""
    if "train" not in session.sources:
        return {"points": {"x": [], "y": [], "near": []}}
    n = len(session.source("train"))
    rows = np.unique(np.linspace(0, n - 1, min(n, _ROWS)).round().astype(int)).tolist()
    model: MixtureDensityNetwork = session.network.model
    x, y = model.split(session.take("train", rows))
    away = (x - held) / model.spread
    away[:, j] = 0.0
    distance = away.square().sum(-1)
    near = distance <= distance.nanquantile(_NEAR)
    known = ~(x[:, j].isnan() | y[:, target].isnan())
    return {
        "points": {
            "x": plain(x[known, j]),
            "y": plain(y[known, target]),
            "near": near[known].tolist(),
        }
    }
