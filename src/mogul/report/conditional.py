"""The page about a mixture density network: what it predicts, and whether that can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from markupsafe import Markup
from matplotlib.figure import Figure as PlainFigure
from torch import Tensor

from mogul.data import DataSource
from mogul.distributions import modes
from mogul.evaluation import ConditionalEvaluation, evaluate_conditional
from mogul.models import MixtureDensityNetwork
from mogul.report import conditional_figures as drawn
from mogul.report import figures
from mogul.report.page import Figure, Page, Picture, Section, write_page
from mogul.report.pictures import as_pixels

_ALONG = 160  # points along an input
_UP = 160  # points along a target
_TARGETS = 4  # shown
_ROWS = 2000  # drawn as points
_NEAR = 0.25  # of the rows, drawn beside what is predicted for typical ones
_SEEN = 0.02  # of the highest mode: density from which a mode is drawn


@dataclass(frozen=True)
class ConditionalReport:
    """What a report shows; `extra` is what `mogul fit` kept beside the network."""

    model: MixtureDensityNetwork
    train: DataSource
    test: DataSource
    extra: dict[str, Any]
    report_command: str
    seed: int = 0


def write_conditional_report(path: str | Path, data: ConditionalReport) -> None:
    """Write the page atomically; it needs no other file and no network.

    Args:
        path: the .html file to write.
        data: what to show.
    """
    model, targets, inputs = data.model, data.extra["targets"], data.extra["inputs"]
    found = evaluate_conditional(
        model, data.test, model.n_features, dtype=model.dtype, units=model.head.scale,
        seed=data.seed,
    )  # fmt: skip
    subtitle = (
        f"A network of {model.n_parameters:,} parameters makes {model.n_components} Gaussians of "
        f"{', '.join(targets)} from {len(inputs)} column(s); fitted to {len(data.train):,} rows "
        f"and judged on {len(data.test):,} rows of {Path(data.test.name).name}."
    )
    page = Page(
        data.test.name,
        f"{', '.join(targets)} from {Path(data.train.name).name}",
        subtitle,
        _figures(found, targets),
        _sections(data, found),
        data.extra["history"],
        [data.extra["command"], data.report_command],
    )
    write_page(path, page)


def _figures(found: ConditionalEvaluation, targets: list[str]) -> list[Figure]:
    shown: list[Figure] = [(
        "log-likelihood", f"{found.log_likelihood:,.3f} ± {found.error:.3f} nats per row",
        f"mean of log p(target | inputs) of {found.n:,} rows; higher is better",
    )]  # fmt: skip
    if found.energy_score is not None:
        meaning = "of all targets in units of their deviations in training; lower is better"
        shown.append(("energy score", f"{found.energy_score:.4g}", meaning))
    for i, target in enumerate(targets):
        of = f" of {target}" if len(targets) > 1 else ""
        shown.append((f"RMSE{of}", f"{found.rmse[i]:.4g}", "of the predicted mean"))
        meaning = "continuous ranked probability score, in units of the target; lower is better"
        shown.append((f"CRPS{of}", f"{found.crps[i]:.4g}", meaning))
        for level, share in found.coverage.items():
            shown.append((
                f"inside {level:.0%} intervals{of}", f"{share[i]:.1%}",
                f"mean width {found.width[level][i]:.4g}",
            ))  # fmt: skip
    return shown


@torch.no_grad()
def _sections(data: ConditionalReport, found: ConditionalEvaluation) -> list[Section]:
    rows = data.test.take(range(min(_ROWS, len(data.test))), data.model.dtype, data.model.device)
    x, y = data.model.split(rows)
    sections: list[Section] = []
    for i in range(min(_TARGETS, data.model.n_features)):
        sections.append(_along(data, x, y[:, i], i))
        sections.append(_calibration(data, found, i))
    curve = Picture(
        "Line chart of log p(target | inputs) at every pass.",
        "Mean log-likelihood of training rows, noise included, and of rows held out of them.",
        svg=Markup(figures.training_curve(_history(data.extra["history"]))),
    )
    return [*sections, ("Training", "", [curve])]


def _history(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row | {"validation": row.get("held_out")} for row in history]


def _along(data: ConditionalReport, x: Tensor, y: Tensor, target: int) -> Section:
    """Draw the density of a target along the input that moves it most."""
    inputs = data.extra["inputs"]
    found = _predicted(data.model, x, y, target, inputs, data.extra["targets"])
    fan = figures.as_svg(lambda axes: drawn.draw_fan(axes, found), 6.4, 4.0)
    heat = figures.as_svg(lambda axes: drawn.draw_density(axes, found), 6.4, 4.0)
    along, name = found.names
    text = "" if len(inputs) == 1 else (
        f"Along {along}, the input that moves its quantiles most, all others at their medians. "
        f"Points are the {_NEAR:.0%} of the rows that are nearest to these."
    )  # fmt: skip
    pictures = [
        Picture(
            f"Fan chart of {name} along {along}.",
            "Bands hold 50, 80, 90 and 95 % of the predicted density.", svg=Markup(fan),
        ),
        Picture(
            f"Heat map of the density of {name} along {along}.",
            f"The root of the predicted density, and its modes of at least {_SEEN:.0%} of the "
            "highest.", svg=Markup(heat),
        ),
    ]  # fmt: skip
    return f"What is predicted of {name}", text, pictures


def _predicted(
    model: MixtureDensityNetwork,
    x: Tensor,
    y: Tensor,
    target: int,
    inputs: Sequence[str],
    targets: Sequence[str],
) -> drawn.Along:
    """Return what is predicted of a target along the input that moves it most."""
    typical = x.median(0).values
    j = _most_telling(model, x, typical, target)
    low, high = x[:, j].quantile(0.005), x[:, j].quantile(0.995)
    line = typical.repeat(_ALONG, 1)
    line[:, j] = torch.linspace(float(low), float(high), _ALONG)
    mixture = model(line).marginal(torch.tensor([target], device=x.device))
    quantiles = mixture.icdf(torch.tensor(drawn.FAN, dtype=torch.float64))[..., 0]
    near = _near(x, typical, model.spread, j)
    bottom = float(torch.minimum(quantiles.min(), y.nan_to_num(torch.inf).min()))
    top = float(torch.maximum(quantiles.max(), y.nan_to_num(-torch.inf).max()))
    up = torch.linspace(bottom, top, _UP).to(x)
    density = mixture.log_prob(up.reshape(-1, 1, 1).expand(-1, _ALONG, 1)).exp()
    peaks = modes(mixture)
    shown = peaks.above(_SEEN)
    where = line[:, j].unsqueeze(-1).expand_as(shown)[shown]
    at_peaks = torch.stack([where, peaks.points[..., 0][shown]], 1)
    return drawn.Along(
        line[:, j].cpu().numpy(), quantiles.cpu().numpy(),
        (x[near, j].cpu().numpy(), y[near].cpu().numpy()),
        up.cpu().numpy(), density.cpu().numpy(), at_peaks.cpu().numpy(),
        (inputs[j], targets[target]),
    )  # fmt: skip


@torch.no_grad()
def density_picture(
    model: MixtureDensityNetwork, source: DataSource, extra: dict[str, Any]
) -> np.ndarray:
    """Draw what is predicted of the first target along the input that moves it most.

    Args:
        model: the network.
        source: rows of inputs and targets, which tell what inputs there are.
        extra: what `mogul fit` kept beside the network.

    Returns:
        the picture, 8-bit RGB: bands over the rows, and density with its modes.
    """
    x, y = model.split(source.head(_ROWS, model.dtype, model.device))
    found = _predicted(model, x, y[:, 0], 0, extra["inputs"], extra["targets"])
    figure = PlainFigure(figsize=(10, 3.8), layout="constrained", dpi=90)
    left, right = figure.subplots(1, 2)
    drawn.draw_fan(left, found)
    drawn.draw_density(right, found)
    left.set_title("predicted bands, and rows", fontsize=11)
    right.set_title("predicted density (its root), and modes", fontsize=11)
    return as_pixels(figure)


def _near(x: Tensor, typical: Tensor, spread: Tensor, j: int) -> Tensor:
    """Return the numbers of the rows (n, d) whose inputs but j are the nearest to typical ones."""
    away = (x - typical) / spread
    away[:, j] = 0.0
    n = len(x) if x.shape[1] == 1 else max(1, round(_NEAR * len(x)))
    return away.square().sum(-1).argsort()[:n]


def _most_telling(model: MixtureDensityNetwork, x: Tensor, typical: Tensor, target: int) -> int:
    """Return the input along which the predicted quantiles of a target move most."""
    best, chosen = -1.0, 0
    for j in range(x.shape[1]):
        line = typical.repeat(32, 1)
        low, high = x[:, j].quantile(torch.tensor([0.05, 0.95]).to(x)).tolist()
        line[:, j] = torch.linspace(low, high, 32)
        quantiles = model(line).icdf(torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64))
        moved = float(quantiles[..., target].var(1).mean())
        if moved > best:
            best, chosen = moved, j
    return chosen


def _calibration(data: ConditionalReport, found: ConditionalEvaluation, target: int) -> Section:
    name = data.extra["targets"][target]
    seen = ~found.pit[:, target].isnan()
    pit = found.pit[seen, target].numpy()
    shown = seen.nonzero().squeeze(-1)[:_ROWS]
    residuals = drawn.residual_plot(
        found.means[shown, target].numpy(), found.residuals[shown, target].numpy(), name
    )
    pictures = [
        Picture(
            "Histogram of the probability integral transform.",
            "Flat where predictions are calibrated; a hump says that they are too wide, a dip too "
            "narrow, a slope too low or too high.",
            svg=Markup(drawn.pit_histogram(pit)),
        ),
        Picture(
            "Line chart of reached against nominal coverage.",
            "Above the line intervals are too wide, below it too narrow.",
            svg=Markup(drawn.coverage_curve(pit)),
        ),
        Picture("Residuals against predicted means.", "Residuals.", svg=Markup(residuals)),
    ]
    return (
        f"Can it be trusted about {name}?",
        f"Judged on {len(pit):,} rows of {Path(data.test.name).name}.",
        pictures,
    )
