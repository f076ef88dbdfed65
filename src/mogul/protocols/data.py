"""What algorithms know of data: rows in batches, and where a fit over them is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor


class Batch(NamedTuple):
    """Rows of a source: `x` (b, D), optional `weight` (b,), row numbers `index` (b,)."""

    x: Tensor
    weight: Tensor | None
    index: Tensor


@runtime_checkable
class Source(Protocol):
    """Where batches come from; NaN means missing."""

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Shape of one row before it is flattened."""
        ...

    @property
    def n_features(self) -> int:
        """Number of features D."""
        ...

    def __len__(self) -> int:
        """Return the number of rows N."""
        ...

    def batches(
        self, size: int = 8192, dtype: torch.dtype = torch.float32, device: Any = "cpu"
    ) -> Iterator[Batch]:
        """Yield all rows in order, `size` at a time."""
        ...

    def parts(
        self, size: int = 8192, dtype: torch.dtype = torch.float32, device: Any = "cpu"
    ) -> Iterator[Callable[[], Batch]]:
        """Yield the same batches still unread; calling one reads it, on whatever thread."""
        ...

    def take(
        self, index: Tensor, dtype: torch.dtype = torch.float32, device: Any = "cpu"
    ) -> Tensor:
        """Return the rows `index` (m,) as a tensor (m, D)."""
        ...


@runtime_checkable
class HeadedSource(Source, Protocol):
    """A source that tells whether it can be read again, and shows its first rows either way."""

    repeatable: bool

    def head(self, n: int, dtype: torch.dtype = torch.float32, device: Any = "cpu") -> Tensor:
        """Return the first n rows (m, D); the next pass yields them too."""
        ...


class Saved(NamedTuple):
    """Where a fit stands: its history, what its algorithm remembers, and whether it was disturbed.

    `disturbed` says that the objective may fall in the pass to come.
    """

    history: list[dict[str, Any]]
    memory: dict[str, Tensor]
    disturbed: bool = False


class Checkpoint(Protocol):
    """Where a fit is kept after every pass, and every so many seconds within one."""

    every: float

    def restore(self, model: Any, source: Any) -> Saved | None:
        """Put a model to where its fit to this source stood; None if there is nothing to go on."""
        ...

    def save(self, model: Any, source: Any, saved: Saved) -> None:
        """Keep a model and where its fit stands."""
        ...

    def ended(self, source: Any) -> None:
        """Keep nothing that only a fit under way needs."""
        ...
