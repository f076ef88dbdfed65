"""Files that are either whole or absent: tensors and JSON in one safetensors file."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mogul.errors import InputError

_KEY = "mogul"


def atomic_write(path: str | Path, content: bytes) -> None:
    """Write a file so that it is never seen half-written: a temporary beside it, then a rename.

    Raises:
        InputError: if the folder does not exist or cannot be written.
    """
    path = Path(path)
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise InputError(
            f"Cannot write {path}: {error.strerror}; choose a folder that exists and is writable."
        ) from error


def save_tensors(path: str | Path, tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    """Write tensors and a JSON configuration, atomically.

    Args:
        path: the file to write.
        tensors: tensors by name, on the CPU.
        config: anything JSON can hold.
    """
    atomic_write(path, save(tensors, metadata={_KEY: json.dumps(config)}))


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote; nothing in the file is run.

    Args:
        path: the file.

    Returns:
        tensors by name, and the configuration.

    Raises:
        InputError: if the file is missing, damaged, or not one of ours.
    """
    if not Path(path).is_file():
        raise InputError(f"No model file at {path}; give the path that `mogul fit -o` wrote.")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            config = json.loads(metadata[_KEY])
            return {name: file.get_tensor(name) for name in file.keys()}, config  # ruff: ignore[in-dict-keys]
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise InputError(
            f"{path} is not a mogul model, or it is damaged; give a file that `mogul fit -o` wrote."
        ) from error
