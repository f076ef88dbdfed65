r"""Conjugate priors as pseudo-observations, in units of the data."""

from __future__ import annotations

from dataclasses import dataclass

from mogul.errors import InputError


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
