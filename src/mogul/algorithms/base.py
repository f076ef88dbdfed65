"""The only training loop: passes, history, stopping, and what the stop means."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, Protocol

import torch
from torch import Tensor

from mogul.algorithms.scoring import mean_log_likelihood
from mogul.algorithms.watch import Stopped, Watch
from mogul.compute.collective import group_of
from mogul.compute.notebook import html_table
from mogul.compute.signals import StopSignals
from mogul.errors import InputError
from mogul.protocols import Checkpoint, Saved, Source

# What a row of a history may tell of the height reached, in nats per row.
_REACHED = {
    "log_likelihood": "log-likelihood", "free_energy": "free energy",
    "evidence_bound": "evidence bound", "objective": "objective", "validation": "held out",
}  # fmt: skip
_SHOWN = 10  # rows in a notebook


class StopReason(enum.Enum):
    """Why a fit ended; `advice` says what to do about it."""

    CONVERGED = "converged"
    PASS_LIMIT = "pass limit"
    FELL = "fell"
    HELD_OUT = "held-out"
    INTERRUPTED = "interrupted"

    @property
    def advice(self) -> str:
        """What a user should do, in a sentence."""
        return {
            StopReason.CONVERGED: "The log-likelihood no longer rises; nothing to do.",
            StopReason.PASS_LIMIT: "The passes asked for are made, and the log-likelihood may "
            "still have been rising; allow more if it matters.",
            StopReason.FELL: "The log-likelihood ended lower than it began; fit again from the "
            "start with a smaller learning rate.",
            StopReason.HELD_OUT: "The log-likelihood of held-out rows no longer rises; the best "
            "parameters are kept, nothing to do.",
            StopReason.INTERRUPTED: "A signal asked to stop; all passes made are kept, and the fit "
            "goes on from its checkpoint.",
        }[self]


@dataclass(frozen=True)
class Pass:
    """One pass over the data, told by an algorithm.

    `log_likelihood` is the mean per row in nats, None where it is not tractable; `objective` what
    the algorithm raises, the same plus any penalty per row; `disturbed` says that the objective may
    fall, because parameters were set by other means or what is raised changed; `figures` what else
    to keep in the history; `finished` that the algorithm itself saw the end on held-out rows.
    """

    log_likelihood: float | None
    events: list[str]
    objective: float
    disturbed: bool
    figures: dict[str, float] = field(default_factory=dict)
    finished: bool = False


class Algorithm(Protocol):
    """How to improve a model; `fit` owns the loop.

    `monotone` says that every pass raises the log-likelihood, so that a small gain means the end.
    If there is a `finish(model, state)`, it is called after the last pass, or one interrupted. If
    there are a `memory(state)`, tensors by name, and a `resume(model, source, passes, memory)`, a
    fit that goes on from a checkpoint begins with the latter in the place of `init`.
    """

    monotone: bool

    def init(self, model: Any, source: Source, passes: int) -> Any:
        """Check model and source, and return the algorithm's state for so many passes at most.

        A state whose `done` tells of passes made before goes on after these.
        """
        ...

    def step(self, model: Any, source: Source, state: Any, watch: Watch) -> tuple[Any, Pass]:
        """Make one pass, telling `watch` of every batch, and ending early if it asks for that."""
        ...


@dataclass(frozen=True)
class Fit:
    """The outcome of a fit.

    `history` has one row per pass: pass, log_likelihood (mean nats per row, at the parameters the
    pass began with), objective (the same plus any log-prior, per row), validation (the
    log-likelihood of held-out rows, or None), seconds, events.
    """

    model: Any
    history: list[dict[str, Any]]
    reason: StopReason
    seconds: float

    def __repr__(self) -> str:
        """Say why the fit ended, and where."""
        return f"Fit({self._line()})"

    def _line(self) -> str:
        names = self._reached(self.history[-1:])
        reached = "".join(f", {_REACHED[n]}: {self.history[-1][n]:,.4f}" for n in names)
        passes = f"passes: {len(self.history)}"
        return f"reason: {self.reason.value}, {passes}{reached}, seconds: {self.seconds:.2f}"

    def _reached(self, rows: list[dict[str, Any]]) -> list[str]:
        """Return what rows of the history tell of the height reached, each value once."""
        found: dict[tuple[float | None, ...], str] = {}
        for name in _REACHED:
            found.setdefault(tuple(row.get(name) for row in rows), name)
        return [name for values, name in found.items() if any(v is not None for v in values)]

    def _repr_html_(self) -> str:
        """Show the last rows of the history, and what to do, in a notebook."""
        rows = self.history[-_SHOWN:]
        names = self._reached(rows)
        note = self.reason.advice
        if len(self.history) > len(rows):
            note += f" Left out: {len(self.history) - len(rows):,} earlier passes."
        cells = [
            [str(row["pass"])]
            + ["–" if row.get(n) is None else f"{row[n]:,.4f}" for n in names]
            + [f"{row['seconds']:.2f}", "; ".join(row["events"])]
            for row in rows
        ]
        columns = ["pass", *(_REACHED[n] for n in names), "seconds", "events"]
        return html_table(f"Fit({self._line()})", columns, cells, note)


@torch.enable_grad()
def fit(
    model: Any,
    source: Source,
    algorithm: Algorithm,
    *,
    passes: int = 100,
    tolerance: float = 1e-6,
    validation: Source | None = None,
    callback: Callable[[dict[str, Any]], None] | None = None,
    seen: Callable[[int], None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> Fit:
    """Fit a model to a source.

    Where the source is one process's share (`source.shard(group)`), all processes call this, and
    all end with the same model.

    Args:
        model: what to fit, in place.
        source: the data.
        algorithm: how, for example `EM()`.
        passes: largest number of passes over the data, with those of a fit that this goes on with.
        tolerance: stop when a pass raises the objective by less, in nats per row and feature;
            zero never stops early, and neither do algorithms that are not monotone.
        validation: held-out data to score at every pass.
        callback: called with each row of the history.
        seen: called with the number of rows seen after each batch, for progress bars.
        checkpoint: where to keep the fit after every pass, and to go on from; a fit whose passes
            are all made is returned as it is. With it, Ctrl-C and SIGTERM end the fit after the
            batch at hand.

    Returns:
        the fitted model, its history, the reason for stopping, and the seconds taken.

    Raises:
        InputError: if data and model do not fit each other, a setting makes no sense, the model is
            of half precision, or gradients are needed inside `torch.inference_mode`.
        RuntimeError: if another process was lost.
        KeyboardInterrupt: as it came, once the algorithm has put the model in order.
    """
    _check_settings(algorithm, passes, tolerance, checkpoint)
    check_source(source)
    _check_validation(source, validation)
    check_model(model)
    began = time.perf_counter()
    kept = None if checkpoint is None else checkpoint.restore(model, source)
    history = [] if kept is None else list(kept.history)
    if len(history) >= passes and not hasattr(algorithm, "resume"):
        return Fit(model, history, StopReason.PASS_LIMIT, time.perf_counter() - began)
    if kept is None or not hasattr(algorithm, "resume"):
        state = algorithm.init(model, source, passes)
    else:
        state = algorithm.resume(model, source, passes, kept.memory)  # pyright: ignore[reportAttributeAccessIssue]
    disturbed = kept is not None and kept.disturbed
    finish = getattr(algorithm, "finish", None) or (lambda model, state: None)
    memory = getattr(algorithm, "memory", None) or (lambda state: {})

    def save(found: dict[str, Tensor]) -> None:
        if checkpoint is not None:
            checkpoint.save(model, source, Saved(history, found, disturbed))

    reason = StopReason.PASS_LIMIT
    with StopSignals() if checkpoint is not None else nullcontext(None) as signals:
        watch = _watch(seen, signals, checkpoint, lambda found: save(memory(state) | found))
        for number in range(max(getattr(state, "done", 0), len(history)) + 1, passes + 1):
            since = time.perf_counter()
            held_out = None if validation is None else _held_out(algorithm, model, validation)
            try:
                state, done = algorithm.step(model, source, state, watch)
            except KeyboardInterrupt:
                finish(model, state)
                raise
            except RuntimeError:
                if signals is None or signals.asked is None or group_of(source).world == 1:
                    raise
                reason = StopReason.INTERRUPTED  # others, who were asked too, ended before
                break
            except Stopped as stopped:
                if stopped.memory:
                    save(memory(state) | stopped.memory)
                reason = StopReason.INTERRUPTED
                break
            history.append({
                "pass": number,
                "log_likelihood": done.log_likelihood,
                "objective": done.objective,
                "validation": held_out,
                "seconds": time.perf_counter() - since,
                "events": done.events,
                **done.figures,
            })
            settled = algorithm.monotone and not disturbed
            disturbed = done.disturbed
            save(memory(state))
            if callback is not None:
                callback(history[-1])
            if settled and _converged(history, tolerance * source.n_features):
                reason = StopReason.CONVERGED
                break
            if done.finished:
                reason = StopReason.HELD_OUT
                break
    finish(model, state)
    if checkpoint is not None and reason is not StopReason.INTERRUPTED:
        checkpoint.ended(source)
    fell = len(history) > 1 and history[-1]["objective"] < history[0]["objective"]
    if reason is StopReason.PASS_LIMIT and fell and not disturbed and not algorithm.monotone:
        reason = StopReason.FELL
    return Fit(model, history, reason, time.perf_counter() - began)


def _watch(
    seen: Callable[[int], None] | None,
    signals: StopSignals | None,
    checkpoint: Checkpoint | None,
    save: Callable[[dict[str, Tensor]], None],
) -> Watch:
    """Return the watch over a fit; without a checkpoint nothing can be asked of it."""
    if signals is None or checkpoint is None:
        return Watch(seen)
    return Watch(seen, lambda: signals.asked is not None, save, checkpoint.every)


def _held_out(algorithm: Algorithm, model: Any, source: Source) -> float:
    """Return the mean log-likelihood, or the bound of it by which the algorithm scores."""
    score = getattr(algorithm, "score", None)
    return mean_log_likelihood(model(), source) if score is None else score(model, source)


def _check_settings(algorithm: Any, passes: Any, tolerance: Any, checkpoint: Any) -> None:
    """Refuse settings that make no sense.

    Raises:
        InputError: naming one.
    """
    if isinstance(algorithm, type) or not hasattr(algorithm, "step"):
        raise InputError(f"The algorithm is {algorithm!r}; give one that is made, such as EM().")
    if isinstance(passes, bool) or not isinstance(passes, Integral):
        raise InputError(f"passes is {passes!r}; it must be a whole number.")
    if passes < 1:
        raise InputError(f"passes is {passes}; it must be at least 1.")
    if not isinstance(tolerance, Real) or not float(tolerance) >= 0:
        raise InputError(f"tolerance is {tolerance!r}; it must be zero or more.")
    if checkpoint is not None and not hasattr(checkpoint, "restore"):
        raise InputError(f"The checkpoint is {checkpoint!r}; give Checkpoint(path).")


def _check_validation(source: Source, validation: Any) -> None:
    """Refuse held-out data that are no source, or of another width.

    Raises:
        InputError: saying what came.
    """
    if validation is None:
        return
    check_source(validation)
    if validation.n_features != source.n_features:
        raise InputError(
            f"The held-out rows have {validation.n_features} features and the others "
            f"{source.n_features}; give rows of the same columns."
        )


def check_model(model: Any) -> None:
    """Refuse a model that no algorithm could move.

    Raises:
        InputError: if its numbers are too short, or made in `torch.inference_mode`.
    """
    dtype = getattr(model, "dtype", torch.float32)
    if dtype not in (torch.float32, torch.float64):
        raise InputError(f"The model is of {dtype}; take it to float32 or float64: model.float().")
    parameters = model.parameters() if isinstance(model, torch.nn.Module) else ()
    frozen = any(p.is_inference() for p in parameters)
    if frozen and not torch.is_inference_mode_enabled():
        raise InputError(
            "The model was made in torch.inference_mode, outside of which it cannot change; make "
            "it outside."
        )


def check_gradients() -> None:
    """Refuse to go on where there are no gradients.

    Raises:
        InputError: inside `torch.inference_mode`.
    """
    if torch.is_inference_mode_enabled():
        raise InputError(
            "Gradients are needed, and there are none in torch.inference_mode; leave it, or use "
            "torch.no_grad instead, which may stay."
        )


def check_source(source: Any) -> None:
    """Refuse data that are not a source.

    Raises:
        InputError: for an array, a tensor or anything else that yields no batches.
    """
    if not isinstance(source, Source):
        raise InputError(
            f"A {type(source).__name__} came where a source of batches is needed; wrap it: "
            "open_source(array)."
        )


def _converged(history: list[dict[str, Any]], tolerance: float) -> bool:
    if len(history) < 2 or tolerance <= 0:
        return False
    gain = history[-1]["objective"] - history[-2]["objective"]
    return -tolerance < gain < tolerance  # a clear fall is rounding at work, and not the end
