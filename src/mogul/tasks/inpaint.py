"""In-painting: hidden features inferred from observed ones, row by row its own mask."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mogul.distributions import Mixture
from mogul.errors import InputError

_BATCH_BYTES = 2**28


@dataclass(frozen=True)
class Inpainting:
    """Rows with hidden features filled in.

    `mean` (n, D) is E[x | observed] under the whole mixture, `deviation` (n, D) the conditional
    standard deviation (zero where observed), `samples` (s, n, D) conditional draws, and
    `log_likelihood` (n,) log p(observed part) in nats.
    """

    mean: Tensor
    deviation: Tensor
    samples: Tensor
    log_likelihood: Tensor


@torch.no_grad()
def inpaint(
    mixture: Mixture,
    x: Tensor,
    observed: Tensor | None = None,
    n_samples: int = 0,
    noise: bool = False,
    seed: int = 0,
) -> Inpainting:
    """Infer the hidden features of rows by the exact conditional of the mixture.

    Args:
        mixture: the fitted mixture.
        x: rows (n, D); hidden features may hold anything, NaN included.
        observed: (n, D) boolean, True where observed; default: where x is not NaN.
        n_samples: conditional samples to draw per row.
        noise: whether these samples include the noise term.
        seed: seed of the samples.

    Returns:
        conditional means, standard deviations and samples.

    Raises:
        InputError: if the mask has the wrong shape or marks a NaN as observed, or n_samples is
            negative.
    """
    if n_samples < 0:
        raise InputError(f"{n_samples} samples were asked for; give zero or more.")
    observed = ~x.isnan() if observed is None else observed
    if observed.shape != x.shape:
        raise InputError(
            f"The mask has shape {tuple(observed.shape)}, the rows {tuple(x.shape)}; give one "
            "value per feature of each row."
        )
    means, deviations, draws, scores = [], [], [], []
    size = _batch_size(mixture)
    for number, (rows, seen) in enumerate(
        zip(x.split(size), observed.to(x.device).split(size), strict=True)
    ):
        done = mixture.complete(rows, seen)
        means.append(done.mean)
        deviations.append(done.variance.sqrt())
        scores.append(done.log_prob.logsumexp(-1))
        draws.append([
            done.sample(noise, seed=(seed * 1_000_003 + number) * 1_009 + s)
            for s in range(n_samples)
        ])
    if n_samples:
        samples = torch.stack([torch.cat(part) for part in zip(*draws, strict=True)])
    else:
        samples = x.new_empty(0, *x.shape)
    return Inpainting(torch.cat(means), torch.cat(deviations), samples, torch.cat(scores))


def _batch_size(mixture: Mixture) -> int:
    """Return the rows whose factor posteriors fit the buffer."""
    loadings = mixture.loadings
    rank = 0 if loadings is None else loadings.shape[-1]
    per_row = 8 * (4 * mixture.n_components * (rank + 1) ** 2 + 8 * mixture.n_features)
    return max(1, _BATCH_BYTES // per_row)
