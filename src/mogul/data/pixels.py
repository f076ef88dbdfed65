"""Integer pixels as continuous values, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

ALIGNED = 1024  # rows whose noise is drawn together, so that noise is a function of the row alone
_CHUNK = 2**16  # values drawn at once, few enough to stay in a core's cache


@dataclass(frozen=True)
class PixelScale:
    r"""Map pixels y in 0 … levels − 1 to (0, 1): x = (y + ½)/levels, or (y + u)/levels.

    With `dequantise`, u ~ U(0, 1) is drawn per value, the same for a row in every pass and at
    every batch size. Then the mean log-density bounds the log-probability of the pixels, and
    $\mathrm{bits/dim} = \log_2 \mathrm{levels} - \ell/(D\ln 2)$
    (Theis, van den Oord & Bethge 2016).

    With `whole`, x = y/(levels − 1), from 0 to 1: the probability of a one where pixels are
    binarised (Salakhutdinov & Murray 2008).
    """

    levels: int
    dequantise: bool = False
    seed: int = 0
    whole: bool = False

    def forward(self, pixels: Tensor, index: Tensor, dtype: torch.dtype) -> Tensor:
        """Return continuous values of pixel rows (n, D) whose row numbers are index (n,)."""
        if self.whole:
            return pixels.to(dtype, copy=True).div_(self.levels - 1)
        if not self.dequantise:
            return pixels.to(dtype, copy=True).add_(0.5).div_(self.levels)
        x = uniform_rows(self.seed, index, pixels.shape[1]).to(dtype)
        some = max(1, _CHUNK // pixels.shape[1])  # adding unlike types copies what is added
        for rows, part in zip(x.split(some), pixels.split(some), strict=True):
            rows.add_(part).div_(self.levels)
        return x

    def binarised(self, pixels: np.ndarray | Tensor) -> np.ndarray:
        """Return zeros and ones (n, *shape), drawn once with x as probability.

        A row is the same however many rows there are.
        """
        out = np.empty(pixels.shape, dtype=np.uint8)
        for start in range(0, len(pixels), ALIGNED):
            block = torch.as_tensor(np.array(pixels[start : start + ALIGNED]))
            index = torch.arange(start, start + len(block))
            flat = block.reshape(len(block), -1)
            noise = uniform_rows(self.seed, index, flat.shape[1])
            one = noise < self.forward(flat, index, torch.float32)
            out[start : start + len(block)] = one.view(block.shape).numpy()
        return out

    def to_pixels(self, x: Tensor | np.ndarray) -> np.ndarray:
        """Return 8-bit grey values 0 … 255 for display, of the same shape."""
        y = np.floor(np.asarray(x, dtype=np.float64) * self.levels)
        y = np.clip(y, 0, self.levels - 1)
        return np.round(y * (255 / (self.levels - 1))).astype(np.uint8)

    def bits_per_dim(self, log_likelihood: float, n_features: int) -> float:
        """Return bits per dimension for a mean log-likelihood in nats per row."""
        return math.log2(self.levels) - log_likelihood / (n_features * math.log(2))


def stretch(values: np.ndarray) -> np.ndarray:
    """Map values ≥ 0 of any range to 8-bit pixels, the largest to white."""
    top = float(values.max())
    return np.round(values * (255 / top if top > 0 else 0)).astype(np.uint8)


def uniform_rows(seed: int, index: Tensor, width: int) -> Tensor:
    """Return uniform draws on [0, 1) for rows of these numbers, (n, width).

    A row's are a function of the seed, its number and the width alone.
    """
    out = torch.empty(len(index), width)
    blocks = index // ALIGNED
    for block in blocks.unique().tolist():
        rows = _slice((blocks == block).nonzero().squeeze(-1))
        within = index[rows] - block * ALIGNED
        if isinstance(rows, slice) and isinstance(kept := _slice(within), slice):
            _uniform(seed * 1_000_003 + block, kept.start * width, out[rows].view(-1))
            continue
        noise = torch.empty(int(within.max()) + 1, width)
        _uniform(seed * 1_000_003 + block, 0, noise.view(-1))
        out[rows] = noise[within]
    return out


def _slice(index: Tensor) -> slice | Tensor:
    """Return consecutive numbers as a slice, others as they are."""
    first, last = int(index[0]), int(index[-1])
    consecutive = last - first + 1 == len(index) and bool((index.diff() == 1).all())
    return slice(first, last + 1) if consecutive else index


def _uniform(seed: int, skipped: int, out: Tensor) -> None:
    """Fill a vector with what `torch.rand` of a generator of this seed gives after some values.

    The generator is the Mersenne Twister (Matsumoto & Nishimura 1998) in both libraries, and
    NumPy's runs faster.
    """
    bits = np.random.MT19937(0)
    np.random.RandomState(bits).seed(seed % 2**32)
    draw = np.random.Generator(bits)  # which lets other threads run while it draws
    for start in range(0, skipped, _CHUNK):
        draw.integers(0, 2**32, min(_CHUNK, skipped - start), np.uint32)
    for part in out.split(_CHUNK):
        drawn = torch.from_numpy(draw.integers(0, 2**32, len(part), np.uint32).view(np.int32))
        part.copy_(drawn.bitwise_and_(2**24 - 1)).mul_(2.0**-24)
