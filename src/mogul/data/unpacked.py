"""Files that were packed: how far they may grow."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

from mogul.errors import InputError

_ALWAYS = 2**26  # bytes that any file may grow to
_TIMES = 200  # its size, of larger ones; zeros shrink a thousandfold, and data hardly ever so far


def check_growth(name: str | Path, packed: int, unpacked: int) -> None:
    """Refuse what grows beyond measure when it is unpacked.

    Raises:
        InputError: if it takes more than 64 MiB and more than 200 times its packed size.
    """
    if unpacked > max(_ALWAYS, _TIMES * packed):
        raise InputError(
            f"{name} holds {packed:,} bytes and would unpack to {unpacked:,} or more, over "
            f"{_TIMES} times as many, as files do that are made to fill memory; if it is sound, "
            "unpack it and give the unpacked file."
        )


class Gunzipped(gzip.GzipFile):
    """A gzip file that is refused once it has grown beyond measure."""

    def __init__(self, path: Path) -> None:
        """Open the file."""
        super().__init__(path)
        self._path, self._packed = path, path.stat().st_size

    def read(self, size: int | None = -1) -> bytes:
        """Read some bytes; all of a file are never asked for at once."""
        content = super().read(size)
        check_growth(self._path, self._packed, self.tell())
        return content

    def readline(self, size: int | None = -1) -> bytes:
        """Read a line, or its begin."""
        content = super().readline(-1 if size is None else size)
        check_growth(self._path, self._packed, self.tell())
        return content


def read_member(path: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    """Return a member of a zip file, which is unpacked in memory and nowhere else.

    Raises:
        InputError: if it is damaged, or packed in a way that is not known, or grows beyond measure.
    """
    try:
        about = archive.getinfo(name)
        check_growth(
            f"{path}: {name}", min(about.compress_size, path.stat().st_size), about.file_size
        )
        with archive.open(about) as file:
            # One byte more reaches the end, where the checksum is; a read of all that there is
            # would unpack more than the header tells.
            content = file.read(about.file_size + 1)
    except InputError:
        raise
    except Exception as error:  # decoders of damaged archives raise errors of many kinds
        raise InputError(
            f"{path}: {name} cannot be unpacked ({type(error).__name__}: {error}); write or fetch "
            "the file again."
        ) from error
    if len(content) != about.file_size:
        raise InputError(f"{path}: {name} is cut short; write or fetch the file again.")
    return content
