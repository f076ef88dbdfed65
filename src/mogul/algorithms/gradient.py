"""Gradient descent on the mean negative log-likelihood, by minibatches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mogul.algorithms.base import Pass, check_gradients
from mogul.algorithms.em import looked_through
from mogul.algorithms.initialise import row_weights, total_weight
from mogul.algorithms.minibatches import minibatches, n_steps, pool, random_order
from mogul.algorithms.optimiser_state import moments_of, restore_moments
from mogul.algorithms.watch import Watch, check_memory
from mogul.compute.backend import make_generator
from mogul.compute.collective import group_of
from mogul.errors import InputError
from mogul.protocols import HasGradient, Source

_APART = 7_368_787  # between the seeds of processes
OPTIMISERS = ("adam", "sgd")
_EPS = 1e-8  # of Adam's denominator
_UNLIKE = 1e8  # ratio of deviations of columns beyond which one size of step serves none


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
        """Build the optimiser, and a schedule that ends at zero after all passes.

        Raises:
            InputError: if the model was never started, a column has no value at all, or the units
                of the data are such that one size of step cannot serve all columns, or the type
                cannot hold their gradients.
        """
        return self._begun(model, source, passes, 0)

    def _begun(self, model: HasGradient, source: Source, passes: int, made: int) -> _State:
        """Return the state of a fit that has made some steps, without the optimiser's moments.

        Raises:
            InputError: as `init` says.
        """
        check_gradients()
        model.check_started()
        looked_through(source, model)
        _check_units(model)
        scale = model.data_scale
        power = 1 if self.optimiser == "adam" else 2  # how a step must grow with the unit
        rates = {
            "weights": self.weight_learning_rate,
            "shapes": self.learning_rate,
            "locations": self.learning_rate * scale**power,
        }
        groups: list[dict[str, Any]] = [
            {"params": parameters, "lr": rates[name], "initial_lr": rates[name], "name": name}
            for name, parameters in model.parameter_groups().items()
            if parameters
        ]
        if self.optimiser == "adam":
            for part in groups:  # in units of the data, as the rate
                part["eps"] = _EPS / (scale if part["name"] == "locations" else 1.0)
            optimiser: torch.optim.Optimizer = torch.optim.Adam(groups)
        else:
            optimiser = torch.optim.SGD(groups, momentum=0.9)
        group = group_of(source)
        n = group.total(len(source))[0]
        steps = passes * n_steps(len(source), self.batch_size, group)
        # A function of the steps made alone, so that a fit that goes on has the rates of one that
        # never stopped.
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: (1 + math.cos(math.pi * step / steps)) / 2, made - 1
        )
        weight, mass = row_weights(source), total_weight(source)
        if weight is not None:
            weight = weight / (mass / n)
        draw = make_generator(self.seed + _APART * group.rank)
        return _State(optimiser, schedule, draw, weight, mass)

    def memory(self, state: _State) -> dict[str, Tensor]:
        """Return the moments of the optimiser, the steps made, and the state of the generator."""
        moments = moments_of(state.optimiser, _names(state.optimiser))
        steps = torch.tensor(state.schedule.last_epoch)
        return moments | {"steps": steps, "generator": state.generator.get_state()}

    def resume(
        self, model: HasGradient, source: Source, passes: int, memory: dict[str, Tensor]
    ) -> _State:
        """Go on where a fit ended.

        Raises:
            InputError: if another algorithm made the passes before.
        """
        check_memory(memory, "generator")
        state = self._begun(model, source, passes, int(memory["steps"]))
        moments = {name: tensor for name, tensor in memory.items() if "/" in name}
        restore_moments(state.optimiser, _names(state.optimiser), moments)
        if group_of(source).world == 1:
            state.generator.set_state(memory["generator"])
        return state

    def step(
        self, model: HasGradient, source: Source, state: _State, watch: Watch
    ) -> tuple[_State, Pass]:
        """Take one step per minibatch, over all rows in a new random order.

        Raises:
            InputError: if the loss stops being finite.
        """
        total, events = 0.0, set[str]()
        group = group_of(source)
        order = random_order(source, state.generator)
        for index, share in minibatches(order, self.batch_size, group):
            x = source.take(index, model.dtype, model.device)
            state.optimiser.zero_grad(set_to_none=True)
            log_prob = model().log_prob(x)
            if state.weight is not None:
                log_prob = log_prob * state.weight[index].to(log_prob)
            loss = -log_prob.mean() - model.log_prior() / state.mass
            _check_finite(loss)
            loss.backward()
            pool([p.grad for p in _moving(state.optimiser) if p.grad is not None], share, group)
            model.hold_frozen()
            state.optimiser.step()
            state.schedule.step()
            events.update(model.clamp())
            total += float(log_prob.detach().double().sum())
            watch.seen(len(index))
            watch.rest()
        total, n = group.total(total, len(source))
        mean = total / n
        objective = mean + float(model.log_prior().detach()) / state.mass
        return state, Pass(mean, sorted(events), objective, disturbed=False)


def _moving(optimiser: torch.optim.Optimizer) -> list[Tensor]:
    """Return what an optimiser moves."""
    return [p for part in optimiser.param_groups for p in part["params"]]


def _names(optimiser: torch.optim.Optimizer) -> list[str]:
    """Return names of what an optimiser moves, in its order."""
    return [str(i) for i in range(len(_moving(optimiser)))]


def _check_units(model: Any) -> None:
    """Refuse data in which steps or gradients would lose all meaning.

    Raises:
        InputError: if deviations of columns are too unlike, or too large or small for the type.
    """
    variance = getattr(model, "feature_variance", None)
    if variance is None:
        return
    low, high = (float(v) ** 0.5 for v in (variance.min(), variance.max()))
    # A gradient by a variance is in units of its square.
    limit = torch.finfo(variance.dtype).max ** 0.25
    if high > _UNLIKE * low or not 1 / limit < low * model.variance_floor**0.5 or high > limit:
        raise InputError(
            f"The columns have standard deviations from {low:.3g} to {high:.3g}, for which "
            f"gradients in {variance.dtype} have no common step; rescale the columns, use float64, "
            "or fit by EM()."
        )


def _check_finite(loss: Tensor) -> None:
    if not bool(loss.isfinite()):
        raise InputError(
            "The log-likelihood stopped being finite; choose a smaller learning_rate, start from "
            "`initialise`, or look for rows far from all others."
        )
