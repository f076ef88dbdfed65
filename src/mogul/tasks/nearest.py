"""The rows of data nearest to given ones."""

from __future__ import annotations

import torch
from torch import Tensor

from mogul.errors import InputError
from mogul.protocols import Source

_ROWS = 4096


def nearest_rows(source: Source, x: Tensor) -> Tensor:
    """Return the row of a source nearest to each of x (m, D) by Euclidean distance, (m, D).

    Args:
        source: the rows to choose from, read once.
        x: what to be near to.

    Raises:
        InputError: if what to be near to has values that are not finite, or all rows have gaps:
            rows with gaps are left out.
    """
    if not bool(x.isfinite().all()):
        raise InputError("Values to be near to are NaN or infinite; fill them, or drop their rows.")
    best = x.new_full((len(x),), torch.inf)
    found = torch.full_like(x, torch.nan)
    for batch in source.batches(_ROWS, x.dtype, x.device):
        # By differences: products have no digits left far from the origin.
        each = torch.cdist(x, batch.x, compute_mode="donot_use_mm_for_euclid_dist")
        distance, index = torch.where(each.isnan(), torch.inf, each).min(1)
        closer = distance < best
        best[closer] = distance[closer]
        found[closer] = batch.x[index[closer]]
    if not bool(best.isfinite().all()):
        raise InputError(
            "No row is near: all have gaps (NaN), or lie out of range; fill the gaps by `inpaint`, "
            "or rescale the rows."
        )
    return found
