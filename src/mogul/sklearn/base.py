"""What all mixture estimators share: fitting with restarts, and everything done with the fit."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, DensityMixin, _fit_context
from sklearn.cluster import KMeans, kmeans_plusplus
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _check_sample_weight, check_is_fitted
from torch import Tensor

from mogul.algorithms import EM, fit
from mogul.data import ArraySource
from mogul.distributions import Mixture
from mogul.models import GaussianMixture as Model
from mogul.sklearn.rows import checked_rows, like

INIT_PARAMS = ("kmeans", "k-means++", "random", "random_from_data")


class MixtureEstimator(DensityMixin, BaseEstimator):
    """Base of the estimators: numpy in, numpy out; torch in, torch out; NaN means missing.

    Computation runs in the type of the data, float32 or float64, and on the device of a tensor.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0.0, None, closed="left")],
        "reg_covar": [Interval(Real, 0.0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "init_params": [StrOptions(set(INIT_PARAMS))],
        "random_state": ["random_state"],
        "warm_start": ["boolean"],
        "verbose": ["verbose"],
    }

    n_components: int
    tol: float
    reg_covar: float
    max_iter: int
    n_init: int
    init_params: str
    random_state: Any
    warm_start: bool
    verbose: int

    def __sklearn_tags__(self) -> Any:
        """Say that NaN is allowed."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    @abstractmethod
    def _new_model(self, n_features: int, dtype: torch.dtype, device: torch.device) -> Model:
        """Return an untrained model of the estimator's family."""

    def fit(self, X: Any, y: None = None, sample_weight: Any = None) -> Self:
        """Fit by EM, `n_init` times, and keep the fit of highest likelihood.

        Args:
            X: rows (n_samples, n_features): array, tensor or data frame; NaN means missing.
            y: ignored.
            sample_weight: one weight per row, (n_samples,), or None.

        Returns:
            the estimator.
        """
        self._fit(X, sample_weight)
        return self

    def fit_predict(self, X: Any, y: None = None, sample_weight: Any = None) -> Any:
        """Fit, and return the most likely component of every row, (n_samples,)."""
        return self._fit(X, sample_weight).predict(X)

    @_fit_context(prefer_skip_nested_validation=True)
    def _fit(self, X: Any, sample_weight: Any) -> Self:
        x, weight = self._weighted(X, sample_weight, reset=True)
        source = ArraySource(x, weight)
        random = check_random_state(self.random_state)
        warm = self.warm_start and hasattr(self, "model_")
        if warm:
            self._check_warm(x)
        best = None
        for _ in range(1 if warm else self.n_init):
            model = self.model_ if warm else self._started(x, weight, random)
            tolerance = self._tolerance(len(x)) / x.shape[1]
            fitted = fit(model, source, EM(), passes=self.max_iter, tolerance=tolerance)
            if best is None or _bound(fitted) > _bound(best):
                best = fitted
        assert best is not None
        self.model_ = best.model.requires_grad_(False)
        vars(self).pop("_online", None)  # what `partial_fit` remembers of another model
        self.lower_bounds_ = [row["objective"] for row in best.history]
        self.lower_bound_ = self.lower_bounds_[-1]
        self.n_iter_ = len(best.history)
        self.converged_ = best.reason.value == "converged"
        if not self.converged_:
            warnings.warn(
                f"EM did not converge in {self.max_iter} iterations (tol={self.tol}); try "
                "different init parameters, or increase max_iter, tol, or check for degenerate "
                "data.",
                ConvergenceWarning,
                stacklevel=3,
            )
        self._publish(self.mixture_)
        return self

    def _tolerance(self, n_rows: int) -> float:
        """Return the least gain, in nats per row, that `tol` stands for."""
        return self.tol

    def _check_warm(self, x: Tensor) -> None:
        """Refuse to go on from a fit of another shape; take over the floor.

        Raises:
            ValueError: if parameters that give the model its shape were changed since.
        """
        new, old = self._new_model(x.shape[1], x.dtype, x.device).config(), self.model_.config()
        ignored = ("variance_floor", "dtype")
        changed = [k for k, v in new.items() if k not in ignored and v != old[k]]
        if changed:
            raise ValueError(
                f"warm_start cannot go on from the last fit, because {', '.join(changed)} changed; "
                "set warm_start=False."
            )
        self.model_.variance_floor = self.reg_covar

    def _weighted(self, X: Any, sample_weight: Any, reset: bool) -> tuple[Tensor, Tensor | None]:
        """Return checked rows and weights, without rows of no weight.

        Raises:
            ValueError: for fewer rows than components.
        """
        x, weight = self._rows(X, reset), None
        if reset and len(x) < self.n_components:
            raise ValueError(
                f"Expected n_samples >= n_components but got n_components = {self.n_components}, "
                f"n_samples = {len(x)}; give at least one row for every component, or choose "
                "fewer components"
            )
        if sample_weight is not None:
            checked = _check_sample_weight(
                sample_weight, x.cpu().numpy(), ensure_non_negative=True,
                allow_all_zero_weights=False,
            )  # fmt: skip
            weight = torch.as_tensor(checked, dtype=x.dtype)
            x, weight = x[weight > 0], weight[weight > 0]
        return x, weight

    def _started(self, x: Tensor, weight: Tensor | None, random: np.random.RandomState) -> Model:
        """Return a model after one M-step from the initial responsibilities."""
        model = self._new_model(x.shape[1], x.dtype, x.device)
        filled = torch.where(x.isnan(), x.nanmean(0).nan_to_num(0.0), x)
        resp = torch.as_tensor(
            _responsibilities(
                filled.cpu().numpy(), self.init_params, self.n_components, random,
                None if weight is None else weight.numpy(),
            ),
            dtype=x.dtype,
            device=x.device,
        )  # fmt: skip
        # Replaced by the step that follows, whose factors begin here.
        model.start(filled, resp.argmax(-1), seed=0, floor=self.reg_covar)
        model.feature_variance.fill_(1.0)  # reg_covar is a variance, not a fraction of one
        model.variance_floor = self.reg_covar
        resp = resp if weight is None else resp * weight.to(x).unsqueeze(-1)
        self._from_responsibilities(model, filled, resp)
        return model

    def _from_responsibilities(self, model: Model, x: Tensor, resp: Tensor) -> None:
        """Set the model by one exact M-step from responsibilities (n, K)."""
        mixture = model()
        centred = x - model.origin
        model.maximise(mixture.covariance.statistics(centred, resp, mixture.centres))

    @property
    def mixture_(self) -> Mixture:
        """The fitted density."""
        check_is_fitted(self, "model_")
        return self.model_()

    def _publish(self, mixture: Mixture) -> None:
        """Set the attributes of the fit under scikit-learn's names."""
        self.weights_ = mixture.weights.cpu().numpy()
        self.means_ = mixture.means.cpu().numpy()

    def score_samples(self, X: Any) -> Any:
        """Return the log-likelihood of each row in nats, (n_samples,)."""
        mixture, x = self._opened(X)
        return like(X, mixture.log_prob(x))

    def score(self, X: Any, y: None = None) -> float:
        """Return the mean log-likelihood per row, in nats."""
        mixture, x = self._opened(X)
        return float(mixture.log_prob(x).double().mean())

    def predict(self, X: Any) -> Any:
        """Return the most likely component of each row, (n_samples,)."""
        mixture, x = self._opened(X)
        return like(X, mixture.component_log_prob(x).argmax(-1))

    def predict_proba(self, X: Any) -> Any:
        """Return the responsibilities of the components, (n_samples, n_components)."""
        mixture, x = self._opened(X)
        return like(X, mixture.responsibilities(x))

    def impute(self, X: Any) -> Any:
        """Return the rows with each NaN replaced by its conditional mean."""
        mixture, x = self._opened(X, gaps=True)
        return like(X, mixture.complete(x).mean)

    def sample_missing(self, X: Any, n_samples: int = 1) -> Any:
        """Return draws of the rows with each NaN drawn from its conditional distribution.

        Args:
            X: rows (n_samples, n_features) with NaN.
            n_samples: number of draws m, as for multiple imputation.

        Returns:
            completed rows, (m, n_samples, n_features).
        """
        mixture, x = self._opened(X, gaps=True)
        random, completion = check_random_state(self.random_state), mixture.complete(x)
        draws = [completion.sample(seed=int(random.randint(2**31 - 1))) for _ in range(n_samples)]
        return like(X, torch.stack(draws))

    def sample(self, n_samples: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Draw rows from the fitted mixture, ordered by component.

        Args:
            n_samples: how many.

        Returns:
            rows (n_samples, n_features), and their components (n_samples,).

        Raises:
            ValueError: if n_samples is not positive.
        """
        mixture = self.mixture_
        if n_samples < 1:
            raise ValueError(f"Invalid value for 'n_samples': {n_samples}. At least one is needed.")
        random = check_random_state(self.random_state)
        weights = self.weights_.astype(np.float64)
        counts = random.multinomial(n_samples, weights / weights.sum())
        labels = np.repeat(np.arange(self.n_components), counts)
        generator = torch.Generator(device=mixture.device).manual_seed(
            int(random.randint(2**31 - 1))
        )
        component = torch.as_tensor(labels, device=mixture.device)
        draws = mixture.means[component] + mixture.covariance.sample(component, True, generator)
        return draws.cpu().numpy(), labels

    def aic(self, X: Any) -> float:
        """Return Akaike's information criterion on X; lower is better."""
        return -2 * self.score(X) * len(X) + 2 * self.model_.n_parameters

    def bic(self, X: Any) -> float:
        """Return the Bayesian information criterion on X (Schwarz 1978); lower is better."""
        return -2 * self.score(X) * len(X) + self.model_.n_parameters * float(np.log(len(X)))

    def _opened(self, X: Any, gaps: bool = False) -> tuple[Mixture, Tensor]:
        mixture = self.mixture_
        return mixture, self._rows(X, reset=False, gaps=gaps).to(mixture.centres)

    def _rows(self, X: Any, reset: bool, gaps: bool = False) -> Tensor:
        """Return X as a float tensor, checked as scikit-learn checks."""
        gaps = gaps or self.__sklearn_tags__().input_tags.allow_nan
        return checked_rows(self, X, reset, gaps)


def _responsibilities(
    x: np.ndarray,
    how: str,
    k: int,
    random: np.random.RandomState,
    weight: np.ndarray | None,
) -> np.ndarray:
    """Return initial responsibilities (n, K) by scikit-learn's own rules."""
    n = len(x)
    if how == "random":
        resp = random.uniform(size=(n, k))
        return resp / resp.sum(1, keepdims=True)
    resp = np.zeros((n, k))
    if how == "kmeans":
        means = KMeans(k, n_init=1, random_state=random)  # pyright: ignore[reportArgumentType]
        resp[np.arange(n), means.fit(x, sample_weight=weight).labels_] = 1
    elif how == "k-means++":
        resp[kmeans_plusplus(x, k, sample_weight=weight, random_state=random)[1], np.arange(k)] = 1
    else:
        resp[random.choice(n, size=k, replace=False), np.arange(k)] = 1
    return resp


def _bound(fitted: Any) -> float:
    return fitted.history[-1]["objective"]
