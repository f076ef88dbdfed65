"""The families made of diagonal noise, with and without factors."""

from __future__ import annotations

from typing import Self

from torch import Tensor

from mogul.distributions.linear_algebra import weighted_mean
from mogul.distributions.low_rank import DiagonalPlusLowRank


class Diagonal(DiagonalPlusLowRank):
    """Independent features: variances (..., C, D)."""

    name = "diagonal"
    aliases = ("diag",)
    independent = True
    isotropic_noise = False

    @classmethod
    def of(cls, variances: Tensor) -> Self:
        """Return the family member with variances (..., C, D)."""
        return cls.from_raw({"log_noise": variances.log()}, variances.shape[-1])

    @classmethod
    def _tie_noise(cls, noise: Tensor, mass: Tensor) -> Tensor:
        return noise


class Isotropic(DiagonalPlusLowRank):
    """One variance for all features: σ² (..., C, 1)."""

    name = "isotropic"
    aliases = ("spherical", "iso")
    independent = True
    isotropic_noise = True

    @classmethod
    def of(cls, variance: Tensor, n_features: int) -> Self:
        """Return the family member with variances (..., C) on n_features."""
        return cls.from_raw({"log_noise": variance.unsqueeze(-1).log()}, n_features)

    @classmethod
    def _tie_noise(cls, noise: Tensor, mass: Tensor) -> Tensor:
        return weighted_mean(noise, mass)


class PPCA(DiagonalPlusLowRank):
    """Probabilistic principal components W Wᵀ + σ²I (Tipping & Bishop 1999)."""

    name = "ppca"
    aliases = ("mppca", "ppca-mixture")
    low_rank = True
    in_data_units = ("loadings",)
    isotropic_noise = True

    @classmethod
    def _tie_noise(cls, noise: Tensor, mass: Tensor) -> Tensor:
        return weighted_mean(noise, mass)


class FactorAnalysis(DiagonalPlusLowRank):
    """Factor analysis W Wᵀ + diag(ψ) (Rubin & Thayer 1982; Ghahramani & Hinton 1996)."""

    name = "factor-analysis"
    aliases = ("fa", "mfa", "factor-analysis-mixture")
    low_rank = True
    in_data_units = ("loadings",)
    isotropic_noise = False

    @classmethod
    def _tie_noise(cls, noise: Tensor, mass: Tensor) -> Tensor:
        return noise
