"""One pass of a mixture over data: how likely every row is, and which rows components explain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mogul.distributions import Mixture
from mogul.protocols import Source

_ROWS = 4096
NEAREST = 24  # rows kept for each component


@dataclass(frozen=True)
class Survey:
    """What a pass found in the first rows of a source.

    `log_likelihood` (n,) in nats, `incomplete` (n,) marks rows with gaps, `component` (n,) the most
    responsible one, and `nearest` (K, m) the numbers of the likeliest rows that each component is
    most responsible for, the likeliest first, −1 where there are no more.
    """

    log_likelihood: np.ndarray
    incomplete: np.ndarray
    component: np.ndarray
    nearest: Tensor


@torch.no_grad()
def survey(mixture: Mixture, source: Source, n_rows: int) -> Survey:
    """Score the first rows of a source, and find those that each component explains best.

    Args:
        mixture: the fitted mixture.
        source: the rows.
        n_rows: how many to look at.

    Returns:
        what was found.
    """
    scores, gaps, owners = [], [], []
    best = torch.empty(mixture.n_components, 0, device=mixture.device)
    rows = torch.empty(mixture.n_components, 0, dtype=torch.long, device=mixture.device)
    seen = 0
    for batch in source.batches(_ROWS, mixture.dtype, mixture.device):
        x = batch.x[: n_rows - seen]
        log_prob = mixture.log_prob(x)
        owner = mixture.responsibilities(x).argmax(-1)
        owned = owner == torch.arange(mixture.n_components, device=x.device).unsqueeze(-1)
        score = torch.where(owned, log_prob.float(), -torch.inf)
        index = torch.arange(seen, seen + len(x), device=x.device).expand_as(score)
        best, kept = torch.cat([best, score], 1).topk(min(NEAREST, best.shape[1] + len(x)))
        rows = torch.cat([rows, index], 1).gather(1, kept)
        scores.append(log_prob.cpu())
        gaps.append(x.isnan().any(-1).cpu())
        owners.append(owner.cpu())
        seen += len(x)
        if seen >= n_rows:
            break
    return Survey(
        torch.cat(scores).double().numpy(),
        torch.cat(gaps).numpy(),
        torch.cat(owners).numpy(),
        torch.where(best > -torch.inf, rows, -1).cpu(),
    )
