"""What latents of an autoencoder hold: active units, used components, clusters against labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mogul.errors import InputError
from mogul.models import VariationalAutoencoder
from mogul.protocols import Source

_ROWS = 2048
_ACTIVE = 0.01  # variance of a latent's posterior mean above which it is active (Burda et al. 2016)
_USED = 0.1  # share of an equal weight above which a component is used


@dataclass(frozen=True)
class LatentSummary:
    """What the posterior means (n, d) of rows hold.

    `active_units` counts latents whose mean varies by more than 0.01 over rows (Burda, Grosse &
    Salakhutdinov 2016); `used_components` those of the prior whose share of the rows is at least a
    tenth of 1/K; `assignment_entropy` is the mean entropy of p(k | z) in nats, and `usage_entropy`
    that of the shares, both at most log K. `assignments` (n,) is the most probable component.
    """

    means: Tensor
    assignments: Tensor
    active_units: int
    used_components: int
    assignment_entropy: float
    usage_entropy: float


@torch.no_grad()
def summarise_latents(model: VariationalAutoencoder, source: Source) -> LatentSummary:
    """Encode all rows, and say what the latents and the prior's components are used for.

    Args:
        model: the fitted autoencoder.
        source: the rows.

    Raises:
        InputError: if rows have gaps or another width.
    """
    model.eval()
    batches = source.batches(_ROWS, model.dtype, model.device)
    means = torch.cat([model.posterior(batch.x).mean for batch in batches])
    responsibilities = model.prior.responsibilities(means).double()
    shares = responsibilities.mean(0)
    return LatentSummary(
        means,
        responsibilities.argmax(-1),
        int((means.var(0) > _ACTIVE).sum()) if len(means) > 1 else 0,
        int((shares >= _USED / len(shares)).sum()),
        float(torch.special.entr(responsibilities).sum(-1).mean()),
        float(torch.special.entr(shares).sum()),
    )


def cluster_accuracy(assignments: Tensor, labels: Tensor) -> float:
    """Return the share of rows whose cluster stands for their class, clusters matched one to one.

    The best matching is found exactly (Kuhn 1955); with more clusters than classes, rows of those
    that are not matched count as wrong. See `purity` for clusters that may share a class.

    Raises:
        InputError: if there are not as many assignments as labels, or none.
    """
    from scipy.optimize import linear_sum_assignment  # slow to import, and seldom needed

    table = _contingency(assignments, labels)
    rows, columns = linear_sum_assignment(table, maximize=True)
    return float(table[rows, columns].sum() / table.sum())


def purity(assignments: Tensor, labels: Tensor) -> float:
    """Return the share of rows that belong to the most frequent class of their cluster.

    Raises:
        InputError: if there are not as many assignments as labels, or none.
    """
    table = _contingency(assignments, labels)
    return float(table.max(1).sum() / table.sum())


def normalised_mutual_information(assignments: Tensor, labels: Tensor) -> float:
    """Return I(clusters; classes) over the mean of their entropies, from 0 to 1.

    Raises:
        InputError: if there are not as many assignments as labels, or none.
    """
    from sklearn.metrics import normalized_mutual_info_score

    _contingency(assignments, labels)
    return float(normalized_mutual_info_score(labels.cpu().numpy(), assignments.cpu().numpy()))


def _contingency(assignments: Tensor, labels: Tensor) -> np.ndarray:
    """Return how many rows of each cluster belong to each class.

    Raises:
        InputError: if there are not as many assignments as labels, or none.
    """
    if assignments.shape != labels.shape or assignments.dim() != 1 or not len(labels):
        raise InputError(
            f"Assignments of shape {tuple(assignments.shape)} and labels of shape "
            f"{tuple(labels.shape)} came; give one of each for every row."
        )
    clusters = np.unique(assignments.cpu().numpy(), return_inverse=True)[1]
    classes = np.unique(labels.cpu().numpy(), return_inverse=True)[1]
    table = np.zeros((clusters.max() + 1, classes.max() + 1), dtype=np.int64)
    np.add.at(table, (clusters, classes), 1)
    return table
