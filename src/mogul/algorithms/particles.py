"""Latent-variable models fitted by particles: maximum likelihood without an encoder.

Each row keeps N latents that follow its posterior while the parameters climb, both from the same
iterate (Kuntz, Lim & Johansen, "Particle algorithms for maximum likelihood training of latent
variable models", AISTATS 2023). The algorithms differ in how particles and parameters move; see
`particle_moves`, and `particle_algorithms` for those with names.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mogul.algorithms.base import Pass, check_gradients
from mogul.algorithms.initialise import row_weights
from mogul.algorithms.minibatches import Minibatch, minibatches, pool, pool_statistics, random_order
from mogul.algorithms.particle_moves import LatentMove, State, SteinCoin
from mogul.algorithms.particle_parameters import ByGradient, ParameterUpdate
from mogul.algorithms.watch import Watch
from mogul.compute.backend import make_generator
from mogul.compute.collective import Group, group_of
from mogul.errors import InputError
from mogul.protocols import HasLogJoint, Source

_APART = 7_368_787  # between the seeds of processes
_REFRESHES = 20  # batches over which statistics of normalisation follow averaged parameters


@dataclass(frozen=True)
class Chain:
    """How particles are moved before the parameters, where they are not moved together.

    Args:
        moves: steps of each particle before every step of the parameters.
        restart: begin each time at draws from the prior, as in short-run MCMC.
        average: let the gradient see the particles after every one of the moves, as in SOUL.
    """

    moves: int
    restart: bool = False
    average: bool = False


@dataclass
class _State:
    """Where a fit stands; all of it can be written to a file."""

    passes: int
    rows: int = 0  # of all processes
    done: int = 0
    steps: int = 0  # of the parameters, in this run
    memory: dict[str, State] = field(default_factory=dict)

    def of(self, name: str) -> State:
        """Return the tensors of one part, by name."""
        return self.memory.setdefault(name, {})

    def flat(self) -> State:
        """Return all tensors under names of the form part/name, and the passes done."""
        tensors = {f"{p}/{k}": v for p, part in self.memory.items() for k, v in part.items()}
        return tensors | {"done": torch.tensor(self.done)}

    @classmethod
    def restored(cls, passes: int, tensors: State) -> _State:
        """Return the state that `flat` told of."""
        state = cls(passes, done=int(tensors.get("done", 0)))
        for name, tensor in tensors.items():
            part, _, key = name.partition("/")
            if key:
                state.of(part)[key] = tensor
        return state


class Particles:
    """Gradient steps of the parameters, and moves of N particles per row; one pass visits all rows.

    The history's objective is the mean of log p(x, z) over rows and particles, in nats, at the
    parameters each step began with; the log-likelihood itself is not tractable. `movement` is the
    root mean square of a particle's move in a pass, per latent.

    Args:
        latents: how particles move.
        parameters: how parameters do.
        n_particles: particles per row, N.
        batch_size: rows per step of the parameters.
        which: the particles that move with each step: those of the "batch", or all ("full").
        chain: moves of the particles before each step of the parameters; None: both together.
        warm_up: passes with one particle per row, which is then copied.
        burn_in: fraction of the passes after which parameters are averaged over steps; 1 for never.
        noise: step of Gaussian noise added to parameters, √(2·noise/N) (IPLA, Akyildiz et al.
            2025); zero for none.
        chunk: latents decoded at a time when particles move.
        seed: seed of everything random; a fit that goes on from a file draws what it would have.

    Raises:
        InputError: for numbers out of range.
    """

    monotone = False

    def __init__(
        self,
        latents: LatentMove,
        parameters: ParameterUpdate,
        *,
        n_particles: int = 10,
        batch_size: int = 128,
        which: str = "batch",
        chain: Chain | None = None,
        warm_up: int = 0,
        burn_in: float = 1.0,
        noise: float = 0.0,
        chunk: int = 1280,
        seed: int = 0,
    ) -> None:
        """Check the settings.

        Raises:
            InputError: as the class says.
        """
        if min(n_particles, batch_size, chunk) < 1 or warm_up < 0:
            raise InputError(
                f"{n_particles} particles, batches of {batch_size}, chunks of {chunk} and {warm_up}"
                " warm-up passes came; the first three must be at least 1, the last at least 0."
            )
        if which not in ("batch", "full"):
            raise InputError(f"Particles to move: '{which}'; choose batch or full.")
        if warm_up and isinstance(latents, SteinCoin):
            raise InputError(
                f"{warm_up} warm-up passes came, after which particles would be copied, and coin "
                "betting never parts copies; leave warm_up out."
            )
        if not 0 <= burn_in <= 1 or noise < 0:
            raise InputError(
                f"burn_in {burn_in} and noise {noise} came; the first must lie between 0 and 1, "
                "the second not be negative."
            )
        self.latents, self.parameters = latents, parameters
        self.n_particles, self.batch_size, self.which, self.chain = (
            n_particles, batch_size, which, chain,
        )  # fmt: skip
        self.warm_up, self.burn_in, self.noise = warm_up, burn_in, noise
        self.chunk, self.seed = chunk, seed

    def init(self, model: HasLogJoint, source: Source, passes: int) -> _State:
        """Draw particles from the prior, or go on with those the model has for these rows.

        Raises:
            InputError: if data and model do not fit each other, the model has particles for other
                rows, or made these passes before.
        """
        check_latent_model(model, source)
        group = group_of(source)
        if group.world > 1 and not isinstance(self.parameters, ByGradient):
            raise InputError(
                f"pqn and pmga need all rows in one process, and there are {group.world}; choose "
                "pga, or start one."
            )
        state = _State.restored(passes, model.training_state)
        state.rows = int(group.total(len(source))[0])
        held = model.particles
        if held is not None and set(state.of("latents")) != set(self.latents.start(held)):
            state.memory.clear()  # what another algorithm remembers
        if state.done >= passes:
            raise InputError(
                f"The model has made {state.done} passes and {passes} were asked for, in all; ask "
                "for more, or build it anew."
            )
        if held is None:
            count = 1 if self.warm_up > 0 else self.n_particles
            drawn = model.prior.sample((len(source), count), seed=self._of(group))
            model.particles = drawn.to(model.dtype).detach()
        elif len(held) != len(source):
            raise InputError(
                f"The model holds particles for {len(held):,} rows and the data have "
                f"{len(source):,}; go on with the data it was fitted to, or build it anew."
            )
        return state

    def step(
        self, model: HasLogJoint, source: Source, state: _State, watch: Watch
    ) -> tuple[_State, Pass]:
        """Visit every row once, in a random order.

        Raises:
            InputError: if the log-density, particles or parameters stop being finite.
        """
        events, group = [], group_of(source)
        if model.particles.shape[1] < self.n_particles and state.done >= self.warm_up:
            copies = -(-self.n_particles // model.particles.shape[1])
            model.particles = model.particles.repeat(1, copies, 1)[:, : self.n_particles]
            state.memory["latents"] = {}
            events.append(f"warm-up ends: {self.n_particles} particles for every row from here")
        before = model.particles.clone()
        order = random_order(source, make_generator(self._seed(state, 0, group)))
        total = 0.0
        for number, (index, share) in enumerate(minibatches(order, self.batch_size, group)):
            draw = make_generator(self._seed(state, number + 1, group), model.device)
            rows = Minibatch(index.to(model.device), share)
            mean = self.advance(model, source, rows, state, draw)
            if not abs(mean) < float("inf"):
                raise InputError(
                    "The log-density of the particles stopped being finite; choose a smaller "
                    "step_size."
                )
            total += mean * len(index)
            self._average(model, state)
            watch.seen(len(index))
            watch.rest()
        if not all(bool(t.isfinite().all()) for t in (model.particles, *learned(model))):
            raise InputError(
                "Particles or parameters stopped being finite; choose a smaller step_size or rate."
            )
        pool_statistics(model, group)
        state.done += 1
        events += model.maximise_prior(model.particles, group)
        if state.done >= state.passes and state.of("average"):
            self._take_average(model, source, state)
            pool_statistics(model, group)
            events.append("parameters averaged over steps were taken")
        model.training_state = state.flat()
        squares = float((model.particles - before).double().square().sum())
        total, rows, squares, values = group.total(
            total, len(source), squares, model.particles.numel()
        )
        moved, mean = (squares / values) ** 0.5, total / rows
        return state, Pass(None, events, mean, False, {"movement": moved})

    def _of(self, group: Group) -> int:
        """Return the seed of a process: what it draws for its rows is not what others draw."""
        return self.seed + _APART * group.rank

    def _seed(self, state: _State, number: int, group: Group) -> int:
        return (self._of(group) * 1_000_003 + state.done) * 1_000_003 + number

    def advance(
        self,
        model: HasLogJoint,
        source: Source,
        rows: Minibatch,
        state: _State,
        draw: torch.Generator,
    ) -> float:
        """Step the parameters on some rows, and their particles or all; return the mean log p."""
        index, group = rows.index, group_of(source)
        x = source.take(index.cpu(), model.dtype, model.device)
        z = model.particles[index]
        if self.chain is not None:
            z = self._run_chain(model, x, index, state, draw)
        plan = self.parameters(model, x, z.transpose(0, 1), state.rows, state.of("parameters"))
        pool(plan.gradients, rows.share, group)
        if self.chain is None:
            if self.which == "full":
                self._move_all(model, source, state, draw)
            else:
                self._move(model, x, index, state, draw, plan.latent_gradient)
        plan.apply()
        if self.noise:
            length = (2 * self.noise / model.particles.shape[1]) ** 0.5
            if group.world > 1:  # all processes draw the same
                draw = make_generator(self._seed(state, -1 - state.steps, Group()), model.device)
            for parameter in learned(model):
                kick = torch.empty_like(parameter).normal_(generator=draw)
                parameter.detach().add_(kick, alpha=length)
        state.steps += 1
        return plan.log_joint

    def _run_chain(
        self, model: HasLogJoint, x: Tensor, index: Tensor, state: _State, draw: torch.Generator
    ) -> Tensor:
        """Move the particles of rows several times; return those the gradient is to see."""
        assert self.chain is not None
        if self.chain.restart:
            shape = (len(index), model.particles.shape[1])
            seed = int(torch.randint(2**31, (), generator=draw, device=draw.device))
            model.particles[index] = model.prior.sample(shape, seed=seed).to(model.dtype)
        visited = []
        for _ in range(self.chain.moves):
            self._move(model, x, index, state, draw)
            if self.chain.average:
                visited.append(model.particles[index])
        return torch.cat(visited, 1) if visited else model.particles[index]

    def _move_all(
        self, model: HasLogJoint, source: Source, state: _State, draw: torch.Generator
    ) -> None:
        rows = max(1, self.chunk // model.particles.shape[1])
        for index in torch.arange(len(source)).split(rows):
            x = source.take(index, model.dtype, model.device)
            self._move(model, x, index.to(model.device), state, draw)

    def _move(
        self,
        model: HasLogJoint,
        x: Tensor,
        index: Tensor,
        state: _State,
        draw: torch.Generator,
        known: Tensor | None = None,
    ) -> None:
        """Move the particles of rows once; `known` is the gradient there, if it is known."""
        memory = state.of("latents")
        if not memory:
            memory.update(self.latents.start(model.particles))
        own = {name: tensor[index] for name, tensor in memory.items()}
        z = model.particles[index]

        def gradient(z: Tensor) -> Tensor:
            return latent_gradient(model, x, z, self.chunk) if known is None else known

        model.particles[index] = self.latents(z, gradient, own, draw)
        for name, tensor in own.items():
            memory[name][index] = tensor

    def _average(self, model: HasLogJoint, state: _State) -> None:
        """Take the present parameters into their mean, once the burn-in is over."""
        if state.done < self.burn_in * state.passes:
            state.memory.pop("average", None)  # that of a shorter fit, which goes on
            return
        mean = state.of("average")
        count = mean["count"] = mean.get("count", torch.zeros(())) + 1
        for number, parameter in enumerate(learned(model)):
            held = mean.setdefault(str(number), torch.zeros_like(parameter).detach())
            held += (parameter.detach() - held) / count

    def _take_average(self, model: Any, source: Source, state: _State) -> None:
        """Set the parameters to their mean; let statistics of normalisation follow some way."""
        for number, parameter in enumerate(learned(model)):
            parameter.detach().copy_(state.of("average")[str(number)])
        batches = torch.arange(len(source)).split(self.batch_size)[:_REFRESHES]
        model.train()
        with torch.no_grad():
            for index in batches:
                model.decode(model.particles[index.to(model.device)])
        model.eval()


def check_latent_model(model: Any, source: Source) -> None:
    """Refuse models without latents, and data of another width.

    Raises:
        InputError: if the model is not p(x, z), or rows are of another width or fewer than two.
    """
    check_gradients()
    if not hasattr(model, "log_joint"):
        raise InputError(
            f"A {type(model).__name__} has no latents that particles or an encoder could stand "
            "for; fit it by EM() or Gradient(), or build a LatentVariableModel."
        )
    if len(source) < 2:
        raise InputError(f"The data have {len(source)} row(s); a decoder takes at least 2.")
    if row_weights(source) is not None:
        raise InputError(
            "The rows have weights, which fits of decoders and autoencoders do not take; leave the "
            "weights out, or repeat rows."
        )
    if source.n_features != model.n_features:
        raise InputError(
            f"The data have {source.n_features} features and the model {model.n_features}; build "
            "the model with feature_shape=source.feature_shape."
        )


def learned(model: HasLogJoint) -> list[Tensor]:
    """Return the parameters that gradients move."""
    return [p for p in model.parameters() if p.requires_grad]


@contextmanager
def held_still(model: HasLogJoint) -> Generator[None]:
    """Set a model to score with parameters that no gradient is recorded for."""
    moving = learned(model)
    training = model.training
    model.eval()
    for parameter in moving:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in moving:
            parameter.requires_grad_(True)
        model.train(training)


def latent_gradient(model: HasLogJoint, x: Tensor, z: Tensor, chunk: int = 1280) -> Tensor:
    """Return ∇_z log p(x, z) for latents (n, N, d) of rows (n, D), some at a time."""
    rows = max(1, chunk // z.shape[1])
    parts = []
    with held_still(model), torch.enable_grad():
        for own, latents in zip(x.split(rows), z.split(rows), strict=True):
            variable = latents.detach().requires_grad_()
            total = model.log_joint(own, variable.transpose(0, 1)).sum()
            parts.append(torch.autograd.grad(total, variable)[0])
    return torch.cat(parts)


def estimated_seconds(
    model: HasLogJoint, source: Source, algorithm: Particles, passes: int, steps: int = 2
) -> float:
    """Return the seconds that a fit would still take, from a few steps on a copy of the model."""
    trial = copy.deepcopy(model)
    state = algorithm.init(trial, source, passes)
    done, state.done = state.done, max(state.done, algorithm.warm_up)
    if trial.particles.shape[1] < algorithm.n_particles:
        trial.particles = trial.particles.repeat(1, algorithm.n_particles, 1)
    draw, seconds = make_generator(0, trial.device), []
    for number in range(steps + 1):  # the first is slower
        index = torch.arange(len(source))[number * algorithm.batch_size :][: algorithm.batch_size]
        since = time.perf_counter()
        if len(index):
            algorithm.advance(trial, source, Minibatch(index.to(trial.device), 1.0), state, draw)
            seconds.append(time.perf_counter() - since)
    left = passes - done
    warm = min(left, max(0, algorithm.warm_up - done))  # with one particle a row
    rounds = left - warm + warm / algorithm.n_particles
    return min(seconds) * rounds * -(-len(source) // algorithm.batch_size)
