"""The abstract covariance family and its registry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn.functional import softplus

from mogul.distributions.kernel import DirectKernel, Kernel
from mogul.distributions.local_forms import LocalForm
from mogul.distributions.masked import MaskedMoments
from mogul.distributions.moments import Moments
from mogul.errors import InputError

_REGISTRY: dict[str, type[Covariance]] = {}


class Covariance(ABC):
    """The covariances of C components: a value made of tensors whose first dimension is C.

    C equals the number of components K, or is 1 when all components share one covariance. Leading
    batch dimensions may precede C in every tensor. A family is one subclass; it registers itself
    under `name`, and the command line, the report and the contract tests iterate the registry.

    Shapes below: x (..., n, D), centres (..., K, D), component indices (n,).
    """

    name: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    low_rank: ClassVar[bool] = False
    independent: ClassVar[bool] = False  # whether features of a component are
    isotropic_noise: ClassVar[bool] = False  # one noise variance for all features
    in_data_units: ClassVar[tuple[str, ...]] = ()  # unconstrained tensors that grow with the data
    below_diagonal: ClassVar[tuple[str, ...]] = ()  # those that count below their diagonal alone

    def __init_subclass__(cls, **kwargs: object) -> None:
        """Register every family that has a name."""
        super().__init_subclass__(**kwargs)
        if "name" in cls.__dict__:
            _REGISTRY[cls.name] = cls

    @classmethod
    @abstractmethod
    def raw_shapes(cls, n: int, n_features: int, rank: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the unconstrained tensors of n covariances."""

    @classmethod
    @abstractmethod
    def from_raw(cls, raw: dict[str, Tensor], n_features: int) -> Self:
        """Return the covariances that unconstrained tensors stand for."""

    @abstractmethod
    def to_raw(self) -> dict[str, Tensor]:
        """Return the unconstrained tensors; the inverse of `from_raw`."""

    @classmethod
    @abstractmethod
    def clamp_raw(cls, raw: dict[str, Tensor], floor: Tensor) -> Tensor:
        """Raise, in place, what makes variances smaller than the floor; return where (C,)."""

    @classmethod
    @abstractmethod
    def from_cluster(cls, x: Tensor, rank: int, floor: Tensor, prior: Tensor, seed: int) -> Self:
        """Return one covariance (C = 1) of deviations x (n, D) from their centre.

        Args:
            x: deviations, (n, D).
            rank: number of factors; families without factors ignore it.
            floor: smallest variance allowed of each feature, (D,).
            prior: variances (D,) counted as one more observation, so that small clusters work.
            seed: seed of any randomised linear algebra.
        """

    @classmethod
    @abstractmethod
    def stack(cls, members: list[Self]) -> Self:
        """Return one value with the covariances of all `members`."""

    @abstractmethod
    def map(self, function: object) -> Self:
        """Return a copy with `function` applied to every tensor."""

    @property
    @abstractmethod
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the dimensions before C."""

    @property
    @abstractmethod
    def n_features(self) -> int:
        """Number of features D."""

    @property
    @abstractmethod
    def n_covariances(self) -> int:
        """Number of covariances C."""

    @property
    @abstractmethod
    def variances(self) -> Tensor:
        """Marginal variances, (..., C, D)."""

    @property
    @abstractmethod
    def noise_variances(self) -> Tensor:
        """Variances that no factor explains, (..., C, D); all of them without factors."""

    @property
    def residual_variances(self) -> Tensor:
        """Variances by which digits of a feature are to be judged, (..., C, D): what is left of it.

        Of the noise; of what other features leave, where covariances are dense.
        """
        return self.noise_variances

    @property
    def loadings(self) -> Tensor | None:
        """Factor loadings (..., C, D, H), or None for a family without factors."""
        return None

    @abstractmethod
    def dense(self) -> Tensor:
        """Return the covariance matrices (..., C, D, D): for tests and small D only."""

    def tril(self) -> Tensor:
        """Return Cholesky factors (..., C, D, D): for small D only."""
        return torch.linalg.cholesky(self.dense())

    @abstractmethod
    def log_prob(self, x: Tensor, centres: Tensor) -> Tensor:
        """Return the log-density of every row under every component, (..., n, K), in nats."""

    @abstractmethod
    def log_prob_each(self, deviation: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return log-densities (..., K) of deviations (..., K, D), one row to each mixture.

        For mixtures of a batch, each of which has parameters of its own.

        Args:
            deviation: rows less the centres of the components.
            seen: which features to score, (..., D) boolean; the others are marginalised. Default
                all.
        """

    @abstractmethod
    def rescaled(self, scale: Tensor) -> Self:
        """Return the covariances of x ⊙ scale, (D,); one value for all with isotropic noise."""

    @classmethod
    @abstractmethod
    def soft_raw(
        cls, raw: dict[str, Tensor], bounds: tuple[float, float], inverse: bool = False
    ) -> dict[str, Tensor]:
        """Return unconstrained tensors with variances smoothly kept between two bounds.

        With `inverse`, the tensors of which this makes the given ones.
        """

    def kernel(self, centres: Tensor, offsets: Tensor, origin: Tensor) -> Kernel:
        """Return the fastest way to score many rows and sum their moments that keeps its digits.

        Args:
            centres: (K, D), measured from the origin.
            offsets: log-weights, added to each component's log-density, (K,).
            origin: reference point of the rows, (D,).
        """
        return DirectKernel(self, centres, offsets, origin)

    @abstractmethod
    def local_form(self, centres: Tensor) -> LocalForm:
        """Return the precisions prepared for tiles of rows near the centres (K, D)."""

    @abstractmethod
    def sample(self, component: Tensor, noise: bool, generator: torch.Generator) -> Tensor:
        """Draw deviations from the centre, (n, D), of the components (n,).

        Without `noise`, only the part explained by factors is drawn (zero if there are none).
        """

    @abstractmethod
    def chosen(self, index: Tensor) -> Self:
        """Return one covariance (..., 1, …) of each mixture of a batch, by its index (...)."""

    @abstractmethod
    def draw(self, noise: bool, generator: torch.Generator) -> Tensor:
        """Draw one deviation of every covariance, (..., C, D), noise included or not."""

    def reconstruct(self, x: Tensor, resp: Tensor, centres: Tensor) -> Tensor:
        """Return the expected noise-free part of rows x (n, D) with resp (n, K), as (n, D).

        Without factors it is the centre of the component.
        """
        return resp @ centres

    @abstractmethod
    def statistics(self, x: Tensor, resp: Tensor, centres: Tensor) -> Moments:
        """Return the moments of x (n, D) about the centres, weighted by resp (n, K)."""

    @abstractmethod
    def moments_of(self, count: Tensor, first: Tensor, scatter: Tensor) -> Moments:
        """Return moments in the form of the family from dense ones: for small D only.

        Args:
            count: (C,).
            first: first moments about the centres, (C, D).
            scatter: second moments about the centres, (C, D, D).
        """

    @abstractmethod
    def maximise(
        self, moments: Moments | MaskedMoments, floor: Tensor, learn: bool = True
    ) -> tuple[Tensor, Self, Tensor]:
        """Return the solution of the exact M-step.

        Args:
            moments: what `statistics` or a `Completion` summed over the data.
            floor: smallest variance allowed of each feature, (D,).
            learn: whether covariances are learned; otherwise only the centres move.

        Returns:
            the shift of the centres (K, D), the covariances, and which of them met the floor (C,).
        """

    @abstractmethod
    def log_det(self) -> Tensor:
        """Return log |Σ| of every covariance, (..., C), in float64."""

    @abstractmethod
    def precision_diagonal(self) -> Tensor:
        """Return the diagonal of Σ⁻¹ of every covariance, (..., C, D), in float64."""

    @abstractmethod
    def precision_parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return a (..., C, D), A and B (..., C, D, m), in float64, with Σ⁻¹ = diag(a) + A Bᵀ."""

    @abstractmethod
    def with_noise(self, variance: float) -> Self:
        """Return the covariances Σ + variance · I: of rows to which independent noise is added."""

    @abstractmethod
    def cloud(
        self, mass: Tensor, offset: Tensor, variance: Tensor, gaps: bool
    ) -> Moments | MaskedMoments:
        """Return the moments of made-up rows: per component an isotropic cloud near its centre.

        Args:
            mass: how many rows, (K,).
            offset: their mean, measured from the component's centre, (K, D).
            variance: their variances, (D,).
            gaps: whether moments of partly observed rows are wanted.

        Returns:
            moments to add to those of the data.
        """

    @abstractmethod
    def marginal(self, features: Tensor) -> Self:
        """Return the covariances of the features (m,) alone."""

    @abstractmethod
    def condition(
        self, observed: Tensor, hidden: Tensor, x: Tensor, centres: Tensor
    ) -> tuple[Tensor, Tensor, Covariance]:
        """Condition on observed features.

        Args:
            observed: indices of the observed features, (a,).
            hidden: indices of the others, (m,).
            x: observed values, (..., n, a).
            centres: component centres, (..., K, D).

        Returns:
            log-densities of x under each component (..., n, K), conditional centres of the hidden
            features (..., n, K, m), and their conditional covariance, the same for all n rows.
        """

    @classmethod
    @abstractmethod
    def n_parameters(cls, n_features: int, rank: int) -> int:
        """Return the number of free parameters of one covariance."""


def raise_to(raw: Tensor, least: Tensor) -> Tensor:
    """Raise values (C, m) to a least one, in place; return the rows in which one was raised."""
    low = (raw < least).any(-1)
    raw.clamp_min_(least)
    return low


def picked(tensor: Tensor, index: Tensor, n_trailing: int) -> Tensor:
    """Return the entries (..., 1, *trailing) of a tensor (..., C, *trailing) at indices (...)."""
    axis = -1 - n_trailing
    shape = tensor.shape[axis + 1 :]
    if tensor.shape[axis] == 1:
        index = torch.zeros_like(index)
    every = tensor.expand(*index.shape, tensor.shape[axis], *shape)
    where = index.reshape(*index.shape, *[1] * (n_trailing + 1))
    return every.gather(axis, where.expand(*index.shape, 1, *shape))


def softly_between(raw: Tensor, low: float, high: float, inverse: bool) -> Tensor:
    """Map the real line onto (low, high), almost unchanged well inside; or undo it."""
    if not inverse:
        return high - softplus(high - (low + softplus(raw - low)))
    inside = raw.clamp(low + 1e-3, high - 1e-3)  # a bound itself has no finite preimage
    above = high - _softplus_inverse(high - inside)
    return low + _softplus_inverse((above - low).clamp_min(1e-3))


def _softplus_inverse(y: Tensor) -> Tensor:
    return y + (-(-y).expm1()).log()


def families() -> dict[str, type[Covariance]]:
    """Return all registered covariance families by name."""
    return dict(_REGISTRY)


def family(name: str) -> type[Covariance]:
    """Return the covariance family called `name`, or known by that alias.

    Args:
        name: a registered name or alias, in any case.

    Returns:
        the family's class.

    Raises:
        InputError: if no family is called so.
    """
    wanted = name.lower().replace("_", "-")
    for cls in _REGISTRY.values():
        if wanted == cls.name or wanted in cls.aliases:
            return cls
    known = ", ".join(
        f"{cls.name} ({', '.join(cls.aliases)})" if cls.aliases else cls.name
        for cls in _REGISTRY.values()
    )
    raise InputError(f"Unknown covariance family '{name}'; choose one of: {known}.")


def matched(component: Tensor, n_covariances: int) -> Tensor:
    """Return which covariance each component index uses: itself, or the one that is shared."""
    return torch.zeros_like(component) if n_covariances == 1 else component
