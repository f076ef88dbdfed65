"""Held-out likelihood of autoencoders by importance sampling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mogul.compute.backend import make_generator
from mogul.errors import InputError
from mogul.models import VariationalAutoencoder
from mogul.protocols import Source

_ROWS = 64  # rows at a time
_VALUES = 2**21  # decoded values held at a time


@dataclass(frozen=True)
class ImportanceEstimate:
    """Estimates of log p(x) of n rows.

    `log_likelihood` has one (n,) in nats for every number of samples asked for; in expectation each
    is a lower bound, which rises with the number. `effective` (n,) is the effective number of the
    most samples, (Σw)²/Σw²: where it is near one, the estimate is far too low.
    """

    log_likelihood: dict[int, Tensor]
    effective: Tensor

    def mean(self, n_samples: int) -> float:
        """Return the mean over rows, in nats, for a number of samples."""
        return float(self.log_likelihood[n_samples].double().mean())

    def error(self, n_samples: int) -> float:
        """Return the standard error of that mean over rows."""
        values = self.log_likelihood[n_samples].double()
        return float(values.std() / math.sqrt(len(values))) if len(values) > 1 else math.inf


@torch.no_grad()
def importance_log_likelihood(
    model: VariationalAutoencoder,
    source: Source,
    n_samples: Sequence[int] = (1, 50, 5000),
    seed: int = 0,
) -> ImportanceEstimate:
    r"""Estimate $\log \frac1T\sum_t p(x, z_t)/q(z_t \mid x)$, $z_t \sim q(z \mid x)$, of every row.

    Draws of many rows are decoded together, and sums are kept as they stream, so that memory does
    not grow with T. One set of draws serves all numbers of samples.

    Args:
        model: the fitted autoencoder.
        source: held-out rows.
        n_samples: the numbers T at which estimates are wanted.
        seed: seed of the draws.

    Returns:
        the estimates.

    Raises:
        InputError: for no or unlike numbers, or rows with gaps or of another width.

    Source: Burda, Grosse & Salakhutdinov (2016).
    """
    counts = sorted(set(n_samples))
    if not counts or counts[0] < 1:
        raise InputError(
            f"The numbers of samples are {tuple(n_samples)}; give at least one, from 1."
        )
    model.eval()
    prior, draw = model.prior, make_generator(seed, model.device)
    found: dict[int, list[Tensor]] = {count: [] for count in counts}
    effective = []
    for batch in source.batches(_ROWS, model.dtype, model.device):
        x = batch.x
        q = model.posterior(x)
        sums = x.new_full((2, len(x)), -torch.inf, dtype=torch.float64)  # of w, and of w²
        done = 0
        for count in counts:
            while done < count:
                n = min(count - done, max(1, _VALUES // x.numel()))
                z = q.sample(n, draw)
                log_w = model.log_likelihood(x, z) + prior.log_prob(z) - q.log_prob(z)
                new = torch.stack([log_w, 2 * log_w]).double().logsumexp(1)
                sums, done = torch.logaddexp(sums, new), done + n
            found[count].append(sums[0] - math.log(count))
        effective.append((2 * sums[0] - sums[1]).exp())
    return ImportanceEstimate(
        {count: torch.cat(parts).cpu() for count, parts in found.items()},
        torch.cat(effective).cpu(),
    )


def bits_and_perplexity(model: VariationalAutoencoder, log_likelihood: float) -> dict[str, float]:
    r"""Return what a mean log-likelihood in nats per row says of each of its D features.

    `bits_per_dim` is $-\ell/(D\ln 2)$ and `perplexity` $e^{-\ell/D}$: how many equally likely
    values a feature is worth. Both are of probabilities, so that a density gives none of them.

    Args:
        model: the model that was scored.
        log_likelihood: ℓ, or a lower bound of it.
    """
    if not model.likelihood.discrete:
        return {}
    each = -log_likelihood / model.n_features
    return {"bits_per_dim": each / math.log(2), "perplexity": math.exp(each)}
