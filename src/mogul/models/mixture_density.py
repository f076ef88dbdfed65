"""Mixture density networks: p(y | x) as a mixture whose parameters a network makes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from mogul.compute.columns import column_deviations, column_means
from mogul.compute.memory import room_for
from mogul.distributions import Covariance, Mixture, family
from mogul.errors import InputError
from mogul.models.checks import check_counts, check_rank, check_scale
from mogul.models.gaussian_mixture import GaussianMixture
from mogul.models.hub import HubModel
from mogul.models.networks import BACKBONES

SHARINGS = ("own", "shared")
_LARGEST = 1e4  # variance of a component, in squared standard deviations of the targets
_DIGITS = 1e3  # units of rounding that a deviation must have
_SMALL = 0.1  # of the usual size of the last layer's first weights


class MixtureHead(nn.Module):
    r"""A last layer that makes a `Mixture` of every row of hidden features.

    $(\eta, c, \rho) = A h + b$ are log-weights, centres, and the unconstrained tensors of the
    covariance family, whose noise variances are smoothly kept between `variance_floor` and 10⁴.
    The mixture is moved to the units of the targets by `scale` and `shift`, which are one and zero
    until `set_units` is told better; `start` sets b so that every row gets a given mixture.

    Source: Bishop (1994).

    Args:
        n_inputs: hidden features.
        n_components: number of components K.
        n_features: number of targets D.
        covariance: a registered family or alias.
        rank: number of factors of a low-rank family (default 6, at most D − 1).
        sharing: "own" covariance per component, or one "shared" by all those of a row.
        variance_floor: smallest noise variance, as a fraction of the variance of the targets.

    Raises:
        InputError: for an unknown family or sharing, or numbers out of range.

    Example:
        >>> import torch
        >>> from mogul.models import MixtureHead
        >>> network = torch.nn.Sequential(torch.nn.Linear(3, 20), torch.nn.ReLU(),
        ...                               MixtureHead(20, n_components=5, n_features=2))
        >>> network[-1].set_units(torch.randn(50, 2))  # of the training targets, once
        >>> network(torch.zeros(7, 3)).log_prob(torch.zeros(7, 2)).shape
        torch.Size([7])
    """

    varies: Tensor
    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        n_inputs: int,
        n_components: int,
        n_features: int,
        covariance: str = "full",
        rank: int | None = None,
        sharing: str = "own",
        variance_floor: float = 1e-6,
    ) -> None:
        """Build the layer.

        Raises:
            InputError: as the class says.
        """
        super().__init__()
        self.family: type[Covariance] = family(covariance)
        n_components, n_features = check_counts(n_components, n_features)
        self.rank = check_rank(self.family, rank, n_features)
        if sharing not in SHARINGS:
            raise InputError(f"Unknown sharing '{sharing}'; choose one of: {', '.join(SHARINGS)}.")
        if not 0 < variance_floor < 1:
            raise InputError(
                f"The variance floor is {variance_floor}; it must lie between 0 and 1, such as "
                "1e-6: a fraction of the variance of the targets."
            )
        self.n_components, self.n_features = n_components, n_features
        self.sharing, self.variance_floor = sharing, variance_floor
        shapes = self.family.raw_shapes(self._n_covariances, n_features, self.rank)
        self._parts = {"logits": (n_components,), "centres": (n_components, n_features), **shapes}
        with room_for(f"{n_components:,} components of {n_features:,} targets"):
            self.linear = nn.Linear(n_inputs, sum(map(self._size, self._parts)))
        self.register_buffer("varies", torch.ones(n_features, dtype=torch.bool))
        self.register_buffer("shift", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(n_features))

    @property
    def _n_covariances(self) -> int:
        return self.n_components if self.sharing == "own" else 1

    def _size(self, name: str) -> int:
        """Return how many numbers a part takes."""
        if name in self.family.below_diagonal:
            d = self.n_features
            return self._n_covariances * (d * (d - 1) // 2)
        return math.prod(self._parts[name])

    def _named(self, flat: Tensor) -> dict[str, Tensor]:
        """Cut numbers (..., P) into the named parts."""
        cut = flat.split([self._size(name) for name in self._parts], dim=-1)
        batch = flat.shape[:-1]
        parts: dict[str, Tensor] = {}
        for (name, shape), piece in zip(self._parts.items(), cut, strict=True):
            if name in self.family.below_diagonal:
                d = self.n_features
                i, j = torch.tril_indices(d, d, -1, device=flat.device)
                square = flat.new_zeros(*batch, self._n_covariances, d, d)
                square[..., i, j] = piece.unflatten(-1, (self._n_covariances, -1))
                parts[name] = square
            else:
                parts[name] = piece.reshape(*batch, *shape)
        return parts

    def _flat(self, parts: dict[str, Tensor]) -> Tensor:
        """Join named parts without batch dimensions to numbers (P,)."""
        i, j = torch.tril_indices(self.n_features, self.n_features, -1, device=self.scale.device)
        below = self.family.below_diagonal
        pieces = [parts[n][..., i, j] if n in below else parts[n] for n in self._parts]
        return torch.cat([piece.reshape(-1) for piece in pieces])

    def forward(self, h: Tensor) -> Mixture:
        """Return the mixtures of hidden features (..., n_inputs), with batch shape (...)."""
        parts = self._named(self.linear(h))
        logits, centres = parts.pop("logits"), parts.pop("centres")
        raw = self.family.soft_raw(parts, (self.variance_floor, _LARGEST))
        mixture = Mixture(logits, centres, self.family.from_raw(raw, self.n_features))
        return mixture.rescaled(self.shift, self.scale)

    @torch.no_grad()
    def set_units(self, y: Any) -> None:
        """Take mean and standard deviation of targets (n, D) as units; NaN is left out.

        Where the family has one noise variance for all targets, they share one scale.

        Raises:
            InputError: if a target has no value, or is infinite.
        """
        y = torch.as_tensor(y).double().reshape(-1, self.n_features)
        empty = y.isnan().all(0).nonzero().flatten().tolist()
        if empty or bool(y.isinf().any()):
            what = f"target(s) {empty} have no value" if empty else "a target is infinite"
            raise InputError(f"Of {len(y)} rows, {what}; drop such columns and rows.")
        mean = column_means(y)
        variance = column_deviations(y).square()
        rounding = 8 * torch.finfo(self.scale.dtype).eps * mean.abs()
        _check_digits(variance.sqrt(), mean, self.scale.dtype)
        variance = torch.where(variance.sqrt() > rounding, variance, 0.0)
        for spread in variance[variance > 0].tolist():
            check_scale(spread, self.scale.dtype, spread**0.5)
        if self.family.isotropic_noise:
            variance = variance.mean().expand_as(variance)
        self.shift.copy_(mean)
        self.varies.copy_(variance > 0)
        constant = torch.where(mean == 0, 1.0, mean.abs())  # such a target has no other unit
        self.scale.copy_(torch.where(self.varies, variance.sqrt(), constant))

    @property
    def noise_scale(self) -> Tensor:
        """Standard deviations of the targets, (D,); zero of those that are constant."""
        return self.scale * self.varies

    def standardised(self, y: Tensor) -> Tensor:
        """Return targets in units of the layer."""
        return (y - self.shift) / self.scale

    @torch.no_grad()
    def start(self, mixture: Mixture) -> None:
        """Make the mixture of every row nearly a given one, of standardised targets.

        Weights of the layer become small, so that all of it is in b.

        Raises:
            InputError: if the mixture is of another family or shape.
        """
        covariance = mixture.covariance
        given = (covariance.name, mixture.n_components, mixture.n_features)
        own = (self.family.name, self.n_components, self.n_features)
        if given != own or covariance.n_covariances != self._n_covariances:
            raise InputError(f"A mixture {given} came to start from; give one of {own}.")
        raw = self.family.soft_raw(covariance.to_raw(), (self.variance_floor, _LARGEST), True)
        parts = {"logits": mixture.log_weights, "centres": mixture.means, **raw}
        self.linear.bias.copy_(self._flat(parts))
        self.linear.weight.mul_(_SMALL)


class MixtureDensityNetwork(HubModel, nn.Module):
    r"""p(y | x) as a mixture of Gaussians, $\sum_k \pi_k(x)\,N(y; \mu_k(x), \Sigma_k(x))$.

    Calling it with inputs (n, …) yields a `Mixture` of batch shape (n,) in the units of the
    targets: densities, conditionals, samples and quantiles come from there. Inputs and targets are
    standardised inside by what `set_units` measured; a fit by `Supervised` does so at its start.
    A `GaussianMixture` is the case without inputs.

    Source: Bishop (1994).

    Args:
        backbone: a network from inputs (n, n_inputs) to hidden features (n, width): `MLP`, or any
            other module.
        n_components: number of components K.
        n_features: number of targets D.
        covariance: a registered family or alias.
        rank: number of factors of a low-rank family (default 6, at most D − 1).
        sharing: "own" covariance per component, or one "shared" by all those of a row.
        variance_floor: smallest noise variance, as a fraction of the variance of the targets.
        n_inputs: features of a row of inputs; default: what the backbone's first layer takes.
        width: hidden features; default: what the backbone's last layer makes.
        dtype: floating-point type of parameters and computation.

    Raises:
        InputError: for an unknown family or sharing, numbers out of range, or a backbone that does
            not tell its sizes.

    Example:
        >>> import numpy as np
        >>> from mogul import fit, open_source
        >>> from mogul.algorithms import Supervised
        >>> from mogul.models import MLP, MixtureDensityNetwork
        >>> x, noise = np.random.default_rng(0).normal(size=(2, 200, 1))
        >>> network = MixtureDensityNetwork(MLP(1), n_components=3, n_features=1)
        >>> source = open_source(np.hstack([x, x**2 + noise]))  # inputs, then targets
        >>> fitted = fit(network, source, Supervised(), passes=3)
        >>> network(network.inputs([[0.0]])).icdf(0.5).shape
        torch.Size([1, 1])
    """

    varies: Tensor
    centre: Tensor
    spread: Tensor
    started: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        n_components: int,
        n_features: int,
        covariance: str = "full",
        rank: int | None = None,
        sharing: str = "own",
        variance_floor: float = 1e-6,
        n_inputs: int | None = None,
        width: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Put a head on the backbone.

        Raises:
            InputError: as the class says.
        """
        super().__init__()
        if dtype not in (torch.float32, torch.float64):
            raise InputError(f"The type {dtype} came; choose torch.float32 or torch.float64.")
        self.backbone = backbone
        self.n_inputs = _size_of(backbone, "n_inputs", "in_features", 0, n_inputs)
        width = _size_of(backbone, "n_outputs", "out_features", -1, width)
        self.head = MixtureHead(
            width, n_components, n_features, covariance, rank, sharing, variance_floor
        )
        self.register_buffer("centre", torch.zeros(self.n_inputs))
        self.register_buffer("spread", torch.ones(self.n_inputs))
        self.register_buffer("varies", torch.ones(self.n_inputs, dtype=torch.bool))
        self.register_buffer("started", torch.tensor(False))
        self.to(dtype)

    @property
    def n_components(self) -> int:
        """Number of components K."""
        return self.head.n_components

    @property
    def n_features(self) -> int:
        """Number of targets D."""
        return self.head.n_features

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the parameters."""
        return self.head.scale.dtype

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return self.head.scale.device

    @property
    def noise_scale(self) -> Tensor:
        """Standard deviations of the inputs, (n_inputs,); zero of those that are constant."""
        return self.spread * self.varies

    @property
    def n_parameters(self) -> int:
        """Number of parameters of the network."""
        return sum(p.numel() for p in self.parameters())

    def inputs(self, x: Any) -> Tensor:
        """Return inputs (n, n_inputs), of any numeric kind, in the type of the network.

        Raises:
            InputError: if they have another width, or a value is not finite.
        """
        x = torch.as_tensor(x).to(self.device, self.dtype)
        if x.dim() == 0 or x.shape[-1] != self.n_inputs:
            raise InputError(
                f"Inputs of {self.n_inputs} features are expected in the last dimension; got "
                f"shape {tuple(x.shape)}."
            )
        bad = ~x.isfinite().reshape(-1, self.n_inputs)
        if bool(bad.any()):
            row, column = bad.nonzero()[0].tolist()
            raise InputError(
                f"Input {column} of row {row} is NaN or infinite, and {int(bad.any(-1).sum())} "
                "row(s) in all have such inputs, which a network cannot read; fill them or leave "
                "the rows out. Missing targets may stay NaN."
            )
        return x

    def forward(self, x: Tensor) -> Mixture:
        """Return p(y | x) of inputs (..., n_inputs), with batch shape (...).

        Raises:
            InputError: if the inputs have another width, or a value is not finite.
        """
        # What never varied in training says nothing, whatever it is later.
        x = (self.inputs(x) - self.centre) / self.spread * self.varies
        return self.head(self.backbone(x))

    def split(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return inputs (n, n_inputs) and targets (n, D) of joint rows.

        Raises:
            InputError: if the rows have another width.
        """
        if rows.shape[-1] != self.n_inputs + self.n_features:
            raise InputError(
                f"Rows of {rows.shape[-1]} columns came; {self.n_inputs} inputs and then "
                f"{self.n_features} target(s) are expected."
            )
        return rows[..., : self.n_inputs], rows[..., self.n_inputs :]

    @torch.no_grad()
    def set_units(self, rows: Tensor) -> None:
        """Take means and standard deviations of joint rows (n, n_inputs + D) as units.

        Raises:
            InputError: if rows have another width, an input is not finite, or a target has no
                value.
        """
        x, y = self.split(rows)
        self.inputs(x)
        x = x.double()
        deviation, mean = column_deviations(x), column_means(x)
        _check_digits(deviation, mean, self.dtype)
        rounding = 8 * torch.finfo(self.dtype).eps * mean.abs()
        self.centre.copy_(mean)
        self.varies.copy_(deviation > rounding)
        self.spread.copy_(torch.where(self.varies, deviation, 1.0))
        self.head.set_units(y)

    def without_inputs(self) -> GaussianMixture:
        """Return an untrained mixture of the targets alone, of the same family and sharing."""
        head = self.head
        return GaussianMixture(
            head.n_components, head.n_features, head.family.name, head.rank or None, head.sharing,
            head.variance_floor, dtype=self.dtype, device=self.device,
        )  # fmt: skip

    @torch.no_grad()
    def start(self, mixture: Mixture) -> None:
        """Make p(y | x) nearly a given mixture of standardised targets, whatever x."""
        self.head.start(mixture)
        self.started.fill_(True)

    def config(self) -> dict[str, Any]:
        """Return what rebuilds this network, as JSON types.

        Raises:
            InputError: if the backbone is not one of this library.
        """
        names = {cls: name for name, cls in BACKBONES.items()}
        if type(self.backbone) not in names:
            raise InputError(
                f"A network on a {type(self.backbone).__name__} cannot be written as a model file; "
                "keep its state_dict() by torch.save, beside the code that builds it."
            )
        head = self.head
        return {
            "backbone": names[type(self.backbone)],
            "backbone_arguments": self.backbone.config(),  # pyright: ignore[reportCallIssue]
            "n_components": head.n_components, "n_features": head.n_features,
            "covariance": head.family.name, "rank": head.rank or None, "sharing": head.sharing,
            "variance_floor": head.variance_floor,
            "dtype": str(self.dtype).removeprefix("torch."),
        }  # fmt: skip

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> MixtureDensityNetwork:
        """Return an untrained network as `config` tells."""
        arguments = dict(config)
        backbone = BACKBONES[arguments.pop("backbone")](**arguments.pop("backbone_arguments"))
        dtype = getattr(torch, arguments.pop("dtype"))
        return cls(backbone, **arguments, dtype=dtype)


def _check_digits(deviation: Tensor, mean: Tensor, dtype: torch.dtype) -> None:
    """Refuse columns whose values a floating-point type cannot tell apart.

    Raises:
        InputError: naming the first.
    """
    eps = torch.finfo(dtype).eps
    lost = (deviation < _DIGITS * eps * mean.abs()) & (deviation > 1e-15 * mean.abs())
    if bool(lost.any()):
        j = int(lost.nonzero()[0])
        raise InputError(
            f"Column {j} has values of {float(mean[j]):.6g} ± {float(deviation[j]):.3g}, which "
            f"{dtype} cannot tell apart; use float64, or take its mean off."
        )


def _size_of(backbone: nn.Module, name: str, attribute: str, which: int, given: int | None) -> int:
    """Return a size of a backbone: as given, as it tells, or that of its first or last layer.

    Raises:
        InputError: if there is nothing to tell it.
    """
    if given is None:
        given = getattr(backbone, name, None)
    if given is None:
        sizes = [getattr(m, attribute) for m in backbone.modules() if hasattr(m, attribute)]
        given = sizes[which] if sizes else None
    if not isinstance(given, int) or given < 1:
        argument = "n_inputs" if name == "n_inputs" else "width"
        raise InputError(
            f"The {type(backbone).__name__} does not tell its {argument} (got {given!r}); give "
            f"{argument}= a whole number of at least 1."
        )
    return given
