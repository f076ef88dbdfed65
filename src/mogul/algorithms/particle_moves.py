"""How particles move, and how parameters do: the parts that particle algorithms are made of.

Every move keeps what it must remember in a dictionary of tensors, so that a fit can be written to
a file and go on from there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from mogul.errors import InputError

State = dict[str, Tensor]
_MOST_PARAMETERS = 1000  # up to which a matrix of second derivatives is formed


class LatentMove(Protocol):
    """One step of the particles of some rows."""

    def start(self, z: Tensor) -> State:
        """Return what the move remembers of particles (M, N, d) of all rows, before the first."""
        ...

    def __call__(
        self, z: Tensor, gradient: Callable[[Tensor], Tensor], memory: State, draw: torch.Generator
    ) -> Tensor:
        """Return new particles (n, N, d), given z and the gradient of log p(x, z) as a function.

        `memory` holds this move's tensors for the same particles, to be replaced.
        """
        ...


def _check(**numbers: float | None) -> None:
    """Refuse numbers that are not positive; None passes.

    Raises:
        InputError: naming the first that is not.
    """
    for name, value in numbers.items():
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"{name} is {value}; it must be positive.")


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.empty_like(like).normal_(generator=generator)


@dataclass(frozen=True)
class Langevin:
    """z ← z + h ∇ log p(x, z) + √(2h) ξ, the unadjusted Langevin algorithm."""

    step_size: float

    def __post_init__(self) -> None:
        """Check the step."""
        _check(step_size=self.step_size)

    def start(self, z: Tensor) -> State:
        """Remember nothing."""
        return {}

    def __call__(
        self, z: Tensor, gradient: Callable[[Tensor], Tensor], memory: State, draw: torch.Generator
    ) -> Tensor:
        """Make one step."""
        h = self.step_size
        return z + h * gradient(z) + math.sqrt(2 * h) * _noise(z, draw)


@dataclass(frozen=True)
class Underdamped:
    """Particles with momentum (Lim et al. 2024): v ← a v + h ∇ + √(1 − a²) ξ, z ← z + h v.

    a = exp(−friction·h); without a gradient, velocities are standard normal.
    """

    step_size: float
    friction: float

    def __post_init__(self) -> None:
        """Check the numbers."""
        _check(step_size=self.step_size, friction=self.friction)

    def start(self, z: Tensor) -> State:
        """Begin at rest."""
        return {"velocity": torch.zeros_like(z)}

    def __call__(
        self, z: Tensor, gradient: Callable[[Tensor], Tensor], memory: State, draw: torch.Generator
    ) -> Tensor:
        """Make one step."""
        h, keep = self.step_size, math.exp(-self.friction * self.step_size)
        noise = math.sqrt(1 - keep**2) * _noise(z, draw)
        memory["velocity"] = keep * memory["velocity"] + h * gradient(z) + noise
        return z + h * memory["velocity"]


@dataclass(frozen=True)
class SteinCoin:
    """Kernelised ascent with steps by coin betting (Sharrock & Nemeth 2023): nothing to tune.

    Particles of one row attract by the gradient and repel by a Gaussian kernel whose width is the
    median distance between them (Liu & Wang 2016). Particles at one point stay together, for there
    is no noise.
    """

    def start(self, z: Tensor) -> State:
        """Hold no bets yet."""
        return _no_bets(z)

    def __call__(
        self, z: Tensor, gradient: Callable[[Tensor], Tensor], memory: State, draw: torch.Generator
    ) -> Tensor:
        """Bet once."""
        return _bet(z, _stein(z, gradient(z)), memory)


def _stein(z: Tensor, gradient: Tensor) -> Tensor:
    """Return the kernelised direction of particles (n, N, d), averaged over those of a row."""
    number = z.shape[1]
    apart = z.unsqueeze(2) - z.unsqueeze(1)  # (n, N, N, d)
    square = apart.square().sum(-1)
    if number > 1:
        i, j = torch.triu_indices(number, number, 1, device=z.device)
        width = square[:, i, j].median(-1).values.clamp_min(1e-12) / math.log(number + 1)
    else:
        width = torch.ones_like(square[:, 0, 0])
    kernel = torch.exp(-square / width[:, None, None])
    repulsion = 2 / width[:, None, None] * (kernel.unsqueeze(-1) * apart).sum(2)
    return (kernel @ gradient + repulsion) / number


def _no_bets(value: Tensor) -> State:
    zero = {name: torch.zeros_like(value) for name in ("largest", "total", "sum", "reward")}
    return zero | {"first": value.detach().clone()}


def _bet(value: Tensor, gradient: Tensor, memory: State) -> Tensor:
    """Return where coin betting puts a value, coordinate by coordinate (Orabona & Tommasi 2017)."""
    largest = memory["largest"] = torch.maximum(memory["largest"], gradient.abs())
    total = memory["total"] = memory["total"] + gradient.abs()
    moved = value - memory["first"]
    reward = memory["reward"] = (memory["reward"] + moved * gradient).clamp_min(0.0)
    summed = memory["sum"] = memory["sum"] + gradient
    largest = largest.clamp_min(torch.finfo(value.dtype).tiny)
    # As in the source, bets start at a hundredth of the largest gradient.
    bet = (largest + reward) / torch.maximum(total + largest, 100 * largest)
    return memory["first"] + summed / largest * bet


class ParameterMove(Protocol):
    """One step of the parameters."""

    def __call__(
        self, parameters: list[Tensor], gradients: list[Tensor], n_rows: int, memory: State
    ) -> None:
        """Move parameters in place, given gradients of the mean log p(x, z) over rows."""
        ...


@dataclass(frozen=True)
class Ascent:
    """θ ← θ + h λ M Λ g, with g the mean gradient over rows and particles and M the rows.

    Λ is one, or with a `smoothing` α RMSprop's scaling: 1/(√v + 10⁻⁸), v ← α v + (1 − α) g²
    (Tieleman & Hinton 2012).
    """

    step_size: float
    rate: float = 1.0
    smoothing: float | None = None

    def __post_init__(self) -> None:
        """Check the numbers."""
        _check(step_size=self.step_size, rate=self.rate, smoothing=self.smoothing)

    def __call__(
        self, parameters: list[Tensor], gradients: list[Tensor], n_rows: int, memory: State
    ) -> None:
        """Make one step."""
        length = self.step_size * self.rate * n_rows
        for number, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
            if self.smoothing is None:
                parameter.add_(gradient, alpha=length)
                continue
            square = memory.setdefault(f"square {number}", torch.zeros_like(parameter))
            square.mul_(self.smoothing).addcmul_(gradient, gradient, value=1 - self.smoothing)
            parameter.addcdiv_(gradient, square.sqrt().add_(1e-8), value=length)


@dataclass(frozen=True)
class HeavyBall:
    """m ← exp(−friction·h) m + h λ M Λ g, θ ← θ + h m (Lim et al. 2024), Λ as for `Ascent`."""

    step_size: float
    friction: float
    rate: float = 1.0
    smoothing: float | None = None

    def __call__(
        self, parameters: list[Tensor], gradients: list[Tensor], n_rows: int, memory: State
    ) -> None:
        """Make one step."""
        keep = math.exp(-self.friction * self.step_size)
        pushes = [torch.zeros_like(p) for p in parameters]
        Ascent(self.step_size, self.rate, self.smoothing)(pushes, gradients, n_rows, memory)
        for number, (parameter, push) in enumerate(zip(parameters, pushes, strict=True)):
            name = f"momentum {number}"
            memory[name] = keep * memory.get(name, torch.zeros_like(parameter)) + push
            parameter.add_(memory[name], alpha=self.step_size)


@dataclass(frozen=True)
class Coin:
    """Coin betting, coordinate by coordinate (Orabona & Tommasi 2017): nothing to tune."""

    def __call__(
        self, parameters: list[Tensor], gradients: list[Tensor], n_rows: int, memory: State
    ) -> None:
        """Bet once."""
        for number, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
            prefix = f"{number} "
            own = {k.removeprefix(prefix): v for k, v in memory.items() if k.startswith(prefix)}
            own = own or _no_bets(parameter)
            parameter.copy_(_bet(parameter.detach(), gradient, own))
            memory.update({prefix + k: v for k, v in own.items()})


def newton_direction(loss: Callable[..., Tensor], parameters: list[Tensor]) -> list[Tensor]:
    """Return −H⁻¹ ∇ of a loss at the parameters, for few of these.

    Args:
        loss: what to lower, a function of as many tensors.
        parameters: where.

    Raises:
        InputError: if they are many, or the loss is not convex there.
    """
    sizes = [p.numel() for p in parameters]
    if sum(sizes) > _MOST_PARAMETERS:
        raise InputError(
            f"The quasi-Newton algorithm (pqn) forms a matrix of second derivatives, and there are "
            f"{sum(sizes):,} parameters; it takes at most {_MOST_PARAMETERS:,}: use pga."
        )
    flat = torch.cat([p.detach().reshape(-1) for p in parameters]).requires_grad_()

    def of(flat: Tensor) -> Tensor:
        parts = flat.split(sizes)
        return loss(*(part.view_as(p) for part, p in zip(parts, parameters, strict=True)))

    hessian: Any = torch.autograd.functional.hessian(of, flat)
    (gradient,) = torch.autograd.grad(of(flat), flat)
    factor, info = torch.linalg.cholesky_ex(hessian)
    if int(info):
        raise InputError(
            "The log-density is not concave in the parameters here, so the quasi-Newton algorithm "
            "(pqn) has no direction; use pga, or start nearer the maximum."
        )
    step = -torch.cholesky_solve(gradient.unsqueeze(-1), factor).squeeze(-1)
    return [part.view_as(p) for part, p in zip(step.split(sizes), parameters, strict=True)]
