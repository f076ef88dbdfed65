"""The plane that a cloud of latents is looked at in."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mogul.distributions import Mixture

_CORNERS = 48  # of an outline


@dataclass(frozen=True)
class LatentPlane:
    """Two orthonormal `axes` (d, 2) through a point `centre` (d,) of latent space.

    Of a single latent, the second axis is zero.
    """

    centre: Tensor
    axes: Tensor

    @classmethod
    def through(cls, z: Tensor) -> LatentPlane:
        """Return the plane along which latents (n, d) vary most; two latents are their own."""
        d = z.shape[1]
        if d <= 2:
            return cls(torch.zeros(d).to(z), torch.eye(d, 2).to(z))
        centre = z.mean(0)
        return cls(centre, torch.linalg.svd(z - centre, full_matrices=False).Vh[:2].mT)

    def project(self, z: Tensor) -> Tensor:
        """Return where latents (..., d) lie in the plane, (..., 2)."""
        return (z - self.centre) @ self.axes

    def lift(self, points: Tensor) -> Tensor:
        """Return the latents (..., d) of points (..., 2) of the plane."""
        return self.centre + points @ self.axes.mT

    def outlines(self, mixture: Mixture, index: Tensor, deviations: float) -> Tensor:
        """Return where components (m,) end, at some standard deviations, (m, 48, 2).

        They are the ellipses of each component's marginal density in the plane.
        """
        covariances = mixture.covariance.dense().expand(mixture.n_components, -1, -1)[index]
        values, vectors = torch.linalg.eigh(self.axes.mT @ covariances @ self.axes)
        turn = torch.linspace(0, 2 * math.pi, _CORNERS).to(values)
        circle = torch.stack([turn.cos(), turn.sin()])
        spread = vectors * values.clamp_min(0).sqrt().unsqueeze(-2)  # rounding may make it negative
        return self.project(mixture.means[index]).unsqueeze(1) + deviations * (spread @ circle).mT
