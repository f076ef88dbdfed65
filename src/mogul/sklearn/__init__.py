"""scikit-learn estimators over mogul's mixtures."""

from mogul.sklearn.bayesian import BayesianGaussianMixture
from mogul.sklearn.factors import MFA, MPPCA
from mogul.sklearn.gaussian import GaussianMixture

__all__ = ["MFA", "MPPCA", "BayesianGaussianMixture", "GaussianMixture"]
