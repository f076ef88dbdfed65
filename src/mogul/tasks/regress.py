"""Regression with a joint mixture: some features given others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mogul.distributions import Mixture


@dataclass(frozen=True)
class Prediction:
    """What a mixture says of the features not given, row by row.

    `conditional` is the exact conditional `Mixture` with batch shape (n,) over the remaining
    features, in increasing order of their index.
    """

    conditional: Mixture

    @property
    def mean(self) -> Tensor:
        """Conditional means, (n, m)."""
        return self.conditional.mean

    @property
    def variance(self) -> Tensor:
        """Conditional variances, (n, m)."""
        return self.conditional.variance

    def sample(self, n_samples: int = 1, seed: int | None = None) -> Tensor:
        """Draw from the conditionals, (n_samples, n, m)."""
        return self.conditional.sample((n_samples,), seed=seed)


@torch.no_grad()
def predict(mixture: Mixture, features: Tensor, values: Tensor) -> Prediction:
    """Predict the other features from observed ones: Gaussian mixture regression.

    Args:
        mixture: a mixture fitted to all features together.
        features: indices of the observed features, (a,).
        values: their values, (n, a).

    Returns:
        the exact conditionals (Ghahramani & Jordan 1994).

    Raises:
        InputError: if features and values disagree, or a value is NaN.
    """
    return Prediction(mixture.condition(features, values))
