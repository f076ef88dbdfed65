"""The characteristic picture of each component: mean, noise, and where its factors lead."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mogul.distributions import Mixture


@dataclass(frozen=True)
class ComponentPictures:
    """Components by falling weight.

    `index` (m,) their numbers, `weight` (m,), `mean` (m, D), `noise` (m, D) standard deviations
    that no factor explains, and `directions` (m, H, D): principal loadings, each a factor's
    standard deviation long, the longest first. H is 0 for families without factors.
    """

    index: Tensor
    weight: Tensor
    mean: Tensor
    noise: Tensor
    directions: Tensor

    def along(self, factor: int, steps: float) -> Tensor:
        """Return means moved by `steps` standard deviations along a factor, (m, D)."""
        return self.mean + steps * self.directions[:, factor]


@torch.no_grad()
def characteristic(mixture: Mixture, n_components: int | None = None) -> ComponentPictures:
    """Describe the heaviest components.

    Loadings are known only up to a rotation; they are turned to principal axes,
    W = U diag(s) Rᵀ → U diag(s), and each gets the sign of its largest entry, so that pictures
    of equal models are equal.

    Args:
        mixture: the fitted mixture.
        n_components: how many; default all.

    Returns:
        their means, noise and loadings.
    """
    order = mixture.log_weights.argsort(descending=True)[:n_components]
    loadings = mixture.loadings
    if loadings is None:
        directions = mixture.centres.new_zeros(len(order), 0, mixture.n_features)
    else:
        own = loadings.expand(mixture.n_components, -1, -1)[order]
        U, s, _ = torch.linalg.svd(own.double(), full_matrices=False)
        turned = (U * s.unsqueeze(-2)).mT
        largest = turned.gather(-1, turned.abs().argmax(-1, keepdim=True))
        directions = (turned * largest.sign()).to(own.dtype)
    return ComponentPictures(
        order,
        mixture.weights[order],
        mixture.means[order],
        mixture.noise_variances[order].sqrt(),
        directions,
    )
