"""Gradient descent on the mean negative log-likelihood, by minibatches."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mogul.algorithms.base import Pass
from mogul.algorithms.initialise import row_weights
from mogul.algorithms.watch import Watch
from mogul.compute.backend import make_generator
from mogul.errors import InputError
from mogul.protocols import HasGradient, Source

OPTIMISERS = ("adam", "sgd")


@dataclass
class _State:
    """The optimiser, its schedule, and the order of rows to come."""

    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    generator: torch.Generator
    weight: Tensor | None  # of all rows, with a mean of one
    mass: float  # the sum of weights


class Gradient:
    """Minimise −mean log p(x) by minibatch gradients, with a cosine schedule.

    Learning rates are in units of the data's own scale, so that a change of units changes nothing.
    Variances that fall below the model's floor are put back on it after each step, where the
    gradient can raise them again; the history says so. Missing values are marginalised.

    Args:
        learning_rate: step size of means and covariances.
        weight_learning_rate: step size of mixing weights; default: the same.
        optimiser: "adam" (Kingma & Ba 2015) or "sgd" with momentum 0.9.
        batch_size: rows per step.
        seed: seed of the order of rows.

    Raises:
        InputError: for an unknown optimiser or numbers that are not positive.
    """

    monotone = False

    def __init__(
        self,
        learning_rate: float = 0.01,
        weight_learning_rate: float | None = None,
        optimiser: str = "adam",
        batch_size: int = 256,
        seed: int = 0,
    ) -> None:
        """Check the settings.

        Raises:
            InputError: as the class says.
        """
        weight_rate = learning_rate if weight_learning_rate is None else weight_learning_rate
        if optimiser not in OPTIMISERS:
            raise InputError(
                f"Unknown optimiser '{optimiser}'; choose one of: {', '.join(OPTIMISERS)}."
            )
        if not (learning_rate > 0 and weight_rate > 0 and batch_size > 0):
            raise InputError(
                f"Learning rates {learning_rate} and {weight_rate} and batch size {batch_size} "
                "came; all must be positive."
            )
        self.learning_rate = learning_rate
        self.weight_learning_rate = weight_rate
        self.optimiser = optimiser
        self.batch_size = batch_size
        self.seed = seed

    def init(self, model: HasGradient, source: Source, passes: int) -> _State:
        """Build the optimiser, and a schedule that ends at zero after all passes."""
        scale = model.data_scale
        power = 1 if self.optimiser == "adam" else 2  # how a step must grow with the unit
        rates = {
            "weights": self.weight_learning_rate,
            "shapes": self.learning_rate,
            "locations": self.learning_rate * scale**power,
        }
        groups = [
            {"params": parameters, "lr": rates[name]}
            for name, parameters in model.parameter_groups().items()
            if parameters
        ]
        if self.optimiser == "adam":
            optimiser: torch.optim.Optimizer = torch.optim.Adam(groups)
        else:
            optimiser = torch.optim.SGD(groups, momentum=0.9)
        steps = passes * math.ceil(len(source) / self.batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        weight, mass = row_weights(source), float(len(source))
        if weight is not None:
            weight, mass = weight / weight.mean(), float(weight.sum())
        return _State(optimiser, schedule, make_generator(self.seed), weight, mass)

    def step(
        self, model: HasGradient, source: Source, state: _State, watch: Watch
    ) -> tuple[_State, Pass]:
        """Take one step per minibatch, over all rows in a new random order.

        Raises:
            InputError: if the loss stops being finite.
        """
        total, events = 0.0, set[str]()
        order = torch.randperm(len(source), generator=state.generator)
        for index in order.split(self.batch_size):
            x = source.take(index, model.dtype, model.device)
            state.optimiser.zero_grad(set_to_none=True)
            log_prob = model().log_prob(x)
            if state.weight is not None:
                log_prob = log_prob * state.weight[index].to(log_prob)
            loss = -log_prob.mean() - model.log_prior() / state.mass
            _check_finite(loss)
            loss.backward()
            model.hold_frozen()
            state.optimiser.step()
            state.schedule.step()
            events.update(model.clamp())
            total += float(log_prob.detach().double().sum())
            watch.seen(len(index))
            watch.rest()
        mean = total / len(source)
        objective = mean + float(model.log_prior().detach()) / state.mass
        return state, Pass(mean, sorted(events), objective, disturbed=False)


def _check_finite(loss: Tensor) -> None:
    if not bool(loss.isfinite()):
        raise InputError(
            "The log-likelihood stopped being finite; choose a smaller learning_rate, start from "
            "`initialise`, or look for rows far from all others."
        )
