"""The page about an autoencoder: what its prior looks like, and where data lie in its latents."""

from __future__ import annotations

from pathlib import Path

import torch
from markupsafe import Markup
from torch import Tensor

from mogul.data import open_labels
from mogul.errors import InputError
from mogul.evaluation import LatentPlane, LatentSummary, summarise_latents
from mogul.models import VariationalAutoencoder
from mogul.report import figures
from mogul.report.decoder import SHOWN, DecoderReport, grid, inpaintings, interpolations, shown_rows
from mogul.report.page import Figure, Page, Picture, Section, encoded, write_page
from mogul.report.pictures import stack_rows
from mogul.tasks import decode_rows, nearest_rows, of_class

_SAMPLES = 48
_MAPPED = 1500  # rows in the map of latents
_OUTLINED = 60  # components in it
_DEVIATIONS = 2.0  # that their outlines are drawn at


def write_autoencoder_report(path: str | Path, data: DecoderReport) -> None:
    """Write the page atomically; it needs no other file and no network.

    Args:
        path: the .html file to write.
        data: what to show; its model must be a `VariationalAutoencoder`.
    """
    model, settings = data.model, data.extra["settings"]
    assert isinstance(model, VariationalAutoencoder)
    subtitle = (
        f"{model.n_parameters:,} parameters, {model.n_latents} latents, {settings['prior']} prior, "
        f"trained on {len(data.train):,} rows; shown on held-out rows of {data.test.name}."
    )
    found = summarise_latents(model, data.test)
    page = Page(
        data.test.name,
        f"An autoencoder of {Path(data.train.name).name}",
        subtitle,
        _figures(data, model, found),
        _sections(data, model, found),
        data.extra["history"],
        [data.extra["command"], data.report_command],
    )
    write_page(path, page)


def _figures(
    data: DecoderReport, model: VariationalAutoencoder, found: LatentSummary
) -> list[Figure]:
    reached, last = data.extra.get("figures", {}), data.extra["history"][-1]
    bound = f"{last['evidence_bound']:,.2f} nats"
    shown = [("training bound", bound, "of log p(x), at full weight, last pass")]
    scores = {k: v for k, v in reached.items() if k.startswith("test_log_likelihood_")}
    if scores:
        name, value = list(scores.items())[-1]
        draws = name.rpartition("_")[2]
        meaning = f"held out, by importance sampling with {draws} draws"
        shown.append(("held-out log p(x)", f"{value:,.2f} nats", meaning))
    if "test_bits_per_dim" in reached:
        shown.append(("bits/dim", f"{reached['test_bits_per_dim']:.3f}", "held out"))
    shown.append((
        "active latents", f"{found.active_units} of {model.n_latents}",
        "whose posterior mean varies by more than 0.01 over rows",
    ))  # fmt: skip
    n_components = model.prior.n_components
    if n_components > 1:
        shown.append((
            "used components", f"{found.used_components} of {n_components}",
            "with at least a tenth of an equal share of held-out rows",
        ))  # fmt: skip
    return shown


@torch.no_grad()
def _sections(
    data: DecoderReport, model: VariationalAutoencoder, found: LatentSummary
) -> list[Section]:
    curve = Picture(
        "Line chart of the bound of log p(x), and of the divergence in it, at every pass.",
        "The bound per row, in training and on held-out rows where there are any, and the "
        "estimated divergence to the prior in it.",
        svg=Markup(figures.bound_curves(data.extra["history"])),
    )
    sections: list[Section] = []
    if data.test.is_image:
        sections.append(_samples(data, model))
        if model.prior.n_components > 1:
            sections.append(_components(data, model))
    if model.n_latents > 1:
        sections.append(_map(data, model, found))
    sections.append(("Training", "", [curve]))
    if data.test.is_image:
        sections += [_reconstructions(data, model), inpaintings(data), interpolations(data)]
    return sections


def _samples(data: DecoderReport, model: VariationalAutoencoder) -> Section:
    real = data.test.take(range(min(_SAMPLES, len(data.test))))
    drawn = model.sample(_SAMPLES, data.seed)
    pictures = [grid(data, real, "Held-out data."), grid(data, drawn, "Samples of the prior.")]
    return "Data and samples", "Latents drawn from the prior, decoded.", pictures


def _components(data: DecoderReport, model: VariationalAutoencoder) -> Section:
    prior = model.prior
    order = prior.log_weights.argsort(descending=True)[:SHOWN]
    means = decode_rows(model, prior.means[order])
    nearest = nearest_rows(data.train, means)
    laid_out = stack_rows([data.test.to_pixels(means), data.test.to_pixels(nearest)])
    caption = (
        "Decoded means of the prior's components by falling weight "
        f"({prior.weights[order[0]]:.3f} to {prior.weights[order[-1]]:.3f}), and the training row "
        "nearest to each."
    )
    pictures = [Picture("Decoded means over training rows.", caption, png=encoded(laid_out))]
    own = [model.sample(8, data.seed, of_class(prior, int(k))) for k in order[:8]]
    caption = "Samples of the eight heaviest components, a row each."
    pictures.append(grid(data, torch.cat(own), caption))
    text = (
        "Components of the prior, decoded. Where they look alike, latents do not tell images apart "
        "(see active latents)."
    )
    return "What the prior holds", text, pictures


def _map(data: DecoderReport, model: VariationalAutoencoder, found: LatentSummary) -> Section:
    z = found.means[:_MAPPED]
    plane, labels = LatentPlane.through(z), _labels(data, len(z))
    order = model.prior.log_weights.argsort(descending=True)[:_OUTLINED]
    outlines = list(plane.outlines(model.prior, order, _DEVIATIONS).cpu().numpy())
    what = "latent" if model.n_latents == 2 else "principal component of the latents"
    points = plane.project(z).cpu().numpy()
    svg = figures.latent_map(points, None if labels is None else labels.numpy(), outlines, what)
    caption = (
        "Posterior means of held-out rows"
        + ("" if labels is None else ", coloured by their labels")
        + f", and two standard deviations of the prior's {len(order)} heaviest component(s)."
    )
    picture = Picture("Map of latents with outlines of components.", caption, svg=Markup(svg))
    return "Where the data lie", "", [picture]


def _labels(data: DecoderReport, n: int) -> Tensor | None:
    """Return the classes of held-out rows, where the data set has any."""
    try:
        labels = open_labels(data.test.name, n)
    except InputError:
        return None
    return labels if len(labels) == n else None


def _reconstructions(data: DecoderReport, model: VariationalAutoencoder) -> Section:
    x = shown_rows(data)
    rebuilt = decode_rows(model, model.posterior(x).mean)
    error = float((rebuilt - x).square().mean())
    caption = f"Held-out images over their reconstructions; mean squared error {error:.4f}."
    laid_out = stack_rows([data.test.to_pixels(x), data.test.to_pixels(rebuilt)])
    picture = Picture("Images over their reconstructions.", caption, png=encoded(laid_out))
    return "Reconstruction", "Each image decoded from the mean of its posterior.", [picture]
