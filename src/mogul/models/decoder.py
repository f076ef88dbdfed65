"""LatentVariableModel: a prior over latents, a decoder, and noise about what it says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mogul.compute.collective import Group
from mogul.distributions import Isotropic, Mixture
from mogul.errors import InputError
from mogul.models.gaussian_mixture import GaussianMixture
from mogul.models.hub import HubModel
from mogul.models.likelihoods import LIKELIHOODS, GaussianLikelihood, Likelihood
from mogul.models.networks import DECODERS

_PRIOR_ROWS = 16_384
_LEARNINGS = ("fixed", "em", "gradient")


class LatentVariableModel(HubModel, nn.Module):
    r"""$p(x, z) = p(z)\,p(x \mid f(z))$ with a mixture of Gaussians as prior, or a standard normal.

    Args:
        decoder: f, from latents (n, d) to rows (n, D).
        n_latents: latent dimension d.
        feature_shape: shape of one row before it is flattened.
        likelihood: how data scatter about f(z); default: Gaussian of scale 0.1.
        prior: a `GaussianMixture` over latents, started or loaded; None for the standard normal.
        prior_learning: "fixed"; "em": every step of a fit is an EM step of the prior on the
            particles; or "gradient": its parameters move with those of the decoder.

    Raises:
        InputError: if the prior is over another number of latents.

    Example:
        >>> from mogul.models import LatentVariableModel, LinearDecoder
        >>> model = LatentVariableModel(LinearDecoder(2, (64,)), 2, (64,))
        >>> model.sample(5, seed=0).shape
        torch.Size([5, 64])
    """

    particles: Tensor | None  # (M, N, d): N latents for each of M rows, once a fit has made them
    _like: Tensor
    # What a fit needs besides to go on where it stopped, by name.
    training_state: dict[str, Tensor]

    def __init__(
        self,
        decoder: nn.Module,
        n_latents: int,
        feature_shape: Sequence[int],
        likelihood: Likelihood | None = None,
        prior: GaussianMixture | None = None,
        prior_learning: str = "fixed",
    ) -> None:
        """Put the parts together; there are no particles until a fit makes some.

        Raises:
            InputError: as the class says.
        """
        super().__init__()
        if prior is not None and prior.n_features != n_latents:
            raise InputError(
                f"The prior is over {prior.n_features} latents and the decoder takes {n_latents}; "
                "build both with the same number."
            )
        if prior_learning not in _LEARNINGS or (prior is None and prior_learning != "fixed"):
            raise InputError(
                f"prior_learning is '{prior_learning}' with {'a' if prior else 'no'} mixture prior;"
                f" choose one of {', '.join(_LEARNINGS)}, and give a prior to learn."
            )
        self.decoder = decoder
        self.n_latents = n_latents
        self.feature_shape = tuple(feature_shape)
        self.likelihood = GaussianLikelihood() if likelihood is None else likelihood
        self.prior_model = prior
        self.prior_learning = prior_learning
        if prior is not None and prior_learning != "gradient":
            prior.requires_grad_(False)
        self.register_buffer("particles", None)
        self.register_buffer("_like", torch.zeros(()), persistent=False)
        self.training_state: dict[str, Tensor] = {}

    @property
    def n_features(self) -> int:
        """Number of features D."""
        return int(torch.Size(self.feature_shape).numel())

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the parameters."""
        return self._like.dtype

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return self._like.device

    @property
    def prior(self) -> Mixture:
        """The prior over latents as a value."""
        if self.prior_model is not None:
            return self.prior_model()
        like = {"dtype": self.dtype, "device": self.device}
        one = Isotropic.of(torch.ones(1, **like), self.n_latents)
        return Mixture(torch.zeros(1, **like), torch.zeros(1, self.n_latents, **like), one)

    @property
    def n_parameters(self) -> int:
        """Number of parameters of decoder, likelihood and prior that a fit learns."""
        count = sum(p.numel() for p in self.decoder.parameters())
        count += self.likelihood.n_parameters
        if self.prior_learning != "fixed" and self.prior_model is not None:
            count += self.prior_model.n_parameters
        return count

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """Return log p(x, z) in nats, (n,), of rows (n, D) and latents (n, d).

        Latents may have leading dimensions, such as (N, n, d); missing features do not count.

        Raises:
            InputError: if the decoder makes rows of another width.
        """
        prior = self.prior.log_prob(z.reshape(-1, self.n_latents)).view(z.shape[:-1])
        return self.log_likelihood(x, z) + prior

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """Return log p(x | z) in nats, (..., n), of rows (n, D) and latents (..., n, d).

        Raises:
            InputError: if the decoder makes rows of another width.
        """
        output = self.decoder(z.reshape(-1, self.n_latents)).view(*z.shape[:-1], -1)
        if output.shape[-1] != x.shape[-1]:
            raise InputError(
                f"The decoder makes {output.shape[-1]} features and rows have {x.shape[-1]}; give "
                "data and a decoder of one width."
            )
        return self.likelihood.log_prob(x, output)

    def decode(self, z: Tensor) -> Tensor:
        """Return E[x | z], rows (..., D), of latents (..., d)."""
        flat = z.reshape(-1, self.n_latents).to(self.dtype)
        return self.likelihood.mean(self.decoder(flat)).view(*z.shape[:-1], -1)

    @torch.no_grad()
    def sample(
        self, n: int, seed: int, latents: Mixture | None = None, noise: bool = False
    ) -> Tensor:
        """Draw rows (n, D).

        Args:
            n: how many.
            seed: seed of the draws.
            latents: where latents come from; default: the prior.
            noise: whether to scatter data about the decoder's output, as the likelihood says.
        """
        source = self.prior if latents is None else latents
        z = source.sample((n,), seed=seed).to(self.dtype)
        output = torch.cat([self.decoder(part) for part in z.split(1024)])
        return self.likelihood.sample(output, seed + 1) if noise else self.likelihood.mean(output)

    @torch.no_grad()
    def maximise_prior(self, particles: Tensor, group: Group | None = None) -> list[str]:
        """Make one EM step of the prior on particles (..., d), those of all processes of a group.

        Returns:
            what to tell.
        """
        if self.prior_model is None or self.prior_learning != "em":
            return []
        kernel = self.prior_model.expectation(gaps=False)
        for part in particles.reshape(-1, self.n_latents).split(_PRIOR_ROWS):
            kernel.expect(part)
        moments = kernel.moments
        (group or Group()).add(list(moments.tensors().values()))
        return self.prior_model.maximise(moments)

    @torch.no_grad()
    def maximise(self, x: Tensor, z: Tensor) -> list[str]:
        """Set all that is learned to its maximiser given latents z (N, n, d) of rows x (n, D).

        Raises:
            InputError: if there is none in closed form: it takes a linear decoder, or one without
                parameters, Gaussian noise, rows without gaps, and a prior not learned by gradient.
        """
        if bool(x.isnan().any()) or self.prior_learning == "gradient":
            raise InputError(
                "The closed-form maximiser (pmga) takes rows without gaps (NaN) and a prior that "
                "is fixed or learned by em; fill or leave out the rows, or use pga."
            )
        decoder, noise = self.decoder, self.likelihood
        learned = any(p.requires_grad for p in decoder.parameters())
        solvable = isinstance(decoder, nn.Linear) or not learned
        if not solvable or not isinstance(noise, GaussianLikelihood):
            raise InputError(
                f"A {type(decoder).__name__} with {noise.name} noise has no maximiser in closed "
                "form; use a linear decoder with Gaussian noise, or a gradient algorithm (pga)."
            )
        if isinstance(decoder, nn.Linear) and learned:
            ones = z.new_ones(*z.shape[:-1], 1)
            inputs = torch.cat([z, ones], -1).reshape(-1, self.n_latents + 1).double()
            targets = x.expand(*z.shape[:-1], -1).reshape(-1, x.shape[-1]).double()
            found = torch.linalg.lstsq(inputs, targets).solution.to(x.dtype)
            decoder.weight.copy_(found[:-1].mT)
            decoder.bias.copy_(found[-1])
        if noise.learn:
            square = (x - decoder(z)).square()
            over = tuple(range(square.dim() - noise.log_scale.dim()))
            noise.log_scale.copy_(square.mean(over).sqrt().log())
        return self.maximise_prior(z)

    def config(self) -> dict[str, Any]:
        """Return what rebuilds this model, as JSON types.

        Raises:
            InputError: if the decoder is not one that this library knows how to build.
        """
        return {
            **network_config("decoder", self.decoder, DECODERS),
            "likelihood": self.likelihood.name,
            "likelihood_arguments": self.likelihood.config(),
            "prior": None if self.prior_model is None else self.prior_model.config(),
            "prior_learning": self.prior_learning,
            "dtype": str(self.dtype).removeprefix("torch."),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LatentVariableModel:
        """Rebuild a model from its `config`, with fresh parameters."""
        arguments = config["decoder_arguments"]
        model = cls(
            DECODERS[config["decoder"]](**arguments),
            arguments["n_latents"],
            arguments["feature_shape"],
            LIKELIHOODS[config["likelihood"]](**config["likelihood_arguments"]),
            mixture_prior(config["prior"]),
            config["prior_learning"],
        )
        return model.to(getattr(torch, config["dtype"]))


def mixture_prior(config: dict[str, Any] | None) -> GaussianMixture | None:
    """Rebuild a prior from its `config`, or None."""
    if config is None:
        return None
    arguments: dict[str, Any] = dict(config)
    arguments["prior"], arguments["dtype"] = None, getattr(torch, config["dtype"])
    return GaussianMixture(**arguments, device=torch.get_default_device())


def network_config(
    part: str, network: nn.Module, known: dict[str, type[nn.Module]]
) -> dict[str, Any]:
    """Return what rebuilds a network of a model, as JSON types.

    Raises:
        InputError: if it is not one that this library knows how to build.
    """
    names = {cls: name for name, cls in known.items()}
    if type(network) not in names:
        raise InputError(
            f"A model with a {type(network).__name__} as {part} cannot be written as a file; keep "
            f"its state_dict(), or use one of: {', '.join(known)}."
        )
    chosen: Any = network
    return {part: names[type(network)], f"{part}_arguments": chosen.config()}
