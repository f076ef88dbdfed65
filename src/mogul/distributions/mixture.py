"""Mixture: the one density value that models, networks, priors and summaries share."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from mogul.compute.backend import in_full_precision, make_generator
from mogul.distributions.checks import check_width, feature_indices, has_gaps, sample_sizes
from mogul.distributions.completion import Completion, LowRankCompletion, complete
from mogul.distributions.covariance import Covariance
from mogul.distributions.kernel import Kernel, in_batches
from mogul.distributions.low_rank import DiagonalPlusLowRank
from mogul.distributions.marginals import marginal_cdf, marginal_quantiles
from mogul.distributions.reparameterise import attach
from mogul.distributions.shown import line_of, table_of
from mogul.errors import InputError

_SINGLE = 4  # bytes of the shortest numbers in which densities have digits


class Mixture(Distribution):
    r"""A mixture of Gaussians, $p(x) = \sum_k \pi_k\,N(x;\, o + c_k,\, \Sigma_k)$.

    Rows of any real type may be given; they are computed with in the type of the parameters, and
    parameters of half precision in float32: densities of shorter numbers have no digits.

    Args:
        logits: unnormalised log mixing weights, (..., K).
        centres: component means measured from `origin`, (..., K, D); without an origin, the means.
        covariance: the covariances of the components, of any registered family.
        origin: common reference point o (D,); a point amid the data keeps float32 accurate far
            from zero. Default zero.
        validate_args: check parameters, and rows that come to be scored, as `torch.distributions`
            does: then NaN is an error, and not a gap. Default no, because mixtures are made anew at
            every step of a fit.

    Example:
        >>> import torch
        >>> from mogul import Mixture
        >>> from mogul.distributions import Isotropic
        >>> centres = torch.tensor([[-2.0], [2.0]])
        >>> m = Mixture(torch.zeros(2), centres, Isotropic.of(torch.ones(2), 1))
        >>> m.log_prob(torch.zeros(3, 1)).shape
        torch.Size([3])
    """

    arg_constraints: dict[str, constraints.Constraint] = {  # ruff: ignore[mutable-class-default] - torch's own form
        "logits": constraints.real_vector,
        "centres": constraints.independent(constraints.real, 2),
        "variances": constraints.independent(constraints.positive, 2),
        "origin": constraints.real_vector,
    }
    has_rsample = True
    _validate_args = False
    support = constraints.real_vector  # pyright: ignore[reportAssignmentType]

    def __init__(
        self,
        logits: Tensor,
        centres: Tensor,
        covariance: Covariance,
        origin: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        """Check that the parts agree in shape, and their values if asked to.

        Raises:
            InputError: if they do not agree.
            ValueError: with `validate_args`, if a value is not allowed.
        """
        batch = _batch_of(logits, centres, covariance, origin)
        if min(logits.dtype.itemsize, centres.dtype.itemsize) < _SINGLE:
            logits, centres, covariance = logits.float(), centres.float(), covariance.map(_single)
        origin = None if origin is None else _single(origin)
        d = centres.shape[-1]
        self.logits = logits
        self.log_weights = logits.log_softmax(-1)
        self.centres = centres
        self.covariance = covariance
        self.origin = centres.new_zeros(d) if origin is None else origin
        super().__init__(batch, torch.Size([d]), validate_args=validate_args)

    @property
    def n_components(self) -> int:
        """Number of components K."""
        return self.centres.shape[-2]

    @property
    def n_features(self) -> int:
        """Number of features D."""
        return self.centres.shape[-1]

    @property
    def _expanded(self) -> tuple[int, ...]:
        """Shape of what every component of every mixture has D of."""
        return (*self.batch_shape, self.n_components, self.n_features)

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the parameters."""
        return self.centres.dtype

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return self.centres.device

    @property
    def weights(self) -> Tensor:
        """Mixing weights π, (..., K)."""
        return self.log_weights.exp()

    @property
    def means(self) -> Tensor:
        """Component means in the units of the data, (..., K, D)."""
        return self.origin + self.centres

    @property
    def variances(self) -> Tensor:
        """Marginal variances of each component, (..., K, D)."""
        return self.covariance.variances.expand(self._expanded)

    @property
    def noise_variances(self) -> Tensor:
        """Variances no factor explains, (..., K, D)."""
        return self.covariance.noise_variances.expand(self._expanded)

    @property
    def loadings(self) -> Tensor | None:
        """Factor loadings (..., C, D, H), or None for families without factors."""
        return self.covariance.loadings

    @property
    def mean(self) -> Tensor:
        """Mean of the mixture, (..., D)."""
        return self.origin + (self.weights.unsqueeze(-1) * self.centres).sum(-2)

    @property
    def variance(self) -> Tensor:
        """Variance of every feature under the mixture, (..., D)."""
        w = self.weights.unsqueeze(-1)
        centre = (w * self.centres).sum(-2, keepdim=True)
        return (w * (self.variances + (self.centres - centre).square())).sum(-2)

    @in_full_precision
    def kernel(self) -> Kernel:
        """Return what scores many rows, and sums their moments, by a few large products.

        It takes the parameters as they are now, without gradients.
        """
        with torch.no_grad():
            return self.covariance.kernel(self.centres, self.log_weights, self.origin)

    @in_full_precision
    def component_log_prob(self, value: Tensor) -> Tensor:
        """Return log π_k + log N(x; k) for rows (..., D), as (..., K), in nats.

        Features that are NaN are marginalised.

        Raises:
            InputError: if the rows have the wrong number of features, or a value is infinite.
        """
        gaps = self._checked(value)
        if self.batch_shape:
            return self._each_log_prob(value, gaps)
        if gaps:
            log_prob = self.complete(value.reshape(-1, self.n_features)).log_prob
            return log_prob.reshape(*value.shape[:-1], self.n_components)
        x = (value - self.origin).to(self.dtype).reshape(-1, self.n_features)
        log_prob = self.covariance.log_prob(x, self.centres)
        lost = log_prob.isnan().any(-1).nonzero().squeeze(-1)
        if len(lost):  # beyond the range of the type
            far = self._far(value.reshape(-1, self.n_features)[lost])
            log_prob = log_prob.index_copy(0, lost, far.to(log_prob))
        return log_prob.reshape(*value.shape[:-1], self.n_components) + self.log_weights

    def _far(self, rows: Tensor) -> Tensor:
        """Return log N (n, K) of a few rows (n, D), in float64, as sums that cannot cancel."""
        x = rows.double() - self.origin.double()
        wide = self.covariance.map(torch.Tensor.double)
        return wide.log_prob_each(x.unsqueeze(-2) - self.centres.double())

    def _each_log_prob(self, value: Tensor, gaps: bool) -> Tensor:
        """Score each row (..., D) under the mixture of the batch that it belongs to, (..., K)."""
        x, seen = (value - self.origin).to(self.dtype), None
        if gaps:
            seen = ~value.isnan()
            x = torch.where(seen, x, 0.0)
        log_prob = self.covariance.log_prob_each(x.unsqueeze(-2) - self.centres, seen)
        return log_prob + self.log_weights

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(x) for rows (..., D), as (...), in nats; NaN features are marginalised.

        Raises:
            InputError: if the rows have the wrong number of features, or a value is infinite.
        """
        if self._needs_graph(value):
            return self.component_log_prob(value).logsumexp(-1)
        rows = value.detach().reshape(-1, self.n_features)
        return in_batches(self.kernel(), rows, Kernel.score).reshape(value.shape[:-1])

    def responsibilities(self, value: Tensor) -> Tensor:
        """Return p(k | x) for rows (..., D), as (..., K); rows sum to one.

        Raises:
            InputError: if the rows have the wrong number of features, or a value is infinite.
        """
        if self._needs_graph(value):
            found = self.component_log_prob(value).softmax(-1)
        else:
            rows = value.detach().reshape(-1, self.n_features)
            found = in_batches(self.kernel(), rows, Kernel.responsibilities)
            found = found.reshape(*value.shape[:-1], self.n_components)
        lost = found.isnan().any(-1, keepdim=True)
        if bool(lost.any()):
            found = torch.where(lost, self._nearest(value).to(found), found)
        return found

    def _nearest(self, value: Tensor) -> Tensor:
        """Return the component that is nearest to rows so far away that only distances count.

        As responsibilities (..., K), one for the component with the least Mahalanobis distance.
        """
        seen = ~value.isnan()
        x = torch.where(seen, value.double() - self.origin.double(), 0.0)
        size = x.abs().amax(-1, keepdim=True).clamp_min(1.0)
        deviation = (x / size).unsqueeze(-2) - self.centres.double() / size.unsqueeze(-1)
        wide = self.covariance.map(torch.Tensor.double)
        score = wide.log_prob_each(deviation, seen)
        score = score - wide.log_prob_each(torch.zeros_like(deviation), seen)
        best = (score == score.amax(-1, keepdim=True)).double()
        return best / best.sum(-1, keepdim=True)

    def _needs_graph(self, value: Tensor) -> bool:
        """Whether rows must be scored by the form that has gradients, batch shapes and gaps."""
        gaps = self._checked(value)
        own = (value, self.logits, self.centres, self.covariance.variances)
        differentiated = torch.is_grad_enabled() and any(t.requires_grad for t in own)
        return differentiated or bool(self.batch_shape) or gaps

    def _checked(self, value: Tensor) -> bool:
        """Check rows (..., D), and return whether they have gaps."""
        check_width(value, self.n_features)
        if self._validate_args:
            self._validate_sample(value)
        return has_gaps(value)

    @in_full_precision
    def factors(self, value: Tensor) -> Tensor:
        r"""Return the posterior means of the factors of rows (n, D), as (n, K, H).

        $E[z|x,k] = (I + W_k^\top\Psi_k^{-1}W_k)^{-1}W_k^\top\Psi_k^{-1}(x-\mu_k)$: every component
        has factors of its own, standard normal before x is seen. Of a row with NaN, from the rest.

        Raises:
            InputError: for a family without factors, a mixture of a batch, rows of the wrong number
                of features, or an infinite value.
        """
        if self.loadings is None:
            raise InputError(
                f"Covariances of the family {self.covariance.name} have no factors; fit ppca or "
                "factor-analysis."
            )
        if self.batch_shape or self._checked(value):
            completion = self.complete(value)
            assert isinstance(completion, LowRankCompletion)
            return completion.factors
        x = (value - self.origin).to(self.dtype)
        covariance = self.covariance
        assert isinstance(covariance, DiagonalPlusLowRank)
        return covariance.infer_factors(x, self.centres)

    @in_full_precision
    def reconstruct(self, value: Tensor) -> Tensor:
        r"""Return the posterior mean of the noise-free part of rows (n, D), as (n, D).

        $\hat x = \sum_k p(k|x)\,(\mu_k + W_k E[z|x,k])$; without factors, the weighted means.
        What is NaN is reconstructed too, from the rest of its row.

        Raises:
            InputError: if the rows have the wrong number of features, or a value is infinite.
        """
        if self._checked(value):
            rows = value.reshape(-1, self.n_features)
            return self.complete(rows).reconstruction.reshape(value.shape)
        responsibilities = self.responsibilities(value)
        x = (value - self.origin).to(self.dtype).reshape(-1, self.n_features)
        resp = responsibilities.reshape(-1, self.n_components)
        rebuilt = self.covariance.reconstruct(x, resp, self.centres)
        return self.origin + rebuilt.reshape(value.shape)

    @in_full_precision
    def sample(  # type: ignore[override]
        self, sample_shape: Any = (), noise: bool = True, seed: int | None = None
    ) -> Tensor:
        """Draw samples (*sample_shape, *batch_shape, D).

        Args:
            sample_shape: how many, as a tuple.
            noise: include the noise term; without it, draws are means plus factors.
            seed: any integer makes the draw repeatable; None draws a fresh seed from the system.

        Returns:
            samples in the units of the data.

        Raises:
            InputError: if a number of the sample shape is negative.
            TypeError: if it is no tuple of whole numbers.
        """
        generator = make_generator(seed, self.centres.device)
        asked = sample_sizes(sample_shape)
        shape = asked + self.batch_shape
        with torch.no_grad():
            weights = self.weights.expand(*self.batch_shape, -1)
            flat = weights.reshape(-1, self.n_components)
            if not shape.numel():
                return self.centres.new_empty(*shape, self.n_features)
            per = asked.numel()
            # torch draws at least one.
            index = torch.multinomial(flat, max(1, per), replacement=True, generator=generator)
            index = index.mT[:per].reshape(shape)
            if self.covariance.batch_shape:
                draws = self.covariance.chosen(index).draw(noise, generator).squeeze(-2)
            else:
                draws = self.covariance.sample(index.flatten(), noise, generator)
                draws = draws.reshape(*shape, self.n_features)
            centres = self.centres.expand(*self.batch_shape, -1, -1)
            if not self.batch_shape:
                return self.origin + centres[index] + draws
            centres = centres.expand(*shape, *centres.shape[-2:])
            pick = index[..., None, None].expand(*shape, 1, self.n_features)
            return self.origin + centres.gather(-2, pick).squeeze(-2) + draws

    @in_full_precision
    def rsample(  # type: ignore[override]
        self, sample_shape: Any = (), seed: int | None = None
    ) -> Tensor:
        """Draw samples (*sample_shape, *batch_shape, D) that are differentiable in all parameters.

        Implicit reparameterisation; see `reparameterise`. It builds D×D factors, and so is for
        features by the dozen, not by the thousand.

        Args:
            sample_shape: how many, as a tuple.
            seed: any integer makes the draw repeatable; None draws a fresh seed from the system.

        Returns:
            samples in the units of the data.
        """
        drawn = self.sample(sample_shape, seed=seed)
        batch, k, d = self.batch_shape, self.n_components, self.n_features
        n_batch = batch.numel()
        tril = (
            self.covariance
            .map(torch.Tensor.double)
            .tril()
            .expand(*batch, k, d, d)
            .reshape(n_batch, k, d, d)
        )
        x = attach(
            (drawn - self.origin).reshape(-1, n_batch, d),
            self.log_weights.expand(*batch, k).reshape(n_batch, k),
            self.centres.expand(*batch, k, d).reshape(n_batch, k, d),
            tril,
        )
        return self.origin + x.to(self.dtype).reshape(drawn.shape)

    def cdf(self, value: Tensor) -> Tensor:
        """Return P(X_d ≤ x_d) of every feature by itself for rows (..., D), as (..., D).

        What is missing (NaN) has none, and stays NaN.

        Raises:
            InputError: if the rows have the wrong number of features.
        """
        check_width(value, self.n_features)
        if self._validate_args:
            self._validate_sample(value)
        x = (value - self.origin).to(self.dtype)
        parts = (self._exact_weights, self.centres, self.variances.sqrt())
        return marginal_cdf(x, *parts).to(self.dtype)

    def icdf(self, value: Tensor | float) -> Tensor:
        """Return quantiles of every feature by itself, found by bisection; without gradients.

        Args:
            value: probabilities (q,), or one, each between 0 and 1.

        Returns:
            quantiles in the units of the data, (q, *batch_shape, D), or (*batch_shape, D) of one.

        Raises:
            InputError: if a probability does not lie between 0 and 1.
        """
        p = torch.as_tensor(value, dtype=torch.float64, device=self.device)
        if p.dim() > 1 or not bool(((p > 0) & (p < 1)).all()):
            raise InputError(
                f"Probabilities {p.tolist()} came; give one, or a list of them, each above 0 and "
                "below 1."
            )
        centres, deviations = self.centres.expand(self._expanded), self.variances.sqrt()
        found = marginal_quantiles(p, self._exact_weights, centres, deviations)
        quantiles = self.origin + found.to(self.dtype)
        return quantiles.reshape(*p.shape, *self.batch_shape, self.n_features)

    @property
    def _exact_weights(self) -> Tensor:
        """Weights in float64, whose sum is one to as many digits as tails ask for."""
        return self.logits.double().softmax(-1).expand(*self.batch_shape, -1)

    def rescaled(self, shift: Tensor, scale: Tensor) -> Mixture:
        """Return the mixture of shift + scale ⊙ X.

        Args:
            shift: (D,).
            scale: (D,), positive; one value for all features where a component has one noise
                variance for all.

        Returns:
            the mixture, about the shifted origin.
        """
        return Mixture(
            self.logits,
            self.centres * scale,
            self.covariance.rescaled(scale),
            shift + scale * self.origin,
        )

    @in_full_precision
    def with_noise(self, variance: float) -> Mixture:
        """Return the mixture of X + ε, where ε ~ N(0, variance · I) is independent of X.

        Raises:
            InputError: if the variance is negative or not finite.
        """
        if not (variance >= 0 and math.isfinite(variance)):
            raise InputError(f"The variance {variance} came; it must be finite, and at least 0.")
        return Mixture(self.logits, self.centres, self.covariance.with_noise(variance), self.origin)

    def marginal(self, features: Tensor) -> Mixture:
        """Return the mixture of some features, given by their indices (m,).

        Raises:
            InputError: if the indices are none, repeated or out of range.
        """
        features = feature_indices(features, self.n_features, self.device)
        return Mixture(
            self.logits,
            self.centres[..., features],
            self.covariance.marginal(features),
            self.origin[features],
        )

    @in_full_precision
    def condition(self, features: Tensor, values: Tensor) -> Mixture:
        """Return p(other features | features = values), exact, one mixture per row of values.

        Args:
            features: indices of the observed features, (a,).
            values: what was observed, (a,) or (n, a); for a mixture of a batch, (..., a), one row
                for each.

        Returns:
            a mixture of the remaining D − a features in increasing order, with batch shape (n,),
            or () for a single row, or that of the batch.

        Raises:
            InputError: if the values are no tensor, or differ in number from the features, a value
                is NaN or infinite, or the features are none, repeated or out of range.
        """
        features = feature_indices(features, self.n_features, self.device)
        if not isinstance(values, Tensor) or values.dim() == 0:
            raise InputError(
                f"The values to condition on are {values!r}; give a tensor (a,) or (n, a): "
                "torch.as_tensor(values)."
            )
        if values.shape[-1] != len(features):
            raise InputError(
                f"{values.shape[-1]} values came for {len(features)} observed features; "
                "give one value per feature in the last dimension."
            )
        if has_gaps(values):
            raise InputError(
                "A value to condition on is NaN; leave its feature out, or use complete(rows), "
                "where every row may have gaps of its own."
            )
        keep = torch.ones(self.n_features, dtype=torch.bool, device=self.centres.device)
        keep[features] = False
        hidden = keep.nonzero().squeeze(-1)
        rows = (values - self.origin[features]).to(self.dtype)
        rows = rows.unsqueeze(-2) if self.batch_shape else rows.reshape(-1, len(features))
        log_prob, centres, covariance = self.covariance.condition(
            features, hidden, rows, self.centres
        )
        if self.batch_shape:
            log_prob, centres = log_prob.squeeze(-2), centres.squeeze(-3)
        logits = (log_prob + self.log_weights).log_softmax(-1)
        if values.dim() == 1 and not self.batch_shape:
            logits, centres = logits[0], centres[0]
        return Mixture(logits, centres, covariance, self.origin[hidden])

    @in_full_precision
    def complete(self, x: Tensor, observed: Tensor | None = None) -> Completion:
        """Infer hidden features of each row, whatever its pattern, under the whole mixture.

        Args:
            x: rows (n, D).
            observed: which features are observed, (n, D) boolean; default: those that are not NaN.

        Returns:
            a `Completion`: log-densities of the observed part, and the mean, variance and
            samples of the hidden part.

        Raises:
            InputError: if shapes disagree, a NaN is marked as observed, or a value is infinite.
        """
        check_width(x, self.n_features)
        if self.batch_shape:
            raise InputError(
                f"A mixture of batch shape {tuple(self.batch_shape)} cannot complete rows; take "
                "one mixture of the batch, or condition it."
            )
        if x.dim() != 2:
            raise InputError(
                f"Rows (n, D) are expected to be completed; got shape {tuple(x.shape)}."
            )
        return complete(self, x, ~x.isnan() if observed is None else observed)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Mixture:
        """Return the same mixture with a larger batch shape."""
        batch = torch.Size(batch_shape)
        return Mixture(
            self.logits.expand(*batch, -1),
            self.centres.expand(*batch, -1, -1),
            self.covariance,
            self.origin,
            self._validate_args,
        )

    def __repr__(self) -> str:
        """Say what kind of mixture this is."""
        return f"Mixture({line_of(self)})"

    def _repr_html_(self) -> str | None:
        """Show the heaviest components in a notebook."""
        return table_of(self)


def _single(tensor: Tensor) -> Tensor:
    """Return half precision as single."""
    return tensor.float() if tensor.dtype.itemsize < _SINGLE else tensor


def _batch_of(
    logits: Tensor, centres: Tensor, covariance: Covariance, origin: Tensor | None
) -> torch.Size:
    """Return the batch shape of a mixture of these parts.

    Raises:
        InputError: if they disagree in shape.
    """
    agree = logits.dim() > 0 and centres.dim() > 1
    if agree:
        k, d = centres.shape[-2:]
        agree = (
            logits.shape[-1] == k
            and covariance.n_features == d
            and covariance.n_covariances in (1, k)
            and (origin is None or origin.shape == (d,))
        )
    try:
        # numpy's, because torch's own imports half a second of symbolic algebra
        shapes = (logits.shape[:-1], centres.shape[:-2], covariance.batch_shape)
        batch = np.broadcast_shapes(*shapes) if agree else None
    except ValueError:
        batch = None
    if batch is None:
        reference = "" if origin is None else f", an origin {tuple(origin.shape)}"
        own = (*covariance.batch_shape, covariance.n_covariances)
        raise InputError(
            f"The parts of a mixture disagree: logits {tuple(logits.shape)}, centres "
            f"{tuple(centres.shape)}{reference}, covariances {own} of {covariance.n_features} "
            "features; give logits (..., K), centres (..., K, D), an origin (D,), and one "
            "covariance of D features per centre, or a shared one."
        )
    return torch.Size(batch)
