"""Devices, floating-point types and seeds."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch

from mogul.errors import InputError

P = ParamSpec("P")
R = TypeVar("R")

_DTYPES = {"float32": torch.float32, "float64": torch.float64}


def make_generator(seed: int | None, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a random generator of its own, so that the global one is neither read nor moved.

    Args:
        seed: any integer; None takes a fresh seed from the operating system.
        device: where it will draw.

    Returns:
        the generator.
    """
    generator = torch.Generator(device=device)
    if seed is None:
        generator.seed()
        return generator
    return generator.manual_seed(int(seed) % 2**63)


@contextmanager
def full_precision(device: torch.device) -> Generator[None]:
    """Keep the factors of float32 products from being rounded, which costs likelihoods nats.

    By autocast anywhere, and to TF32 on a GPU.
    """
    if torch.is_autocast_enabled(device.type):
        with torch.autocast(device.type, enabled=False), full_precision(device):
            yield
        return
    if device.type != "cuda":  # CPU threads would put each other's setting back
        yield
        return
    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed


def in_full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Run a function in `full_precision` on the device of its first argument that has one."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        given: list[Any] = [*args, *kwargs.values()]
        with full_precision(next(a.device for a in given if hasattr(a, "device"))):
            return function(*args, **kwargs)

    return run


def resolve_device(name: str) -> torch.device:
    """Return the device called `name`; "auto" is the GPU if there is one.

    Of several GPUs, each process that torchrun began on this machine takes one of its own.

    Raises:
        InputError: if there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"Unknown device '{name}'; choose auto, cpu, or cuda.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"Device '{name}' was asked for, but no GPU is usable here; choose cpu.")
    if device.type == "cuda" and device.index is None:
        local = int(os.environ.get("LOCAL_RANK", "0"))
        device = torch.device("cuda", local % torch.cuda.device_count())
        torch.cuda.set_device(device)  # where collectives of this process are worked on
    return device


def resolve_dtype(name: str) -> torch.dtype:
    """Return the floating-point type called `name`.

    Raises:
        InputError: if it is neither float32 nor float64.
    """
    if name not in _DTYPES:
        raise InputError(f"Unknown dtype '{name}'; choose one of: {', '.join(_DTYPES)}.")
    return _DTYPES[name]
