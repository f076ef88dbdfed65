"""Line and bar figures as inline SVG that takes the page's text colour."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# matplotlib cannot write currentColor; this stand-in is replaced by it afterwards.
INK = "#010203"
BLUE, ORANGE, GREY = "#3b7dd8", "#e07b39", "#8a8f98"
_NAME = 40  # letters of the name of a column
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mogul",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def training_curve(history: list[dict[str, Any]]) -> str:
    """Draw log-likelihood against passes, for training and held-out rows."""

    def draw(axes: Axes) -> None:
        passes = [row["pass"] for row in history]
        axes.plot(passes, [r["log_likelihood"] for r in history], color=BLUE, label="training")
        if history[0]["validation"] is not None:
            held_out = [r["validation"] for r in history]
            axes.plot(passes, held_out, color=ORANGE, linestyle="--", label="held out")
        axes.set_xlabel("pass over the data")
        axes.set_ylabel("log-likelihood (nats per row)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()

    return as_svg(draw, 6.4, 3.2)


def particle_curves(history: list[dict[str, Any]]) -> str:
    """Draw the mean of log p(x, z), and how far particles moved, against passes."""

    def draw(axes: Axes) -> None:
        passes = [row["pass"] for row in history]
        axes.plot(passes, [r["objective"] for r in history], color=BLUE)
        axes.set_xlabel("pass over the data")
        axes.set_ylabel("mean log p(x, z) (nats per row)", color=BLUE)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if "movement" in history[0]:
            other = axes.twinx()
            other.plot(passes, [r["movement"] for r in history], color=ORANGE, linestyle="--")
            other.set_ylabel("movement per latent (root mean square)", color=ORANGE)

    return as_svg(draw, 6.4, 3.2)


def bound_curves(history: list[dict[str, Any]]) -> str:
    """Draw the bound of the evidence, in training and held out, and the divergence in it."""

    def draw(axes: Axes) -> None:
        passes = [row["pass"] for row in history]
        axes.plot(passes, [r["evidence_bound"] for r in history], color=BLUE, label="training")
        if history[0]["validation"] is not None:
            # What a row holds was scored before its pass.
            held_out = [r["validation"] for r in history]
            axes.plot([p - 1 for p in passes[1:]], held_out[1:], color=GREY, label="held out")
        axes.set_xlabel("pass over the data")
        axes.set_ylabel("bound of log p(x) (nats per row)", color=BLUE)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        low = [r["evidence_bound"] for r in history[2:]]
        if len(low) > 10:  # the first passes would flatten all the others
            axes.set_ylim(min(low) - 0.05 * (max(low) - min(low)), None)
        axes.legend(loc="lower right")
        other = axes.twinx()
        other.plot(passes, [r["divergence"] for r in history], color=ORANGE, linestyle="--")
        other.set_ylabel("divergence to the prior (nats)", color=ORANGE)

    return as_svg(draw, 6.4, 3.2)


def latent_map(
    points: np.ndarray, labels: np.ndarray | None, ellipses: list[np.ndarray], axes_are: str
) -> str:
    """Draw latents (n, 2), coloured by label, and outlines (m, 2) of the prior's components."""

    def draw(axes: Axes) -> None:
        for outline in ellipses:
            axes.plot(*outline.T, color=INK, linewidth=0.7, alpha=0.5)
        if labels is None:
            axes.scatter(*points.T, s=4, color=BLUE, linewidths=0)
        else:
            for i, label in enumerate(np.unique(labels)):
                own = points[labels == label]
                axes.scatter(*own.T, s=5, color=f"C{i % 10}", linewidths=0, label=str(label))
            axes.legend(markerscale=3, loc="center left", bbox_to_anchor=(1.0, 0.5))
        axes.set_xlabel(f"first {axes_are}")
        axes.set_ylabel(f"second {axes_are}")
        axes.set_aspect("equal")

    return as_svg(draw, 6.4, 5.2)


def bin_bars(
    reference: np.ndarray, samples: np.ndarray, held_out: np.ndarray | None, different: np.ndarray
) -> str:
    """Draw the share of rows in each bin: training, samples, held out; mark the different bins."""

    def draw(axes: Axes) -> None:
        order = np.argsort(-reference, kind="stable")
        at = np.arange(len(order))
        axes.bar(at, 100 * reference[order], color=GREY, alpha=0.45, width=1.0, label="training")
        if held_out is not None:
            axes.plot(at, 100 * held_out[order], ".", color=BLUE, markersize=4, label="held out")
        axes.plot(at, 100 * samples[order], "_", color=ORANGE, markersize=6, label="samples")
        marked = at[different[order]]
        axes.plot(
            marked,
            np.full(len(marked), -0.02 * 100 * reference.max()),
            "^",
            color=ORANGE,
            markersize=4,
            label="significantly different",
        )
        axes.set_xlabel("bin, by share of the training rows")
        axes.set_ylabel("share of rows (%)")
        axes.legend(ncols=2)

    return as_svg(draw, 7.4, 3.2)


def likelihood_histogram(log_likelihood: np.ndarray, threshold: float, rows: str) -> str:
    """Draw the distribution of log-likelihoods of some rows, and the threshold of outliers."""

    def draw(axes: Axes) -> None:
        low, high = np.quantile(log_likelihood, [0.002, 1.0])
        low = min(low, threshold)
        axes.hist(np.clip(log_likelihood, low, high), bins=60, color=BLUE, alpha=0.7)
        axes.axvline(threshold, color=ORANGE, linestyle="--", label="threshold")
        axes.set_xlabel("log-likelihood (nats); the lowest are gathered at the left edge")
        axes.set_ylabel(rows)
        axes.legend()

    return as_svg(draw, 6.4, 2.8)


def selection_lines(candidates: list[dict[str, Any]], criterion: str) -> str:
    """Draw a criterion against the number of components, a line per family, sharing and rank."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for row in candidates:
        rank = "" if row["rank"] is None else f", {row['rank']} factors"
        shared = "" if row["sharing"] == "own" else f", {row['sharing']}"
        name = f"{row['covariance']}{rank}{shared}"
        lines.setdefault(name, []).append((row["components"], row[criterion]))

    def draw(axes: Axes) -> None:
        for name, points in sorted(lines.items(), key=lambda item: min(v for _, v in item[1])):
            points.sort()
            axes.plot(*zip(*points, strict=True), "o-", markersize=3, label=name)
        axes.set_xlabel("components")
        axes.set_ylabel(criterion.upper() if criterion != "validation" else "log-likelihood")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(fontsize=8)

    return as_svg(draw, 7.4, 4.4)


def scatter(
    data: np.ndarray, samples: np.ndarray, columns: tuple[int, int], names: tuple[str, str]
) -> str:
    """Draw two columns of data and of model samples over each other."""

    def draw(axes: Axes) -> None:
        for rows, colour, name in ((data, BLUE, "data"), (samples, ORANGE, "samples")):
            x, y = rows[:, columns[0]], rows[:, columns[1]]
            axes.plot(x, y, ".", color=colour, markersize=2.5, alpha=0.5, label=name)
        axes.set_xlabel(_short(names[0]), parse_math=False)
        axes.set_ylabel(_short(names[1]), parse_math=False)
        axes.legend(markerscale=3)

    return as_svg(draw, 5.6, 4.2)


def histogram(data: np.ndarray, samples: np.ndarray, name: str) -> str:
    """Draw the distributions of values (n,) of data and of model samples over each other."""

    def draw(axes: Axes) -> None:
        bins = np.histogram_bin_edges(data[np.isfinite(data)], 50).tolist()
        axes.hist(data, bins, color=BLUE, alpha=0.5, label="data")
        axes.hist(samples, bins, color=ORANGE, histtype="step", linewidth=1.5, label="samples")
        axes.set_xlabel(_short(name), parse_math=False)
        axes.set_ylabel("rows")
        axes.legend()

    return as_svg(draw, 5.6, 3.6)


def _short(name: str) -> str:
    return name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"


def as_svg(draw: Callable[[Axes], None], width: float, height: float) -> str:
    """Return what `draw` draws as inline SVG of a size in inches."""
    with rc_context(_STYLE):  # pyright: ignore[reportArgumentType]
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.subplots()
        axes.patch.set_alpha(0)
        draw(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :].replace(INK, "currentColor")
