"""Mixtures of probabilistic PCA and of factor analysers as scikit-learn estimators."""

from __future__ import annotations

from numbers import Integral
from typing import Any, ClassVar

import torch
from sklearn.utils._param_validation import Interval

from mogul.distributions import Mixture
from mogul.models import GaussianMixture as Model
from mogul.sklearn.online import OnlineEstimator


class _FactorMixture(OnlineEstimator):
    """The shared parts of MPPCA and MFA."""

    _family: ClassVar[str]
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **OnlineEstimator._parameter_constraints,
        "n_factors": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        n_components: int = 1,
        n_factors: int = 1,
        *,
        tol: float = 1e-3,
        reg_covar: float = 1e-6,
        max_iter: int = 100,
        n_init: int = 1,
        init_params: str = "kmeans",
        random_state: Any = None,
        warm_start: bool = False,
        verbose: int = 0,
    ) -> None:
        """Keep the parameters; they are checked by `fit`."""
        self.n_components = n_components
        self.n_factors = n_factors
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose

    def _new_model(self, n_features: int, dtype: torch.dtype, device: torch.device) -> Model:
        rank = min(self.n_factors, n_features - 1)
        if rank == 0:  # one feature leaves nothing for factors to explain
            family = "isotropic"
            return Model(self.n_components, n_features, family, dtype=dtype, device=device)
        return Model(self.n_components, n_features, self._family, rank, dtype=dtype, device=device)

    def _from_responsibilities(self, model: Model, x: Any, resp: Any) -> None:
        """Leave the local principal components from which factors start, on the floor at least."""
        model.clamp()

    def _publish(self, mixture: Mixture) -> None:
        super()._publish(mixture)
        empty = mixture.centres.new_zeros(*mixture.centres.shape, 0)
        loadings = empty if mixture.loadings is None else mixture.loadings
        self.loadings_ = loadings.cpu().numpy()
        self.noise_variances_ = mixture.noise_variances.cpu().numpy()

    def reconstruct(self, X: Any) -> Any:
        """Return reconstructions: the posterior mean of the noise-free part of each row."""
        mixture, x = self._opened(X)
        rebuilt = mixture.reconstruct(x)
        return rebuilt if isinstance(X, torch.Tensor) else rebuilt.cpu().numpy()


class MPPCA(_FactorMixture):
    """A mixture of probabilistic principal component analysers (Tipping & Bishop 1999).

    Args:
        n_components: number of components.
        n_factors: factors of each; at most one less than the features.
        tol: stop when the mean log-likelihood gains less, in nats per row.
        reg_covar: smallest noise variance allowed.
        max_iter: most EM iterations.
        n_init: number of starts; the most likely is kept.
        init_params: "kmeans", "k-means++", "random" or "random_from_data".
        random_state: seed.
        warm_start: continue from the last fit.
        verbose: accepted for compatibility; nothing is printed.

    Attributes:
        weights_: (n_components,).
        means_: (n_components, n_features).
        loadings_: (n_components, n_features, n_factors).
        noise_variances_: (n_components, n_features), equal within a component.
        converged_: whether EM converged.
        n_iter_: number of iterations.
        lower_bound_: mean log-likelihood at the last iteration.
    """

    _family = "ppca"


class MFA(_FactorMixture):
    """A mixture of factor analysers (Ghahramani & Hinton 1996).

    Args:
        n_components: number of components.
        n_factors: factors of each; at most one less than the features.
        tol: stop when the mean log-likelihood gains less, in nats per row.
        reg_covar: smallest noise variance allowed.
        max_iter: most EM iterations.
        n_init: number of starts; the most likely is kept.
        init_params: "kmeans", "k-means++", "random" or "random_from_data".
        random_state: seed.
        warm_start: continue from the last fit.
        verbose: accepted for compatibility; nothing is printed.

    Attributes:
        weights_: (n_components,).
        means_: (n_components, n_features).
        loadings_: (n_components, n_features, n_factors).
        noise_variances_: (n_components, n_features).
        converged_: whether EM converged.
        n_iter_: number of iterations.
        lower_bound_: mean log-likelihood at the last iteration.
    """

    _family = "factor-analysis"
