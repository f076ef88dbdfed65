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

    @property
    def n_parameters(self) -> int:
        """Number of parameters that a fit learns."""
        return sum(p.numel() for p in self.parameters())

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

    def is_discrete(self, x: Tensor) -> bool:
        """Whether it gives probabilities of such rows, and not densities."""
        return False

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
    """N(x; f(z), σ² I), or N(x; f(z), diag(σ²)).

    Args:
        scale: standard deviation σ, in units of the data; the first one, if it is learned.
        learn: whether gradients move it.
        n_features: D, for a σ of its own of every feature; default: one for all.

    Raises:
        InputError: if the scale is not positive.
    """

    name = "gaussian"

    def __init__(
        self, scale: float = 0.1, learn: bool = False, n_features: int | None = None
    ) -> None:
        """Hold log σ.

        Raises:
            InputError: as the class says.
        """
        super().__init__()
        if not 0 < scale < math.inf:
            raise InputError(f"The scale of the noise is {scale}; it must be positive.")
        self.learn = learn
        first = torch.full(() if n_features is None else (n_features,), math.log(scale))
        self.log_scale = nn.Parameter(first, requires_grad=learn)

    @property
    def n_parameters(self) -> int:
        """Number of scales, if they are learned."""
        return self.log_scale.numel() if self.learn else 0

    @property
    def scale(self) -> Tensor:
        """The standard deviation σ, () or (D,)."""
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
        """Return the present scale, whether it is learned, and whether features have their own."""
        scale = self.scale.detach()
        own = {"n_features": len(scale)} if scale.dim() else {}
        return {"scale": float(scale.mean()), "learn": self.learn} | own


class BernoulliLikelihood(Likelihood):
    """x_d ~ Bernoulli(f_d(z)), or Bernoulli(sigmoid(f_d(z))) with `logits`.

    Values between 0 and 1 are taken as probabilities themselves (expected log-likelihood).

    Args:
        logits: whether the decoder's outputs are logits; otherwise they are probabilities.
    """

    name = "bernoulli"
    _least = 1e-6  # a probability of exactly 0 or 1 would make a likelihood of zero

    def __init__(self, logits: bool = False) -> None:
        """Hold what outputs are."""
        super().__init__()
        self.logits = logits

    def _terms(self, x: Tensor, output: Tensor) -> Tensor:
        if not bool(((x >= 0) & (x <= 1)).all()):
            low, high = x.min().item(), x.max().item()
            raise InputError(
                f"Values from {low:.3g} to {high:.3g} came, and those of a Bernoulli lie between 0 "
                "and 1; rescale the data, or use the gaussian likelihood."
            )
        if self.logits:
            return -F.binary_cross_entropy_with_logits(
                output, x.expand_as(output), reduction="none"
            )
        p = output.clamp(self._least, 1 - self._least)
        return -F.binary_cross_entropy(p, x.expand_as(p), reduction="none")

    def is_discrete(self, x: Tensor) -> bool:
        """Whether rows are zeros and ones; of values between, it says no probability."""
        return bool(((x == 0) | (x == 1)).all())

    def mean(self, output: Tensor) -> Tensor:
        """Return the probabilities."""
        return output.sigmoid() if self.logits else output

    def sample(self, output: Tensor, seed: int) -> Tensor:
        """Draw zeros and ones."""
        return torch.bernoulli(self.mean(output), generator=make_generator(seed, output.device))

    def config(self) -> dict[str, Any]:
        """Return what outputs are."""
        return {"logits": self.logits}


class DiscretisedLogisticLikelihood(Likelihood):
    r"""Pixels of so many levels, as the mass of a logistic distribution on the pixel's interval.

    $p(x_d) = \sigma((x_d + \tfrac{1}{2L} - f_d)/s) - \sigma((x_d - \tfrac{1}{2L} - f_d)/s)$ for
    centres $x_d = (y_d + \tfrac12)/L$ of y = 0 … L − 1, with all that lies below at y = 0 and all
    above at y = L − 1 (Kingma et al. 2016; Salimans et al. 2017). These are probabilities, so that
    $-\log_2 p / D$ is bits per dimension.

    Args:
        scale: s at first; it is learned.
        levels: L, 256 for bytes.

    Raises:
        InputError: if the scale is not positive, or there are fewer than two levels.
    """

    name = "discretised-logistic"

    def __init__(self, scale: float = 0.05, levels: int = 256) -> None:
        """Hold log s.

        Raises:
            InputError: as the class says.
        """
        super().__init__()
        if not 0 < scale < math.inf or levels < 2:
            raise InputError(
                f"A scale of {scale} and {levels} levels came; the scale must be positive, and "
                "there must be at least two levels."
            )
        self.levels = levels
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def _terms(self, x: Tensor, output: Tensor) -> Tensor:
        half, precision = 0.5 / self.levels, (-self.log_scale).exp()
        above, below = (x + half - output) * precision, (x - half - output) * precision
        # σ(a) − σ(b) = σ(a) σ(−b) (1 − e^(b − a)), without a difference that cancels.
        width = (-(-precision / self.levels).expm1()).log()
        inner = F.logsigmoid(above) + F.logsigmoid(-below) + width
        lowest, highest = x < 2 * half, x > 1 - 2 * half
        return torch.where(
            lowest, F.logsigmoid(above), torch.where(highest, F.logsigmoid(-below), inner)
        )

    def is_discrete(self, x: Tensor) -> bool:
        """Yes: pixels have probabilities."""
        return True

    def mean(self, output: Tensor) -> Tensor:
        """Return the middle of the logistic, within the unit interval."""
        return output.clamp(0, 1)

    def sample(self, output: Tensor, seed: int) -> Tensor:
        """Draw pixels, as the centres of their intervals."""
        generator = make_generator(seed, output.device)
        u = torch.empty_like(output).uniform_(1e-6, 1 - 1e-6, generator=generator)
        drawn = output + self.log_scale.exp() * u.logit()
        pixel = (drawn * self.levels).floor().clamp(0, self.levels - 1)
        return (pixel + 0.5) / self.levels

    def config(self) -> dict[str, Any]:
        """Return the present scale, and the number of levels."""
        return {"scale": float(self.log_scale.detach().exp()), "levels": self.levels}


LIKELIHOODS: dict[str, type[Likelihood]] = {
    c.name: c for c in (GaussianLikelihood, BernoulliLikelihood, DiscretisedLogisticLikelihood)
}
