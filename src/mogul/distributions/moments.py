"""Additive sufficient statistics of weighted data about reference points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Additive:
    """Statistics that add: of disjoint data, of batches, of machines."""

    def __add__(self, other: Self) -> Self:
        """Return the statistics of both data sets together."""
        return self._each(lambda name, own: own + getattr(other, name))

    def scale(self, factor: float) -> Self:
        """Return the statistics of the data with all weights multiplied by `factor`."""
        return self._each(lambda name, own: own * factor)

    def tensors(self) -> dict[str, Tensor]:
        """Return the statistics by name, without those that this family has no use for."""
        named = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def mix(self, other: Self, share: float) -> Self:
        """Return (1 − share) of these statistics and `share` of the others."""
        return self._each(lambda name, own: own.lerp(getattr(other, name), share))

    def without(self, components: Tensor) -> Self:
        """Return the statistics without those that the components (m,) alone account for."""
        k = len(self.count)  # pyright: ignore[reportAttributeAccessIssue]
        return self._each(
            lambda _, own: own.index_fill(0, components, 0.0) if len(own) == k else own
        )

    def _each(self, function: Callable[[str, Tensor], Tensor]) -> Self:
        return replace(self, **{name: function(name, own) for name, own in self.tensors().items()})


@dataclass(frozen=True)
class Change:
    """How an M-step moved what statistics are measured by.

    `centre` (K, D) is what was added to the centres. Factors z are L⁻¹(z − m) of what they were:
    `factor_mean` m (K, H) and `factor_tril` L (C, H, H), None for families that have none.
    """

    centre: Tensor
    factor_mean: Tensor | None = None
    factor_tril: Tensor | None = None


@dataclass(frozen=True)
class Moments(Additive):
    r"""Weighted counts, first and second moments of each component about its reference point.

    With responsibilities $r_{nk}$ (times sample weights) and reference points $o_k$:

    - `count` (K,): $\sum_n r_{nk}$
    - `first` (K, D): $\sum_n r_{nk}(x_n - o_k)$
    - `second`: $\sum_n r_{nk}(x_n-o_k)(x_n-o_k)^\top$ in the form the family needs: (C, D, D)
      dense, (C, D) its diagonal, where C = K, or 1 when components share one covariance
    - `projected` (C, D, H): the same matrix times a basis (C, D, H), for low-rank families

    Moments of disjoint data add, so batches, decayed streams and machines combine alike. They are
    kept about reference points near the data because raw second moments lose all digits far from
    zero. Sums are held in float64 whatever the type of the data.
    """

    count: Tensor
    first: Tensor
    second: Tensor
    projected: Tensor | None = None

    @classmethod
    def scatter(cls, parts: list[tuple[Tensor, Moments]]) -> Moments:
        """Put the moments of marked components (K,) together, in the order of the marks."""
        joined = {}
        for f in fields(cls):
            first = getattr(parts[0][1], f.name)
            if first is not None:
                out = first.new_empty(len(parts[0][0]), *first.shape[1:])
                for which, part in parts:
                    out[which] = getattr(part, f.name)
                joined[f.name] = out
        return cls(**joined)

    def take(self, components: Tensor) -> Moments:
        """Return the moments of some components (m,), which have covariances of their own."""
        return self._each(lambda name, own: own[components])

    def pin(self, components: Tensor) -> Moments:
        """Return moments by which the marked components (K,) keep their centres."""
        return replace(self, first=self.first.masked_fill(components.unsqueeze(-1), 0.0))

    def recentre(self, delta: Tensor) -> Moments:
        """Return the same data's moments about reference points moved by delta (K, D).

        For dense and diagonal second moments; a projection on a basis cannot be moved alone.
        """
        assert self.projected is None
        n = self.count.unsqueeze(-1)
        if self.second.dim() == 2:
            moved = n * delta.square() - 2 * delta * self.first
        else:
            cross = delta.unsqueeze(-1) * self.first.unsqueeze(-2)
            moved = n.unsqueeze(-1) * delta.unsqueeze(-1) * delta.unsqueeze(-2) - cross - cross.mT
        return Moments(self.count, self.first - n * delta, self.second + self.pool(moved))

    def restate(self, change: Change) -> Moments:
        """Return the same data's moments about the centres of changed parameters."""
        return self.recentre(change.centre)

    @property
    def shift(self) -> Tensor:
        """Weighted means relative to the reference points, (K, D); zero where nothing was seen."""
        n = self.count.unsqueeze(-1)
        return torch.where(n > 0, self.first / n.clamp_min(torch.finfo(n.dtype).tiny), 0.0)

    @property
    def mass(self) -> Tensor:
        """Total count behind each second moment, (C,)."""
        shared = self.second.shape[0] != self.count.shape[0]
        return self.count.sum(0, keepdim=True) if shared else self.count

    def pool(self, per_component: Tensor) -> Tensor:
        """Sum a (K, ...) quantity over the components that share a second moment, to (C, ...)."""
        shared = self.second.shape[0] != self.count.shape[0]
        return per_component.sum(0, keepdim=True) if shared else per_component
