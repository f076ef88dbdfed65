r"""A variational Bayesian mixture: EM's steps on distributions over parameters."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mogul.distributions import Full, Kernel, LocalKernel, MaskedMoments, Moments
from mogul.distributions.full import floored_cholesky
from mogul.errors import InputError
from mogul.models.gaussian_mixture import GaussianMixture

WEIGHT_PRIORS = ("dirichlet_process", "dirichlet_distribution")


class BayesianGaussianMixture(GaussianMixture):
    r"""A mixture whose weights, means and precisions have posterior distributions.

    Weights have a Dirichlet prior, or that of a (truncated) Dirichlet process; means and precisions
    a normal–Wishart prior. `EM` then makes variational steps: components that the data do not need
    lose their weight. Calling the model yields the mixture at the posterior means.

    Updates and priors are those of scikit-learn's BayesianGaussianMixture (after Bishop 2006,
    section 10.2; Blei & Jordan 2006), for full, diagonal and isotropic families, own or shared.

    Args:
        n_components: most components K.
        n_features: number of features D.
        covariance: full, diagonal or isotropic.
        sharing: "own", or "shared" (full only).
        weight_prior: "dirichlet_process" or "dirichlet_distribution".
        concentration: prior concentration of weights; default 1/K.
        mean_strength: prior rows behind each mean; default 1.
        degrees_of_freedom: of the Wishart prior, more than D − 1; default D.
        mean: prior mean (D,); default: that of the data.
        covariance_prior: prior scale in the family's shape; default: the covariance of the data.
        dtype: floating-point type of parameters and computation.
        device: where the parameters live.

    Raises:
        InputError: for an unknown prior, a family without such a posterior, or bad numbers.
    """

    learns_online = False  # its parameters are not maximisers of averaged statistics alone

    prior_mean: Tensor
    prior_covariance: Tensor
    counts: Tensor
    mean_precision: Tensor
    freedom: Tensor
    offsets: Tensor

    def __init__(
        self,
        n_components: int,
        n_features: int,
        covariance: str = "full",
        sharing: str = "own",
        weight_prior: str = "dirichlet_process",
        concentration: float | None = None,
        mean_strength: float = 1.0,
        degrees_of_freedom: float | None = None,
        mean: Tensor | None = None,
        covariance_prior: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        """Check the priors.

        Raises:
            InputError: as the class says.
        """
        super().__init__(
            n_components, n_features, covariance, None, sharing, dtype=dtype, device=device
        )
        if weight_prior not in WEIGHT_PRIORS:
            raise InputError(
                f"Unknown weight prior '{weight_prior}'; choose one of: {', '.join(WEIGHT_PRIORS)}."
            )
        allowed = sharing == "own" or (sharing == "shared" and self.family is Full)
        if self.family.low_rank or not allowed:
            raise InputError(
                f"There is no variational posterior for {self.family.name} ({sharing}); choose "
                "full, diagonal or isotropic with sharing own, or full with shared."
            )
        self.weight_prior = weight_prior
        self.concentration = 1.0 / n_components if concentration is None else concentration
        self.mean_strength = mean_strength
        d = n_features
        self.degrees_of_freedom = float(d) if degrees_of_freedom is None else degrees_of_freedom
        if min(self.concentration, mean_strength) <= 0 or self.degrees_of_freedom <= d - 1:
            raise InputError(
                f"Concentration {self.concentration}, mean strength {mean_strength} and degrees "
                f"of freedom {self.degrees_of_freedom} came; the first two must be positive and "
                f"the last more than {d - 1}."
            )
        kind: dict[str, Any] = {"dtype": torch.float64, "device": device}
        self.register_buffer("prior_mean", None if mean is None else mean.to(**kind))
        self.register_buffer(
            "prior_covariance", None if covariance_prior is None else covariance_prior.to(**kind)
        )
        k = n_components
        self.register_buffer("counts", torch.zeros(k, **kind))
        self.register_buffer("mean_precision", torch.ones(k, **kind))
        self.register_buffer("freedom", torch.full((k,), float(d), **kind))
        self.register_buffer("offsets", torch.zeros(k, **kind))

    @torch.no_grad()
    def start(self, x: Tensor, labels: Tensor, seed: int, floor: float | None = None) -> None:
        """Set priors that were left open from the data, then the posterior from hard labels."""
        super().start(x, labels, seed, floor)
        rows = x.to(self.centres).double()
        if self.prior_mean is None:
            self.prior_mean = rows.mean(0)
        if self.prior_covariance is None:
            full = torch.cov(rows.mT).reshape(self.n_features, self.n_features)
            diagonal = rows.var(0)
            isotropic = diagonal.mean().expand(1)
            if self.family is Full:  # collinear columns would have a prior without a density
                tril, low = floored_cholesky(full[None], self.floor)
                full = tril[0] @ tril[0].mT if bool(low) else full
            diagonal = torch.maximum(diagonal, self.floor.double())
            named = {"full": full, "diagonal": diagonal, "isotropic": isotropic}
            self.prior_covariance = named[self.family.name]
        resp = torch.nn.functional.one_hot(labels.to(x.device), self.n_components).to(self.centres)
        self.update(x.to(self.centres), resp)

    def as_gaussian_mixture(self) -> GaussianMixture:
        """Return a plain model at the posterior means, to save or to fit on."""
        plain = GaussianMixture(
            self.n_components,
            self.n_features,
            self.family.name,
            sharing=self.sharing,
            dtype=self.dtype,
            device=self.device,
        )
        plain.load(self())
        return plain

    def update(self, x: Tensor, resp: Tensor) -> None:
        """Set the posterior from rows (n, D) and responsibilities (n, K)."""
        mixture = self()
        self.maximise(mixture.covariance.statistics(x - self.origin, resp, mixture.centres))

    def joint(self, x: Tensor) -> Tensor:
        """Return E[log π_k] + E[log N(x; k)] under the posterior, (n, K), in nats."""
        mixture = self()
        density = mixture.component_log_prob(x) - mixture.log_weights
        return density + self.offsets.to(density)

    @torch.no_grad()
    def expectation(self, gaps: bool) -> Kernel:
        """Return an E-step; its log-likelihoods are log Σ_k exp of `joint`, the evidence of rows.

        Raises:
            InputError: if values are missing.
        """
        if gaps:
            raise InputError(
                "The data have missing values, which the variational mixture does not take; use "
                "GaussianMixture with a prior, or impute."
            )
        mixture = self()
        return mixture.covariance.kernel(mixture.centres, self.offsets, self.origin)

    @torch.no_grad()
    def local_expectation(self) -> LocalKernel:
        """Return an E-step that looks at chosen components of each row alone."""
        mixture = self()
        return LocalKernel(mixture.covariance, mixture.centres, self.offsets, self.origin)

    @torch.no_grad()
    def maximise(self, moments: Moments | MaskedMoments) -> list[str]:
        """Set the posterior over weights, means and precisions."""
        assert isinstance(moments, Moments)
        n, d = moments.count, self.n_features
        centre = self.centres.double() + moments.shift  # means of the data, about the origin
        b0, b = self.mean_strength, self.mean_strength + n
        prior_mean = self.prior_mean - self.origin.double()
        means = (b0 * prior_mean + n.unsqueeze(-1) * centre) / b.unsqueeze(-1)
        pull = (b0 * n / b).unsqueeze(-1) * (centre - prior_mean)
        away = centre - prior_mean
        delta = moments.shift
        if self.family is Full:
            outer = moments.pool(n[:, None, None] * delta.unsqueeze(-1) * delta.unsqueeze(-2))
            scatter = moments.second - outer
            scatter = scatter + moments.pool(pull.unsqueeze(-1) * away.unsqueeze(-2))
        else:
            scatter = moments.second - n.unsqueeze(-1) * delta.square() + pull * away
            if self.family.name == "isotropic":
                scatter = scatter.mean(-1, keepdim=True)
        freedom = self.degrees_of_freedom + n
        if self.sharing == "shared":
            scatter = scatter / self.n_components
            freedom = (self.degrees_of_freedom + n.mean()).expand_as(n)
        share = freedom[: scatter.shape[0]].reshape(-1, *[1] * (scatter.dim() - 1))
        posterior = (self.prior_covariance + scatter) / share
        if self.family is Full:
            tril, low = floored_cholesky(posterior, self.floor)
            fitted: Any = Full(tril)
        else:
            least = self.floor.median() if self.family.name == "isotropic" else self.floor
            low = (posterior < least).any(-1)
            fitted = self.family.from_raw({"log_noise": torch.maximum(posterior, least).log()}, d)
        for name, tensor in fitted.to_raw().items():
            self.raw[name].copy_(tensor)
        self.centres.copy_(means)
        self.counts.copy_(n)
        self.mean_precision.copy_(b)
        self.freedom.copy_(freedom)
        log_weights, weights = self._weights(n)
        self.logits.copy_(weights.clamp_min(1e-300).log())
        half = 0.5 * (freedom.unsqueeze(-1) - torch.arange(d, device=n.device))
        # E[log N] exceeds log N at the posterior means by this much.
        log_lambda = d * math.log(2) + torch.digamma(half).sum(-1)
        gain = 0.5 * (log_lambda - d / b - d * freedom.log())
        self.offsets.copy_(log_weights + gain)
        return self._told_of_floor(low)

    def _weights(self, n: Tensor) -> tuple[Tensor, Tensor]:
        """Return E[log π] and E[π] from counts (K,)."""
        if self.weight_prior == "dirichlet_distribution":
            a = self.concentration + n
            return torch.digamma(a) - torch.digamma(a.sum()), a / a.sum()
        a, b = self._sticks(n)
        total = torch.digamma(a + b)
        rest = torch.digamma(b) - total
        log_weights = torch.digamma(a) - total + rest.cumsum(0) - rest
        left = b / (a + b)
        weights = a / (a + b) * (left.cumprod(0) / left)
        return log_weights, weights / weights.sum()

    @property
    def weight_concentration(self) -> Any:
        """Posterior concentrations (K,), or the pair of them that shapes each stick."""
        if self.weight_prior == "dirichlet_distribution":
            return (self.concentration + self.counts).cpu().numpy()
        return tuple(part.cpu().numpy() for part in self._sticks(self.counts))

    def _sticks(self, n: Tensor) -> tuple[Tensor, Tensor]:
        """Return the Beta parameters of stick-breaking proportions."""
        return 1.0 + n, self.concentration + n.flip(0).cumsum(0).flip(0) - n

    def log_prior(self) -> Tensor:
        """Return −KL(posterior ‖ prior), which makes the evidence the variational bound."""
        d, covariance = self.n_features, self().covariance
        n, b0, b = self.counts, self.mean_strength, self.mean_precision
        if self.weight_prior == "dirichlet_distribution":
            a0 = torch.full_like(n, self.concentration)
            weights = _dirichlet_kl((a0 + n).unsqueeze(0), a0.unsqueeze(0))
        else:
            a, stick = self._sticks(n)
            prior = torch.stack([torch.ones_like(n), torch.full_like(n, self.concentration)], -1)
            weights = _dirichlet_kl(torch.stack([a, stick], -1), prior)
        at_prior = (self.prior_mean - self.origin.double()).unsqueeze(0)
        double = covariance.map(torch.Tensor.double)
        centres = self.centres.double()
        # −2 log N at the prior mean, less its constants, is the Mahalanobis distance.
        distance = -2 * double.log_prob(at_prior, centres)[0]
        distance = distance - double.log_det() - d * math.log(2 * math.pi)
        means = 0.5 * (d * (b0 / b - 1 - (b0 / b).log()) + b0 * distance)
        return -(weights.sum() + means.sum() + self._wishart_kl(double).sum())

    def _wishart_kl(self, covariance: Any) -> Tensor:
        """Return KL of the precisions' posterior to their prior, per component, (K,)."""
        d, v, v0 = self.n_features, self.freedom, self.degrees_of_freedom
        prior = self.prior_covariance
        if self.family is Full:
            inverse = torch.cholesky_inverse(covariance.tril())
            trace = (prior * inverse).sum((-1, -2))
            prior_log_det = torch.logdet(prior)
        else:
            trace = (prior / covariance.variances).sum(-1)
            prior_log_det = prior.expand(d).log().sum()
        half = 0.5 * (v.unsqueeze(-1) - torch.arange(d, device=v.device))
        ratio = covariance.log_det() + d * v.log() - prior_log_det  # log|W₀| − log|W|
        gamma = torch.special.multigammaln(torch.tensor(v0 / 2, dtype=v.dtype), d)
        return (
            0.5 * (v - v0) * torch.digamma(half).sum(-1)
            + 0.5 * trace
            - 0.5 * v * d
            + 0.5 * v0 * ratio
            + gamma
            - torch.special.multigammaln(v / 2, d)
        )

    def dead(self, moments: Moments | MaskedMoments, row_weight: float) -> Tensor:
        """Return nothing: components without data are pruned, not restarted."""
        return torch.empty(0, dtype=torch.long, device=self.device)


def _dirichlet_kl(a: Tensor, prior: Tensor) -> Tensor:
    """Return KL(Dir(a) ‖ Dir(prior)) over the last dimension."""
    total = a.sum(-1)
    gammas = torch.lgamma(total) - torch.lgamma(prior.sum(-1))
    gammas = gammas + (torch.lgamma(prior) - torch.lgamma(a)).sum(-1)
    expected = torch.digamma(a) - torch.digamma(total).unsqueeze(-1)
    return gammas + ((a - prior) * expected).sum(-1)
