"""What people and machines see: tables, JSON, progress, and files written whole."""

from __future__ import annotations

import errno
import functools
import io
import json
import math
import os
import shlex
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from mogul.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from mogul.app.session import Live
    from mogul.report import TensorBoard

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def command_line() -> str:
    """Return the command as typed, to keep with what it makes."""
    return shlex.join(["mogul", *sys.argv[1:]])


def show(title: str, figures: dict[str, Any], as_json: bool) -> None:
    """Print figures as a table for people, or as one line of JSON for machines."""
    if as_json:
        print(json.dumps(figures))
        return
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column()
    for name, value in figures.items():
        if not isinstance(value, list | dict):
            # Names of environment variables stay as they are.
            table.add_row(name if name.isupper() else name.replace("_", " "), _text(value))
    out.print(table)


def rows(title: str, columns: list[str], values: list[list[Any]]) -> None:
    """Print a table for people."""
    table = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    for row in values:
        table.add_row(*[_text(value) for value in row])
    out.print(table)


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        if 0 < abs(value) < 1e-3:
            return f"{value:.3g}"
        return f"{value:,.4f}" if abs(value) < 100 else f"{value:,.2f}"
    return (
        f"{value:,}"
        if isinstance(value, int) and not isinstance(value, bool)
        else escaped(str(value))
    )


class _Progress:
    """A bar over rows, shown while entered."""

    _bar: Progress
    _task: TaskID

    def __enter__(self) -> Self:
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """Take the bar away."""
        self._bar.stop()

    def seen(self, n: int) -> None:
        """Move on by n rows."""
        self._bar.advance(self._task, n)


@dataclass(frozen=True)
class Followers:
    """Who is told of the passes of a fit besides the screen: a page that watches, a board."""

    live: Live | None = None
    board: TensorBoard | None = None

    def begin(self, passes: int) -> None:
        """Tell how many passes there may be."""
        if self.live is not None:
            self.live.passes = passes

    def passed(self, row: dict[str, Any]) -> None:
        """Tell of a pass."""
        if self.live is not None:
            self.live.history.append(row)
        if self.board is not None:
            self.board(row)

    def close(self) -> None:
        """End what was told to the board."""
        if self.board is not None:
            self.board.close()


class FitProgress(_Progress):
    """A bar with log-likelihood and time left; one line per pass where there is no screen."""

    def __init__(
        self, passes: int, n_rows: int, quiet: bool, followers: Followers | None = None
    ) -> None:
        """Prepare for a number of passes over a number of rows."""
        self._followers = followers or Followers()
        self._followers.begin(passes)
        self._quiet, self._lines = quiet, not quiet and not err.is_terminal
        self._told: set[str] = set()
        self._bar = Progress(
            TextColumn("pass {task.fields[number]}"),
            BarColumn(),
            TextColumn("{task.fields[reached]}"),
            TimeRemainingColumn(),
            console=err,
            disable=quiet or not err.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("fit", total=passes * n_rows, number=1, reached="")

    def __exit__(self, *exc: object) -> None:
        """Take the bar away, and let go of those who followed."""
        super().__exit__(*exc)
        self._followers.close()

    def passed(self, row: dict[str, Any]) -> None:
        """Show what a pass reached."""
        self._followers.passed(row)
        if row["log_likelihood"] is None:
            bound = "evidence_bound" in row
            what, value = ("evidence bound" if bound else "log p(x, z)"), row["objective"]
            reached = f"{what} {row.get('evidence_bound', value):,.3f} nats per row"
        else:
            reached = f"{row['log_likelihood']:,.3f} nats per row"
        if "free_energy" in row:
            reached += f", free energy {row['free_energy']:,.3f}"
        if "movement" in row:
            reached += f", particles moved {row['movement']:.3f}"
        if row["validation"] is not None:
            reached += f", held out {row['validation']:,.3f}"
        self._bar.update(self._task, number=row["pass"] + 1, reached=reached)
        for event in row["events"]:
            if event not in self._told and not self._quiet:
                err.print(f"[yellow]pass {row['pass']}:[/yellow] {event}")
        self._told.update(row["events"])
        if self._lines:
            err.print(f"pass {row['pass']}: {reached} ({row['seconds']:.2f} s)")


class RowProgress(_Progress):
    """A bar of rows with time left; nothing where there is no screen."""

    def __init__(self, n_rows: int, quiet: bool) -> None:
        """Prepare for a number of rows."""
        self._bar = Progress(
            TextColumn("{task.completed:,.0f} of {task.total:,.0f} rows"),
            BarColumn(),
            TimeRemainingColumn(),
            console=err,
            disable=quiet or not err.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("rows", total=n_rows)


def check_output(path: Path, kinds: tuple[str, ...], *read: str | Path | None) -> None:
    """Refuse a path that cannot be written, before any work is done.

    Raises:
        InputError: for another kind of file, a file that the command reads, a device, or a folder
            that is missing or not writable.
    """
    if any(name is not None and path.resolve() == Path(name).resolve() for name in read):
        raise InputError(f"{path} is read by this command, and would be lost; choose another -o.")
    if kinds and path.suffix not in kinds:
        raise InputError(f"Cannot write {path}: its name must end in {' or '.join(kinds)}.")
    from mogul.compute.target import target

    folder = target(path).parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(
            f"Cannot write {path}: {folder} is not a writable folder; choose another place."
        )


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write arrays atomically: one as .npy, or all of them as .npz."""
    import numpy as np

    from mogul.compute.checkpoint import atomic_write

    buffer = io.BytesIO()
    if path.suffix == ".npz":
        np.savez_compressed(buffer, **arrays)  # pyright: ignore[reportArgumentType]
    else:
        np.save(buffer, next(iter(arrays.values())))
    atomic_write(path, buffer.getvalue())


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write an 8-bit picture as a PNG file, atomically."""
    from mogul.compute.checkpoint import atomic_write
    from mogul.report import to_png

    atomic_write(path, to_png(picture))


def write_grid(path: Path, images: np.ndarray) -> None:
    """Write images (n, h, w[, 3]) as one picture, about as wide as high."""
    from mogul.report import tile

    write_picture(path, tile(images, columns=math.ceil(len(images) ** 0.5)))


def write_table(path: Path, columns: list[str], values: list[list[Any]]) -> None:
    """Write a CSV file atomically."""
    import csv

    from mogul.compute.checkpoint import atomic_write

    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(values)
    atomic_write(path, buffer.getvalue().encode())


def run(command: Callable[[], None]) -> None:
    """Run the command line: input errors become one sentence and exit code 2, no traceback.

    SIGTERM ends it in order, as Ctrl-C does. What the encoding of the output lacks is shown as "?".

    Raises:
        OSError: if the system fails otherwise than by a full device.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    signal.signal(signal.SIGTERM, _terminate)
    try:
        command()
    except InputError as error:
        err.print(f"[red]Error:[/red] {escaped(str(error))}", soft_wrap=True)
        sys.exit(2)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        # What is left in the buffer would be written, and fail, once more at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        err.print("[red]Error:[/red] The output is cut short: no space left on its device.")
        sys.exit(2)


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command that tells of its end where Ctrl-C or SIGTERM has ended it."""

    @functools.wraps(command)
    def told(*arguments: Any, **options: Any) -> None:
        try:
            command(*arguments, **options)
        except KeyboardInterrupt:
            err.print("Interrupted; no file was left half-written.")
            raise typer.Exit(130) from None

    return told


def _terminate(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def escaped(text: str) -> str:
    """Return text in which rich finds no markup."""
    return text.replace("[", r"\[")
