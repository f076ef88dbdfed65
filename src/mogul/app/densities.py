"""Conditional densities of one or two columns, as the page draws them: a curve, or a map."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mogul.app.arrays import packed
from mogul.app.columns import plain
from mogul.distributions import Mixture
from mogul.errors import InputError

INTERVAL = (0.05, 0.5, 0.95)  # the ends of the 90 % interval, and the median
_EVEN, _QUANTILES = 241, 121  # points of a curve
_SIDE = 96  # points along a side of a map
_ENDS = (5e-4, 1 - 5e-4)  # of what must be on the picture
_MASSES = (0.5, 0.9)  # that contours enclose
_TOP = 12  # components that are told

Range = tuple[float, float]


def conditional(mixture: Mixture, index: Tensor, values: Tensor) -> Mixture:
    """Return p(other columns | columns = values).

    Raises:
        InputError: if the values are so far from all components that nothing can be said of them.
    """
    given = mixture.condition(index, values)
    if not bool(given.weights.isfinite().all() & given.centres.isfinite().all()):
        raise InputError(
            "The values lie so far from all components that their density cannot be told from "
            "zero; fix values nearer to the data."
        )
    return given


def drawn(
    density: Mixture, ranges: list[Range], zoom: bool, beside: Mixture | None = None
) -> dict[str, Any]:
    """Return a curve or a map of a mixture of one or two features, over ranges or nearer by."""
    if zoom:
        ends = density.icdf(torch.tensor([1e-3, 1 - 1e-3], dtype=torch.float64)).mT.tolist()
        ranges = [(low, high) for low, high in ends]
    wide = [spread(r) for r in ranges]
    if len(wide) == 1:
        return {"curve": curve(density, wide[0], beside)}
    return {"heat": heat(density, (wide[0], wide[1]))}


def summary(mixture: Mixture) -> dict[str, Any]:
    """Return mean, deviation, median and 90 % interval of every feature by itself."""
    low, median, high = mixture.icdf(torch.tensor(INTERVAL, dtype=torch.float64))
    return {
        "mean": plain(mixture.mean),
        "deviation": plain(mixture.variance.sqrt()),
        "median": plain(median),
        "low": plain(low),
        "high": plain(high),
    }


def curve(mixture: Mixture, span: Range, beside: Mixture | None = None) -> dict[str, Any]:
    """Return the density of a mixture of one feature along a range that holds all but its tails.

    Points lie evenly, and at quantiles, so that a peak is not missed however narrow it is.

    Args:
        mixture: of one feature.
        span: what is shown at least.
        beside: another mixture, whose density is told at the same points.

    Returns:
        x, and the densities there.
    """
    p = torch.linspace(*_ENDS, _QUANTILES, dtype=torch.float64)
    quantiles = mixture.icdf(p)[:, 0]
    low, high = _joined(span, quantiles)
    even = torch.linspace(low, high, _EVEN, dtype=torch.float64).to(quantiles)
    x = torch.cat([even, quantiles]).unique()
    found = {"x": x.tolist(), "density": plain(mixture.log_prob(x.unsqueeze(-1)).exp())}
    if beside is not None:
        found["beside"] = plain(beside.log_prob(x.unsqueeze(-1)).exp())
    return found


def heat(mixture: Mixture, spans: tuple[Range, Range]) -> dict[str, Any]:
    """Return the density of a mixture of two features over a rectangle that holds its bulk.

    Args:
        mixture: of two features.
        spans: what is shown at least.

    Returns:
        the ranges, the density [y, x] as a share of its highest value there, and the levels above
        which a half and nine tenths of it lie.
    """
    ends = mixture.icdf(torch.tensor(_ENDS, dtype=torch.float64))
    x, y = (
        torch.linspace(*_joined(span, ends[:, i]), _SIDE, dtype=torch.float64).to(ends)
        for i, span in enumerate(spans)
    )
    points = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)
    log_density = mixture.log_prob(points.reshape(-1, 2)).double()
    share = (log_density - log_density.max()).exp()
    return {
        "x": [float(x[0]), float(x[-1])],
        "y": [float(y[0]), float(y[-1])],
        "density": packed(share.reshape(_SIDE, _SIDE)),
        "levels": [_level(share, mass) for mass in _MASSES],
    }


def top(weights: Tensor) -> dict[str, Any]:
    """Return the largest of the weights (K,), with the numbers of their components."""
    found = weights.topk(min(_TOP, len(weights)))
    return {"components": found.indices.tolist(), "weights": found.values.tolist()}


def spread(span: Range, share: float = 0.04) -> Range:
    """Return a range that is somewhat wider."""
    low, high = span
    return low - share * (high - low), high + share * (high - low)


def _joined(span: Range, values: Tensor) -> Range:
    return min(span[0], float(values.min())), max(span[1], float(values.max()))


def _level(share: Tensor, mass: float) -> float:
    """Return the density above which this share of the sum lies."""
    falling = share.sort(descending=True).values
    total = falling.cumsum(0)
    return float(falling[int((total < mass * total[-1]).sum())])
