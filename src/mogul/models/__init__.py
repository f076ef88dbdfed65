"""Modules that own parameters and yield distributions."""

from mogul.models.bayesian_mixture import BayesianGaussianMixture
from mogul.models.files import load_model, save_model
from mogul.models.gaussian_mixture import GaussianMixture

__all__ = ["BayesianGaussianMixture", "GaussianMixture", "load_model", "save_model"]
