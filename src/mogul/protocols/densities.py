"""What algorithms know of densities: how they score rows, and how EM and gradients move them."""

from __future__ import annotations

from typing import Any, Protocol, Self

import torch
from torch import Tensor


class Density(Protocol):
    """A value that scores rows."""

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of its parameters."""
        ...

    @property
    def device(self) -> torch.device:
        """Where its parameters live."""
        ...

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density in nats, (n,), of rows (n, D)."""
        ...

    def kernel(self) -> Scorer:
        """Return what scores rows without gaps fast."""
        ...


class Scorer(Protocol):
    """Parameters prepared for scoring many rows, on one thread; others take forks."""

    @property
    def footprint(self) -> int:
        """Bytes of the sums of an E-step, which tell of the work a row takes."""
        ...

    def fork(self) -> Self:
        """Return one for another thread."""
        ...

    def score(self, x: Tensor) -> Tensor:
        """Return the log-density in nats, (n,), of rows (n, D)."""
        ...


class HasGradient(Protocol):
    """A module whose parameters gradients can move."""

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the parameters."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        ...

    @property
    def data_scale(self) -> float:
        """Unit in which the data are spread."""
        ...

    def __call__(self) -> Density:
        """Return the density as a value, through which gradients flow."""
        ...

    def check_started(self) -> None:
        """Refuse parameters from which no fit can begin."""
        ...

    def parameter_groups(self) -> dict[str, list[torch.nn.Parameter]]:
        """Return parameters as "weights", "locations" (in data units) and "shapes" (without)."""
        ...

    def log_prior(self) -> Tensor:
        """Return what a fit adds to the log-likelihood of all rows, a scalar; zero without."""
        ...

    def hold_frozen(self) -> None:
        """Zero the gradients of what must not move."""
        ...

    def clamp(self) -> list[str]:
        """Put parameters back where densities are bounded; return what to tell."""
        ...


class Expectation(Protocol):
    """One E-step: batches go in, moments add up. It serves one thread; others take forks.

    `workspace` is scratch memory: to give it to the next pass saves fetching it anew.
    """

    workspace: dict[str, Tensor]

    @property
    def note(self) -> str | None:
        """What a user should know of how it computes, or None."""
        ...

    @property
    def footprint(self) -> int:
        """Bytes of the sums that a fork holds."""
        ...

    @property
    def moments(self) -> Any:
        """Additive expected statistics of all rows so far."""
        ...

    def expect(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """Add rows (n, D) with weights (n,), and return their log-likelihoods (n,)."""
        ...

    def absorb(self, other: Self) -> None:
        """Add the rows of a fork."""
        ...

    def fork(self) -> Self:
        """Return the same E-step without rows."""
        ...

    def sums(self) -> dict[str, Tensor]:
        """Return all that was added, by name, from which another E-step can go on."""
        ...

    def take_up(self, sums: dict[str, Tensor]) -> None:
        """Go on with what another E-step at these parameters had added."""
        ...


class HasMoments(Protocol):
    """A model that expectation-maximisation can fit, whatever its family."""

    @property
    def n_components(self) -> int:
        """Number of components K."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the parameters."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        ...

    def __call__(self) -> Density:
        """Return the density as a value."""
        ...

    def check_started(self) -> None:
        """Refuse parameters from which no fit can begin."""
        ...

    def expectation(self, gaps: bool) -> Expectation:
        """Return an E-step at the current parameters; `gaps`: whether values are missing."""
        ...

    def maximise(self, moments: Any) -> list[str]:
        """Set the parameters that maximise the expected log-likelihood; return what to tell."""
        ...

    def log_prior(self) -> Tensor:
        """Return what a fit adds to the log-likelihood of all rows, a scalar; zero without."""
        ...

    def dead(self, moments: Any, row_weight: float) -> Tensor:
        """Return the indices of components that no data support; rows weigh `row_weight` each."""
        ...

    def reseed(self, components: Tensor, points: Tensor) -> None:
        """Restart `components` (m,) at `points` (m, D)."""
        ...

    def start(self, x: Tensor, labels: Tensor, seed: int) -> None:
        """Set all parameters from hard assignments `labels` (n,) of rows (n, D)."""
        ...


class HasLocalMoments(HasMoments, Protocol):
    """A mixture that truncated EM can fit: its E-step can look at chosen components of each row."""

    def __call__(self) -> Any:
        """Return the `Mixture` as a value."""
        ...

    def local_expectation(self) -> Any:
        """Return such an E-step at the current parameters, a `LocalKernel`."""
        ...


class LearnsOnline(HasMoments, Protocol):
    """A model that online EM can fit: it has complete-data statistics."""

    def complete(self, moments: Any) -> Any:
        """Return the moments of an E-step as statistics that may be mixed across parameters."""
        ...

    def own_statistics(self, components: Tensor | None = None) -> Any:
        """Return the statistics that the model expects of a row; of some components (m,) alone."""
        ...

    def follow(self, moments: Any, mass: float) -> tuple[list[str], Any]:
        """Make the M-step; return what to tell, and by what to restate the statistics."""
        ...
