"""Gaps made on purpose: a share of the values hidden at random."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mogul.data.pixels import uniform_rows
from mogul.errors import InputError

_STREAM = 500_001  # keeps the draws apart from those of dequantisation under the same seed


@dataclass(frozen=True)
class Gaps:
    """Hide each value with a probability, the same values of a row in every pass.

    Args:
        fraction: the probability.
        seed: seed of the draws.
        channels: values that are hidden together, those of one pixel.

    Raises:
        InputError: if the fraction is not between 0 and 1.
    """

    fraction: float
    seed: int = 0
    channels: int = 1

    def __post_init__(self) -> None:
        """Check the fraction.

        Raises:
            InputError: as the class says.
        """
        if not 0 < self.fraction < 1:
            raise InputError(
                f"The fraction to hide is {self.fraction}; it must lie between 0 and 1."
            )

    def hide(self, x: Tensor, index: Tensor) -> Tensor:
        """Return rows (n, D) of these numbers (n,) with NaN for what is hidden."""
        drawn = uniform_rows(self.seed + _STREAM, index, x.shape[1] // self.channels)
        hidden = (drawn < self.fraction).repeat_interleave(self.channels, dim=1)
        return x.masked_fill(hidden.to(x.device), torch.nan)
