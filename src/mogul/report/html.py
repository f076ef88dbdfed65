"""The page about a fitted mixture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from markupsafe import Markup

from mogul.data import DataSource, parse_mask
from mogul.distributions import Mixture
from mogul.evaluation import BinComparison, Evaluation
from mogul.report import figures, tables
from mogul.report.layouts import INPAINTING_ROWS, components_picture, inpainting_picture
from mogul.report.page import Figure, Page, Picture, Section, encoded, write_page
from mogul.report.pictures import tile
from mogul.tasks import Outliers, characteristic, inpaint

_GRID = 48
_COMPONENTS = 12
_INPAINTED = 8
_MASKS = (
    ("right", "right half hidden"),
    ("centre", "centre hidden"),
    ("random:0.5", "half of the pixels hidden"),
)


@dataclass(frozen=True)
class ReportData:
    """What a report shows: the model, the data, and the results, all computed before.

    `held_out` says that the rows of `test` were kept out of the fit; `columns` are the names of a
    table's columns, by default their numbers.
    """

    mixture: Mixture
    model: dict[str, Any]
    train: DataSource
    test: DataSource
    evaluation: Evaluation
    outliers: Outliers
    history: list[dict[str, Any]]
    fit_command: str
    report_command: str
    seed: int = 0
    held_out: bool = True
    columns: Sequence[str] = ()

    @property
    def rows(self) -> str:
        """What to call the rows that the model is judged by."""
        return "held-out rows" if self.held_out else "training rows"

    @property
    def names(self) -> list[str]:
        """Names of the columns of a table."""
        return list(self.columns) or [f"column {i}" for i in range(self.mixture.n_features)]


def write_report(path: str | Path, data: ReportData) -> None:
    """Write the page atomically; it needs no other file and no network.

    Args:
        path: the .html file to write.
        data: what to show.
    """
    model = data.model
    factors = f" with {model['rank']} factors each" if model["rank"] else ""
    shared = f", covariance {model['sharing']}" if model["sharing"] != "own" else ""
    values = "features" if data.test.is_image else "columns"
    judged = (
        f"judged on {len(data.test):,} held-out rows of {data.test.name}."
        if data.held_out
        else "judged on rows of the same data: none were held out, so that its figures are better "
        "than those of new rows would be."
    )
    subtitle = (
        f"A mixture of {model['covariance']} components{factors}{shared}, fitted to "
        f"{len(data.train):,} rows of {model['n_features']:,} {values} and {judged}"
    )
    write_page(
        path,
        Page(
            data.test.name,
            f"{model['n_components']} Gaussians on {data.train.name}",
            subtitle,
            _table(data),
            _sections(data),
            data.history,
            [data.fit_command, data.report_command],
        ),
    )


def _table(data: ReportData) -> list[Figure]:
    """Return rows of (figure, value, what it means)."""
    found, comparison = data.evaluation, data.evaluation.samples
    real = data.evaluation.held_out if data.held_out else None
    rows = [
        (
            "log-likelihood",
            f"{found.log_likelihood:,.2f} nats per row",
            f"mean over {found.n:,} {data.rows}; higher is better",
        )
    ]
    if found.bits_per_dim is not None:
        rows.append((
            "bits per dimension",
            f"{found.bits_per_dim:.4f}",
            "the same per pixel value, under uniform dequantisation; lower is better",
        ))
    if comparison is not None:
        rows += _bin_rows(comparison, real)
    if data.test.is_image:
        rows.append((
            "reconstruction error",
            f"{found.reconstruction:.3g}",
            "mean squared, per value; pixels run from 0 to 1",
        ))
    else:
        rows.append((
            "variance explained",
            f"{100 * tables.explained(data.mixture, data.test):.1f}\u00a0%",
            "by components and factors, without noise; mean over the columns",
        ))
    if found.inpainting is not None:
        rows.append((
            "in-painting error",
            f"{found.inpainting:.3g}",
            "mean squared, per hidden value, right half hidden",
        ))
    return rows


def _bin_rows(comparison: BinComparison, real: BinComparison | None) -> list[Figure]:
    reached = shares = ""
    if real is not None:
        reached = f"; real held-out rows reach {real.ndb} / {real.n_bins} = {real.ratio:.2f}"
        shares = f"; real held-out rows reach {real.js:.4f}"
    return [
        (
            "NDB / bins",
            f"{comparison.ndb} / {comparison.n_bins} = {comparison.ratio:.2f}",
            f"bins in which {comparison.n:,} samples differ from the training rows at 5 %{reached}",
        ),
        (
            "Jensen–Shannon divergence",
            f"{comparison.js:.4f} nats",
            f"of the bin shares{shares}",
        ),
    ]


def _sections(data: ReportData) -> list[Section]:
    """Return (heading, explanation, pictures) in the order of the page."""
    sections = []
    if data.test.is_image:
        sections.append(_samples(data))
    else:
        sections.append(tables.scatter(data.mixture, data.test, data.names, data.seed))
    if data.history:
        curve = Picture(
            "Line chart of the log-likelihood at every pass.",
            "Mean log-likelihood per row before each pass.",
            svg=Markup(figures.training_curve(data.history)),
        )
        sections.append(("Training", "", [curve]))
    if data.test.is_image:
        sections += [_components(data), _inpaintings(data)]
    else:
        sections.append(tables.components(data.mixture, data.model["sharing"], data.names))
    sections.append(_outliers(data))
    samples, real = data.evaluation.samples, data.evaluation.held_out
    if samples is not None:
        sections.append(_bins(samples, real if data.held_out else None))
    return sections


def _samples(data: ReportData) -> Section:
    what = "Held-out data" if data.held_out else "Training data"
    real = data.test.take(range(min(_GRID, len(data.test))))
    drawn = data.mixture.sample((len(real),), seed=data.seed)
    clean = data.mixture.sample((len(real),), noise=False, seed=data.seed)
    pictures = [
        _grid(data, real, f"{what}.", f"A grid of images: {what.lower()}."),
        _grid(data, clean, "Samples without the noise term.", "A grid of images from the model."),
        _grid(data, drawn, "Samples.", "A grid of images from the model with its pixel noise."),
    ]
    return "Data and samples", "New images drawn from the model, beside real ones.", pictures


def _components(data: ReportData) -> Section:
    found = characteristic(data.mixture, _COMPONENTS)
    laid_out, names = components_picture(found, data.test.to_pixels)
    weights = ", ".join(f"{100 * w:.1f}\u00a0%" for w in found.weight.tolist())
    caption = f"One component per column, the heaviest first ({weights}). From the top: {names}."
    picture = Picture(
        "A grid of images, one column per component.",
        caption,
        png=encoded(laid_out),
    )
    text = (
        f"The {len(found.index)} heaviest of {data.mixture.n_components} components. Each is a "
        "flat piece of the space of images: a mean and the directions in which it bends."
    )
    return "Components", text, [picture]


def _inpaintings(data: ReportData) -> Section:
    x = data.test.take(
        range(min(_INPAINTED, len(data.test))), data.mixture.dtype, data.mixture.device
    )
    pictures = []
    for spec, what in _MASKS:
        observed = parse_mask(spec, len(x), data.test.feature_shape, data.seed).to(x.device)
        done = inpaint(data.mixture, x, observed, n_samples=2, seed=data.seed)
        pictures.append(
            Picture(
                f"Rows of images: original, masked, in-painted; {what}.",
                f"{what.capitalize()}. From the top: {INPAINTING_ROWS}.",
                png=encoded(inpainting_picture(x, observed, done, data.test.to_pixels)),
            )
        )
    kind = "held-out" if data.held_out else "training"
    text = f"Hidden pixels of {kind} images, inferred by the exact conditional of the mixture."
    return "In-painting", text, pictures


def _outliers(data: ReportData) -> Section:
    found = data.outliers
    histogram = Picture(
        "Histogram of log-likelihoods with the threshold marked.",
        f"{found.n_below} of {len(found.order):,} {data.rows} lie below the threshold of "
        f"{found.threshold:,.1f} nats, below which 1 % of the training rows lie.",
        svg=Markup(figures.likelihood_histogram(found.log_likelihood, found.threshold, data.rows)),
    )
    text = f"The least likely {data.rows}: unusual, wrong, or not of this kind."
    if not data.test.is_image:
        worst = tables.worst_rows(found, data.mixture, data.test, data.names)
        return "Outliers", text, [worst, histogram]
    worst = data.test.take(found.order[:24].copy())
    best = data.test.take(found.order[::-1][:24].copy())
    pictures = [
        _grid(data, worst, "The least likely first.", "A grid of the least likely images."),
        _grid(data, best, "For contrast, the most likely.", "A grid of the most likely images."),
        histogram,
    ]
    return "Outliers", text, pictures


def _bins(samples: BinComparison, real: BinComparison | None) -> Section:
    bars = figures.bin_bars(
        samples.reference,
        samples.proportions,
        None if real is None else real.proportions,
        samples.different,
    )
    others = "" if real is None else f", {real.ndb} for held-out rows"
    picture = Picture(
        "Bar chart of the share of rows in each bin.",
        f"{samples.ndb} of {samples.n_bins} bins differ significantly for samples{others}; five in "
        "a hundred would by chance.",
        svg=Markup(bars),
    )
    text = (
        f"Training rows are cut into {samples.n_bins} bins by k-means; a model that drops or "
        "invents modes fills them differently (Richardson & Weiss 2018)."
    )
    return "Statistically different bins", text, [picture]


def _grid(data: ReportData, x: torch.Tensor, caption: str, alt: str) -> Picture:
    columns = 8 if len(x) > 24 else 6
    return Picture(alt, caption, png=encoded(tile(data.test.to_pixels(x), columns)))
