"""scikit-learn estimators over mogul's mixtures."""

from mogul.sklearn.bayesian import BayesianGaussianMixture
from mogul.sklearn.factors import MFA, MPPCA
from mogul.sklearn.gaussian import GaussianMixture
from mogul.sklearn.regressor import MixtureDensityRegressor, log_likelihood_scorer

__all__ = [
    "MFA",
    "MPPCA",
    "BayesianGaussianMixture",
    "GaussianMixture",
    "MixtureDensityRegressor",
    "log_likelihood_scorer",
]
