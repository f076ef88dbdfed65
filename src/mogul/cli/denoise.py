"""The command that denoises pictures by mixtures of their patches."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mogul.cli import options
from mogul.cli.console import check_output, command_line, show, write_arrays, write_picture

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from mogul.opened import Opened
    from mogul.report import DenoisedPicture

_LEVELS = 256
_PEAK = 255 / _LEVELS  # range of pixels in the units of models, (y + ½)/256


def denoise(
    model: options.Model,
    image: Annotated[
        Path, typer.Argument(help="A picture; colours are turned grey.", show_default=False)
    ],
    noise: Annotated[
        float,
        typer.Option(help="Standard deviation of the noise, in grey levels of 0 to 255, like 25."),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="A .png picture (with --clean, of IMAGE, with noise, and restored), a .npy array "
            "of grey levels, or, with --clean, a .html report.",
        ),
    ],
    clean: Annotated[
        bool,
        typer.Option("--clean", help="IMAGE has no noise: add it first, and tell the PSNR."),
    ] = False,
    against: Annotated[
        list[Path] | None,
        typer.Option(
            help="Another model for the report, which compares them; may be given several times.",
            show_default=False,
        ),
    ] = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Denoise IMAGE by the posterior mean of its patches, under a MODEL of patches."""
    import numpy as np
    import torch

    from mogul.data import from_levels, read_grey
    from mogul.evaluation import peak_signal_to_noise
    from mogul.report import tile
    from mogul.tasks import denoise_image, of_centred_patches

    since = time.perf_counter()
    others = against or []
    check_output(output, (".png", ".npy", ".html"), model, image, *others)
    _check_report(output.suffix == ".html", clean, bool(others))
    opened, patch = open_patches(model, device)
    pixels = read_grey(image)
    original = torch.from_numpy(from_levels(pixels))
    noisy = _noisy(original, noise, seed) if clean else original
    restored = denoise_image(opened.mixture, noisy, noise / _LEVELS, patch).cpu()
    reached: dict[str, Any] = {}
    if clean:
        reached = {
            "noisy_psnr": peak_signal_to_noise(original, noisy, _PEAK),
            "psnr": peak_signal_to_noise(original, restored, _PEAK),
        }
    if output.suffix == ".html":
        first = _denoised(model, opened, original, restored)
        reached |= _report(
            output, image, pixels, noisy, noise, reached["noisy_psnr"], first, opened, patch,
            others, device,
        )  # fmt: skip
    elif output.suffix == ".npy":
        write_arrays(output, image=(restored * _LEVELS - 0.5).numpy())
    else:
        shown = [_pixels(restored)]
        if clean:
            shown = [pixels, _pixels(noisy), *shown]
        write_picture(output, tile(np.stack(shown), len(shown)))
    figures = reached | {
        "pixels": f"{pixels.shape[1]}×{pixels.shape[0]}",
        "patches": f"{patch[0]}×{patch[1]}, "
        + ("less their mean" if of_centred_patches(opened.mixture) else "as they are"),
        "output": str(output),
        "seconds": time.perf_counter() - since,
    }
    show(f"{image}, denoised", figures, json)


def _check_report(wanted: bool, clean: bool, others: bool) -> None:
    """Refuse options that contradict each other.

    Raises:
        InputError: naming them.
    """
    from mogul.errors import InputError

    if (wanted and not clean) or (others and not wanted):
        raise InputError(
            "A report compares pictures with the clean one, and it alone takes --against: give "
            "-o report.html with --clean, or a .png or .npy file without --against."
        )


def open_patches(path: Path, device: str) -> tuple[Opened, tuple[int, int]]:
    """Open a mixture of grey patches, and tell their height and width.

    Raises:
        InputError: if the file is of another model, or its rows are no patches.
    """
    from mogul.errors import InputError
    from mogul.opened import open_model

    opened = open_model(path, device)
    shape = opened.feature_shape
    side = math.isqrt(opened.n_features)
    if len(shape) == 2:
        return opened, (shape[0], shape[1])
    if len(shape) == 1 and side**2 == opened.n_features and side > 1:
        return opened, (side, side)
    raise InputError(
        f"{path} models rows of shape {shape}, which are no patches of a grey picture; fit a model "
        "to an array (n, height, width) of patches, or (n, side²), such as "
        "`mogul.data.random_patches` draws."
    )


def _noisy(clean: Tensor, noise: float, seed: int) -> Tensor:
    import torch

    from mogul.compute.backend import make_generator

    drawn = torch.randn(clean.shape, generator=make_generator(seed, clean.device))
    return clean + noise / _LEVELS * drawn


def _pixels(picture: Tensor) -> np.ndarray:
    from mogul.data import PixelScale

    return PixelScale(_LEVELS).to_pixels(picture)


def _denoised(path: Path, opened: Opened, clean: Tensor, restored: Tensor) -> DenoisedPicture:
    """Return a restored picture as the report shows it."""
    from mogul.evaluation import peak_signal_to_noise
    from mogul.report import DenoisedPicture

    k, loadings = opened.mixture.n_components, opened.mixture.loadings
    independent = opened.mixture.covariance.independent
    rank = loadings.shape[-1] if loadings is not None else 0 if independent else None
    factors = "" if rank is None else f", {rank} factors"
    return DenoisedPicture(
        f"{path.name} ({k:,} components{factors})",
        _pixels(restored),
        peak_signal_to_noise(clean, restored, _PEAK),
        k,
        rank,
    )


def _report(
    output: Path,
    image: Path,
    pixels: np.ndarray,
    noisy: Tensor,
    noise: float,
    noisy_psnr: float,
    first: DenoisedPicture,
    opened: Opened,
    patch: tuple[int, int],
    others: list[Path],
    device: str,
) -> dict[str, float]:
    """Restore the picture by the other models and by one Gaussian, and write the page."""
    import torch

    from mogul.data import from_levels
    from mogul.evaluation import peak_signal_to_noise
    from mogul.report import DenoisedPicture, DenoisingReport, write_denoising_report
    from mogul.tasks import denoise_image, one_gaussian

    clean, scale = torch.from_numpy(from_levels(pixels)), noise / _LEVELS
    models = [first]
    for path in others:
        other, shape = open_patches(path, device)
        restored = denoise_image(other.mixture, noisy, scale, shape).cpu()
        models.append(_denoised(path, other, clean, restored))
    linear = denoise_image(one_gaussian(opened.mixture), noisy, scale, patch).cpu()
    wiener = DenoisedPicture(
        "one Gaussian (Wiener filter)", _pixels(linear),
        peak_signal_to_noise(clean, linear, _PEAK), 1,
    )  # fmt: skip
    about = DenoisingReport(
        str(image), pixels, _pixels(noisy), noise, noisy_psnr, wiener, models,
        [opened.extra["command"], command_line()],
    )  # fmt: skip
    write_denoising_report(output, about)
    return {"one_gaussian_psnr": wiener.psnr}
