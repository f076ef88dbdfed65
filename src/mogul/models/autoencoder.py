"""VariationalAutoencoder: a latent-variable model with an encoder, and a choice of priors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mogul.distributions import Diagonal, Mixture, Posterior
from mogul.errors import InputError
from mogul.models.decoder import LatentVariableModel, mixture_prior, network_config
from mogul.models.gaussian_mixture import GaussianMixture
from mogul.models.likelihoods import LIKELIHOODS, Likelihood
from mogul.models.networks import DECODERS, ENCODERS


class PosteriorFamily(nn.Module):
    """Numbers of an encoder to posteriors: mixtures of S diagonal Gaussians over d latents.

    Args:
        n_latents: d.
        n_components: S; 1 is the Gaussian of the usual variational autoencoder.

    Raises:
        InputError: for numbers below one.
    """

    def __init__(self, n_latents: int, n_components: int = 1) -> None:
        """Hold the sizes.

        Raises:
            InputError: as the class says.
        """
        super().__init__()
        if min(n_latents, n_components) < 1:
            raise InputError(
                f"{n_latents} latents and {n_components} components came; both must be at least 1."
            )
        self.n_latents, self.n_components = n_latents, n_components

    @property
    def n_outputs(self) -> int:
        """Numbers per row that an encoder must give: S·2d, and S log-weights if S > 1."""
        s, d = self.n_components, self.n_latents
        return 2 * s * d + (s if s > 1 else 0)

    def forward(self, raw: Tensor) -> Posterior:
        """Read numbers (n, n_outputs) as means, log-variances and log-weights, in this order.

        Raises:
            InputError: if rows hold another number of them.
        """
        s, d = self.n_components, self.n_latents
        if raw.shape[-1] != self.n_outputs:
            raise InputError(
                f"The encoder gives {raw.shape[-1]} numbers per row, and a posterior of {s} "
                f"component(s) over {d} latents takes {self.n_outputs}; build the encoder with "
                "n_outputs=posterior.n_outputs."
            )
        means, log_variances = raw[:, : s * d], raw[:, s * d : 2 * s * d]
        log_weights = raw[:, 2 * s * d :].log_softmax(-1) if s > 1 else raw.new_zeros(len(raw), 1)
        return Posterior(log_weights, means.view(-1, s, d), log_variances.view(-1, s, d))


class VampPrior(nn.Module):
    r"""$p(z) = \frac1K \sum_k q(z \mid u_k)$: a mixture of posteriors of learned pseudo-inputs.

    Source: Tomczak & Welling (2018).

    Args:
        n_components: K.
        feature_shape: shape of one row before it is flattened.
        bounded: keep pseudo-inputs in (0, 1), where pixels live.

    Raises:
        InputError: for no components.
    """

    started: Tensor

    def __init__(
        self, n_components: int, feature_shape: Sequence[int], bounded: bool = True
    ) -> None:
        """Allocate pseudo-inputs, all one half until `start` or a fit sets them.

        Raises:
            InputError: as the class says.
        """
        super().__init__()
        if n_components < 1:
            raise InputError(f"{n_components} pseudo-inputs came; there must be at least 1.")
        self.n_components, self.bounded = n_components, bounded
        self.feature_shape = tuple(feature_shape)
        width = torch.Size(feature_shape).numel()
        self.pseudo_inputs = nn.Parameter(torch.full((n_components, width), 0.5))
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))

    @property
    def n_parameters(self) -> int:
        """Number of free parameters."""
        return self.pseudo_inputs.numel()

    @torch.no_grad()
    def start(self, rows: Tensor) -> None:
        """Set pseudo-inputs to rows of data (K, D), no two of which should be equal."""
        self.pseudo_inputs.copy_(rows)
        self.clamp()
        self.started.fill_(True)

    @torch.no_grad()
    def clamp(self) -> None:
        """Put pseudo-inputs back in bounds, where gradients still move them."""
        if self.bounded:
            self.pseudo_inputs.clamp_(0, 1)

    def forward(self, posterior_of: Callable[[Tensor], Posterior]) -> Mixture:
        """Return the prior, of K·S components, by the posteriors of rows."""
        q = posterior_of(self.pseudo_inputs)
        d = q.means.shape[-1]
        covariance = Diagonal.of(q.log_variances.reshape(-1, d).exp())
        return Mixture(q.log_weights.reshape(-1), q.means.reshape(-1, d), covariance)

    def config(self) -> dict[str, Any]:
        """Return the constructor arguments, as JSON types."""
        return {
            "n_components": self.n_components, "feature_shape": list(self.feature_shape),
            "bounded": self.bounded,
        }  # fmt: skip


def _check_networks(
    encoder: nn.Module, decoder: nn.Module, posterior: PosteriorFamily,
    feature_shape: Sequence[int], prior: nn.Module | None,
) -> None:  # fmt: skip
    """Refuse networks of this library, and a VampPrior, that were built for another model.

    Raises:
        InputError: naming what differs.
    """
    width = torch.Size(feature_shape).numel()
    asked = {"n_outputs": posterior.n_outputs, "n_latents": posterior.n_latents}
    known = (*ENCODERS.values(), *DECODERS.values(), VampPrior)
    for part in (encoder, decoder, prior):
        if not isinstance(part, known):
            continue
        built: Any = part
        config = built.config()
        own = torch.Size(config["feature_shape"]).numel()
        wrong = [f"{n}={config[n]}, not {v}" for n, v in asked.items() if config.get(n, v) != v]
        wrong += [f"{own} features, not {width}"] if own != width else []
        if wrong:
            raise InputError(
                f"The {type(part).__name__} was built with {', '.join(wrong)}; build all parts for "
                "one posterior and one feature_shape."
            )


class VariationalAutoencoder(LatentVariableModel):
    r"""A latent-variable model whose posteriors $q(z \mid x)$ come from an encoder.

    Args:
        encoder: rows (n, D) to (n, posterior.n_outputs).
        decoder: latents (n, d) to rows (n, D).
        posterior: how the encoder's numbers are read.
        feature_shape: shape of one row before it is flattened.
        likelihood: how data scatter about what the decoder makes; default: Gaussian of scale 0.1.
        prior: a `GaussianMixture` over latents, a `VampPrior`, or None for the standard normal.
        prior_learning: "gradient"; "em": after every pass, an EM step on latents drawn from the
            posteriors of the rows; or "fixed".

    Raises:
        InputError: if the parts do not fit each other.

    Example:
        >>> import torch
        >>> from mogul.models import MLPDecoder, MLPEncoder, PosteriorFamily, VariationalAutoencoder
        >>> q = PosteriorFamily(n_latents=2)
        >>> networks = MLPEncoder(q.n_outputs, (64,)), MLPDecoder(2, (64,))
        >>> model = VariationalAutoencoder(*networks, q, (64,))
        >>> model.posterior(torch.zeros(5, 64)).mean.shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        posterior: PosteriorFamily,
        feature_shape: Sequence[int],
        likelihood: Likelihood | None = None,
        prior: GaussianMixture | VampPrior | None = None,
        prior_learning: str = "gradient",
    ) -> None:
        """Put the parts together.

        Raises:
            InputError: as the class says.
        """
        mixture = prior if isinstance(prior, GaussianMixture) else None
        if mixture is None and prior_learning == "em":
            raise InputError(
                "prior_learning is 'em', and the prior is no mixture; give a GaussianMixture, or "
                "choose 'gradient'."
            )
        _check_networks(encoder, decoder, posterior, feature_shape, prior)
        learning = prior_learning if mixture is not None else "fixed"
        super().__init__(decoder, posterior.n_latents, feature_shape, likelihood, mixture, learning)
        self.encoder, self.posterior_family = encoder, posterior
        self.vamp_prior = prior if isinstance(prior, VampPrior) else None
        if mixture is not None and mixture.prior is not None and learning == "gradient":
            raise InputError(
                "The mixture has a prior over its own parameters, which counts in EM steps only; "
                "choose prior_learning 'em', or a mixture without one."
            )
        if self.vamp_prior is not None and prior_learning == "fixed":
            raise InputError(
                "A VampPrior learns by gradient, and prior_learning is 'fixed'; leave it out, or "
                "give a mixture."
            )

    @property
    def prior(self) -> Mixture:
        """The prior over latents as a value."""
        if self.vamp_prior is not None:
            return self.vamp_prior(self.posterior)
        return super().prior

    @property
    def n_parameters(self) -> int:
        """Number of parameters that a fit learns, the encoder's among them."""
        count = super().n_parameters + sum(p.numel() for p in self.encoder.parameters())
        return count + (0 if self.vamp_prior is None else self.vamp_prior.n_parameters)

    def posterior(self, x: Tensor) -> Posterior:
        """Return q(z | x) of rows (n, D).

        Raises:
            InputError: if rows have another width or gaps (NaN), or the encoder gives another
                number of outputs.
        """
        if x.dim() != 2 or x.shape[1] != self.n_features:
            raise InputError(
                f"Rows of shape {tuple(x.shape)} came to an autoencoder of {self.n_features} "
                f"features; give (n, {self.n_features})."
            )
        if bool(x.isnan().any()):
            raise InputError(
                "Rows have gaps (NaN), which an encoder cannot read; leave the rows out, or fit by "
                "particles (pga), which need no encoder."
            )
        return self.posterior_family(self.encoder(x))

    def hold_frozen(self) -> None:
        """Zero the gradients of what is frozen in a mixture prior."""
        if self.prior_model is not None:
            self.prior_model.hold_frozen()

    def clamp_prior(self) -> list[str]:
        """Put a prior back in its bounds, such as variances above their floor; tell of it."""
        if self.vamp_prior is not None:
            self.vamp_prior.clamp()
        return [] if self.prior_model is None else self.prior_model.clamp()

    def config(self) -> dict[str, Any]:
        """Return what rebuilds this model, as JSON types."""
        return super().config() | {
            **network_config("encoder", self.encoder, ENCODERS),
            "posterior_components": self.posterior_family.n_components,
            "vamp_prior": None if self.vamp_prior is None else self.vamp_prior.config(),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> VariationalAutoencoder:
        """Rebuild a model from its `config`, with fresh parameters."""
        arguments, vamp = config["decoder_arguments"], config["vamp_prior"]
        model = cls(
            ENCODERS[config["encoder"]](**config["encoder_arguments"]),
            DECODERS[config["decoder"]](**arguments),
            PosteriorFamily(arguments["n_latents"], config["posterior_components"]),
            arguments["feature_shape"],
            LIKELIHOODS[config["likelihood"]](**config["likelihood_arguments"]),
            mixture_prior(config["prior"]) if vamp is None else VampPrior(**vamp),
            "gradient" if config["prior"] is None else config["prior_learning"],
        )
        return model.to(getattr(torch, config["dtype"]))
