"""How data scatter about what a decoder says: p(x | f(z))."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mogul.compute.backend import make_generator
from mogul.errors import InputError


class Likelihood(nn.Module):
    """p(x | output) with independent features; NaN marks those that are missing."""

    name = ""

    def log_prob(self, x: Tensor, output: Tensor) -> Tensor:
        """Return log p(x | output) in nats, (n,), of rows (n, D); missing features do not count.

        Leading dimensions of output, such as (N, n, D), stay.
        """
        seen = ~x.isnan()
        if bool(seen.all()):
            return self._terms(x, output).sum(-1)
        terms = self._terms(torch.where(seen, x, 0.5), output)
        return torch.where(seen, terms, 0.0).sum(-1)

    @abstractmethod
    def _terms(self, x: Tensor, output: Tensor) -> Tensor:
        """Return the log-density of every feature."""

    @abstractmethod
    def mean(self, output: Tensor) -> Tensor:
        """Return E[x | output]."""

    @abstractmethod
    def sample(self, output: Tensor, seed: int) -> Tensor:
        """Draw x given the output."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Return the constructor arguments, as JSON types."""


class GaussianLikelihood(Likelihood):
    """N(x; f(z), σ² I).

    Args:
        scale: standard deviation σ, in units of the data.
        learn: whether gradients move it.

    Raises:
        InputError: if the scale is not positive.
    """

    name = "gaussian"

    def __init__(self, scale: float = 0.1, learn: bool = False) -> None:
        """Hold log σ.

        Raises:
            InputError: as the class says.
        """
        super().__init__()
        if not 0 < scale < math.inf:
            raise InputError(f"The scale of the noise is {scale}; it must be positive.")
        self.learn = learn
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)), requires_grad=learn)

    @property
    def scale(self) -> Tensor:
        """The standard deviation σ."""
        return self.log_scale.exp()

    def _terms(self, x: Tensor, output: Tensor) -> Tensor:
        square = ((x - output) / self.scale).square()
        return -0.5 * square - self.log_scale - 0.5 * math.log(2 * math.pi)

    def mean(self, output: Tensor) -> Tensor:
        """Return the output itself."""
        return output

    def sample(self, output: Tensor, seed: int) -> Tensor:
        """Add noise of scale σ."""
        generator = make_generator(seed, output.device)
        noise = torch.empty_like(output).normal_(generator=generator)
        return output + self.scale * noise

    def config(self) -> dict[str, Any]:
        """Return the present scale, and whether it is learned."""
        return {"scale": float(self.scale.detach()), "learn": self.learn}


class BernoulliLikelihood(Likelihood):
    """x_d ~ Bernoulli(f_d(z)), for a decoder whose outputs are probabilities.

    Values between 0 and 1 are taken as probabilities themselves (expected log-likelihood).
    """

    name = "bernoulli"
    _least = 1e-6  # a probability of exactly 0 or 1 would make a likelihood of zero

    def _terms(self, x: Tensor, output: Tensor) -> Tensor:
        if not bool(((x >= 0) & (x <= 1)).all()):
            low, high = x.min().item(), x.max().item()
            raise InputError(
                f"Values from {low:.3g} to {high:.3g} came, and those of a Bernoulli lie between 0 "
                "and 1; rescale the data, or use the gaussian likelihood."
            )
        p = output.clamp(self._least, 1 - self._least)
        return -F.binary_cross_entropy(p, x.expand_as(p), reduction="none")

    def mean(self, output: Tensor) -> Tensor:
        """Return the probabilities."""
        return output

    def sample(self, output: Tensor, seed: int) -> Tensor:
        """Draw zeros and ones."""
        return torch.bernoulli(output, generator=make_generator(seed, output.device))

    def config(self) -> dict[str, Any]:
        """There is nothing to set."""
        return {}


LIKELIHOODS: dict[str, type[Likelihood]] = {
    c.name: c for c in (GaussianLikelihood, BernoulliLikelihood)
}
