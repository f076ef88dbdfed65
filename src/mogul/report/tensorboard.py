"""The history of a fit, written where TensorBoard reads it."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from mogul.errors import InputError


class TensorBoard:
    """A callback of `fit` that writes every pass for TensorBoard, at once.

    All numbers of a row of the history are scalars, whose step is the pass; events are text. A fit
    that goes on from a checkpoint goes on in the same folder; one that begins anew there hides what
    was written before from its first pass on.

    Args:
        folder: where to write; it is made if it does not exist.

    Raises:
        InputError: if tensorboard is not installed, or the folder is a file or cannot be written.

    Example:
        >>> from mogul import EM, GaussianMixture, fit, initialise, open_source
        >>> from mogul.report import TensorBoard
        >>> source = open_source("digits")
        >>> model = GaussianMixture(5, 64, "ppca", rank=2)
        >>> initialise(model, source)
        >>> with TensorBoard("runs/digits") as board:  # then: tensorboard --logdir runs
        ...     fitted = fit(model, source, EM(), passes=3, callback=board)
    """

    def __init__(self, folder: str | Path) -> None:
        """Check that it can write; the folder is made at the first pass.

        Raises:
            InputError: as the class says.
        """
        if find_spec("tensorboard") is None:
            raise InputError(
                "TensorBoard is not installed, so no history can be written for it; install it: "
                "pip install 'mogul[tensorboard]'."
            )
        self._folder = Path(folder)
        if self._folder.exists() and not self._folder.is_dir():
            raise InputError(f"{folder} is a file; give TensorBoard a folder to write into.")
        there = next(p for p in (self._folder, *self._folder.absolute().parents) if p.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise InputError(
                f"TensorBoard cannot write into {folder}: {there} is not a writable folder; choose "
                "another."
            )
        self._writer: Any = None

    def __call__(self, row: dict[str, Any]) -> None:
        """Write a row of the history.

        Raises:
            InputError: if the disk is full, or the folder went away.
        """
        try:
            self._write(row)
        except OSError as error:
            raise InputError(
                f"The history cannot be written into {self._folder}: {error.strerror or error}; "
                "make room, or choose another folder."
            ) from error

    def _write(self, row: dict[str, Any]) -> None:
        step = row["pass"]
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder), purge_step=step)
        for name, value in row.items():
            if name != "pass" and isinstance(value, int | float):
                self._writer.add_scalar(name, value, step)
        if row["events"]:
            self._writer.add_text("events", "\n\n".join(row["events"]), step)
        self._writer.flush()

    def close(self) -> None:
        """Close the file; a pass told after this opens another."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __enter__(self) -> Self:
        """Return the callback."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close the file."""
        self.close()
