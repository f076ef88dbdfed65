"""The page about a neural decoder: samples from each summary, reconstructions, in-paintings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from markupsafe import Markup
from torch import Tensor

from mogul.data import DataSource, parse_mask
from mogul.distributions import Mixture
from mogul.models import LatentVariableModel
from mogul.report import figures
from mogul.report.layouts import INPAINTING_ROWS, inpainting_picture
from mogul.report.page import Figure, Page, Picture, Section, encoded, write_page
from mogul.report.pictures import stack_rows, tile
from mogul.tasks import decode_rows, encode, inpaint_latent, interpolate, summarise

_GRID = 48
SHOWN = 12
_DRAWS = 16
_SUMMARIES = (
    ("prior", "Latents from the prior."),
    ("gaussian", "Latents from one Gaussian fitted to the particles."),
    ("mixture", "Latents from a mixture of Gaussians fitted to the particles"),
)
_MASKS = (("centre", "centre hidden"), ("right", "right half hidden"))


@dataclass(frozen=True)
class DecoderReport:
    """What a page shows: the model, the data, and the facts kept with the model."""

    model: LatentVariableModel
    train: DataSource
    test: DataSource
    extra: dict[str, Any]
    report_command: str
    seed: int = 0


def write_decoder_report(path: str | Path, data: DecoderReport) -> None:
    """Write the page atomically; it needs no other file and no network.

    Args:
        path: the .html file to write.
        data: what to show.
    """
    model, extra = data.model, data.extra
    subtitle = (
        f"{model.n_parameters:,} parameters, {model.n_latents} latents, trained by "
        f"{extra['algorithm']} on {len(data.train):,} rows; shown on held-out rows of "
        f"{data.test.name}."
    )
    page = Page(
        data.test.name,
        f"A neural decoder of {data.train.name}",
        subtitle,
        _figures(data),
        _sections(data),
        extra["history"],
        [extra["command"], data.report_command],
    )
    write_page(path, page)


def _figures(data: DecoderReport) -> list[Figure]:
    last, settings = data.extra["history"][-1], data.extra["settings"]
    seconds = sum(row["seconds"] for row in data.extra["history"])
    return [
        (
            "log p(x, z)",
            f"{last['objective']:,.1f} nats",
            "mean over rows and particles, last pass",
        ),
        ("passes", f"{last['pass']}", "over the training rows"),
        (
            "particles per row",
            f"{settings['particles']}",
            "latents that stand for a row's posterior",
        ),
        ("time", f"{seconds / 60:.1f} min", "of the fit"),
    ]


@torch.no_grad()
def _sections(data: DecoderReport) -> list[Section]:
    curve = Picture(
        "Line chart of the mean log p(x, z) and of the movement of particles at every pass.",
        "Mean log p(x, z) of rows and particles, and how far particles moved in a pass.",
        svg=Markup(figures.particle_curves(data.extra["history"])),
    )
    sections: list[Section] = []
    if data.test.is_image:
        sections.append(_samples(data))
    sections.append(("Training", "", [curve]))
    if data.test.is_image:
        sections += [_reconstructions(data), inpaintings(data), interpolations(data)]
    return sections


def _samples(data: DecoderReport) -> Section:
    real = data.test.take(range(min(_GRID, len(data.test))))
    pictures = [grid(data, real, "Held-out data.")]
    for kind, what in _SUMMARIES:
        if kind != "prior" and data.model.particles is None:
            continue
        latents = summarise(data.model, kind, seed=data.seed)
        caption = what + _count(kind, latents)
        pictures.append(grid(data, data.model.sample(len(real), data.seed, latents), caption))
    text = (
        "The same decoder, with latents drawn from the prior and from what the particles of the "
        "training rows look like."
    )
    return "Data and samples", text, pictures


def _count(kind: str, latents: Mixture) -> str:
    if kind != "mixture":
        return ""
    k = latents.n_components
    return f", of {k} component{'s' if k > 1 else ''} by BIC."


def _reconstructions(data: DecoderReport) -> Section:
    x = shown_rows(data)
    rebuilt = decode_rows(data.model, encode(data.model, x, seed=data.seed).latents)
    error = float((rebuilt - x).square().mean())
    caption = f"Held-out images over their reconstructions; mean squared error {error:.4f}."
    laid_out = stack_rows([data.test.to_pixels(x), data.test.to_pixels(rebuilt)])
    picture = Picture("Images over their reconstructions.", caption, png=encoded(laid_out))
    text = "Each image decoded from its most probable latents, the best of several starts."
    return "Reconstruction", text, [picture]


def inpaintings(data: DecoderReport) -> Section:
    """Return in-paintings of held-out images under two masks."""
    x, pictures = shown_rows(data)[:8], []
    for spec, what in _MASKS:
        observed = parse_mask(spec, len(x), data.test.feature_shape, data.seed).to(x.device)
        done = inpaint_latent(data.model, x, observed, n_samples=_DRAWS, seed=data.seed)
        picture = inpainting_picture(x, observed, done, data.test.to_pixels, n_samples=3)
        pictures.append(
            Picture(
                f"Rows of images: original, masked, in-painted; {what}.",
                f"{what.capitalize()}. From the top: {INPAINTING_ROWS}.",
                png=encoded(picture),
            )
        )
    text = (
        "Hidden pixels of held-out images: latents are sampled given the observed pixels, so that "
        "what is uncertain differs between samples."
    )
    return "In-painting", text, pictures


def interpolations(data: DecoderReport) -> Section:
    """Return images that change step by step from one held-out image to another."""
    x = shown_rows(data)
    half = len(x) // 2
    steps = interpolate(data.model, x[:half], x[half : 2 * half], n=9)
    laid_out = stack_rows([data.test.to_pixels(row) for row in steps])
    caption = "From the reconstruction of one held-out image to that of another."
    picture = Picture("Rows of images that change step by step.", caption, png=encoded(laid_out))
    return "Interpolation", "Along straight lines between latents.", [picture]


def shown_rows(data: DecoderReport) -> Tensor:
    """Return the held-out rows that pictures show."""
    n = min(SHOWN, len(data.test))
    return data.test.take(range(n), data.model.dtype, data.model.device)


def grid(data: DecoderReport, x: Tensor, caption: str, columns: int = 8) -> Picture:
    """Return rows as one picture of many."""
    return Picture(caption, caption, png=encoded(tile(data.test.to_pixels(x), columns)))
