"""Values: covariance families, moments, and the mixture."""

from mogul.distributions.complete_data import complete_data, factor_change, own_statistics
from mogul.distributions.completion import CompletingKernel, Completion
from mogul.distributions.covariance import Covariance, families, family
from mogul.distributions.diagonal_families import PPCA, Diagonal, FactorAnalysis, Isotropic
from mogul.distributions.divergence import (
    component_divergences,
    marginal_divergence,
    product_bound,
    sampled_divergence,
    variational_bound,
)
from mogul.distributions.full import Full
from mogul.distributions.kernel import Kernel
from mogul.distributions.local_kernel import LocalKernel
from mogul.distributions.masked import MaskedMoments
from mogul.distributions.mixture import Mixture
from mogul.distributions.modes import Modes, modes
from mogul.distributions.moments import Change, Moments
from mogul.distributions.posterior import Posterior
from mogul.distributions.prior import Prior

__all__ = [
    "PPCA",
    "Change",
    "CompletingKernel",
    "Completion",
    "Covariance",
    "Diagonal",
    "FactorAnalysis",
    "Full",
    "Isotropic",
    "Kernel",
    "LocalKernel",
    "MaskedMoments",
    "Mixture",
    "Modes",
    "Moments",
    "Posterior",
    "Prior",
    "complete_data",
    "component_divergences",
    "factor_change",
    "families",
    "family",
    "marginal_divergence",
    "modes",
    "own_statistics",
    "product_bound",
    "sampled_divergence",
    "variational_bound",
]
