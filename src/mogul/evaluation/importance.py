"""Held-out likelihood of autoencoders by importance sampling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mogul.algorithms.base import check_source
from mogul.compute.backend import make_generator
from mogul.errors import InputError
from mogul.models import VariationalAutoencoder
from mogul.protocols import Source

_ROWS = 64  # rows at a time
_VALUES = 2**21  # decoded values held at a time
_LATENTS = 2**14  # latents decoded at a time, whatever the layers of the network hold


@dataclass(frozen=True)
class ImportanceEstimate:
    """Estimates of log p(x) of n rows.

    `log_likelihood` has one (n,) in nats for every number of samples asked for; in expectation each
    is a lower bound, which rises with the number. `effective` (n,) is the effective number of the
    most samples, (Σw)²/Σw²: where it is near one, the estimate is far too low, and zero where all
    weights vanish. `discrete` says that these are probabilities, and not densities.
    """

    log_likelihood: dict[int, Tensor]
    effective: Tensor
    discrete: bool
    n_features: int

    def mean(self, n_samples: int) -> float:
        """Return the mean over rows, in nats, for a number of samples."""
        return float(self._of(n_samples).mean())

    def error(self, n_samples: int) -> float:
        """Return the standard error of that mean over rows."""
        values = self._of(n_samples)
        return float(values.std() / math.sqrt(len(values))) if len(values) > 1 else math.inf

    def _of(self, n_samples: int) -> Tensor:
        """Return the estimates by so many samples.

        Raises:
            InputError: if that number was not asked for.
        """
        if n_samples not in self.log_likelihood:
            raise InputError(
                f"{n_samples} samples were not asked for; choose one of: "
                f"{', '.join(map(str, self.log_likelihood))}."
            )
        return self.log_likelihood[n_samples].double()

    def bits_per_dim(self, n_samples: int) -> float | None:
        r"""Return $-\ell/(D\ln 2)$ of the mean ℓ; None for densities, which have no such code."""
        each = -self.mean(n_samples) / self.n_features
        return each / math.log(2) if self.discrete else None

    def perplexity(self, n_samples: int) -> float | None:
        r"""Return $e^{-\ell/D}$: how many equally likely values a feature is worth; or None."""
        each = -self.mean(n_samples) / self.n_features
        return float(torch.tensor(each, dtype=torch.float64).exp()) if self.discrete else None


@torch.no_grad()
def importance_log_likelihood(
    model: VariationalAutoencoder,
    source: Source,
    n_samples: Sequence[int] | int = (1, 50, 5000),
    seed: int = 0,
) -> ImportanceEstimate:
    r"""Estimate $\log \frac1T\sum_t p(x, z_t)/q(z_t \mid x)$, $z_t \sim q(z \mid x)$, of every row.

    Draws of many rows are decoded together, and sums are kept as they stream, so that memory does
    not grow with T. One set of draws serves all numbers of samples.

    Args:
        model: the fitted autoencoder.
        source: held-out rows.
        n_samples: the numbers T at which estimates are wanted, or one.
        seed: seed of the draws.

    Returns:
        the estimates.

    Raises:
        InputError: for no or unlike numbers, or rows with gaps or of another width.

    Source: Burda, Grosse & Salakhutdinov (2016).
    """
    check_source(source)
    counts = sorted({n_samples} if isinstance(n_samples, int) else set(n_samples))
    if not counts or counts[0] < 1:
        raise InputError(f"The numbers of samples are {counts}; give at least one, from 1.")
    if not isinstance(model, VariationalAutoencoder):
        raise InputError(
            f"A {type(model).__name__} has no posteriors to sample; score a mixture by log_prob, "
            "and a decoder by annealed_likelihood."
        )
    model.eval()
    prior, draw = model.prior, make_generator(seed, model.device)
    found: dict[int, list[Tensor]] = {count: [] for count in counts}
    effective, discrete = [], True
    for batch in source.batches(_ROWS, model.dtype, model.device):
        x = batch.x
        q = model.posterior(x)
        sums = x.new_full((2, len(x)), -torch.inf, dtype=torch.float64)  # of w, and of w²
        done = 0
        for count in counts:
            while done < count:
                n = min(count - done, max(1, min(_VALUES // x.numel(), _LATENTS // len(x))))
                z = q.sample(n, draw)
                log_w = model.log_likelihood(x, z) + prior.log_prob(z) - q.log_prob(z)
                new = torch.stack([log_w, 2 * log_w]).double().logsumexp(1)
                sums, done = torch.logaddexp(sums, new), done + n
            found[count].append(sums[0] - math.log(count))
        effective.append((2 * sums[0] - sums[1]).exp().nan_to_num(0.0))
        discrete = discrete and model.likelihood.is_discrete(x)
    return ImportanceEstimate(
        {count: torch.cat(parts).cpu() for count, parts in found.items()},
        torch.cat(effective).cpu(),
        discrete,
        model.n_features,
    )
