"""Modules that own parameters and yield distributions."""

from mogul.models.autoencoder import PosteriorFamily, VampPrior, VariationalAutoencoder
from mogul.models.bayesian_mixture import BayesianGaussianMixture
from mogul.models.checkpoint import Checkpoint
from mogul.models.decoder import LatentVariableModel
from mogul.models.files import load_model, save_model
from mogul.models.gaussian_mixture import GaussianMixture
from mogul.models.likelihoods import (
    LIKELIHOODS,
    BernoulliLikelihood,
    DiscretisedLogisticLikelihood,
    GaussianLikelihood,
    Likelihood,
)
from mogul.models.mixture_density import MixtureDensityNetwork, MixtureHead
from mogul.models.networks import (
    BACKBONES,
    DECODERS,
    ENCODERS,
    MLP,
    ConvDecoder,
    ConvEncoder,
    LinearDecoder,
    MLPDecoder,
    MLPEncoder,
)

__all__ = [
    "BACKBONES",
    "DECODERS",
    "ENCODERS",
    "LIKELIHOODS",
    "MLP",
    "BayesianGaussianMixture",
    "BernoulliLikelihood",
    "Checkpoint",
    "ConvDecoder",
    "ConvEncoder",
    "DiscretisedLogisticLikelihood",
    "GaussianLikelihood",
    "GaussianMixture",
    "LatentVariableModel",
    "Likelihood",
    "LinearDecoder",
    "MLPDecoder",
    "MLPEncoder",
    "MixtureDensityNetwork",
    "MixtureHead",
    "PosteriorFamily",
    "VampPrior",
    "VariationalAutoencoder",
    "load_model",
    "save_model",
]
