"""The pictures of in-painting and of components, as the report and the command line show them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from mogul.data.pixels import stretch
from mogul.models import LatentVariableModel
from mogul.report.pictures import stack_rows
from mogul.tasks import ComponentPictures, Inpainting, LatentInpainting, decode_rows, of_class

ToPixels = Callable[[Tensor], np.ndarray]
INPAINTING_ROWS = (
    "original, what the model sees, conditional mean, its standard deviation (stretched), and "
    "conditional samples"
)


def inpainting_picture(
    x: Tensor,
    observed: Tensor,
    done: Inpainting | LatentInpainting,
    to_pixels: ToPixels,
    n_samples: int | None = None,
) -> np.ndarray:
    """Lay out rows of images: see `INPAINTING_ROWS`.

    Args:
        x: original rows (n, D); NaN is shown grey.
        observed: mask (n, D).
        done: the in-painting of these rows.
        to_pixels: turns rows (n, D) into images.
        n_samples: samples to show at most; default all.

    Returns:
        the picture, 8-bit.
    """
    original, mean = to_pixels(x.nan_to_num(0.5)), to_pixels(done.mean)
    deviation = done.deviation.cpu().numpy().reshape(mean.shape)
    seen = to_pixels(torch.where(observed, x, 0.5))
    samples = [to_pixels(sample) for sample in done.samples[:n_samples]]
    return stack_rows([original, seen, mean, stretch(deviation), *samples])


def components_picture(
    found: ComponentPictures, to_pixels: ToPixels, n_factors: int = 3
) -> tuple[np.ndarray, str]:
    """Lay out components, one per column: mean, noise, and the mean bent along each factor.

    Args:
        found: the components.
        to_pixels: turns rows (n, D) into images.
        n_factors: factors to show at most, the longest first.

    Returns:
        the picture, 8-bit, and what its rows are.
    """
    mean = to_pixels(found.mean)
    rows = [mean, stretch(found.noise.cpu().numpy().reshape(mean.shape))]
    names = ["mean", "noise (stretched)"]
    for factor in range(min(n_factors, found.directions.shape[1])):
        rows += [to_pixels(found.along(factor, steps)) for steps in (-2.0, 2.0)]
        names += [f"factor {factor + 1} at −2 σ", "at +2 σ"]
    return stack_rows(rows), ", ".join(names)


@torch.no_grad()
def prior_picture(
    model: LatentVariableModel,
    to_pixels: ToPixels,
    n_components: int,
    n_samples: int = 4,
    seed: int = 0,
) -> np.ndarray:
    """Lay out the heaviest components of a prior, one per column: decoded mean, decoded draws.

    Args:
        model: an autoencoder, or a decoder, of images.
        to_pixels: turns rows (n, D) into images.
        n_components: components to show at most.
        n_samples: draws of each.
        seed: seed of the draws.

    Returns:
        the picture, 8-bit.
    """
    prior = model.prior
    order = prior.log_weights.argsort(descending=True)[:n_components]
    draws = [model.sample(n_samples, seed, of_class(prior, int(k))) for k in order]
    rows = [decode_rows(model, prior.means[order]), *torch.stack(draws, 1)]
    return stack_rows([to_pixels(row) for row in rows])
