"""Mutants of a file: each a function of its content and a seed alone."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable

_LENGTHS = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**24, 2**31 - 1, 2**32 - 1, 2**60, 2**64 - 1)
_NUMBERS = (b"0", b"-1", b"1e999", b"99999999999999999999", b"1152921504606846976", b"nan", b"")
_VALUES = (
    None, True, 0, -1, 3, 2**31, 2**40, 2**63, 2**70, 1e308, float("nan"), float("inf"), "", "full",
    "float16", "int64", "load", "os.system", "x" * 10_000, [], [2**40, 2**40], [[[[1]]]], {},
    {"__reduce__": "os.system"},
)  # fmt: skip
_HEAD = 256  # bytes at either end where headers and footers lie
_DIGITS = re.compile(rb"\d+")


def mutant(content: bytes, seed: int) -> bytes:
    """Return a file with one to three things done to it, chosen by a seed."""
    draw = random.Random(seed)
    held = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        draw.choice(_WAYS)(held, draw)
    return bytes(held)


def json_mutant(content: bytes, seed: int) -> bytes:
    """Return JSON in which one to three values or names are others."""
    draw, held = random.Random(seed), [json.loads(content)]
    for _ in range(draw.choice((1, 1, 2, 3))):
        at, key = draw.choice(_places(held))
        way = draw.random()
        if way < 0.15:
            del at[key]
        elif way < 0.25 and isinstance(at, dict):
            at[draw.choice(("x", "dtype", "__class__", str(key) + "s"))] = at.pop(key)
        elif way < 0.4 and isinstance(at[key], int | float):
            at[key] = at[key] * draw.choice((-1, 2, 1000, 2**40)) + draw.choice((0, 1, -1))
        else:
            at[key] = json.loads(json.dumps(draw.choice(_VALUES)))
        if not held:
            break
    return json.dumps(held[0] if held else None).encode()


def _places(held: list | dict) -> list[tuple[list | dict, int | str]]:
    """Return all places of values, as what holds them and their key."""
    found: list[tuple[list | dict, int | str]] = []
    for key, value in held.items() if isinstance(held, dict) else enumerate(held):
        found.append((held, key))
        if isinstance(value, list | dict):
            found += _places(value)
    return found


def _place(held: bytearray, draw: random.Random) -> int:
    """Draw a place: anywhere, or where headers and footers lie."""
    n = len(held)
    where = draw.random()
    low, high = (0, n) if where < 0.4 else (0, min(n, _HEAD)) if where < 0.7 else (n - _HEAD, n)
    return draw.randrange(max(0, low), max(1, high)) if n else 0


def _flip_bits(held: bytearray, draw: random.Random) -> None:
    for _ in range(draw.randint(1, 8)):
        if held:
            held[_place(held, draw)] ^= 1 << draw.randrange(8)


def _set_byte(held: bytearray, draw: random.Random) -> None:
    if held:
        held[_place(held, draw)] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)))


def _letter(held: bytearray, draw: random.Random) -> None:
    """Turn a letter or sign into another, which headers in words notice most."""
    if held:
        held[_place(held, draw)] = draw.choice(b"0123456789ABCFIUabcefiu<>|{}[]()\",:'\n\\ ")


def _truncate(held: bytearray, draw: random.Random) -> None:
    del held[draw.randrange(len(held) + 1) :]


def _insert(held: bytearray, draw: random.Random) -> None:
    at = _place(held, draw)
    held[at:at] = draw.randbytes(draw.choice((1, 2, 4, 16, 300)))


def _remove(held: bytearray, draw: random.Random) -> None:
    at = _place(held, draw)
    del held[at : at + draw.choice((1, 2, 4, 16, 300))]


def _blank(held: bytearray, draw: random.Random) -> None:
    at, n = _place(held, draw), draw.choice((4, 16, 64, 512))
    part = held[at : at + n]
    held[at : at + n] = bytes([draw.choice((0, 0xFF))]) * len(part)


def _swap(held: bytearray, draw: random.Random) -> None:
    n = draw.choice((1, 4, 16, 64))
    if len(held) < 2 * n:
        return
    a, b = sorted(draw.sample(range(len(held) // n), 2))
    one, other = held[a * n : a * n + n], held[b * n : b * n + n]
    held[a * n : a * n + n], held[b * n : b * n + n] = other, one


def _repeat(held: bytearray, draw: random.Random) -> None:
    at, n = _place(held, draw), draw.choice((4, 16, 64, 512))
    held[at:at] = held[at : at + n] * draw.choice((1, 2, 50))


def _length(held: bytearray, draw: random.Random) -> None:
    """Write an absurd number over what may be a length."""
    size, order = draw.choice((2, 4, 8)), draw.choice(("little", "big"))
    value = draw.choice(_LENGTHS) % 2 ** (8 * size)
    at = _place(held, draw)
    held[at : at + size] = value.to_bytes(size, order)


def _number(held: bytearray, draw: random.Random) -> None:
    """Write an absurd number over one in digits."""
    found = list(_DIGITS.finditer(bytes(held)))
    if found:
        start, end = draw.choice(found[:50]).span()
        held[start:end] = draw.choice(_NUMBERS)


_WAYS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _flip_bits, _set_byte, _letter, _truncate, _insert, _remove, _blank, _swap, _repeat, _length,
    _number,
)  # fmt: skip
