"""What algorithms know of networks: decoders, encoders, and densities of targets given inputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from mogul.protocols.densities import Density


class HasLogJoint(Protocol):
    """A module p(x, z) with latents that particles can stand for."""

    particles: Any
    training_state: dict[str, Tensor]
    training: bool

    @property
    def n_latents(self) -> int:
        """Latent dimension d."""
        ...

    @property
    def n_features(self) -> int:
        """Number of features D."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the parameters."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        ...

    @property
    def prior(self) -> Any:
        """The prior over latents, a density that can be sampled."""
        ...

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """Return log p(x, z) in nats, (..., n), of rows (n, D) and latents (..., n, d)."""
        ...

    def maximise_prior(self, particles: Tensor, group: Any = None) -> list[str]:
        """Make one EM step of a prior that learns so, on all processes; return what to tell."""
        ...

    def maximise(self, x: Tensor, z: Tensor) -> list[str]:
        """Set all that is learned to its maximiser given latents (N, n, d) of rows (n, D)."""
        ...

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """Yield the parameters."""
        ...

    def named_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """Yield the parameters with their names."""
        ...

    def modules(self) -> Iterator[torch.nn.Module]:
        """Yield the modules it is made of."""
        ...

    def train(self, mode: bool = True) -> Any:
        """Use statistics of the batch where a network has any."""
        ...

    def eval(self) -> Any:
        """Use statistics of all data."""
        ...


class HasPosterior(HasLogJoint, Protocol):
    """A module p(x, z) with an encoder that says what latents a row may have."""

    prior_learning: str
    prior_model: Any
    vamp_prior: Any
    posterior_family: Any

    def posterior(self, x: Tensor) -> Any:
        """Return q(z | x) of rows (n, D)."""
        ...

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """Return log p(x | z) in nats, (..., n), of rows (n, D) and latents (..., n, d)."""
        ...

    def hold_frozen(self) -> None:
        """Zero the gradients of what must not move."""
        ...

    def clamp_prior(self) -> list[str]:
        """Put a prior back in its bounds; return what to tell."""
        ...


class HasConditional(Protocol):
    """A network that makes a density of targets from inputs; rows hold both, inputs first."""

    head: Any
    started: Tensor

    @property
    def noise_scale(self) -> Tensor:
        """Standard deviations of the inputs, (n_inputs,); zero of those that are constant."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the parameters."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        ...

    def __call__(self, x: Tensor) -> Density:
        """Return the densities of targets given inputs (n, n_inputs)."""
        ...

    def split(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return inputs and targets of rows."""
        ...

    def set_units(self, rows: Tensor) -> None:
        """Take means and deviations of rows as units."""
        ...

    def without_inputs(self) -> Any:
        """Return an untrained mixture of the targets alone."""
        ...

    def start(self, mixture: Any) -> None:
        """Make the density nearly a mixture of standardised targets, whatever the inputs."""
        ...

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """Yield the parameters."""
        ...

    def named_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """Yield the parameters with their names."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Return parameters and buffers by name."""
        ...

    def load_state_dict(self, state_dict: Any) -> Any:
        """Take over parameters and buffers."""
        ...

    def train(self, mode: bool = True) -> Any:
        """Use what a network does in training alone, such as dropout."""
        ...

    def eval(self) -> Any:
        """Leave it out."""
        ...
