"""What fits share: files that they go on from; of decoders and autoencoders, runs and pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mogul.cli.console import FitProgress, Followers, command_line, err, write_picture
from mogul.errors import InputError

if TYPE_CHECKING:
    from mogul.data import DataSource
    from mogul.models import Checkpoint, LatentVariableModel

_PICTURES = 10  # per run
_ROW = 12  # images in a row of a picture
_SIDE = 32


@dataclass(frozen=True)
class Run:
    """A fit that writes its model after every pass, and pictures beside it at intervals.

    `source` may be one process's share of the rows. `settings` and `algorithm` are kept with the
    model so that the fit can go on, and `command` tells all commands that made it;
    `followers` are told of passes besides the screen.
    """

    model: LatentVariableModel
    source: DataSource
    output: Path
    settings: dict[str, Any]
    algorithm: str
    passes: int
    seed: int
    command: str
    resume: bool = False
    followers: Followers = field(default_factory=Followers)

    def fit(
        self,
        algorithm: Any,
        quiet: bool,
        validation: DataSource | None = None,
        figures_of: Callable[[list[dict[str, Any]]], dict[str, Any]] = lambda history: {},
    ) -> dict[str, Any]:
        """Fit, write the model with its figures, and return these.

        Args:
            algorithm: how to fit.
            quiet: whether to print no progress.
            validation: held-out rows to score at every pass.
            figures_of: what to add to the figures, given the history.

        Raises:
            Exit: when a signal asked to stop, having told how to go on.
        """
        import mogul
        from mogul.algorithms import StopReason

        every = max(1, self.passes // _PICTURES)
        first = self.source.group.first
        checkpoint = mogul.Checkpoint(self.output, self.resume, facts=self._facts())

        def passed(row: dict[str, Any]) -> None:
            progress.passed(row)
            if row["pass"] % every == 0:
                self.draw()

        shown = FitProgress(self.passes, len(self.source), quiet or not first, self.followers)
        with shown as progress:
            done = mogul.fit(
                self.model, self.source, algorithm, passes=self.passes, tolerance=0.0,
                validation=validation, callback=passed, seen=progress.seen, checkpoint=checkpoint,
            )  # fmt: skip
        if done.reason is StopReason.INTERRUPTED:
            if first:
                tell_how_to_go_on(checkpoint, len(done.history))
            raise typer.Exit(130)
        figures = figures_of(done.history) | {
            "passes": len(done.history), "n": self.settings["rows"],
            "n_parameters": self.model.n_parameters,
            "seconds": sum(row["seconds"] for row in done.history), "stopped": done.reason.value,
        }  # fmt: skip
        facts = {"history": done.history, "figures": figures, "rows": self.settings["rows"]}
        checkpoint.finish(self.model, self.source, facts)
        self.draw()
        return figures

    def _facts(self) -> dict[str, Any]:
        """Return what other commands, and a fit that goes on, need to know."""
        source = self.source
        return {
            "options": source.options, "feature_shape": list(source.feature_shape),
            "levels": source.scale.levels if source.scale else None, "settings": self.settings,
            "algorithm": self.algorithm, "command": self.command,
        }  # fmt: skip

    def draw(self) -> None:
        """Write images, what their latents make of them, and samples from the prior."""
        if self.source.is_image and self.source.group.first:
            picture = progress_picture(self.model, self.source, self.seed)
            write_picture(self.output.with_suffix(".png"), picture)


def going_on(
    checkpoint: Checkpoint, source: DataSource, passes: int, run: str = ""
) -> dict[str, Any] | None:
    """Return the facts of the fit that is to go on; None if one begins.

    Args:
        checkpoint: the file of the fit.
        source: the data.
        passes: how many are asked for, in all.
        run: name of the run, of processes that torchrun began.

    Raises:
        InputError: if a fit is to go on and there is none, or one of data that were read otherwise,
            or one that has ended after as many passes.
    """
    from mogul.models.checkpoint import differences

    held = checkpoint.held(run)
    if held is None:
        if checkpoint.resume:
            raise InputError(
                f"There is no fit in {checkpoint.path} to go on with; leave --resume out."
            )
        return None
    was, now = _reading(held.get("options", {})), _reading(source.options)
    if was != now:
        raise InputError(
            f"{checkpoint.path} is of a fit to data that were read otherwise: "
            f"{differences(was, now)}; go on with the same data and options, or leave --resume out."
        )
    made = len(held.get("history", []))
    if checkpoint.resume and "figures" in held and made >= passes:
        raise InputError(
            f"The fit in {checkpoint.path} made {made} passes before, and {passes} were asked for, "
            "in all; ask for more, or leave --resume out."
        )
    return held


def _reading(options: dict[str, Any]) -> dict[str, Any]:
    """Return how data were read, wherever they are."""
    return {name: value for name, value in options.items() if name != "data"}


def tell_how_to_go_on(checkpoint: Checkpoint, passes: int) -> None:
    """Print how to go on with a fit that a signal has stopped."""
    if not checkpoint.kept:
        err.print("Stopped before the first pass was made; nothing of this fit was written.")
        return
    err.print(
        f"Stopped by a signal; {checkpoint.path} holds {passes} whole pass(es). The same command "
        "with --resume goes on; torchrun does so by itself, if it may begin processes anew."
    )


def progress_picture(model: LatentVariableModel, source: DataSource, seed: int) -> Any:
    """Return images, what their latents make of them, and samples from the prior, in rows."""
    import torch

    from mogul.models import VariationalAutoencoder
    from mogul.report import stack_rows

    n = min(_ROW, len(source))
    with torch.no_grad():
        x = source.take(range(n), model.dtype, model.device)
        rows = [x]
        if isinstance(model, VariationalAutoencoder):
            rows.append(model.decode(model.posterior(x).mean))
        elif model.particles is not None:
            rows.append(model.decode(model.particles[:n, 0]))
        rows += [model.sample(n, seed=seed + r) for r in range(3)]
    return stack_rows([source.to_pixels(row) for row in rows])


def open_images(data: str, decoder: str | None, reading: Any) -> DataSource:
    """Open data; images are brought to the size that the convolutional decoder makes."""
    import mogul

    source = mogul.open_source(data, **reading)
    shape = source.feature_shape
    wanted = reading.get("size") is None and decoder in (None, "conv")  # the network's own size
    if wanted and source.is_image and shape[:2] != (_SIDE, _SIDE):
        return mogul.open_source(data, **reading | {"size": (_SIDE, _SIDE)})
    return source


def chosen(what: str, name: str | None, made: dict[str, Callable[[], Any]]) -> Any:
    """Return what a name stands for.

    Raises:
        InputError: if it stands for nothing.
    """
    if name not in made:
        raise InputError(f"Unknown {what} '{name}'; choose one of: {', '.join(made)}.")
    return made[name]()


def refuse_changes(given: dict[str, Any], held: dict[str, Any]) -> None:
    """Refuse values that differ from those a fit was begun with.

    Raises:
        InputError: naming them.
    """
    changed = {k: v for k, v in given.items() if k in held and held[k] != v}
    if changed:
        was = ", ".join(f"{name} is {held[name]}" for name in changed)
        raise InputError(
            f"This does not change in a fit that goes on: {was}; leave it out, or begin anew "
            "without --resume."
        )


def commands(before: str | None) -> str:
    """Return the command as typed, after those that made what it goes on with."""
    return command_line() if before is None else f"{before} && {command_line()}"


def check_output_name(output: Path) -> None:
    """Refuse a name that the pictures of a run would take.

    Raises:
        InputError: if it ends so.
    """
    if output.suffix == ".png":
        raise InputError(
            f"{output} is where pictures of the run go; choose another ending, such as .mogul."
        )
