"""What the layers may ask of each other: the only thing algorithms know of models and data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

import torch
from torch import Tensor


class Batch(NamedTuple):
    """Rows of a source: `x` (b, D), optional `weight` (b,), row numbers `index` (b,)."""

    x: Tensor
    weight: Tensor | None
    index: Tensor


@runtime_checkable
class Source(Protocol):
    """Where batches come from; NaN means missing."""

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Shape of one row before it is flattened."""
        ...

    @property
    def n_features(self) -> int:
        """Number of features D."""
        ...

    def __len__(self) -> int:
        """Return the number of rows N."""
        ...

    def batches(
        self, size: int = 8192, dtype: torch.dtype = torch.float32, device: Any = "cpu"
    ) -> Iterator[Batch]:
        """Yield all rows in order, `size` at a time."""
        ...

    def parts(
        self, size: int = 8192, dtype: torch.dtype = torch.float32, device: Any = "cpu"
    ) -> Iterator[Callable[[], Batch]]:
        """Yield the same batches still unread; calling one reads it, on whatever thread."""
        ...

    def take(
        self, index: Tensor, dtype: torch.dtype = torch.float32, device: Any = "cpu"
    ) -> Tensor:
        """Return the rows `index` (m,) as a tensor (m, D)."""
        ...


class Saved(NamedTuple):
    """Where a fit stands: its history, what its algorithm remembers, and whether it was disturbed.

    `disturbed` says that the objective may fall in the pass to come.
    """

    history: list[dict[str, Any]]
    memory: dict[str, Tensor]
    disturbed: bool = False


class Checkpoint(Protocol):
    """Where a fit is kept after every pass, and every so many seconds within one."""

    every: float

    def restore(self, model: Any, source: Any) -> Saved | None:
        """Put a model to where its fit to this source stood; None if there is nothing to go on."""
        ...

    def save(self, model: Any, source: Any, saved: Saved) -> None:
        """Keep a model and where its fit stands."""
        ...

    def ended(self, source: Any) -> None:
        """Keep nothing that only a fit under way needs."""
        ...


@runtime_checkable
class HeadedSource(Source, Protocol):
    """A source that tells whether it can be read again, and shows its first rows either way."""

    repeatable: bool

    def head(self, n: int, dtype: torch.dtype = torch.float32, device: Any = "cpu") -> Tensor:
        """Return the first n rows (m, D); the next pass yields them too."""
        ...


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
