"""Files that are either whole or absent: tensors and JSON in one safetensors file."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import secrets
import stat
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from mogul.compute.target import target
from mogul.errors import InputError

_KEY = "mogul"
_DIGESTS = "sha256"
_CONFIG, _LAYOUT = "/configuration", "/layout"  # names of what is no tensor, among the digests
_PART = ".part"  # ending of what is being written


def atomic_write(path: str | Path, content: bytes) -> None:
    """Write a file so that it is never seen half-written: a temporary beside it, then a rename.

    Who may read it is what the umask says, or what it was for the file that it replaces.

    Raises:
        InputError: if the folder does not exist or cannot be written, or the path is of something
            else than a file, such as a device.
    """
    path = Path(path)
    real = target(path)
    name, temporary = real.with_name(f".{real.name}.{secrets.token_hex(4)}{_PART}"), None
    try:
        with name.open("xb") as file:
            temporary = name
            if real.exists():
                os.chmod(temporary, stat.S_IMODE(real.stat().st_mode))
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, real)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise InputError(
            f"Cannot write {path}: {error.strerror}; {_remedy(path, error)}"
        ) from error


def remove_stale(path: str | Path) -> None:
    """Remove what writers of this file left behind that were killed; none may be at work."""
    path = target(path)
    for left in path.parent.glob(f".{glob.escape(path.name)}.{8 * '?'}{_PART}"):
        remove(left)


def remove(path: Path) -> None:
    """Remove a file, if it is there.

    Raises:
        InputError: if its folder cannot be written.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"Cannot remove {path}: {error.strerror}; {_remedy(path, error)}"
        ) from error


def _remedy(path: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        kept = f", and {path} is as it was before" if path.exists() else ""
        return f"nothing was written{kept}: make room, or choose another disk."
    return "choose a folder that exists and is writable."


def save_tensors(path: str | Path, tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    """Write tensors and a JSON configuration, atomically.

    Args:
        path: the file to write.
        tensors: tensors by name, on the CPU.
        config: anything JSON can hold.
    """
    digests = {name: _digest(tensor) for name, tensor in tensors.items()}
    digests |= {_LAYOUT: _digest_of(_layout(tensors)), _CONFIG: _digest_of(config)}
    about = config | {_DIGESTS: digests}
    atomic_write(path, save(tensors, metadata={_KEY: json.dumps(about)}))


def _layout(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Return types and shapes, without which the same bytes are other numbers."""
    return {name: [str(t.dtype), list(t.shape)] for name, t in tensors.items()}


def _digest_of(config: dict[str, Any]) -> str:
    """Return the SHA-256 of a configuration, whatever the order of its names."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def _digest(tensor: Tensor) -> str:
    """Return the SHA-256 of the bytes of a tensor on the CPU."""
    flat = tensor.detach().contiguous().flatten().view(torch.uint8)
    return hashlib.sha256(flat.numpy()).hexdigest()  # pyright: ignore[reportArgumentType] - a buffer


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote; nothing in the file is run.

    Args:
        path: the file.

    Returns:
        tensors by name, and the configuration.

    Raises:
        InputError: if the file is missing, damaged (a tensor differs from its SHA-256), or not one
            of ours.
    """
    if not Path(path).is_file():
        raise InputError(f"No model file at {path}; give the path that `mogul fit -o` wrote.")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            config = json.loads(metadata[_KEY])
            # Copies: what is mapped changes with a file that somebody writes over in its place.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # ruff: ignore[in-dict-keys]
        digests = config.pop(_DIGESTS, None)
        if digests is not None:
            changed = _changed(digests, tensors, config)
        else:  # files of the first versions have none; others may have them under a damaged name
            changed = [_DIGESTS] if _CONFIG in metadata[_KEY] else []
    except Exception as error:  # damaged headers are of any kind
        raise InputError(
            f"{path} is not a mogul model, or it is damaged; give a file that `mogul fit -o` wrote."
        ) from error
    if changed:
        raise InputError(
            f"{path} is damaged: {', '.join(changed[:3])} differs from what was written; fetch the "
            "file again, or fit again."
        )
    return tensors, config


def _changed(
    digests: dict[str, str], tensors: dict[str, Tensor], config: dict[str, Any]
) -> list[str]:
    """Return the names of what differs from its digest; all have one, but for some old layouts."""
    found = {name: _digest(tensor) for name, tensor in tensors.items()}
    found |= {_CONFIG: _digest_of(config), _LAYOUT: _digest_of(_layout(tensors))}
    if set(digests) == set(found) - {_LAYOUT}:
        del found[_LAYOUT]  # files of earlier versions have none
    names = dict.fromkeys([*found, *digests])
    return [name for name in names if digests.get(name) != found.get(name)]
