"""Denoising: posterior means of rows, and of pictures by their patches, under a mixture."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import fold

from mogul.compute.backend import in_full_precision
from mogul.compute.threads import threads_for
from mogul.distributions import Full, Kernel, Mixture
from mogul.distributions.checks import check_width
from mogul.distributions.kernel import in_batches
from mogul.errors import InputError

_BATCH_BYTES = 2**28
_BAND = 2**16  # patches of a picture denoised at a time, at least
_CENTRED = 1e-3  # share that the means of centred patches have in their size, at most


@torch.no_grad()
def denoise_image(
    mixture: Mixture, image: Tensor, noise: float, patch: tuple[int, int] = (8, 8)
) -> Tensor:
    r"""Return a grey picture denoised patch by patch, overlapping patches averaged.

    Every pixel is the mean of $E[x|y]$ over all patches that hold it. A mixture of centred patches,
    those less their own mean (`random_patches`), takes patches less their mean, which is added
    again; any other takes them as they are. Centred patches are the better choice, because no
    component needs to learn how bright a picture is: trained on one photograph and tested on
    another, 100 factor analysers of rank 5 reached 32.5 dB with them and 30.6 dB without.

    Args:
        mixture: of clean patches, flattened.
        image: a noisy grey picture (h, w).
        noise: standard deviation of its noise, in its units.
        patch: height and width of a patch.

    Returns:
        the denoised picture (h, w).

    Raises:
        InputError: if the picture is smaller than a patch or not (h, w), patches have another
            number of values than the mixture's rows, or as `denoise_rows` says.

    References:
        Zoran & Weiss (2011), From learning models of natural image patches to whole image
        restoration.
    """
    height, width = patch
    if image.dim() != 2 or image.shape[0] < height or image.shape[1] < width:
        raise InputError(
            f"A picture of shape {tuple(image.shape)} came; give a grey one (h, w) of at least "
            f"{height}×{width} pixels, the size of a patch."
        )
    if height * width != mixture.n_features:
        raise InputError(
            f"Patches of {height}×{width} pixels have {height * width} values, but the mixture "
            f"models rows of {mixture.n_features}; give the shape of the patches it was fitted to."
        )
    centred = of_centred_patches(mixture)
    image = image.to(mixture.device, mixture.dtype)
    windows = image.unfold(0, height, 1).unfold(1, width, 1)  # (rows, columns, height, width)
    total = torch.zeros_like(image, dtype=torch.float64)
    step = max(1, _BAND // windows.shape[1])
    for top, band in enumerate(windows.split(step)):
        rows = band.flatten(2).flatten(0, 1)
        mean = rows.mean(-1, keepdim=True) if centred else 0.0
        clean = denoise_rows(mixture, rows - mean, noise) + mean
        shape = (len(band) + height - 1, image.shape[1])
        total[top * step :][: shape[0]] += fold(clean.mT[None], shape, patch)[0, 0]
    return (total / _cover(windows.shape[0], height, total)[:, None]
            / _cover(windows.shape[1], width, total)).to(image)  # fmt: skip


def of_centred_patches(mixture: Mixture) -> bool:
    """Return whether a mixture models patches less their own mean: whether its means sum to zero.

    Means of the mean of a patch are compared with the size of its pixels, by mean squares.
    """
    weight, means = mixture.weights.double(), mixture.means.double()
    size = (mixture.variances.double() + means.square()).mean(-1)
    return bool(weight @ means.mean(-1).square() < _CENTRED * (weight @ size))


@torch.no_grad()
def one_gaussian(mixture: Mixture) -> Mixture:
    """Return the one Gaussian with the mean and the covariance of a mixture.

    To denoise by it is the linear (Wiener) filter. It builds D×D matrices.
    """
    weights, means = mixture.weights.double(), mixture.means.double()
    mean = weights @ means
    spread = (means - mean) * weights.sqrt().unsqueeze(-1)
    dense = mixture.covariance.map(torch.Tensor.double).dense().expand(len(means), -1, -1)
    covariance = torch.einsum("k,kij->ij", weights, dense) + spread.mT @ spread
    whole = Full.from_covariance(covariance[None]).map(lambda t: t.to(mixture.dtype))
    return Mixture(mixture.logits.new_zeros(1), mean[None].to(mixture.dtype), whole)


@torch.no_grad()
@in_full_precision
def denoise_rows(mixture: Mixture, rows: Tensor, noise: float) -> Tensor:
    r"""Return E[x | y] of rows y = x + ε, where x follows the mixture and ε ~ N(0, σ²I).

    Noisy rows follow a mixture too, with covariances $\Sigma_k + \sigma^2 I$, and

    $$E[x|y] = y + \sigma^2\nabla\log p(y) =
    y - \sigma^2\sum_k p(k|y)\,(\Sigma_k + \sigma^2 I)^{-1}(y - \mu_k),$$

    the estimate with the least mean squared error (Tweedie's formula: Robbins 1956, Miyasawa 1961).
    Components whose share of a row is as small as rounding are left out.

    Args:
        mixture: of clean rows.
        rows: noisy rows (n, D), complete.
        noise: σ, in the units of the rows.

    Returns:
        posterior means (n, D).

    Raises:
        InputError: if rows have another width or values that are not finite, σ is negative or not
            finite, or the mixture is one of a batch.
    """
    check_width(rows, mixture.n_features)
    if mixture.batch_shape or rows.dim() != 2:
        raise InputError(
            f"Rows of shape {tuple(rows.shape)} and mixtures of batch shape "
            f"{tuple(mixture.batch_shape)} came; give rows (n, D) and one mixture."
        )
    if not bool(rows.isfinite().all()):
        raise InputError(
            "Noisy rows hold values that are NaN or infinite; fill them before, by `inpaint`."
        )
    if not (noise >= 0 and math.isfinite(noise)):
        raise InputError(
            f"A noise of {noise} came; give its standard deviation, zero or more, in the units of "
            "the data."
        )
    x = rows.to(mixture.device, mixture.dtype)
    if not len(x):
        return x
    noisy = mixture.with_noise(noise**2)
    gradient = _Gradient(noisy)
    with threads_for(len(x) * gradient.per_row):
        return in_batches(noisy.kernel(), x, lambda kernel, y: y + noise**2 * gradient(kernel, y))


class _Gradient:
    """∇ log p(y) of a mixture, by the components that matter to each row."""

    def __init__(self, mixture: Mixture) -> None:
        """Prepare the precisions diag(a) + A Bᵀ of all components."""
        k, parts = mixture.n_components, mixture.covariance.precision_parts()
        self.means = mixture.means
        self.precisions = list(
            zip(*(p.to(mixture.dtype).expand(k, *p.shape[1:]) for p in parts), strict=True)
        )
        self.least = 10 * torch.finfo(mixture.dtype).eps
        d, m = parts[1].shape[-2:]
        self.per_row = d * max(m, 1)  # multiply-adds of a component
        bytes_per_row = mixture.means.element_size() * k * (3 + m)
        self.size = max(256, _BATCH_BYTES // bytes_per_row)

    def __call__(self, kernel: Kernel, y: Tensor) -> Tensor:
        """Return the gradients at rows (n, D), by a kernel of the mixture."""
        component, row, resp = self._pairs(kernel, y)
        pulls = y.index_select(0, row)
        counts = torch.bincount(component, minlength=len(self.means)).tolist()
        for k, deviation in enumerate(pulls.split(counts)):
            if len(deviation):
                diagonal, A, B = self.precisions[k]
                deviation.sub_(self.means[k])
                along = deviation @ B
                deviation.mul_(diagonal).addmm_(along, A.mT)
        return torch.zeros_like(y).index_add_(0, row, pulls.mul_(-resp.unsqueeze(-1)))

    def _pairs(self, kernel: Kernel, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return components, rows and responsibilities (p,) that matter, ordered by component."""
        found = []
        for i, part in enumerate(y.split(self.size)):
            resp = kernel.responsibilities(part)
            row, component = (resp > self.least).nonzero(as_tuple=True)
            found.append((component, row + i * self.size, resp[row, component]))
        component, row, resp = (torch.cat(t) for t in zip(*found, strict=True))
        order = component.argsort(stable=True)
        return component[order], row[order], resp[order]


def _cover(places: int, length: int, like: Tensor) -> Tensor:
    """Return how many of the windows of a length at all places hold each point."""
    n = places + length - 1
    at = torch.arange(n, dtype=like.dtype, device=like.device)
    return torch.minimum(at, n - 1 - at).add_(1).clamp_max_(min(places, length))
