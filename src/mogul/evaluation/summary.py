"""All figures of a fitted mixture on held-out data, in one value."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from mogul.algorithms import default_batch_size, mean_log_likelihood
from mogul.data import DataSource, hide_half
from mogul.distributions import Mixture
from mogul.evaluation.errors import inpainting_error, reconstruction_error
from mogul.evaluation.ndb import BinComparison, BinModel, fitting_bins

_MOST_VALUES = 2**29  # training values held for the bins: 2 GB in float32
_INPAINTED_ROWS = 200


@dataclass(frozen=True)
class Evaluation:
    """What a mixture reaches on held-out rows.

    `log_likelihood` is the mean in nats per row; `bits_per_dim` is None unless the data are
    dequantised pixels; `samples` and `held_out` compare as many model samples and real rows with
    the bins of the training rows, or are None if any of these have gaps; `reconstruction` is the
    mean squared error per feature and `inpainting` that of the hidden features when the right half
    is hidden (images only), in data units²; `seconds` is the time taken.
    """

    log_likelihood: float
    bits_per_dim: float | None
    n: int
    samples: BinComparison | None
    held_out: BinComparison | None
    reconstruction: float
    inpainting: float | None
    seconds: float

    def figures(self) -> dict[str, float | int | None]:
        """Return the figures by name, as JSON types."""
        return {
            "log_likelihood": self.log_likelihood,
            "bits_per_dim": self.bits_per_dim,
            "ndb": None if self.samples is None else self.samples.ndb,
            "ndb_bins": None if self.samples is None else self.samples.n_bins,
            "js": None if self.samples is None else self.samples.js,
            "ndb_held_out": None if self.held_out is None else self.held_out.ndb,
            "js_held_out": None if self.held_out is None else self.held_out.js,
            "reconstruction_mse": self.reconstruction,
            "inpainting_mse": self.inpainting,
            "n": self.n,
            "seconds": self.seconds,
        }


@torch.no_grad()
def evaluate(
    mixture: Mixture,
    train: DataSource,
    test: DataSource,
    n_bins: int | None = None,
    whiten: bool = False,
    seed: int = 0,
) -> Evaluation:
    """Measure a mixture on held-out rows.

    Args:
        mixture: the fitted mixture.
        train: training rows, for the bins; a random part of them if they are too many.
        test: held-out rows.
        n_bins: k-means bins of the NDB comparison; by default 100, or fewer of small data: see
            `fitting_bins`.
        whiten: scale every feature to unit variance before binning.
        seed: seed of bins and samples.

    Returns:
        the figures; as many samples as held-out rows are drawn.

    Raises:
        InputError: if there are fewer training rows than bins.
    """
    since = time.perf_counter()
    log_likelihood = mean_log_likelihood(mixture, test)
    reference, held_out = _rows(train, seed), _rows(test, seed)
    samples = real = None
    if not (np.isnan(reference).any() or np.isnan(held_out).any()):
        n_bins = fitting_bins(len(reference)) if n_bins is None else n_bins
        bins = BinModel(reference, n_bins=n_bins, whiten=whiten, seed=seed)
        drawn = mixture.sample((len(held_out),), seed=seed).float().cpu().numpy()
        samples, real = bins.compare(drawn), bins.compare(held_out)
    few = test.take(range(min(len(test), 1000)), mixture.dtype, mixture.device)
    return Evaluation(
        log_likelihood,
        bits_per_dim(test, log_likelihood),
        len(test),
        samples,
        real,
        reconstruction_error(mixture, few),
        _inpainting(mixture, test, few[:_INPAINTED_ROWS]),
        time.perf_counter() - since,
    )


def bits_per_dim(source: DataSource, log_likelihood: float) -> float | None:
    """Return bits per dimension of a log-likelihood in nats.

    None for all but dequantised pixels, none of which is missing.
    """
    if source.scale is None or not source.complete or not source.scale.dequantise:
        return None
    return source.scale.bits_per_dim(log_likelihood, source.n_features)


def _rows(source: DataSource, seed: int) -> np.ndarray:
    most = max(1, _MOST_VALUES // source.n_features)
    if len(source) > most:
        chosen = np.random.default_rng(seed).choice(len(source), most, replace=False)
        return source.take(np.sort(chosen)).numpy()
    size = default_batch_size(source.n_features)
    out = np.empty((len(source), source.n_features), np.float32)
    for batch in source.batches(size):
        out[batch.index.numpy()] = batch.x.numpy()
    return out


def _inpainting(mixture: Mixture, source: DataSource, x: torch.Tensor) -> float | None:
    if not source.is_image:
        return None
    observed = hide_half(len(x), source.feature_shape, "right").to(x.device)
    filled = [
        mixture.complete(rows, seen).mean
        for rows, seen in zip(x.split(50), observed.split(50), strict=True)
    ]
    return inpainting_error(x, torch.cat(filled), observed)
