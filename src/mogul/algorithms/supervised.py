"""Networks that make a density of targets from inputs, by minibatch gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mogul.algorithms.base import Pass, check_gradients
from mogul.algorithms.initialise import initialise, row_weights
from mogul.algorithms.optimiser_state import moments_of, restore_moments
from mogul.algorithms.rows import Rows
from mogul.algorithms.watch import Watch, check_memory
from mogul.compute.backend import make_generator
from mogul.compute.threads import threads_for
from mogul.errors import InputError
from mogul.protocols import HasConditional, Source

_MEASURED = 100_000  # rows that units and the start are taken from
_SCORED = 8192  # rows scored at a time
_LEAST_HELD_OUT = 5  # rows, below which none are held out
_LEAST_STEPS = 400  # without progress before patience ends, where passes have few
_FEW = 50  # different values of a target that is told to be discrete
_CUTS = 2  # times the learning rate falls
_CUT = 0.3  # by what factor
_MOMENTS, _BEST = "adamw/", "best/"  # before the names of what a fit that goes on takes up
_COUNTS = ("done", "waited", "cuts")  # of a state, kept by these names


@dataclass
class _State:
    optimiser: torch.optim.Optimizer
    names: list[str]  # of parameters, in its order
    weight: Tensor | None  # of every row
    share: Tensor | None  # of every copy of a row in training, one on average
    training: Tensor
    held_out: Tensor
    parameters: dict[str, Tensor]  # the best so far, at first those of the start
    told: list[str]  # what to tell of the data, with the first pass
    best: float = -math.inf
    waited: int = 0
    cuts: int = 0
    done: int = 0


class Supervised:
    r"""Raise the mean of $\log p(y \mid x)$, all constants included, by AdamW.

    Rows are inputs and then targets; targets may be missing (NaN), and are then marginalised.
    Before the first pass the network is told the units of the data, and its last layer starts from
    a mixture of the targets alone, by k-means++.

    A share of the rows is held out. When their log-likelihood has not risen for `patience` passes
    and 400 steps, the best parameters are taken up again, and the learning rate and the noise fall
    to 0.3 of themselves; the third time the fit ends, with the best parameters.

    Gaussian noise on inputs and targets in training smooths the density (Rothfuss et al. 2019):
    falling, it lets the data say how smooth it should be.

    Args:
        learning_rate: of AdamW (Loshchilov & Hutter 2019).
        batch_size: rows per step.
        weight_decay: of all weights, not of biases.
        held_out: share of rows that say when to stop; zero makes all passes with all rows.
        patience: passes without a rise.
        input_noise: first standard deviation of noise on inputs, in theirs.
        target_noise: first standard deviation of noise on targets, in theirs.
        clip: largest norm of a gradient.
        seed: seed of what is held out, the order of rows, and the noise.

    Raises:
        InputError: for numbers out of range.
    """

    monotone = False

    def __init__(
        self,
        learning_rate: float = 2e-3,
        batch_size: int = 64,
        weight_decay: float = 1e-4,
        held_out: float = 0.1,
        patience: int = 20,
        input_noise: float = 0.0,
        target_noise: float = 0.1,
        clip: float = 10.0,
        seed: int = 0,
    ) -> None:
        """Check the settings.

        Raises:
            InputError: as the class says.
        """
        positive = {
            "learning_rate": learning_rate, "batch_size": batch_size, "patience": patience,
            "clip": clip,
        }  # fmt: skip
        least_zero = {
            "weight_decay": weight_decay, "input_noise": input_noise, "target_noise": target_noise,
        }  # fmt: skip
        wrong = {k: v for k, v in positive.items() if not 0 < v < math.inf}
        wrong |= {k: v for k, v in least_zero.items() if not 0 <= v < math.inf}
        wrong |= {} if 0 <= held_out < 1 else {"held_out": held_out}
        if wrong:
            came = ", ".join(f"{name} = {value}" for name, value in wrong.items())
            raise InputError(
                f"{came} came; rates, sizes, patience and clip must be positive, decay and noise "
                "zero or more, and the share held out from 0 to less than 1."
            )
        self.learning_rate, self.batch_size, self.weight_decay = (
            learning_rate, batch_size, weight_decay,
        )  # fmt: skip
        self.held_out, self.patience, self.clip = held_out, patience, clip
        self.input_noise, self.target_noise, self.seed = input_noise, target_noise, seed

    def n_held_out(self, n_rows: int) -> int:
        """Return how many of so many rows are held out: none where they would be very few."""
        held = min(round(self.held_out * n_rows), n_rows - 1)
        return held if held >= _LEAST_HELD_OUT else 0

    def init(self, model: HasConditional, source: Source, passes: int) -> _State:
        """Hold rows out, tell the network of units, and build the optimiser.

        Raises:
            InputError: if data and model do not fit each other, or no row has a target.
        """
        state = self._begun(model, source)
        if len(state.held_out):
            state.best = self._score(model, source, state.held_out, state.weight)
        return state

    def memory(self, state: _State) -> dict[str, Tensor]:
        """Return the moments of the optimiser, the best parameters, and how far the fit came."""
        moments = moments_of(state.optimiser, state.names)
        return (
            {_MOMENTS + name: tensor for name, tensor in moments.items()}
            | {_BEST + name: tensor for name, tensor in state.parameters.items()}
            | {name: torch.tensor(getattr(state, name)) for name in _COUNTS}
            | {"best": torch.tensor(state.best, dtype=torch.float64), "split": self._split(state)}
        )

    def resume(
        self, model: HasConditional, source: Source, passes: int, memory: dict[str, Tensor]
    ) -> _State:
        """Go on where a fit ended, with the rate and the noise that it had fallen to.

        Raises:
            InputError: if another algorithm made the passes before, or held other rows out.
        """
        check_memory(memory, "best", "split", *_COUNTS)
        state = self._begun(model, source)
        if not torch.equal(memory["split"], self._split(state)):
            raise InputError(
                "The passes before held other rows out, and their best log-likelihood is of those; "
                "go on with the same seed and the same share held out, or begin anew."
            )
        of = {p: {k.removeprefix(p): t for k, t in memory.items() if k.startswith(p)}
              for p in (_MOMENTS, _BEST)}  # fmt: skip
        restore_moments(state.optimiser, state.names, of[_MOMENTS])
        state.parameters, state.best, state.told = of[_BEST], float(memory["best"]), []
        for name in _COUNTS:
            setattr(state, name, int(memory[name]))
        self._set_rate(state)
        return state

    def _split(self, state: _State) -> Tensor:
        """Return what tells which rows are held out of the same data."""
        return torch.tensor([self.seed, len(state.held_out)])

    def _begun(self, model: HasConditional, source: Source) -> _State:
        """Return the state of a fit before its first pass, the start not yet scored.

        Raises:
            InputError: as `init` says.
        """
        check_gradients()
        if not hasattr(model, "set_units"):
            raise InputError(
                f"A {type(model).__name__} predicts no targets from inputs; build a "
                "MixtureDensityNetwork, or fit it by EM() or Gradient()."
            )
        weight, useful = row_weights(source), _with_targets(model, source)
        order = torch.randperm(len(source), generator=make_generator(self.seed))
        order = order[useful[order] if weight is None else (useful & (weight > 0))[order]]
        if not len(order):
            raise InputError("No row has a target and a weight; give at least one.")
        n_held = self.n_held_out(len(order))
        held_out, training = order[:n_held], order[n_held:]
        if not bool(model.started):
            self._start(model, source, training, weight)
        share = None
        if weight is not None:
            # Copies of heavy rows: one large gradient among small ones would move Adam too little.
            copies = (weight / weight[training].mean()).ceil().clamp_min(1)
            training = training.repeat_interleave(copies[training].long())
            share = weight / copies
            share = share / share[training].mean()
        decayed = {n: p for n, p in model.named_parameters() if p.dim() > 1}
        others = {n: p for n, p in model.named_parameters() if p.dim() <= 1}
        groups = [
            {"params": list(decayed.values()), "weight_decay": self.weight_decay},
            {"params": list(others.values()), "weight_decay": 0.0},
        ]
        optimiser = torch.optim.AdamW(groups, lr=self.learning_rate, fused=True)
        start = {k: v.clone() for k, v in model.state_dict().items()}
        told = _discrete(
            model.split(source.take(order[:_MEASURED].sort().values, torch.float64))[1]
        )
        names = [*decayed, *others]
        return _State(optimiser, names, weight, share, training, held_out, start, told)

    def _start(
        self, model: HasConditional, source: Source, training: Tensor, weight: Tensor | None
    ) -> None:
        """Set units and the last layer from training rows, drawn by their weights."""
        some = training[:_MEASURED]
        if weight is not None:
            draw = make_generator(self.seed)
            some = some[torch.multinomial(weight[some], len(some), True, generator=draw)]
        rows = source.take(some.sort().values, torch.float64, model.device)
        model.set_units(rows)
        y = model.split(rows)[1]
        scale = self.target_noise * model.head.noise_scale.double()
        noisy = _noisy(y, scale, make_generator(self.seed, model.device))
        y = model.head.standardised(noisy).to(model.dtype)
        mixture = model.without_inputs()
        if bool(model.head.varies.any()):
            initialise(mixture, Rows(y), "k-means++", seed=self.seed)
            model.start(mixture())
        else:
            least = torch.full_like(model.head.scale, (2 * model.head.variance_floor) ** 0.5)
            model.start(mixture().rescaled(torch.zeros_like(least), least))
            with torch.no_grad():  # there is nothing to learn from inputs
                model.head.linear.weight.zero_()

    def step(
        self, model: HasConditional, source: Source, state: _State, watch: Watch
    ) -> tuple[_State, Pass]:
        """Take one step per minibatch over the rows that are not held out, in a random order.

        Raises:
            InputError: if an input has gaps, or the log-likelihood stops being finite.
        """
        with threads_for(self.batch_size * sum(p.numel() for p in model.parameters())):
            return self._step(model, source, state, watch)

    def _step(
        self, model: HasConditional, source: Source, state: _State, watch: Watch
    ) -> tuple[_State, Pass]:
        draw = make_generator(self.seed * 1_000_003 + state.done + 1, model.device)
        order = torch.randperm(len(state.training), generator=draw, device=model.device).cpu()
        total = 0.0
        left = _CUT**state.cuts
        input_noise, target_noise = left * self.input_noise, left * self.target_noise
        parameters = list(model.parameters())
        model.train()
        try:
            for index in state.training[order].split(self.batch_size):
                x, y = model.split(source.take(index, model.dtype, model.device))
                log_prob = model(_noisy(x, input_noise * model.noise_scale, draw)).log_prob(
                    _noisy(y, target_noise * model.head.noise_scale, draw)
                )
                if state.share is not None:
                    log_prob = state.share[index].to(log_prob) * log_prob
                loss = -log_prob.mean()
                if not bool(loss.isfinite()):
                    model.load_state_dict(state.parameters)
                    raise InputError(
                        "The log-likelihood stopped being finite; the best parameters so far are "
                        "kept. Choose a smaller learning_rate, or look for inputs far from all "
                        "others."
                    )
                state.optimiser.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(parameters, self.clip)
                state.optimiser.step()
                total -= float(loss.detach()) * len(index)
                watch.seen(len(index))
                watch.rest()
        finally:
            model.eval()
        state.done, told, state.told = state.done + 1, state.told, []
        reached = total / len(state.training)
        if not len(state.held_out):
            return state, Pass(reached, told, reached, disturbed=False)
        held_out = self._score(model, source, state.held_out, state.weight)
        events, finished = self._judged(model, state, held_out)
        figures = {"held_out": held_out, "best_held_out": state.best}
        return state, Pass(reached, told + events, reached, False, figures, finished)

    def _judged(
        self, model: HasConditional, state: _State, held_out: float
    ) -> tuple[list[str], bool]:
        """Keep the best parameters; return what to tell, and whether the fit is at its end."""
        if held_out > state.best:
            state.best, state.waited = held_out, 0
            state.parameters = {k: v.clone() for k, v in model.state_dict().items()}
            return [], False
        state.waited += 1
        steps = state.waited * math.ceil(len(state.training) / self.batch_size)
        if state.waited < self.patience or steps < _LEAST_STEPS:
            return [], False
        if state.cuts == _CUTS:
            return [], True
        state.cuts, state.waited = state.cuts + 1, 0
        self.finish(model, state)
        rate = self._set_rate(state)
        return [f"learning rate fell to {rate:.2g}"], False

    def _set_rate(self, state: _State) -> float:
        """Give the optimiser the learning rate that so many cuts leave."""
        rate = self.learning_rate * _CUT**state.cuts
        for group in state.optimiser.param_groups:
            group["lr"] = rate
        return rate

    def finish(self, model: HasConditional, state: _State) -> None:
        """Take up the parameters with the best held-out log-likelihood."""
        if len(state.held_out):
            model.load_state_dict(state.parameters)

    @torch.no_grad()
    def score(self, model: HasConditional, source: Source) -> float:
        """Return the weighted mean of log p(y | x) of the rows that have a target, in nats.

        Raises:
            InputError: if none has.
        """
        rows = _with_targets(model, source).nonzero().squeeze(-1)
        if not len(rows):
            raise InputError("No row has a target; give at least one.")
        return self._score(model, source, rows, row_weights(source))

    @torch.no_grad()
    def _score(
        self, model: HasConditional, source: Source, rows: Tensor, weight: Tensor | None
    ) -> float:
        model.eval()
        total, mass = 0.0, 0.0
        for index in rows.split(_SCORED):
            x, y = model.split(source.take(index, model.dtype, model.device))
            log_prob = model(x).log_prob(y).double().cpu()
            w = torch.ones_like(log_prob) if weight is None else weight[index]
            total, mass = total + float((w * log_prob).sum()), mass + float(w.sum())
        return total / mass


def _noisy(values: Tensor, deviation: Tensor, draw: torch.Generator) -> Tensor:
    """Add noise of a standard deviation, if there is any."""
    if not bool(deviation.any()):
        return values
    return values + deviation * torch.empty_like(values).normal_(generator=draw)


def _discrete(y: Tensor) -> list[str]:
    """Tell of targets (n, D) with few values."""
    told = []
    for j, column in enumerate(y.T):
        column = column[~column.isnan()]
        n = len(column.unique())
        if 1 < n <= min(_FEW, len(column) // 4):
            told.append(
                f"target {j} has only {n} different values: densities of discrete targets have no "
                "upper bound, so that the log-likelihood says little of it; look at CRPS"
            )
    return told


def _with_targets(model: HasConditional, source: Source) -> Tensor:
    """Mark rows that have a target, (n,); the others have nothing to teach."""
    seen = [
        ~model.split(batch.x)[1].isnan().all(-1) for batch in source.batches(dtype=torch.float64)
    ]
    return torch.cat(seen)
