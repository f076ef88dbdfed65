"""Disks that are full, and folders that cannot be written."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch

from mogul import (
    EM,
    Checkpoint,
    GaussianMixture,
    InputError,
    fit,
    initialise,
    load_model,
    save_model,
)
from mogul.data import ArraySource, write_store
from torture._faults.children import Lines, child, ended
from torture.outcome import Outcome

_SIZE = 2 * 2**20
_NOBODY = 65534


@contextmanager
def _small_disk() -> Generator[Path | None]:
    """Mount a file system of 2 MiB in memory, if this process may; otherwise yield None."""
    with tempfile.TemporaryDirectory() as name:
        command = ["mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "tmpfs", name]
        mounted = False
        if os.geteuid() == 0 and shutil.which("mount"):
            mounted = subprocess.run(command, capture_output=True).returncode == 0
        try:
            yield Path(name) if mounted else None
        finally:
            if mounted:
                subprocess.run(["umount", "-l", name], check=True)


def full_disk(n: int) -> Outcome:
    """Save where there is ever less room: what was there stays, or the new file is whole."""
    outcome = Outcome("full disk")
    with _small_disk() as disk, tempfile.TemporaryDirectory() as name:
        folder = Path(name) if disk is None else disk
        kind = "a limit on the size of files" if disk is None else "a tmpfs of 2 MiB"
        for i in range(n):
            room = (_SIZE // 2) * i // n
            lines = Lines()
            with child(partial(_in_room, folder, room, disk is not None, lines)) as number:
                code = ended(number, 60)
            told = lines.new()
            lines.close()
            outcome.tried += 1
            if code != 0 or told:
                outcome.failures.append(f"room for {room:,} bytes: {told or code}")
        outcome.note = f"{kind}; models, checkpoints of fits, and converted data"
    return outcome


def _in_room(folder: Path, room: int, mounted: bool, lines: Lines) -> None:
    """Write to a disk with some room left, and tell what is wrong then."""
    path, filler = folder / "m.mogul", folder / "filler"
    x = ArraySource(torch.randn(400, 30, generator=torch.Generator().manual_seed(0)))
    save_model(path, GaussianMixture(1, 2), {"old": True})
    if mounted:
        free = shutil.disk_usage(folder).free
        filler.write_bytes(bytes(max(0, free - room)))
    else:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    large = GaussianMixture(100, 30)
    saved = _refused(lambda: save_model(path, large), lines)
    if load_model(path)[0].n_components != (1 if saved is None else 100):
        lines.tell("the file is neither the old one nor the new one")
    model = GaussianMixture(60, 30)
    initialise(model, x)
    path.unlink()
    _refused(
        lambda: fit(model, x, EM(), passes=2, tolerance=0.0, checkpoint=Checkpoint(path)), lines
    )
    if path.exists() and load_model(path)[0].n_components != 60:
        lines.tell("the checkpoint is none of this fit")
    store = folder / "x.parquet"
    done = _refused(lambda: write_store(x, store), lines)
    if store.exists() != (done is not None):
        lines.tell("converted data are half there")
    left = {p.name for p in folder.iterdir()} - {"m.mogul", "m.mogul.before", "filler", "x.parquet"}
    if left:
        lines.tell(f"{left} was left")
    for made in folder.iterdir():
        made.unlink()


def _refused(act: Callable[[], object], lines: Lines) -> object:
    """Do something; return None if it was refused for lack of room."""
    try:
        return act() or True
    except InputError as error:
        if "room" not in str(error):
            lines.tell(f"says nothing of room: {error}")
        return None
    except Exception as error:
        lines.tell(f"{type(error).__name__}: {error}")
        return None


def read_only() -> Outcome:
    """Write to folders that cannot be written: refused in words, and nothing is changed."""
    outcome = Outcome("folder that cannot be written")
    with _small_disk() as disk, tempfile.TemporaryDirectory() as name:
        cases = [("no permission", Path(name))]
        if disk is not None:
            save_model(disk / "m.mogul", GaussianMixture(1, 2))
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
            cases.append(("a file system that is read only", disk))
        save_model(Path(name) / "m.mogul", GaussianMixture(1, 2))
        os.chmod(name, 0o555)
        for what, folder in cases:
            lines = Lines()
            with child(partial(_in_read_only, folder, lines)) as number:
                code = ended(number, 60)
            told = lines.new()
            lines.close()
            outcome.tried += len(_WRITERS)
            told += [f"ended with {code}"] if code else []
            outcome.failures += [f"{what}: {t}" for t in told]
        os.chmod(name, 0o755)
        outcome.note = " and ".join(what for what, _ in cases)
    return outcome


def _fitted(path: Path) -> object:
    x = ArraySource(np.random.default_rng(0).normal(size=(60, 2)))
    return fit(GaussianMixture(1, 2), x, EM(), passes=2, checkpoint=Checkpoint(path))


_WRITERS: dict[str, Callable[[Path], object]] = {
    "a model": lambda folder: save_model(folder / "m.mogul", GaussianMixture(2, 2)),
    "a new model": lambda folder: save_model(folder / "n.mogul", GaussianMixture(2, 2)),
    "a fit": lambda folder: _fitted(folder / "m.mogul"),
    "a new fit": lambda folder: _fitted(folder / "n.mogul"),
    "data": lambda folder: write_store(ArraySource(torch.zeros(5, 2)), folder / "x.parquet"),
}


def _in_read_only(folder: Path, lines: Lines) -> None:
    with tempfile.TemporaryDirectory() as warm:  # modules may lie where only this user may read
        for write in _WRITERS.values():
            write(Path(warm))
    if os.geteuid() == 0:
        os.seteuid(_NOBODY)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    for what, write in _WRITERS.items():
        try:
            write(folder)
            lines.tell(f"{what} was written")
        except InputError as error:
            if "writ" not in str(error):
                lines.tell(f"{what}: {error}")
        except Exception as error:
            lines.tell(f"{what}: {type(error).__name__}: {error}")
    if {p.name: p.read_bytes() for p in folder.iterdir()} != before:
        lines.tell("the folder was changed")
