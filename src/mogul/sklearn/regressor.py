"""MixtureDensityRegressor: a mixture density network under scikit-learn's names."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin, _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import r2_score
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import (
    _check_sample_weight,
    check_array,
    check_consistent_length,
    check_is_fitted,
    validate_data,
)
from torch import Tensor

from mogul.algorithms import StopReason, Supervised, fit
from mogul.data import ArraySource
from mogul.distributions import Mixture, families, modes
from mogul.models import MLP, MixtureDensityNetwork

_LEAST_ROWS = 2


def log_likelihood_scorer(estimator: Any, X: Any, y: Any) -> float:
    """Return the mean of log p(y | x), in nats: a scorer for searches and cross-validation."""
    return float(np.mean(estimator.log_likelihood(X, y)))


class MixtureDensityRegressor(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Regression that predicts a whole density p(y | x): a mixture density network (Bishop 1994).

    Inputs and targets are standardised inside; densities, intervals and samples are in the units
    of the targets. Several targets are modelled together; a target may be missing (NaN).

    Args:
        n_components: Gaussians per row; fewer where there are fewer training rows.
        covariance_type: "full", "diagonal", "isotropic", "ppca" or "factor-analysis"; they differ
            with several targets only.
        hidden_layer_sizes: widths of the network's layers.
        learning_rate: first learning rate of AdamW.
        batch_size: rows per step.
        max_iter: most passes over the data.
        alpha: weight decay.
        validation_fraction: share of the rows that say when to stop.
        n_iter_no_change: passes without progress on them after which the learning rate falls, and
            at last the fit ends.
        input_noise: first deviation of noise on inputs while training, in theirs.
        target_noise: the same of targets.
        random_state: seed.

    Attributes:
        model_: the fitted `mogul.models.MixtureDensityNetwork`.
        n_iter_: passes made.
        history_: one dict per pass.

    Example:
        >>> import numpy as np
        >>> from mogul.sklearn import MixtureDensityRegressor
        >>> x, noise = np.random.default_rng(0).normal(size=(2, 300))
        >>> regressor = MixtureDensityRegressor(2, random_state=0).fit(x[:, None], x + noise)
        >>> regressor.predict_interval([[0.0], [1.0]], coverage=0.9).shape
        (2, 2)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "covariance_type": [StrOptions(set(families()))],
        "hidden_layer_sizes": ["array-like"],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "input_noise": [Interval(Real, 0, None, closed="left")],
        "target_noise": [Interval(Real, 0, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_components: int = 5,
        *,
        covariance_type: str = "full",
        hidden_layer_sizes: Sequence[int] = (64, 64),
        learning_rate: float = 2e-3,
        batch_size: int = 64,
        max_iter: int = 1000,
        alpha: float = 1e-4,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 20,
        input_noise: float = 0.0,
        target_noise: float = 0.1,
        random_state: Any = None,
    ) -> None:
        """Keep the parameters; they are checked by `fit`."""
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.hidden_layer_sizes = hidden_layer_sizes
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.alpha = alpha
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.input_noise = input_noise
        self.target_noise = target_noise
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the network.

        Args:
            X: inputs (n_samples, n_features), complete.
            y: targets (n_samples,) or (n_samples, n_targets); NaN means missing.
            sample_weight: one weight per row, (n_samples,), or None.

        Returns:
            the estimator.

        Raises:
            ValueError: for arrays that do not fit each other, or values that are not finite.
        """
        if y is None:
            raise ValueError(
                "This MixtureDensityRegressor estimator requires y to be passed, but the target y "
                "is None."
            )
        X = validate_data(self, X, dtype=np.float64, ensure_min_samples=_LEAST_ROWS)
        gaps: Any = "allow-nan"
        targets = check_array(
            y, dtype=X.dtype, ensure_2d=False, ensure_all_finite=gaps, input_name="y"
        )
        check_consistent_length(X, targets)
        self._one_target = targets.ndim == 1
        targets = targets.reshape(len(X), -1)
        weight = None
        if sample_weight is not None:
            weight = _check_sample_weight(sample_weight, X, dtype=X.dtype, ensure_non_negative=True)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        source = ArraySource(np.hstack([X, targets]), weight)
        useful = ~np.isnan(targets).all(1)
        n_useful = int((useful if weight is None else useful & (weight > 0)).sum())
        algorithm = Supervised(
            self.learning_rate, self.batch_size, self.alpha, self.validation_fraction,
            self.n_iter_no_change, self.input_noise, self.target_noise, seed=seed,
        )  # fmt: skip
        n_training = n_useful - algorithm.n_held_out(n_useful)
        with torch.random.fork_rng(devices=[]):  # torch's layers draw from the global generator
            torch.manual_seed(seed)
            self.model_ = MixtureDensityNetwork(
                MLP(X.shape[1], tuple(self.hidden_layer_sizes)),
                max(1, min(self.n_components, n_training)), targets.shape[1], self.covariance_type,
                dtype=torch.float64,
            )  # fmt: skip
        fitted = fit(self.model_, source, algorithm, passes=self.max_iter)
        if fitted.reason is not StopReason.HELD_OUT and len(fitted.history) == self.max_iter:
            warnings.warn(
                f"The fit did not end by itself in {self.max_iter} iterations; increase max_iter "
                "if the likelihood of held-out rows was still rising.",
                ConvergenceWarning,
                stacklevel=2,
            )
        self.model_.requires_grad_(False)
        self.n_iter_, self.history_ = len(fitted.history), fitted.history
        return self

    def mixture(self, X: Any) -> Mixture:
        """Return p(y | x) of every row, a `mogul.Mixture` of batch shape (n_samples,)."""
        check_is_fitted(self, "model_")
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return self.model_(torch.as_tensor(np.array(X)))

    def predict(self, X: Any) -> np.ndarray:
        """Return predicted means, (n_samples,) or (n_samples, n_targets)."""
        return self._shaped(self.mixture(X).mean)

    def predict_std(self, X: Any) -> np.ndarray:
        """Return predicted standard deviations, in the shape of `predict`."""
        return self._shaped(self.mixture(X).variance.sqrt())

    def predict_mode(self, X: Any) -> np.ndarray:
        """Return the highest mode of every predicted density, in the shape of `predict`."""
        return self._shaped(modes(self.mixture(X)).points[..., 0, :])

    def predict_quantile(self, X: Any, quantile: Any = 0.5) -> np.ndarray:
        """Return quantiles of every target.

        Args:
            X: inputs (n_samples, n_features).
            quantile: one number, or q of them, each between 0 and 1.

        Returns:
            in the shape of `predict` for one, with a last dimension q for several.

        Raises:
            ValueError: if one is not between 0 and 1.
        """
        found = self._shaped(self.mixture(X).icdf(torch.as_tensor(quantile, dtype=torch.float64)))
        return found if np.ndim(quantile) == 0 else np.moveaxis(found, 0, -1)

    def predict_interval(self, X: Any, coverage: float = 0.9) -> np.ndarray:
        """Return central intervals, in the shape of `predict` with a last dimension (low, high).

        Args:
            X: inputs (n_samples, n_features).
            coverage: probability of an interval, between 0 and 1.

        Raises:
            ValueError: if the coverage is not between 0 and 1.
        """
        if not (np.ndim(coverage) == 0 and 0 < coverage < 1):
            raise ValueError(f"The coverage is {coverage}; give one number between 0 and 1.")
        return self.predict_quantile(X, [(1 - coverage) / 2, (1 + coverage) / 2])

    def sample(self, X: Any, n_samples: int = 1) -> np.ndarray:
        """Draw targets of every row, (n_samples, *shape of predict).

        Raises:
            ValueError: if n_samples is not a positive whole number.
        """
        if not isinstance(n_samples, Integral) or n_samples < 1:
            raise ValueError(f"n_samples is {n_samples}; it must be a whole number of at least 1.")
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        return self._shaped(self.mixture(X).sample((int(n_samples),), seed=seed))

    def log_likelihood(self, X: Any, y: Any) -> np.ndarray:
        """Return log p(y | x) of every row in nats, (n_samples,); NaN targets are marginalised.

        Raises:
            ValueError: if X and y have unlike numbers of rows.
        """
        check_consistent_length(X, y)
        targets = torch.as_tensor(np.asarray(y, dtype=np.float64))
        return self.mixture(X).log_prob(targets.reshape(len(targets), -1)).numpy()

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return R² of the predicted means, the mean over targets; NaN targets are left out.

        It says nothing of the densities: to compare these, as in a search, give
        `scoring=mogul.sklearn.log_likelihood_scorer`.
        """
        targets = np.asarray(y, dtype=np.float64).reshape(len(y), -1)
        means = self.predict(X).reshape(targets.shape)
        weight = np.ones(len(targets)) if sample_weight is None else np.asarray(sample_weight)
        seen = ~np.isnan(targets)
        each = [
            r2_score(t[some], m[some], sample_weight=weight[some])
            for t, m, some in zip(targets.T, means.T, seen.T, strict=True)
        ]
        return float(np.mean(each))

    def _shaped(self, values: Tensor) -> np.ndarray:
        return (values[..., 0] if self._one_target else values).numpy()
