"""scikit-learn estimators: mixtures, k-means, regression."""

from mogul.sklearn.bayesian import BayesianGaussianMixture
from mogul.sklearn.clusters import KMeans
from mogul.sklearn.factors import MFA, MPPCA
from mogul.sklearn.gaussian import GaussianMixture
from mogul.sklearn.regressor import MixtureDensityRegressor, log_likelihood_scorer

__all__ = [
    "MFA",
    "MPPCA",
    "BayesianGaussianMixture",
    "GaussianMixture",
    "KMeans",
    "MixtureDensityRegressor",
    "log_likelihood_scorer",
]
