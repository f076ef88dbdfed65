"""What sources share whose rows are not in memory: batches are made ahead of use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from mogul.compute.prefetch import made_ahead
from mogul.data.sources import Block, DataSource
from mogul.protocols import Batch

MOST_VALUES = 2**22  # of a batch that is read ahead: 4 MB of pixels, 16 MB of float32


class StreamedSource(DataSource):
    """Rows read and decoded on a few threads, ahead of use.

    Batches have at most `size` rows, and at most 4 million values, so that the memory of what is
    read ahead is bounded.
    """

    def parts(
        self, size: int = 8192, dtype: torch.dtype = torch.float32, device: Any = "cpu"
    ) -> Iterator[Callable[[], Batch]]:
        """Yield what `batches` yields, read and still to be made into numbers, on any thread.

        Raises:
            InputError: if a value is infinite, when the batch is made.
        """
        size = max(1, min(size, MOST_VALUES // self.n_features))
        for read in self._ahead(self.blocks(size)):
            yield partial(self._made, read, dtype, device)

    def _ahead(self, blocks: Iterator[Callable[[], Block]]) -> Iterator[Callable[[], Block]]:
        """Read blocks before they are asked for."""
        for block in made_ahead(blocks):
            yield partial(_itself, block)


def _itself(block: Block) -> Block:
    return block
