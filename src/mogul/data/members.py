"""Encoded rows, one file each: in folders, zip files and tar shards."""

from __future__ import annotations

import mmap
import re
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mogul.data.unpacked import read_member
from mogul.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")


class Members(NamedTuple):
    """The files of a folder or archive: how many, and name and content by number."""

    path: Path
    n: int
    name: Callable[[int], str]
    read: Callable[[int], bytes]


def holds_members(path: Path) -> bool:
    """Tell whether a path is a folder, a zip file, a tar file, or names of such with braces."""
    return path.is_dir() or path.suffix.lower() == ".zip" or _is_tar(path.name)


def list_members(path: Path) -> Members:
    """Return the images in a folder (with its sub-folders) or a zip file, or the rows of tar files.

    Those of folders and zip files are in the natural order of their names; those of tar files as
    they lie there, shard by shard.

    Raises:
        InputError: if there are none, or an archive cannot be read.
    """
    shards = _tar_files(path)
    if shards:
        return _in_tar(path, shards)
    names, read = _in_zip(path) if path.is_file() else _in_folder(path)
    names = sorted((n for n in names if is_image(n) and not _is_hidden(n)), key=_natural)
    if not names:
        raise InputError(
            f"{path} holds no images; give a folder or zip file with {', '.join(SUFFIXES[:4])} "
            "files or the like."
        )
    return Members(path, len(names), names.__getitem__, lambda i: read(names[i]))


def is_image(name: str) -> bool:
    """Tell by its name whether a file is an image."""
    return name.lower().endswith(SUFFIXES)


def _in_folder(path: Path) -> tuple[list[str], Callable[[str], bytes]]:
    names = [str(p.relative_to(path)) for p in path.rglob("*") if p.is_file()]
    return names, lambda name: (path / name).read_bytes()


def _in_zip(path: Path) -> tuple[list[str], Callable[[str], bytes]]:
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # damaged archives raise errors of many kinds
        raise InputError(
            f"{path} cannot be read as a zip file; it may be empty or cut short: fetch it again."
        ) from error
    # Reading one ZipFile from several threads is safe: it locks its file object.
    return archive.namelist(), partial(read_member, path, archive)


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in Path(name).parts)


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Order img2 before img10."""
    pieces = re.split(r"(\d+)", name)
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in pieces]


def _is_tar(name: str) -> bool:
    return name.lower().endswith((".tar", ".tar.gz", ".tgz"))


def _tar_files(path: Path) -> list[Path]:
    """Return the shards that a path names: itself, those of a folder, or those of its braces."""
    if path.is_dir():
        found = [p for p in path.iterdir() if _is_tar(p.name) and not _is_hidden(p.name)]
        return sorted(found, key=lambda p: _natural(p.name))
    braces = _BRACES.search(path.name)
    if not _is_tar(path.name) or (braces is None and not path.exists()):
        return []
    if braces is None or path.exists():
        return [path]
    low, high = braces.groups()
    numbers = [str(i).zfill(len(low)) for i in range(int(low), int(high) + 1)]
    return [path.with_name(_BRACES.sub(number, path.name, count=1)) for number in numbers]


def _in_tar(path: Path, shards: Sequence[Path]) -> Members:
    """Index the rows of shards: the first kind of image or array in each sample.

    Raises:
        InputError: if a shard cannot be read, or none holds a row.
    """
    places = [_places(shard) for shard in shards]
    counts = np.cumsum([len(p) for p in places])
    if not counts[-1]:
        raise InputError(
            f"{path} holds no images and no .npy files, of which every one would be a row; write "
            "some to it."
        )
    offsets = np.concatenate(places)

    def shard_of(i: int) -> Path:
        return shards[int(np.searchsorted(counts, i, side="right"))]

    def read(i: int) -> bytes:
        start, length = offsets[i]
        with shard_of(i).open("rb") as file:
            file.seek(start)
            content = file.read(length)
        if len(content) < length:
            raise InputError(f"{shard_of(i)} is cut short; fetch or write it again.")
        return content

    def name(i: int) -> str:
        with shard_of(i).open("rb") as file:
            file.seek(offsets[i][0] - 512)  # what precedes a member begins with its name
            begin = file.read(100).split(b"\0")[0].decode(errors="replace")
        return f"{shard_of(i).name}/{begin}"

    return Members(path, int(counts[-1]), name, read)


def _places(path: Path) -> np.ndarray:
    """Return where the rows of a tar file lie: offset and length, (n, 2).

    Raises:
        InputError: if it is packed, damaged, or two of its members would be one row.
    """
    found: list[tuple[int, int]] = []
    before = ""
    try:
        with path.open("rb") as file:
            if file.read(2) == b"\x1f\x8b":
                raise InputError(
                    f"{path} is packed by gzip, so that nothing in it can be found without "
                    "unpacking all; unpack it: gunzip it to a .tar file."
                )
        # Reading what is mapped ends where the file ends, whatever size a header tells.
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
            tarfile.open(fileobj=mapped, mode="r:") as archive,  # pyright: ignore[reportArgumentType, reportCallIssue]
        ):
            while (member := archive.next()) is not None:
                archive.members = []  # pyright: ignore[reportAttributeAccessIssue] - else all stay
                if not member.isreg() or not _is_row(member.name):
                    continue
                sample = member.name[: -len(Path(member.name).suffix)]
                if sample == before:
                    raise InputError(
                        f"{path}: {member.name} is the second image or array of its sample; keep "
                        "one of each."
                    )
                before = sample
                if member.issparse() or not 0 <= member.size <= len(mapped) - member.offset_data:
                    raise InputError(
                        f"{path}: {member.name} does not lie in it as a whole; fetch or write it "
                        "again."
                    )
                found.append((member.offset_data, member.size))
            _check_end(path, archive.offset)  # pyright: ignore[reportAttributeAccessIssue]
    except InputError:
        raise
    except Exception as error:  # damaged archives raise errors of many kinds
        raise InputError(
            f"{path} cannot be read as a tar file ({error}); fetch or write it again."
        ) from error
    return np.array(found, np.int64).reshape(-1, 2)


def _check_end(path: Path, offset: int) -> None:
    """Refuse a tar file without the mark of its end, which some readers take for whole.

    Raises:
        InputError: if it is cut short.
    """
    with path.open("rb") as file:
        file.seek(offset)
        if file.read(512) != bytes(512):
            raise InputError(
                f"{path} has no mark at its end: it is cut short, or was never closed; fetch or "
                "write it again."
            )


def _is_row(name: str) -> bool:
    return not _is_hidden(name) and (is_image(name) or name.lower().endswith(".npy"))
