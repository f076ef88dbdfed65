"""BayesianGaussianMixture under scikit-learn's names."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

import torch
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor

from mogul.distributions import Mixture
from mogul.models import BayesianGaussianMixture as Bayesian
from mogul.models import GaussianMixture as Model
from mogul.models.bayesian_mixture import WEIGHT_PRIORS
from mogul.sklearn.base import MixtureEstimator, like
from mogul.sklearn.gaussian import FAMILIES, checked, covariance_attributes


class BayesianGaussianMixture(MixtureEstimator):
    """A variational Gaussian mixture, with the interface of scikit-learn's class of this name.

    Differences: sample weights and tensors are accepted; `lower_bound_` is the variational bound
    per row, with all its constants; `reg_covar` is not needed, because
    the covariance prior keeps covariances regular, and is accepted for compatibility.

    Args:
        n_components: most components.
        covariance_type: "full", "tied", "diag" or "spherical".
        tol: stop when the bound on all rows together gains less, in nats.
        reg_covar: accepted for compatibility.
        max_iter: most iterations.
        n_init: number of starts; that of the highest bound is kept.
        init_params: "kmeans", "k-means++", "random" or "random_from_data".
        weight_concentration_prior_type: "dirichlet_process" or "dirichlet_distribution".
        weight_concentration_prior: concentration of weights; None is 1/n_components.
        mean_precision_prior: prior rows behind each mean; None is 1.
        mean_prior: prior mean (n_features,); None is that of the data.
        degrees_of_freedom_prior: of the Wishart prior; None is n_features.
        covariance_prior: prior scale in the shape of one covariance; None is that of the data.
        random_state: seed.
        warm_start: continue from the last fit.
        verbose: accepted for compatibility; nothing is printed.
        verbose_interval: accepted for compatibility.

    Attributes:
        weights_: posterior mean weights (n_components,).
        means_: posterior means (n_components, n_features).
        covariances_: by type, as in `GaussianMixture`.
        mean_precision_: (n_components,).
        degrees_of_freedom_: (n_components,), a number if tied.
        weight_concentration_: posterior concentrations (n_components,), or a pair of them for the
            Dirichlet process.
        weight_concentration_prior_: the prior used; so for the four that follow.
        mean_precision_prior_: of the means.
        mean_prior_: of the means.
        covariance_prior_: of the covariances.
        degrees_of_freedom_prior_: of the covariances.
        converged_: whether the bound converged.
        n_iter_: number of iterations.
        lower_bound_: variational bound per row, in nats.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **MixtureEstimator._parameter_constraints,
        "covariance_type": [StrOptions(set(FAMILIES))],
        "weight_concentration_prior_type": [StrOptions(set(WEIGHT_PRIORS))],
        "weight_concentration_prior": [None, Interval(Real, 0.0, None, closed="neither")],
        "mean_precision_prior": [None, Interval(Real, 0.0, None, closed="neither")],
        "mean_prior": [None, "array-like"],
        "degrees_of_freedom_prior": [None, Interval(Real, 0.0, None, closed="neither")],
        "covariance_prior": [
            None,
            "array-like",
            Interval(Real, 0.0, None, closed="neither"),
        ],
        "verbose_interval": [object],
    }

    def __init__(
        self,
        *,
        n_components: int = 1,
        covariance_type: str = "full",
        tol: float = 1e-3,
        reg_covar: float = 1e-6,
        max_iter: int = 100,
        n_init: int = 1,
        init_params: str = "kmeans",
        weight_concentration_prior_type: str = "dirichlet_process",
        weight_concentration_prior: float | None = None,
        mean_precision_prior: float | None = None,
        mean_prior: Any = None,
        degrees_of_freedom_prior: float | None = None,
        covariance_prior: Any = None,
        random_state: Any = None,
        warm_start: bool = False,
        verbose: int = 0,
        verbose_interval: int = 10,
    ) -> None:
        """Keep the parameters; they are checked by `fit`."""
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weight_concentration_prior_type = weight_concentration_prior_type
        self.weight_concentration_prior = weight_concentration_prior
        self.mean_precision_prior = mean_precision_prior
        self.mean_prior = mean_prior
        self.degrees_of_freedom_prior = degrees_of_freedom_prior
        self.covariance_prior = covariance_prior
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.verbose_interval = verbose_interval

    def __sklearn_tags__(self) -> Any:
        """Say that NaN is not taken."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = False
        return tags

    def _tolerance(self, n_rows: int) -> float:
        return self.tol / n_rows

    def _checked_priors(self, d: int) -> tuple[Tensor | None, Tensor | None]:
        """Return the prior mean and covariance as tensors, checked.

        Raises:
            ValueError: for a wrong shape, values that are not finite, or a covariance that is not
                symmetric and positive definite.
        """
        mean, covariance = self.mean_prior, self.covariance_prior
        shapes = {"full": (d, d), "tied": (d, d), "diag": (d,), "spherical": ()}
        if mean is not None:
            mean = checked(mean, (d,), "mean_prior")
        if covariance is None:
            return mean, None
        covariance = checked(covariance, shapes[self.covariance_type], "covariance_prior")
        dense = covariance if covariance.dim() == 2 else torch.diag(torch.atleast_1d(covariance))
        symmetric = bool(torch.allclose(dense, dense.mT))
        if not symmetric or int(torch.linalg.cholesky_ex(dense).info):
            raise ValueError("'covariance_prior' should be symmetric, positive-definite")
        return mean, torch.atleast_1d(covariance)

    def _new_model(self, n_features: int, dtype: torch.dtype, device: torch.device) -> Model:
        name, sharing = FAMILIES[self.covariance_type]
        mean, covariance = self._checked_priors(n_features)
        return Bayesian(
            self.n_components,
            n_features,
            name,
            sharing,
            self.weight_concentration_prior_type,
            self.weight_concentration_prior,
            1.0 if self.mean_precision_prior is None else self.mean_precision_prior,
            self.degrees_of_freedom_prior,
            mean,
            covariance,
            dtype,
            device,
        )

    def _from_responsibilities(self, model: Model, x: Tensor, resp: Tensor) -> None:
        """Set the posterior from the responsibilities."""
        assert isinstance(model, Bayesian)
        model.update(x, resp)

    def _publish(self, mixture: Mixture) -> None:
        super()._publish(mixture)
        model: Any = self.model_
        for name, value in covariance_attributes(self.covariance_type, mixture).items():
            setattr(self, name, value)
        self.mean_precision_ = model.mean_precision.cpu().numpy()
        freedom = model.freedom.cpu().numpy()
        self.degrees_of_freedom_ = freedom[0] if self.covariance_type == "tied" else freedom
        self.weight_concentration_ = model.weight_concentration
        self.weight_concentration_prior_ = model.concentration
        self.mean_precision_prior_ = model.mean_strength
        self.mean_prior_ = model.prior_mean.cpu().numpy()
        self.degrees_of_freedom_prior_ = model.degrees_of_freedom
        covariance = model.prior_covariance.cpu().numpy()
        self.covariance_prior_ = covariance[0] if covariance.shape == (1,) else covariance

    def _joint(self, x: Tensor) -> Tensor:
        model: Any = self.model_
        return model.joint(x)

    def score_samples(self, X: Any) -> Any:
        """Return the variational evidence of each row in nats, (n_samples,)."""
        return like(X, self._joint(self._opened(X)[1]).logsumexp(-1))

    def score(self, X: Any, y: None = None) -> float:
        """Return the mean variational evidence per row, in nats."""
        return float(self._joint(self._opened(X)[1]).logsumexp(-1).double().mean())

    def predict(self, X: Any) -> Any:
        """Return the most likely component of each row, (n_samples,)."""
        return like(X, self._joint(self._opened(X)[1]).argmax(-1))

    def predict_proba(self, X: Any) -> Any:
        """Return the responsibilities of the components, (n_samples, n_components)."""
        mixture, x = self._opened(X)
        found = self._joint(x).softmax(-1)
        far = found.isnan().any(-1)
        if bool(far.any()):  # where only distances count
            found[far] = mixture.responsibilities(x[far])
        return like(X, found)
