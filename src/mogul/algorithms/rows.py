"""Rows in memory, as a source."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mogul.protocols import Batch


class Rows:
    """Rows in memory, for fits within fits."""

    def __init__(self, x: Tensor) -> None:
        """Hold rows (n, D)."""
        self.x = x
        self.feature_shape = (x.shape[1],)
        self.n_features = x.shape[1]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.x)

    def batches(self, size: int = 8192, dtype: Any = None, device: Any = None) -> Any:
        """Yield all rows in order."""
        return (part() for part in self.parts(size))

    def parts(self, size: int = 8192, dtype: Any = None, device: Any = None) -> Any:
        """Yield what returns each batch."""
        for start in range(0, len(self.x), size):
            x = self.x[start : start + size]
            batch = Batch(x, None, torch.arange(start, start + len(x)))
            yield lambda batch=batch: batch

    def take(self, index: Tensor, dtype: Any = None, device: Any = None) -> Tensor:
        """Return rows by number."""
        return self.x[index]
