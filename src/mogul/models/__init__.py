"""Modules that own parameters and yield distributions."""

from mogul.models.bayesian_mixture import BayesianGaussianMixture
from mogul.models.decoder import LatentVariableModel
from mogul.models.files import load_model, save_model
from mogul.models.gaussian_mixture import GaussianMixture
from mogul.models.likelihoods import (
    LIKELIHOODS,
    BernoulliLikelihood,
    GaussianLikelihood,
    Likelihood,
)
from mogul.models.networks import DECODERS, ConvDecoder, ConvEncoder, LinearDecoder

__all__ = [
    "DECODERS",
    "LIKELIHOODS",
    "BayesianGaussianMixture",
    "BernoulliLikelihood",
    "ConvDecoder",
    "ConvEncoder",
    "GaussianLikelihood",
    "GaussianMixture",
    "LatentVariableModel",
    "Likelihood",
    "LinearDecoder",
    "load_model",
    "save_model",
]
