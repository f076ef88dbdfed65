"""Integer pixels as continuous values, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_BLOCK = 1024  # rows whose noise is drawn together, so that noise is a function of the row alone


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
        x = pixels.to(dtype)
        if self.whole:
            return x / (self.levels - 1)
        if not self.dequantise:
            return (x + 0.5) / self.levels
        return (x + self._noise(index, pixels.shape[1]).to(dtype)) / self.levels

    def binarised(self, pixels: np.ndarray | Tensor) -> np.ndarray:
        """Return zeros and ones (n, *shape), drawn once with x as probability.

        A row is the same however many rows there are.
        """
        out = np.empty(pixels.shape, dtype=np.uint8)
        for start in range(0, len(pixels), _BLOCK):
            block = torch.as_tensor(np.array(pixels[start : start + _BLOCK]))
            index = torch.arange(start, start + len(block))
            flat = block.reshape(len(block), -1)
            one = self._noise(index, flat.shape[1]) < self.forward(flat, index, torch.float32)
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

    def _noise(self, index: Tensor, width: int) -> Tensor:
        blocks = index // _BLOCK
        out = torch.empty(len(index), width)
        for block in blocks.unique().tolist():
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + block)
            noise = torch.rand(_BLOCK, width, generator=generator)
            rows = (blocks == block).nonzero().squeeze(-1)
            out[rows] = noise[index[rows] - block * _BLOCK]
        return out
