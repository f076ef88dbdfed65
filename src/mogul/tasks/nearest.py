"""The rows of data nearest to given ones."""

from __future__ import annotations

import torch
from torch import Tensor

from mogul.protocols import Source

_ROWS = 4096


def nearest_rows(source: Source, x: Tensor) -> Tensor:
    """Return the row of a source nearest to each of x (m, D) by Euclidean distance, (m, D).

    Args:
        source: the rows to choose from, read once.
        x: what to be near to.
    """
    best = x.new_full((len(x),), torch.inf)
    found = x.clone()
    for batch in source.batches(_ROWS, x.dtype, x.device):
        distance, index = torch.cdist(x, batch.x).min(1)
        closer = distance < best
        best[closer] = distance[closer]
        found[closer] = batch.x[index[closer]]
    return found
