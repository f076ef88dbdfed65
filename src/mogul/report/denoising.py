"""The page about a picture denoised by one mixture or several."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes

from mogul.report import figures
from mogul.report.page import Figure, Page, Picture, Section, encoded, write_page


@dataclass(frozen=True)
class DenoisedPicture:
    """A picture as some model restores it: 8-bit pixels (h, w), and its PSNR in dB."""

    name: str
    pixels: np.ndarray
    psnr: float
    components: int
    rank: int | None = None  # None where covariances have no factors, or all of them


@dataclass(frozen=True)
class DenoisingReport:
    """What a page of denoising shows; `noise` is in grey levels, `noisy_psnr` that of no model."""

    source: str
    clean: np.ndarray
    noisy: np.ndarray
    noise: float
    noisy_psnr: float
    wiener: DenoisedPicture
    models: list[DenoisedPicture]
    commands: list[str]


def write_denoising_report(path: str | Path, data: DenoisingReport) -> None:
    """Write the page atomically; it needs no other file and no network.

    Args:
        path: the .html file to write.
        data: what to show.
    """
    best = max(data.models, key=lambda found: found.psnr)
    shown: list[Figure] = [
        ("no model", f"{data.noisy_psnr:.2f} dB", "PSNR of the noisy picture itself"),
        (data.wiener.name, f"{data.wiener.psnr:.2f} dB", "the linear filter: one Gaussian"),
    ]
    shown += [
        (found.name, f"{found.psnr:.2f} dB", "PSNR of the posterior mean; higher is better")
        for found in data.models
    ]
    height, width = data.clean.shape
    subtitle = (
        f"{width}×{height} pixels with Gaussian noise of {data.noise:g} grey levels, restored by "
        f"posterior means of overlapping patches. The best, {best.name}, is "
        f"{best.psnr - data.noisy_psnr:.2f} dB above the noisy picture and "
        f"{best.psnr - data.wiener.psnr:.2f} dB above the linear filter."
    )
    sections = [_pictures(data, best), *_charts(data)]
    name = Path(data.source).name
    write_page(path, Page(name, f"{name}, denoised", subtitle, shown, sections, [], data.commands))


def draw_psnr(
    axes: Axes, models: list[DenoisedPicture], along: str, levels: dict[str, float]
) -> None:
    """Draw PSNR against components, a line per rank, or against rank, a line per components.

    Args:
        axes: where to draw.
        models: what each model reached; those without a rank are left out along it.
        along: "components" or "rank".
        levels: PSNR in dB of what has neither, by name: drawn across.
    """
    other = "rank" if along == "components" else "components"
    lines: dict[int, list[tuple[int, float]]] = {}
    for found in models:
        if found.rank is not None:
            lines.setdefault(getattr(found, other), []).append((getattr(found, along), found.psnr))
    for i, value in enumerate(sorted(lines)):
        name = f"rank {value}" if other == "rank" else f"{value:,} components"
        axes.plot(
            *zip(*sorted(lines[value]), strict=True), "o-", markersize=3.5, color=f"C{i}",
            label=name,
        )  # fmt: skip
    for style, (name, level) in zip((":", "--"), levels.items(), strict=False):
        axes.axhline(level, linestyle=style, color=figures.GREY, label=f"{name}, {level:.1f} dB")
    if along == "components":
        axes.set_xscale("log")
    at = sorted({x for line in lines.values() for x, _ in line})
    axes.set_xticks(at, [f"{x:,}" for x in at])
    axes.minorticks_off()
    axes.set_xlabel(along)
    axes.set_ylabel("PSNR (dB)")
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _pictures(data: DenoisingReport, best: DenoisedPicture) -> Section:
    shown = [("clean", data.clean, None), ("noisy", data.noisy, data.noisy_psnr)]
    shown += [(f.name, f.pixels, f.psnr) for f in (data.wiener, *data.models)]
    pictures = [
        Picture(
            f"The picture, {name}.",
            name if psnr is None else f"{name}: {psnr:.2f} dB"
            + (", the best" if name == best.name and len(data.models) > 1 else ""),
            png=encoded(pixels),
        )
        for name, pixels, psnr in shown
    ]  # fmt: skip
    text = "PSNR is 10 log₁₀ of the squared range of pixels over the mean squared error."
    return "Clean, noisy, denoised", text, pictures


def _charts(data: DenoisingReport) -> list[Section]:
    """Return charts along what differs between the models."""
    levels = {"no model": data.noisy_psnr, data.wiener.name: data.wiener.psnr}
    pictures = []
    for along in ("components", "rank"):
        if len({getattr(f, along) for f in data.models if f.rank is not None}) < 2:
            continue
        shown = {} if pictures else levels  # which flatten what they are drawn beside
        draw = partial(draw_psnr, models=data.models, along=along, levels=shown)
        svg = figures.as_svg(draw, 6.4, 3.6)
        pictures.append(
            Picture(
                f"Line chart of PSNR against {along}.",
                f"PSNR against {along}" + (", beside no model and one Gaussian." if shown else "."),
                svg=Markup(svg),
            )
        )
    return [("What more components and factors are worth", "", pictures)] if pictures else []
