r"""Conjugate priors as pseudo-observations, in units of the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mogul.distributions.masked import MaskedMoments
from mogul.distributions.moments import Moments
from mogul.errors import InputError

if TYPE_CHECKING:
    from mogul.distributions.mixture import Mixture


@dataclass(frozen=True)
class Prior:
    r"""A prior on the parameters of a mixture, for maximum a posteriori fits.

    Up to constants, with S the diagonal matrix of the data's feature variances and o their mean,

    $$\log p(\theta) = \sum_k\Big[(\alpha-1)\log\pi_k - \tfrac{\nu}{2}\big(\log|\Sigma_k| +
    \sigma_0^2\,\mathrm{tr}(S\,\Sigma_k^{-1})\big) + \kappa\log N(o;\,\mu_k,\Sigma_k)\Big],$$

    an inverse-Wishart prior on covariances, a normal one on means, a Dirichlet one on weights. It
    acts like ν rows per component that scatter with variances σ₀²S about its mean, κ rows at the
    data's mean, and α − 1 rows that say nothing but which component they belong to. A covariance
    shared by all components gets the ν rows once.

    Args:
        covariance_strength: ν ≥ 0.
        covariance_scale: σ₀² > 0, a fraction of the feature variances.
        mean_strength: κ ≥ 0.
        concentration: α ≥ 1.

    Raises:
        InputError: if a number is out of range.
    """

    covariance_strength: float = 0.0
    covariance_scale: float = 1.0
    mean_strength: float = 0.0
    concentration: float = 1.0

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            InputError: as the class says.
        """
        if (
            min(self.covariance_strength, self.mean_strength) < 0
            or self.covariance_scale <= 0
            or self.concentration < 1
        ):
            raise InputError(
                f"{self} came; strengths must be zero or more, the scale positive, and the "
                "concentration at least 1."
            )

    def observations(
        self,
        mixture: Mixture,
        feature_variance: Tensor,
        moments: Moments | MaskedMoments,
        shared: bool,
    ) -> Any:
        """Return the moments of the rows that this prior stands for, of the kind of the moments.

        Those about a component's mean stand at its old one, which makes an M-step with them a
        minorisation of the posterior instead of its maximiser; it still never falls.

        Args:
            mixture: the mixture before the step.
            feature_variance: of the data, (D,).
            moments: those of the data.
            shared: whether all components share one covariance, which gets the ν rows once.
        """
        gaps, k = isinstance(moments, MaskedMoments), len(moments.count)
        each = moments.count.new_ones(k)
        share = self.covariance_strength / (k if shared else 1)
        spread = self.covariance_scale * feature_variance
        still = torch.zeros_like(mixture.centres)
        covariance = mixture.covariance
        rows = covariance.cloud(share * each, still, spread, gaps)
        at_mean = covariance.cloud(
            self.mean_strength * each, -mixture.centres, torch.zeros_like(spread), gaps
        )
        return rows + at_mean  # pyright: ignore[reportOperatorIssue]

    def log_density(self, mixture: Mixture, feature_variance: Tensor) -> Tensor:
        """Return the log-density at a mixture's parameters, in nats, up to a constant."""
        covariance = mixture.covariance
        spread = self.covariance_scale * feature_variance.double()
        shape = covariance.log_det() + (spread * covariance.precision_diagonal()).sum(-1)
        at_mean = covariance.log_prob(torch.zeros_like(mixture.centres[:1]), mixture.centres)
        total = (self.concentration - 1) * mixture.log_weights.double().sum()
        total = total - 0.5 * self.covariance_strength * shape.sum()
        return total + self.mean_strength * at_mean.double().sum()
