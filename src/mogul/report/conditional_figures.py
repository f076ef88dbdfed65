"""Figures of predicted densities along one input, and of whether they are calibrated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from mogul.report.figures import BLUE, GREY, INK, ORANGE, as_svg

_BANDS = ((0, 8), (1, 7), (2, 6), (3, 5))  # of the nine quantiles
_SHADES = (0.12, 0.25, 0.4, 0.6)
FAN = (0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975)
_BINS = 20


@dataclass(frozen=True)
class Along:
    """What is predicted of a target along an input.

    `x` (m,) values of the input, `quantiles` (9, m) of the target at the probabilities `FAN`,
    `rows` inputs and targets of data laid over them, `y` (u,) values of the target, `density`
    (u, m), `modes` (p, 2), and `names` of input and target.
    """

    x: np.ndarray
    quantiles: np.ndarray
    rows: tuple[np.ndarray, np.ndarray]
    y: np.ndarray
    density: np.ndarray
    modes: np.ndarray
    names: tuple[str, str]


def draw_fan(axes: Axes, found: Along) -> None:
    """Draw quantiles of a target along an input."""
    x, quantiles = found.x, found.quantiles
    axes.plot(*found.rows, ".", color=GREY, markersize=4, alpha=0.7, zorder=1, label="rows")
    for i, (low, high) in enumerate(_BANDS):
        inner = (low + 1, high - 1) if i < len(_BANDS) - 1 else (4, 4)
        for ends, name in (
            ((low, inner[0]), f"{FAN[high] - FAN[low]:.0%}"), ((inner[1], high), None)
        ):  # fmt: skip
            axes.fill_between(
                x, quantiles[ends[0]], quantiles[ends[1]], color=BLUE, alpha=_SHADES[i],
                linewidth=0, label=name,
            )  # fmt: skip
    axes.plot(x, quantiles[4], color=BLUE, linewidth=1.5, label="median")
    _label(axes, found.names)
    axes.set_xlim(x[0], x[-1])
    axes.set_ylim(found.y[0], found.y[-1])
    axes.legend(fontsize=8, ncols=3)


def draw_density(axes: Axes, found: Along) -> None:
    """Draw the density of a target along an input, and its modes."""
    # The root shows the wide parts beside the sharp ones.
    shades = np.sqrt(found.density)
    axes.pcolormesh(found.x, found.y, shades, cmap="Blues", shading="auto", rasterized=True)
    axes.plot(*found.modes.T, ".", color=ORANGE, markersize=2.5, label="modes")
    _label(axes, found.names)
    axes.set_ylim(found.y[0], found.y[-1])
    axes.legend(fontsize=8)


def pit_histogram(pit: np.ndarray) -> str:
    """Draw the distribution of P(Y ≤ y | x), with the range that chance allows."""

    def draw(axes: Axes) -> None:
        n = len(pit)
        axes.hist(pit, bins=_BINS, range=(0, 1), density=True, color=BLUE, alpha=0.7)
        axes.axhline(1.0, color=INK, linewidth=1)
        spread = 2 * np.sqrt((_BINS - 1) / n)
        axes.axhspan(
            max(0.0, 1 - spread), 1 + spread, color=ORANGE, alpha=0.2, linewidth=0,
            label="two deviations of a calibrated one",
        )  # fmt: skip
        axes.set_xlabel("P(Y ≤ y | x)")
        axes.set_ylabel("density")
        axes.set_xlim(0, 1)
        axes.legend(fontsize=8)

    return as_svg(draw, 6.4, 2.8)


def coverage_curve(pit: np.ndarray) -> str:
    """Draw the share of rows inside central intervals against their nominal level."""

    def draw(axes: Axes) -> None:
        levels = np.linspace(0, 1, 101)
        inside = np.abs(pit - 0.5)[:, None] <= levels / 2
        axes.plot([0, 1], [0, 1], color=INK, linewidth=1)
        spread = 2 * np.sqrt(levels * (1 - levels) / len(pit))
        axes.fill_between(
            levels, levels - spread, levels + spread, color=ORANGE, alpha=0.2, linewidth=0,
            label="two deviations of a calibrated one",
        )  # fmt: skip
        axes.plot(levels, inside.mean(0), color=BLUE, label="reached")
        axes.set_xlabel("nominal level of a central interval")
        axes.set_ylabel("share of rows inside")
        axes.legend(fontsize=8)

    return as_svg(draw, 6.4, 3.6)


def residual_plot(means: np.ndarray, residuals: np.ndarray, name: str) -> str:
    """Draw residuals against predicted means."""

    def draw(axes: Axes) -> None:
        axes.axhline(0.0, color=INK, linewidth=1)
        axes.plot(means, residuals, ".", color=BLUE, markersize=4, alpha=0.6)
        axes.set_xlabel(f"predicted mean of {name}", parse_math=False)
        axes.set_ylabel("target less mean")

    return as_svg(draw, 6.4, 3.2)


def _label(axes: Axes, names: Sequence[str]) -> None:
    # Dollars in the names of columns are dollars, and begin no formula.
    axes.set_xlabel(names[0], parse_math=False)
    axes.set_ylabel(names[1], parse_math=False)
