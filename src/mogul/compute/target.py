"""What a path to write to means."""

from __future__ import annotations

import os
from pathlib import Path

from mogul.errors import InputError


def target(path: str | Path) -> Path:
    """Return the file that a path means, behind symbolic links, which stay as they are.

    Raises:
        InputError: if it is something else than a file: a rename would put a file in its place.
    """
    found = Path(os.path.realpath(path))
    if found.exists() and not found.is_file():
        what = "a folder" if found.is_dir() else "a device or the like, not a file"
        raise InputError(f"Cannot write {path}: it is {what}; choose another place.")
    return found
