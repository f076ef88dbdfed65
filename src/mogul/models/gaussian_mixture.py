"""GaussianMixture: the module that owns a mixture's parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mogul.compute.backend import make_generator
from mogul.compute.columns import column_means
from mogul.compute.memory import room_for
from mogul.distributions import (
    Change,
    CompletingKernel,
    Covariance,
    Kernel,
    LocalKernel,
    MaskedMoments,
    Mixture,
    Moments,
    Prior,
    complete_data,
    factor_change,
    family,
    own_statistics,
)
from mogul.errors import InputError
from mogul.models.checks import check_counts, check_rank, check_scale
from mogul.models.hub import HubModel

SHARINGS = ("own", "shared", "constant")
PARTS = ("weights", "means", "covariances")


class GaussianMixture(HubModel, nn.Module):
    """A trainable mixture of Gaussians; calling it yields the `Mixture` its parameters stand for.

    Args:
        n_components: number of components K.
        n_features: number of features D.
        covariance: a registered family or alias: full, diagonal, isotropic, ppca, factor-analysis.
        rank: number of factors H of a low-rank family (default 6, at most D − 1).
        sharing: "own" covariance per component, one "shared" by all, or one that stays "constant"
            after initialisation while weights and means are learned.
        variance_floor: smallest variance, as a fraction of that of the feature in the data; of the
            median feature where all share one noise variance.
        prior: a prior on the parameters, for maximum a posteriori fits; without one, maximum
            likelihood.
        dtype: floating-point type of parameters and computation.
        device: where the parameters live.

    Raises:
        InputError: for an unknown family or sharing, or numbers out of range.

    Example:
        >>> from mogul import EM, GaussianMixture, fit, initialise, open_source
        >>> source = open_source("digits")
        >>> model = GaussianMixture(10, source.n_features, covariance="ppca", rank=4)
        >>> initialise(model, source)
        >>> fitted = fit(model, source, EM(), passes=5)
    """

    learns_online: ClassVar[bool] = True  # from complete-data statistics, by `follow`

    origin: Tensor
    feature_variance: Tensor
    frozen: Tensor

    def __init__(
        self,
        n_components: int,
        n_features: int,
        covariance: str = "full",
        rank: int | None = None,
        sharing: str = "own",
        variance_floor: float = 1e-6,
        prior: Prior | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        """Allocate parameters: a standard normal, until `start`, `load` or a fit sets them.

        Raises:
            InputError: as the class says.
        """
        super().__init__()
        self.family: type[Covariance] = family(covariance)
        n_components, n_features = check_counts(n_components, n_features)
        if sharing not in SHARINGS:
            raise InputError(f"Unknown sharing '{sharing}'; choose one of: {', '.join(SHARINGS)}.")
        self.sharing = sharing
        self.rank = check_rank(self.family, rank, n_features)
        if dtype not in (torch.float32, torch.float64):
            raise InputError(f"The type {dtype} came; choose torch.float32 or torch.float64.")
        if not 0 < variance_floor < 1:
            raise InputError(
                f"The variance floor is {variance_floor}; it must lie between 0 and 1, such as "
                "1e-6: a fraction of the variances of the data."
            )
        self.variance_floor = variance_floor
        self.prior = prior
        kind: dict[str, Any] = {"dtype": dtype, "device": device}
        n_covariances = n_components if sharing == "own" else 1
        shapes = self.family.raw_shapes(n_covariances, n_features, self.rank)
        with room_for(
            f"{n_components:,} components of {n_features:,} features, {self.family.name} "
            f"({sharing})"
        ):
            self.logits = nn.Parameter(torch.zeros(n_components, **kind))
            self.centres = nn.Parameter(torch.zeros(n_components, n_features, **kind))
            self.raw = nn.ParameterDict({
                name: nn.Parameter(torch.zeros(shape, **kind), requires_grad=sharing != "constant")
                for name, shape in shapes.items()
            })
        self.register_buffer("origin", torch.zeros(n_features, **kind))
        self.register_buffer("feature_variance", torch.ones(n_features, **kind))
        shape = (len(PARTS), n_components)
        self.register_buffer("frozen", torch.zeros(shape, dtype=torch.bool, device=device))

    @property
    def n_components(self) -> int:
        """Number of components K."""
        return self.centres.shape[0]

    @property
    def n_features(self) -> int:
        """Number of features D."""
        return self.centres.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the parameters."""
        return self.centres.dtype

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return self.centres.device

    @property
    def floor(self) -> Tensor:
        """Smallest variance allowed of each feature, (D,), in squared units of the data."""
        return self.variance_floor * self.feature_variance

    @property
    def data_scale(self) -> float:
        """Root mean variance of the features: the unit in which the data are spread."""
        return float(self.feature_variance.mean().sqrt())

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return what gradients move: "weights", "locations" in data units, "shapes" without."""
        moving = {name: p for name, p in self.raw.items() if p.requires_grad}
        located = [p for name, p in moving.items() if name in self.family.in_data_units]
        shapes = [p for name, p in moving.items() if name not in self.family.in_data_units]
        return {
            "weights": [p for p in [self.logits] if p.requires_grad],
            "locations": [p for p in [self.centres] if p.requires_grad] + located,
            "shapes": shapes,
        }

    def freeze(self, components: Sequence[int] | None = None, parts: Sequence[str] = PARTS) -> None:
        """Keep parts of components as they are, in EM and in gradient fits alike.

        Args:
            components: which ones; None for all.
            parts: "weights", "means" and "covariances", or some of them; a covariance that is
                shared stays if it is frozen for any component.

        Raises:
            InputError: for an unknown part, or a component that does not exist.
        """
        chosen = list(range(self.n_components)) if components is None else list(components)
        if any(not 0 <= k < self.n_components for k in chosen) or set(parts) - set(PARTS):
            raise InputError(
                f"Components {chosen} and parts {tuple(parts)} came; choose components from 0 to "
                f"{self.n_components - 1}, and parts from {', '.join(PARTS)}."
            )
        for part in parts:
            self.frozen[PARTS.index(part), chosen] = True

    def _frozen_covariances(self) -> Tensor:
        """Mark the covariances (C,) that stay."""
        marked = self.frozen[2]
        return marked if self.sharing == "own" else marked.any().reshape(1)

    def hold_frozen(self) -> None:
        """Zero the gradients of what is frozen."""
        still = self._frozen_covariances()
        pairs = [(self.logits, self.frozen[0]), (self.centres, self.frozen[1])]
        for parameter, mask in [*pairs, *[(raw, still) for raw in self.raw.values()]]:
            if parameter.grad is not None:
                parameter.grad[mask] = 0.0

    @torch.no_grad()
    def clamp(self) -> list[str]:
        """Put variances that fell below the floor back on it; tell of it."""
        low = self.family.clamp_raw(dict(self.raw.items()), self.floor)
        return self._told_of_floor(low)

    @property
    def n_parameters(self) -> int:
        """Number of free parameters, as information criteria count them."""
        k, d = self.n_components, self.n_features
        ranks = [] if self.sharing == "constant" else self.ranks
        return k - 1 + k * d + sum(self.family.n_parameters(d, rank) for rank in ranks)

    @property
    def ranks(self) -> list[int]:
        """Number of factors of every covariance: loadings of zero do not count, and EM keeps them.

        So components of one model may have unlike numbers of factors.
        """
        if not self.family.low_rank:
            return [0] * (self.n_components if self.sharing == "own" else 1)
        return (self.raw["loadings"].detach() != 0).any(-2).sum(-1).tolist()

    def extra_repr(self) -> str:
        """Say what the module is made of, for `print`."""
        prior = "" if self.prior is None else f", prior={self.prior}"
        rank = f", rank={self.rank}" if self.family.low_rank else ""
        return (
            f"{self.n_components}, {self.n_features}, covariance={self.family.name!r}{rank}, "
            f"sharing={self.sharing!r}, variance_floor={self.variance_floor:g}{prior}, "
            f"dtype={self.dtype}, device={str(self.device)!r}, n_parameters={self.n_parameters}"
        )

    def forward(self) -> Mixture:
        """Return the mixture the current parameters stand for; gradients flow through it."""
        covariance = self.family.from_raw(dict(self.raw.items()), self.n_features)
        return Mixture(self.logits, self.centres, covariance, self.origin)

    @torch.no_grad()
    def load(self, mixture: Mixture) -> None:
        """Take over the parameters of a mixture of the same family and shape.

        Raises:
            InputError: if the mixture is of another family or shape.
        """
        raw = mixture.covariance.to_raw()
        same = (
            type(mixture.covariance) is self.family and mixture.centres.shape == self.centres.shape
        )
        if not same or any(raw[name].shape != own.shape for name, own in self.raw.items()):
            raise InputError(
                f"{mixture!r} does not fit a model of {self.n_components} components, "
                f"{self.n_features} features, {self.family.name} ({self.sharing}); "
                "build the model with the mixture's family, rank and sharing."
            )
        self.logits.copy_(mixture.log_weights)
        self.centres.copy_(mixture.centres)
        self.origin.copy_(mixture.origin)
        self.feature_variance.copy_(mixture.variance)
        for name, tensor in raw.items():
            self.raw[name].copy_(tensor)

    @property
    def started(self) -> bool:
        """Whether components differ in anything but weight, or there is only one."""
        tensors = [self.centres, *(raw for raw in self.raw.values() if len(raw) > 1)]
        return self.n_components == 1 or any(bool((t != t[:1]).any()) for t in tensors)

    @torch.no_grad()
    def check_started(self) -> None:
        """Refuse a model whose components are all the same, as when it is new.

        Raises:
            InputError: if they are; neither EM nor gradients could ever tell them apart.
        """
        if not self.started:
            raise InputError(
                f"All {self.n_components} components are the same, so that no fit can tell them "
                "apart; call initialise(model, source) before fit."
            )

    @torch.no_grad()
    def expectation(self, gaps: bool) -> Kernel | CompletingKernel:
        """Return an E-step at the current parameters.

        With `gaps`, NaN marks what is missing, and the moments are of the kind that partly observed
        rows need, whether or not rows have gaps; log p is that of what is observed.
        """
        mixture = self()
        return CompletingKernel(mixture) if gaps else mixture.kernel()

    @torch.no_grad()
    def local_expectation(self) -> LocalKernel:
        """Return an E-step that looks at chosen components of each row alone."""
        mixture = self()
        return LocalKernel(mixture.covariance, mixture.centres, mixture.log_weights, self.origin)

    @torch.no_grad()
    def maximise(self, moments: Moments | MaskedMoments) -> list[str]:
        """Set weights, means and covariances to their exact maximisers; tell of floors met."""
        return self._maximise(*self._constrained(moments))

    @torch.no_grad()
    def follow(self, moments: Moments | MaskedMoments, mass: float) -> tuple[list[str], Change]:
        """Make the M-step from complete-data statistics of any scale, and tell what it moved.

        Args:
            moments: see `complete`.
            mass: how many rows, or what weight of rows, they stand for beside a prior.

        Returns:
            what to tell, and the change by which to restate the statistics for the next step.
        """
        if self.prior is not None:
            moments = moments.scale(mass / float(moments.count.sum()))
        moments, counts = self._constrained(moments)
        kept = self._frozen_covariances() | (self.sharing == "constant")
        before, factors = self.centres.double().clone(), factor_change(moments, kept)
        told = self._maximise(moments, counts)
        return told, Change(self.centres.double() - before, *factors)

    @torch.no_grad()
    def complete(self, moments: Moments | MaskedMoments) -> Moments | MaskedMoments:
        """Return the moments of an E-step at these parameters as complete-data statistics."""
        return complete_data(self().covariance, moments)

    @torch.no_grad()
    def own_statistics(self, components: Tensor | None = None) -> Moments | MaskedMoments:
        """Return the complete-data statistics of one row that the model expects, about its centres.

        With components (m,), those of rows of these alone.
        """
        mixture = self()
        weights = mixture.weights
        if components is not None:
            weights = torch.zeros_like(weights).index_copy(0, components, weights[components])
        return own_statistics(mixture.covariance, weights, mixture.centres)

    def _constrained(
        self, moments: Moments | MaskedMoments
    ) -> tuple[Moments | MaskedMoments, Tensor]:
        """Return moments and counts (K,) with those of the prior, and frozen centres pinned."""
        counts = moments.count
        if self.prior is not None:
            own = self.prior.observations(
                self(), self.feature_variance, moments, self.sharing == "shared"
            )
            moments = moments + own
            counts = counts + (self.prior.concentration - 1)
        return moments.pin(self.frozen[1]), counts

    def _maximise(self, moments: Moments | MaskedMoments, counts: Tensor) -> list[str]:
        mixture, told = self(), []
        learn = self.sharing != "constant"
        shift, covariance, met = mixture.covariance.maximise(moments, self.floor, learn)
        if learn:
            still = self._frozen_covariances()
            frozen = bool(still.any())
            if frozen:
                # Their centres move as with constant covariances.
                fixed = mixture.covariance.maximise(moments, self.floor, learn=False)[0]
                shift = torch.where(still.unsqueeze(-1), fixed, shift)
            for name, tensor in covariance.to_raw().items():
                if frozen:
                    tensor = torch.where(still.view(-1, *[1] * (tensor.dim() - 1)),
                                         self.raw[name], tensor)  # fmt: skip
                self.raw[name].copy_(tensor)
            told = self._told_of_floor(met & ~still)
        self.centres.add_(shift.to(self.dtype))
        self._set_weights(counts)
        return told

    def _set_weights(self, counts: Tensor) -> None:
        """Set weights in proportion to counts (K,), sharing what frozen ones leave."""
        free, weights = ~self.frozen[0], self.logits.double().softmax(-1)
        left = weights[free].sum() if bool(self.frozen[0].any()) else 1.0
        weights[free] = left * counts[free] / counts[free].sum().clamp_min(1e-300)
        self.logits.copy_(weights.clamp_min(1e-30).log())

    def log_prior(self) -> Tensor:
        """Return the log-density of the prior at the parameters, in nats, up to a constant."""
        if self.prior is None:
            return torch.zeros((), dtype=torch.float64, device=self.device)
        return self.prior.log_density(self(), self.feature_variance)

    def _told_of_floor(self, met: Tensor) -> list[str]:
        if not bool(met.any()):
            return []
        return [
            f"variance floor of {self.variance_floor:.3g} times the data's met in {int(met.sum())} "
            "covariance(s), which hold too few or too equal rows: raise variance_floor or use "
            "fewer components"
        ]

    def dead(self, moments: Moments | MaskedMoments, row_weight: float) -> Tensor:
        """Return the components that hold less than half a row of the mean weight `row_weight`."""
        few = moments.count < 0.5 * min(row_weight, 1.0)
        return (few & ~self.frozen.any(0)).nonzero().squeeze(-1)

    @torch.no_grad()
    def reseed(self, components: Tensor, points: Tensor) -> None:
        """Restart components at points (m, D), with the covariance of the heaviest component.

        Missing values of a point are taken at the origin of the data.
        They get a tenth of an equal share of the weight, so that they disturb the others little.
        """
        heaviest = int(self.logits.argmax())
        self.centres[components] = (points - self.origin).nan_to_num(0.0)
        self.logits.copy_(self.logits.log_softmax(-1))
        self.logits[components] = -torch.tensor(10.0 * self.n_components).log().to(self.dtype)
        if self.sharing == "own":
            for parameter in self.raw.values():
                parameter[components] = parameter[heaviest].clone()

    @torch.no_grad()
    def start(self, x: Tensor, labels: Tensor, seed: int, floor: float | None = None) -> None:
        """Set everything from hard assignments: cluster means, sizes, and covariances.

        Args:
            x: rows (n, D).
            labels: component of each row, (n,).
            seed: seed of the randomised principal components.
            floor: smallest variance of a feature to start from, in squared units of the data;
                default that of the model, a fraction of the variance of the rows.

        Raises:
            InputError: if all rows are equal, so that no scale can be learned, or the scale is
                beyond what the floating-point type can square.
        """
        x, labels = x.to(self.centres), labels.to(self.device)
        self.origin.copy_(column_means(x))
        # In the order of the clusters, each of which fits the cache better than all.
        x = x[labels.argsort(stable=True)].sub_(self.origin)
        size = float(x.abs().max())
        sizes = torch.bincount(labels, minlength=self.n_components)
        groups = x.split(sizes.tolist())
        within, between = x.new_zeros(2, self.n_features, dtype=torch.float64)
        generator = make_generator(seed, x.device)
        centres = x[torch.randint(len(x), sizes.shape, generator=generator, device=x.device)]
        for k, group in enumerate(groups):
            if len(group):
                centres[k] = group.mean(0)
                group -= centres[k]
                within += group.square().sum(0)
                between += len(group) * centres[k].double().square()
        variance = (within + between) / len(x)
        # What rounding makes of a constant column is not a variance.
        step = torch.finfo(self.dtype).eps * self.origin.double().abs()
        equal = variance.sqrt() <= 2 * step  # all columns of a few steps are still data
        check_scale(float(variance.masked_fill(equal, 0.0).mean()), self.dtype, size)
        rounding = 8 * step
        constant = (variance <= rounding.square()) & (variance > rounding.square()).any()
        variance = torch.where(constant, variance[~constant].mean(), variance)
        self.feature_variance.copy_(variance)
        self.centres.copy_(centres)
        self.logits.copy_((sizes.to(x).clamp_min(0.5) / len(x)).log())
        least = self.floor if floor is None else torch.full_like(self.floor, floor)
        prior = torch.maximum((within / len(x)).to(self.dtype), least)
        groups = [g if len(g) else x for g in groups] if self.sharing == "own" else [x]
        members = [self.family.from_cluster(g, self.rank, least, prior, seed) for g in groups]
        for name, tensor in self.family.stack(members).to_raw().items():
            self.raw[name].copy_(tensor)

    def config(self) -> dict[str, Any]:
        """Return the constructor arguments that rebuild this model, as JSON types."""
        return {
            "n_components": self.n_components,
            "n_features": self.n_features,
            "covariance": self.family.name,
            "rank": self.rank or None,
            "sharing": self.sharing,
            "variance_floor": self.variance_floor,
            "prior": None if self.prior is None else dataclasses.asdict(self.prior),
            "dtype": str(self.dtype).removeprefix("torch."),
        }
