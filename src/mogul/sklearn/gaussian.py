"""GaussianMixture under scikit-learn's names."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.utils._param_validation import StrOptions
from torch import Tensor

from mogul.distributions import Mixture
from mogul.models import GaussianMixture as Model
from mogul.sklearn.online import OnlineEstimator

FAMILIES = {
    "full": ("full", "own"),
    "tied": ("full", "shared"),
    "diag": ("diagonal", "own"),
    "spherical": ("isotropic", "own"),
}


class GaussianMixture(OnlineEstimator):
    """A Gaussian mixture fitted by EM, with the interface of `sklearn.mixture.GaussianMixture`.

    Differences: missing values (NaN), sample weights and tensors are accepted; `reg_covar` is a
    floor under variances rather than a term added to them; a component that loses all its rows is
    restarted; computation is in the type of the data.

    Args:
        n_components: number of components.
        covariance_type: "full", "tied", "diag" or "spherical".
        tol: stop when the mean log-likelihood gains less, in nats per row.
        reg_covar: smallest variance allowed.
        max_iter: most EM iterations.
        n_init: number of starts; the most likely is kept.
        init_params: "kmeans", "k-means++", "random" or "random_from_data".
        weights_init: initial weights (n_components,), or None.
        means_init: initial means (n_components, n_features), or None.
        precisions_init: initial precisions in the shape of `precisions_`, or None.
        random_state: seed.
        warm_start: continue from the last fit.
        verbose: accepted for compatibility; nothing is printed.
        verbose_interval: accepted for compatibility.

    Attributes:
        weights_: (n_components,).
        means_: (n_components, n_features).
        covariances_: by type: (K, D, D), (D, D), (K, D) or (K,).
        precisions_: their inverses, in the same shape.
        precisions_cholesky_: upper triangular U with U Uᵀ the precision; square roots if diagonal.
        converged_: whether EM converged.
        n_iter_: number of iterations.
        lower_bound_: mean log-likelihood at the last iteration.
        model_: the fitted `mogul.GaussianMixture`.
        mixture_: its density, a `mogul.Mixture`.

    Example:
        >>> import numpy as np
        >>> from mogul.sklearn import GaussianMixture
        >>> X = np.random.default_rng(0).normal(size=(100, 2))
        >>> GaussianMixture(2, random_state=0).fit(X).means_.shape
        (2, 2)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **OnlineEstimator._parameter_constraints,
        "covariance_type": [StrOptions(set(FAMILIES))],
        "weights_init": ["array-like", None],
        "means_init": ["array-like", None],
        "precisions_init": ["array-like", None],
        "verbose_interval": [object],
    }

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: str = "full",
        tol: float = 1e-3,
        reg_covar: float = 1e-6,
        max_iter: int = 100,
        n_init: int = 1,
        init_params: str = "kmeans",
        weights_init: Any = None,
        means_init: Any = None,
        precisions_init: Any = None,
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
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.verbose_interval = verbose_interval

    def _new_model(self, n_features: int, dtype: torch.dtype, device: torch.device) -> Model:
        name, sharing = FAMILIES[self.covariance_type]
        return Model(self.n_components, n_features, name, None, sharing, dtype=dtype, device=device)

    def _from_responsibilities(self, model: Model, x: Tensor, resp: Tensor) -> None:
        """Make the M-step, then put what the user fixed in its place.

        Raises:
            ValueError: if weights are not normalised, or another value is not fit for its place.
        """
        super()._from_responsibilities(model, x, resp)
        given = (self.weights_init, self.means_init, self.precisions_init)
        if all(value is None for value in given):
            return
        mixture, k, d = model(), self.n_components, x.shape[1]
        logits, centres, covariance = mixture.logits, mixture.centres, mixture.covariance
        if self.weights_init is not None:
            weights = checked(self.weights_init, (k,), "weights_init")
            if bool((weights < 0).any()) or abs(float(weights.sum()) - 1) > 1e-6:
                raise ValueError(
                    "The parameter 'weights_init' should be normalized: zero or more, with a sum "
                    f"of 1; got a least of {float(weights.min()):.3g} and a sum of "
                    f"{float(weights.sum()):.3g}"
                )
            logits = weights.to(x).log()
        if self.means_init is not None:
            centres = checked(self.means_init, (k, d), "means_init").to(x) - mixture.origin
        if self.precisions_init is not None:
            shape = {"full": (k, d, d), "tied": (d, d), "diag": (k, d), "spherical": (k,)}
            precision = checked(
                self.precisions_init, shape[self.covariance_type], "precisions_init"
            )
            covariance = self._from_precision(model, precision.to(x))
        model.load(Mixture(logits, centres, covariance, mixture.origin))
        model.feature_variance.fill_(1.0)

    def _from_precision(self, model: Model, precision: Tensor) -> Any:
        square = precision if precision.dim() == 3 else precision[None]
        if self.covariance_type in ("full", "tied"):
            good = bool(torch.allclose(square, square.mT)) and not bool(
                torch.linalg.cholesky_ex(square).info.any()
            )
        else:
            good = bool((precision > 0).all())
        if not good:
            raise ValueError("'precisions_init' should be symmetric, positive-definite")
        if self.covariance_type in ("full", "tied"):
            dense = torch.cholesky_inverse(torch.linalg.cholesky(square))
            return model.family.from_covariance(dense)  # pyright: ignore[reportAttributeAccessIssue]
        noise = precision.reciprocal()
        raw = {"log_noise": (noise if noise.dim() == 2 else noise.unsqueeze(-1)).log()}
        return model.family.from_raw(raw, model.n_features)

    def _publish(self, mixture: Mixture) -> None:
        super()._publish(mixture)
        for name, value in covariance_attributes(self.covariance_type, mixture).items():
            setattr(self, name, value)


def covariance_attributes(covariance_type: str, mixture: Mixture) -> dict[str, np.ndarray]:
    """Return covariances, precisions and their Cholesky factors in scikit-learn's shapes."""
    if "full" in FAMILIES[covariance_type]:
        tril = mixture.covariance.tril()
        eye = torch.eye(mixture.n_features, dtype=tril.dtype, device=tril.device)
        inverse = torch.linalg.solve_triangular(tril, eye.expand_as(tril), upper=False)
        covariance, root = tril @ tril.mT, inverse.mT
        precision = root @ root.mT
    else:
        covariance = mixture.covariance.variances
        precision, root = covariance.reciprocal(), covariance.rsqrt()
    values = {"covariances_": covariance, "precisions_": precision, "precisions_cholesky_": root}
    if covariance_type == "tied":
        values = {name: value[0] for name, value in values.items()}
    if covariance_type == "spherical":
        values = {name: value[:, 0] for name, value in values.items()}
    return {name: value.cpu().numpy() for name, value in values.items()}


def checked(value: Any, shape: tuple[int, ...], name: str) -> Tensor:
    """Return a parameter as a float64 tensor of a given shape.

    Raises:
        ValueError: if it has another shape, or values that are not finite.
    """
    array = np.asarray(value, dtype=np.float64)
    if array.shape != shape:
        raise ValueError(
            f"The parameter '{name}' should have the shape of {shape}, but got {array.shape}"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"The parameter '{name}' holds values that are not finite")
    return torch.tensor(array)
