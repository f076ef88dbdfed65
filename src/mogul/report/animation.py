"""Pictures of two-dimensional mixtures over points, still and moving."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from mogul.distributions import Mixture
from mogul.report.pictures import as_pixels

_BLUE, _ORANGE = "#3b7dd8", "#e07b39"
_GRID = 90
_COLOURS = 16


@torch.no_grad()
def contour_picture(x: np.ndarray, panels: Sequence[tuple[str, Mixture]]) -> np.ndarray:
    """Draw density contours and component ellipses over points, one panel per mixture.

    Args:
        x: points (n, D); the first two features are shown, or a histogram if D = 1.
        panels: (title, mixture of D features) pairs.

    Returns:
        the picture, 8-bit RGB.
    """
    figure = Figure(figsize=(4.6 * len(panels), 4.4), layout="constrained", dpi=80)
    for axes, (title, mixture) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
    ):
        if x.shape[1] == 1:
            _draw_line(axes, x[:, 0], mixture)
        else:
            _draw_plane(axes, x[:, :2], mixture.marginal(torch.tensor([0, 1])))
        axes.set_title(title, fontsize=11)
    return as_pixels(figure)


def to_animation(frames: Sequence[np.ndarray], suffix: str, milliseconds: int = 160) -> bytes:
    """Encode pictures of one size as an animated GIF or WebP, the last held for two seconds."""
    images = [Image.fromarray(frame) for frame in frames]
    if suffix == ".gif":
        # Few colours, the same in all frames and not dithered, take a quarter of the bytes.
        palette = images[-1].quantize(_COLOURS, dither=Image.Dither.NONE)
        images = [i.quantize(palette=palette, dither=Image.Dither.NONE) for i in images]
    buffer = io.BytesIO()
    images[0].save(
        buffer,
        format=suffix.lstrip(".").upper(),
        save_all=True,
        append_images=images[1:],
        duration=[milliseconds] * (len(images) - 1) + [2000],
        loop=0,
    )
    return buffer.getvalue()


def _limits(values: np.ndarray) -> tuple[float, float]:
    margin = 0.15 * float(np.ptp(values))
    return float(values.min()) - margin, float(values.max()) + margin


def _draw_line(axes: Axes, x: np.ndarray, mixture: Mixture) -> None:
    grid = torch.linspace(*_limits(x), 400, dtype=mixture.dtype)
    density = mixture.log_prob(grid.unsqueeze(-1)).exp()
    axes.hist(x, bins=60, density=True, color=_BLUE, alpha=0.35)
    axes.plot(grid, density, color=_ORANGE)


def _draw_plane(axes: Axes, x: np.ndarray, mixture: Mixture) -> None:
    across = torch.linspace(*_limits(x[:, 0]), _GRID, dtype=mixture.dtype)
    up = torch.linspace(*_limits(x[:, 1]), _GRID, dtype=mixture.dtype)
    points = torch.cartesian_prod(across, up)
    height = mixture.log_prob(points).reshape(_GRID, _GRID).mT
    axes.plot(*x.T, ".", color=_BLUE, markersize=2, alpha=0.35)
    levels = torch.quantile(height.flatten(), torch.linspace(0.8, 0.995, 7, dtype=height.dtype))
    axes.contour(
        across,
        up,
        height,
        levels=levels.unique(),
        colors=_ORANGE,
        linewidths=0.8,
        linestyles="solid",
    )
    axes.plot(*mixture.means.mT, "k+", markersize=9)
    for mean, tril in zip(
        mixture.means, mixture.covariance.tril().expand(mixture.n_components, -1, -1), strict=True
    ):
        angle = torch.linspace(0, 2 * torch.pi, 80, dtype=mean.dtype)
        circle = torch.stack([angle.cos(), angle.sin()])
        ellipse = mean.unsqueeze(-1) + 2 * tril @ circle
        axes.plot(*ellipse, color="black", linewidth=0.9)
    axes.set_xlim(*_limits(x[:, 0]))
    axes.set_ylim(*_limits(x[:, 1]))
