"""What sources share whose rows are not in memory: batches are made ahead of use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from mogul.compute.prefetch import made_ahead
from mogul.data.sources import DataSource
from mogul.protocols import Batch

MOST_VALUES = 2**22  # of a batch that is read ahead: 16 MB in float32


class StreamedSource(DataSource):
    """Rows read, decoded and made into numbers on a few threads, ahead of use.

    Batches have at most `size` rows, and at most 4 million values, so that the memory of what is
    read ahead is bounded.
    """

    def parts(
        self, size: int = 8192, dtype: torch.dtype = torch.float32, device: Any = "cpu"
    ) -> Iterator[Callable[[], Batch]]:
        """Yield what `batches` yields, made and still to be put on its device.

        Raises:
            InputError: if a value is infinite.
        """
        size = max(1, min(size, MOST_VALUES // self.n_features))
        jobs = (partial(self._made, read, dtype, "cpu") for read in self.blocks(size))
        for batch in made_ahead(jobs):
            yield partial(_moved, batch, device)


def _moved(batch: Batch, device: Any) -> Batch:
    x, weight, index = batch
    return Batch(x.to(device), None if weight is None else weight.to(device), index)
