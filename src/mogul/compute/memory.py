"""Memory of devices: how much is free, and what to do when it ends."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch

from mogul.errors import InputError

_LEAST_ROWS = 16
_SHARE = 0.25  # of the free memory of a GPU that the buffers of one batch may take

# The first is what GPUs raise; CPUs raise the second with words of their own, see `halved`.
MEMORY_ERRORS = (torch.cuda.OutOfMemoryError, RuntimeError)
_OF_CPUS = ("can't allocate memory", "not enough memory")
_TOO_LARGE = ("size calculation overflowed", "invalid size", "overflow")  # for any machine


def halved(size: int, error: BaseException) -> int:
    """Return half a batch size, for use after memory ran out.

    Raises:
        InputError: if batches are so small that another size would not help.
        RuntimeError: the error itself, if it is about something else.
    """
    of_gpu = isinstance(error, torch.cuda.OutOfMemoryError)
    if not of_gpu and not any(words in str(error).lower() for words in _OF_CPUS):
        raise error
    if of_gpu:
        torch.cuda.empty_cache()  # what other sizes left in pieces
    if size < 2 * _LEAST_ROWS:
        raise InputError(
            f"Memory ran out with batches of {size} rows; choose fewer components or factors, or "
            "another device."
        ) from error
    return size // 2


@contextmanager
def room_for(what: str) -> Generator[None]:
    """Turn a failure to allocate into a message that names what there is no room for.

    Raises:
        InputError: if memory runs out within.
    """
    try:
        yield
    except MEMORY_ERRORS as error:
        told = str(error).lower()
        of_gpu = isinstance(error, torch.cuda.OutOfMemoryError)
        if not of_gpu and not any(words in told for words in (*_OF_CPUS, *_TOO_LARGE)):
            raise
        raise InputError(
            f"There is no memory for {what}; choose fewer components or features, or a covariance "
            "with fewer parameters."
        ) from error


def rows_that_fit(device: torch.device, bytes_per_row: int) -> int:
    """Return how many rows of a batch a quarter of a GPU's free memory holds."""
    free, _ = torch.cuda.mem_get_info(device)
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return max(_LEAST_ROWS, int(_SHARE * (free + held)) // max(1, bytes_per_row))
