"""How a step of the parameters is worked out: by gradient, by Newton's method, or exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mogul.algorithms.particle_moves import ParameterMove, State, newton_direction
from mogul.errors import InputError
from mogul.protocols import HasLogJoint

_UNLIKE_IN_TRAINING = (
    torch.nn.modules.batchnorm._NormBase,
    torch.nn.modules.dropout._DropoutNd,
)


@dataclass(frozen=True)
class Plan:
    """A step worked out but not made: mean log p(x, z), and what makes the step.

    `latent_gradient` (n, N, d) is that of log p(x, z), where the same pass gave it too;
    `gradients` are those that the step will follow, for processes to make one before it is made.
    """

    log_joint: float
    apply: Callable[[], None]
    latent_gradient: Tensor | None = None
    gradients: Sequence[Tensor] = ()


class ParameterUpdate(Protocol):
    """Works out a step of a model's parameters."""

    def __call__(
        self, model: HasLogJoint, x: Tensor, z: Tensor, n_rows: int, memory: State
    ) -> Plan:
        """Return the step for rows x (n, D), of n_rows in all, and their latents z (N, n, d)."""
        ...


@dataclass(frozen=True)
class ByGradient:
    """Along the gradient of the mean of log p(x, z), with batch statistics where there are any.

    A decoder that is the same in training and in use (no batch normalisation, no dropout) takes one
    pass for both gradients.
    """

    move: ParameterMove

    def __call__(
        self, model: HasLogJoint, x: Tensor, z: Tensor, n_rows: int, memory: State
    ) -> Plan:
        """Differentiate once."""
        parameters: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
        together = not any(isinstance(m, _UNLIKE_IN_TRAINING) for m in model.modules())
        latents = z.detach().requires_grad_(together)
        model.train()
        with torch.enable_grad():
            log_joint = model.log_joint(x, latents).mean()
            wanted = [*parameters, latents] if together else parameters
            gradients = list(torch.autograd.grad(log_joint, wanted))
        model.eval()
        of_latents = gradients.pop() * log_joint.new_tensor(z[..., 0].numel()) if together else None

        def apply() -> None:
            with torch.no_grad():
                self.move(parameters, gradients, n_rows, memory)

        known = None if of_latents is None else of_latents.transpose(0, 1)
        return Plan(float(log_joint.detach()), apply, known, gradients)


@dataclass(frozen=True)
class ByNewton:
    """θ ← θ − h H⁻¹ ∇, with derivatives of the mean of −log p(x, z) (PQN)."""

    step_size: float

    def __call__(
        self, model: HasLogJoint, x: Tensor, z: Tensor, n_rows: int, memory: State
    ) -> Plan:
        """Form and solve with the matrix of second derivatives."""
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}

        def loss(*values: Tensor) -> Tensor:
            replaced = dict(zip(named, values, strict=True))
            found = torch.func.functional_call(
                _LogJoint(model), {f"model.{k}": v for k, v in replaced.items()}, (x, z)
            )
            return -found.mean()

        with torch.enable_grad():
            direction = newton_direction(loss, list(named.values()))
            value = float(-loss(*named.values()).detach())

        def apply() -> None:
            with torch.no_grad():
                for parameter, step in zip(named.values(), direction, strict=True):
                    parameter.add_(step, alpha=self.step_size)

        return Plan(value, apply)


class _LogJoint(torch.nn.Module):
    """log p(x, z) as a module's call, which is what can be called with other parameters."""

    def __init__(self, model: HasLogJoint) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return self.model.log_joint(x, z)


@dataclass(frozen=True)
class ByMaximiser:
    """θ ← argmax of the mean of log p(x, z), in closed form (PMGA); particles move at the new θ."""

    def __call__(
        self, model: HasLogJoint, x: Tensor, z: Tensor, n_rows: int, memory: State
    ) -> Plan:
        """Maximise at once; there is nothing left to apply.

        Raises:
            InputError: if the batch does not hold all rows.
        """
        if len(x) < n_rows:
            raise InputError(
                f"A batch of {len(x)} rows of {n_rows} came, and the maximiser (pmga) is that of "
                "all; leave batch_size out."
            )
        model.maximise(x, z)
        with torch.no_grad():
            value = float(model.log_joint(x, z).mean())
        return Plan(value, lambda: None)
