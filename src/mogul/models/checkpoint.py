"""Checkpoint: the file of a fit under way, whole at every moment, from which it can go on."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mogul.compute.checkpoint import remove, remove_stale
from mogul.compute.collective import Group, group_of
from mogul.compute.target import target
from mogul.errors import InputError
from mogul.models.files import fill, load_fit, save_model
from mogul.protocols import Saved, Source

_LAST = "last/"  # before the names of parameters that a fit goes on with, and does not end with
_VALUES = 2**24  # in data of which every row is compared when a fit goes on
_SPREAD = 256  # rows of larger data that are compared
_OF_ROWS = "latents/"  # before the names of what an algorithm remembers of every particle


class _Held(NamedTuple):
    """What a file holds, and whether it is the newest."""

    tensors: dict[str, Tensor]
    config: dict[str, Any]
    memory: dict[str, Tensor]
    newest: bool


class Checkpoint:
    """A file that a fit writes after every pass, and from which `fit` goes on.

    It is a model file like any other, of the parameters after the last whole pass. The one before
    it stays beside it, as `PATH.before`, until the fit is at its end, for the case that the newer
    one is damaged. Among several processes, the first one writes and tells the others.

    Args:
        path: the file.
        resume: go on with the fit that the file holds, if it exists; otherwise it is replaced.
            Processes that torchrun begins anew go on in any case with what they wrote before.
        minutes: how often to write within a pass that takes longer.
        facts: JSON-like facts to keep beside the model.

    Example:
        >>> from mogul import EM, Checkpoint, GaussianMixture, fit, initialise, open_source
        >>> source = open_source("digits")
        >>> model = GaussianMixture(5, source.n_features)
        >>> initialise(model, source)
        >>> kept = Checkpoint("digits.mogul", resume=True)
        >>> fitted = fit(model, source, EM(), passes=20, checkpoint=kept)
    """

    def __init__(
        self,
        path: str | Path,
        resume: bool = False,
        minutes: float = 10.0,
        facts: dict[str, Any] | None = None,
    ) -> None:
        """Remember what to keep.

        Raises:
            InputError: if the minutes are not positive.
        """
        if not minutes > 0:
            raise InputError(f"Checkpoints every {minutes} minutes; give a positive number.")
        self.path, self.resume, self.every = Path(path), resume, 60 * minutes
        self.facts = facts or {}
        self.memory: dict[str, Tensor] = {}
        self._saved: dict[str, Tensor] = {}
        self._rows_digest: str | None = None
        self._ours = False  # whether the file, and no other, holds this fit
        self.kept = False  # whether there is anything of this fit to go on with

    @property
    def before(self) -> Path:
        """Where the file before the present one is."""
        return self.path.with_name(self.path.name + ".before")

    def held(self, run: str = "") -> dict[str, Any] | None:
        """Return the facts of the fit that there is to go on with in the run of this name, or None.

        Raises:
            InputError: if a fit is to go on, and its file is damaged.
        """
        found = self._read(run)
        return None if found is None else found.config["extra"]

    def restore(self, model: Any, source: Source) -> Saved | None:
        """Put a model to where its fit stood, on all processes.

        Returns:
            where that was; None if there is nothing to go on with.

        Raises:
            InputError: if the file is damaged, of another model, or of a fit to other data.
        """
        group, rows = group_of(source), _rows(source)
        self._rows_digest = digest = group.said(_fingerprint(source, rows, group))
        found = None
        if group.first:
            remove_stale(self.path)
            found = self._read(group.run)
        found = group.said(found)
        if found is None:
            if group.first:
                remove(self.before)  # of another fit
            return None
        *found, self._ours = found
        self.kept = True
        tensors, config, memory = found
        facts = config["extra"]
        if rows is not None and facts.get("rows", rows) != rows:
            raise InputError(
                f"{self.path} is of a fit to {facts['rows']:,} rows, and {rows:,} came; go on with "
                "the same data, or begin anew."
            )
        if facts.get("rows_sha256", digest) != digest:
            raise InputError(
                f"{self.path} is of a fit to other rows than those that came; go on with the same "
                "data, or begin anew."
            )
        held, came = _fixed(config["arguments"]), _fixed(json.loads(json.dumps(model.config())))
        if held != came:
            raise InputError(
                f"{self.path} holds another model than the one to be fitted "
                f"({differences(held, came)}); go on with "
                "the same settings, or begin anew."
            )
        last = {k.removeprefix(_LAST): v for k, v in memory.items() if k.startswith(_LAST)}
        fill(model, tensors | last)
        # Before a next pass is made, the fit may end with other parameters than it goes on with.
        self._saved = _parameters(model)
        if group.world > 1:
            _keep_own(model, source, group)
        self.memory = memory = {k: v for k, v in memory.items() if not k.startswith(_LAST)}
        return Saved(facts.get("history", []), memory, bool(facts.get("disturbed")))

    def save(self, model: Any, source: Source, saved: Saved) -> None:
        """Write the file, from the first process."""
        group, rows = group_of(source), _rows(source)
        self.memory = saved.memory
        whole = _whole(model, group)
        if not group.first:
            return
        where = {
            "history": saved.history, "disturbed": saved.disturbed, "rows": rows, "run": group.run,
            "rows_sha256": self._rows_digest,
        }  # fmt: skip
        if self._ours:
            self._set_aside()
        save_model(self.path, whole, self.facts | where, saved.memory)
        self._ours = self.kept = True
        self._saved = _parameters(whole)

    def ended(self, source: Source) -> None:
        """Leave nothing but the file itself."""
        if group_of(source).first:
            remove(self.before)

    def finish(self, model: Any, source: Source, facts: dict[str, Any]) -> None:
        """Write the model of a fit that has ended, with facts about it."""
        group = group_of(source)
        whole = _whole(model, group)
        if group.first:
            facts = self.facts | {"run": group.run, "rows_sha256": self._rows_digest} | facts
            save_model(self.path, whole, facts, self.memory | self._last(whole))

    def _last(self, model: Any) -> dict[str, Tensor]:
        """Return the parameters of the last pass, where an algorithm ended with others."""
        now = model.state_dict()
        return {
            _LAST + name: tensor
            for name, tensor in self._saved.items()
            if not torch.equal(tensor, now[name])
        }

    def _set_aside(self) -> None:
        """Give the present file a second name, so that neither name is ever missing."""
        link = self.before.with_name(f".{self.path.name}.before.part")
        remove(link)
        try:
            os.link(target(self.path), link)
        except OSError:
            return  # a file system without links keeps the newest alone
        os.replace(link, self.before)

    def _read(self, run: str) -> _Held | None:
        """Read the file, or the one before it where that is damaged; None if neither is wanted.

        Raises:
            InputError: if a fit is to go on, and none can be read.
        """
        error = None
        for path in (self.path, self.before):
            if not path.exists():
                continue
            try:
                found = _Held(*load_fit(path), path == self.path)
            except InputError as damaged:
                error = error or damaged
                continue
            same = run != "" and found.config["extra"].get("run") == run
            return found if self.resume or same else None
        if error is not None and self.resume:
            raise error
        return None


def differences(held: dict[str, Any], came: dict[str, Any]) -> str:
    """Say in what two sets of settings differ."""
    names = [name for name in held | came if held.get(name) != came.get(name)]
    return "; ".join(f"{n} was {held.get(n)}, and {came.get(n)} came" for n in names)


def _parameters(model: Any) -> dict[str, Tensor]:
    """Return copies of what a model has learned, but for its particles."""
    return {k: v.clone() for k, v in model.state_dict().items() if k != "particles"}


def _fixed(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a model without those that are learned."""
    return {name: value for name, value in arguments.items() if name != "likelihood_arguments"}


def _rows(source: Source) -> int | None:
    """Return the rows of all processes; None of a source that can be read once only."""
    if not getattr(source, "repeatable", True):
        return None
    return int(group_of(source).total(len(source))[0])


def _fingerprint(source: Source, rows: int | None, group: Group) -> str | None:
    """Return, to the first process, a digest that tells data apart; None if they are read once.

    It is of all rows, or of large data of some that are spread over all processes' rows evenly.
    """
    if rows is None:
        return None
    n = rows if rows * source.n_features <= _VALUES else min(rows, _SPREAD)
    chosen = torch.linspace(0, rows - 1, n, dtype=torch.float64).round().long()
    start = sum(group.gather(len(source))[: group.rank])
    own = chosen[(chosen >= start) & (chosen < start + len(source))] - start
    x = source.take(own, torch.float32).cpu() if len(own) else torch.empty(0, source.n_features)
    x = group.brought(x)
    return hashlib.sha256(x.contiguous().numpy().tobytes()).hexdigest() if group.first else None


def _whole(model: Any, group: Group) -> Any:
    """Return, to the first process, a model with the particles of all processes."""
    if group.world == 1 or getattr(model, "particles", None) is None:
        return model
    whole = copy.copy(model)
    whole._buffers = dict(model._buffers)
    whole.particles = group.brought(model.particles)
    whole.training_state = {
        name: group.brought(t) if name.startswith(_OF_ROWS) else t
        for name, t in model.training_state.items()
    }
    return whole


def _keep_own(model: Any, source: Source, group: Group) -> None:
    """Leave a model the particles of this process's rows."""
    if getattr(model, "particles", None) is None:
        return
    start = sum(group.gather(len(source))[: group.rank])
    own = slice(start, start + len(source))
    model.particles = model.particles[own].clone()
    for name, tensor in model.training_state.items():
        if name.startswith(_OF_ROWS):
            model.training_state[name] = tensor[own].clone()
