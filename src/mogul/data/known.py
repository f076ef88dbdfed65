"""Data sets known by name: digits, and those in the folder that MOGUL_DATA names."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mogul.data.files import read_idx
from mogul.data.images import Encoded, Size, reshaped
from mogul.data.members import list_members
from mogul.errors import InputError

_CELEBA_TRAIN = 9_000


def _folder(name: str) -> Path:
    root = os.environ.get("MOGUL_DATA")
    if not root:
        raise InputError(
            "This data set is read from the folder that the environment variable MOGUL_DATA "
            f"names, and it is not set; set it to a folder that holds {name}/, or use digits."
        )
    path = Path(root) / name
    if not path.is_dir():
        raise InputError(
            f"MOGUL_DATA names {root}, which has no folder {name}/; put the data there."
        )
    return path


def _digits(split: str, picture_options: dict[str, Any]) -> tuple[np.ndarray, int]:
    return _grey(of_digits("images", split), name="digits", **picture_options), 17


def of_digits(what: str, split: str) -> np.ndarray:
    """Return scikit-learn's 8×8 digits, 80 % of them for training, shuffled by a fixed seed."""
    from sklearn.datasets import load_digits

    values = load_digits()[what].astype(np.uint8)  # pyright: ignore[reportArgumentType, reportCallIssue]
    values = values[np.random.default_rng(0).permutation(len(values))]
    cut = int(0.8 * len(values))
    return values[:cut] if split == "train" else values[cut:]


def _grey(
    images: np.ndarray, name: str, crop: Size | None, size: Size | None, colour: bool | None
) -> np.ndarray:
    """Crop and resize images that have no colour.

    Raises:
        InputError: if colour is asked for.
    """
    if colour:
        raise InputError(f"The images of {name} are grey; leave the option --colour out.")
    return reshaped(images, crop, size)


def _idx_set(folder: str) -> Callable[[str, dict[str, Any]], tuple[np.ndarray, int]]:
    def read(split: str, picture_options: dict[str, Any]) -> tuple[np.ndarray, int]:
        found = read_idx(idx_file(folder, split, "images"))
        return _grey(found, name=folder, **picture_options), 256

    return read


def idx_file(folder: str, split: str, what: str) -> Path:
    """Return the path of the images or labels of a data set.

    Raises:
        InputError: if there is no such file.
    """
    stem = "train" if split == "train" else "t10k"
    found = sorted(_folder(folder).glob(f"{stem}-{what}*"))
    if not found:
        raise InputError(
            f"{_folder(folder)} has no file {stem}-{what}-idx, plain or .gz; put it there."
        )
    return found[0]


def _celeba(split: str, picture_options: dict[str, Any]) -> tuple[Encoded, int]:
    """Return the central 64×64 pixels of the 89×109 faces, the first 9,000 for training.

    Raises:
        InputError: if there is no zip file of faces.
    """
    faces = _faces()
    part = slice(None, _CELEBA_TRAIN) if split == "train" else slice(_CELEBA_TRAIN, None)
    chosen = {k: v for k, v in picture_options.items() if v is not None}
    reading: dict[str, Any] = {"crop": (64, 64), "colour": True} | chosen
    return Encoded(list_members(faces), **reading)[part], 256


def _faces() -> Path:
    """Return the zip file of faces.

    Raises:
        InputError: if there is none.
    """
    found = sorted(_folder("celeba_10k").glob("*.zip"))
    if not found:
        raise InputError(f"{_folder('celeba_10k')} has no zip file of faces; put it there.")
    return found[0]


def whereabouts() -> dict[str, str | None]:
    """Return where the data sets of `KNOWN` lie, by name; None for those that are not here."""
    looks: dict[str, Callable[[], Any]] = {"digits": lambda: "scikit-learn"}
    for name, folder in IDX.items():
        looks[name] = partial(idx_file, folder, "train", "images")
    looks["celeba"] = _faces
    return {name: _if_there(look) for name, look in looks.items()}


def _if_there(look: Callable[[], Any]) -> str | None:
    try:
        return str(look())
    except InputError:
        return None


IDX = {"mnist": "mnist", "fashion-mnist": "fashion_mnist"}
KNOWN: dict[str, Callable[[str, dict[str, Any]], tuple[np.ndarray | Encoded, int]]] = {
    "digits": _digits,
    **{name: _idx_set(folder) for name, folder in IDX.items()},
    "celeba": _celeba,
}
