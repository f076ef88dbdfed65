"""Which components each row is held to, and which each component's neighbours are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mogul.distributions import LocalKernel

_WITNESSES = 16  # rows of a component from which its distances to others are estimated


@dataclass
class Found:
    """What a search found of some rows.

    `held` (n, C) are their candidates, the best first, `joint` (n, C) the log-joints of these, and
    `evaluations` how many log-joints were worked out.
    """

    held: Tensor
    joint: Tensor
    evaluations: int


@dataclass
class Witnesses:
    """Some rows of each component, with their scores under others, to tell which others are near.

    A component's distance to another is the mean over rows it explains best of
    log p(c, x) − log p(k, x), without the weights: an estimate of KL(c ‖ k) where c is right.
    """

    n_components: int
    best: list[Tensor] = field(default_factory=list)
    others: list[Tensor] = field(default_factory=list)
    loss: list[Tensor] = field(default_factory=list)

    def add(self, others: Tensor, score: Tensor, offsets: Tensor) -> None:
        """Take some rows of log-joints (n, S) under others (n, S)."""
        top = score.argmax(-1, keepdim=True)
        best = others.gather(1, top).squeeze(1).long()
        order = best.argsort(stable=True)
        counts = torch.bincount(best, minlength=self.n_components)
        starts = counts.cumsum(0) - counts
        place = torch.arange(len(best), device=best.device) - starts[best[order]]
        rows = order[place < _WITNESSES]
        some, best = others[rows], best[rows]
        loss = score.gather(1, top)[rows] - score[rows]
        loss += offsets[some.long()] - offsets[best].unsqueeze(-1)
        self.best.append(best)
        self.others.append(some)
        self.loss.append(loss)

    def parts(self) -> list[Tensor]:
        """Return all that was taken, for other processes."""
        return [torch.cat(each) for each in (self.best, self.others, self.loss)]

    @classmethod
    def joined(cls, parts: list[list[Tensor]], n_components: int, device: Any) -> Witnesses:
        """Return what several processes took."""
        each = [[t.to(device) for t in some] for some in zip(*parts, strict=True)]
        return cls(n_components, *each)

    def neighbours(self, before: Tensor) -> Tensor:
        """Return each component with the nearest others, (K, G); those of before where unknown."""
        k, g = before.shape
        own = torch.arange(k, device=before.device).unsqueeze(-1)
        pairs = zip(self.best, self.others, strict=True)
        keys = [(best.unsqueeze(-1) * k + others).flatten() for best, others in pairs]
        # Those of before count nothing, so that they come after all that are known.
        key = torch.cat([*keys, (own * k + before).flatten()])
        loss = torch.cat([*(each.flatten() for each in self.loss), self.loss[0].new_zeros(k * g)])
        counted = (torch.arange(len(key), device=key.device) < len(key) - k * g).to(loss)
        key, order = key.sort()
        new = torch.ones_like(key, dtype=torch.bool)
        new[1:] = key[1:] != key[:-1]
        which, key = new.cumsum(0) - 1, key[new]
        sums = loss.new_zeros(2, len(key))
        sums.index_add_(1, which, torch.stack([loss, counted])[:, order])
        mean = sums[0] / sums[1]  # NaN where nothing is known, which sorts last
        component, other = key // k, key % k
        mean[component == other] = -torch.inf
        order = mean.argsort()
        order = order[component[order].argsort(stable=True)]
        counts = torch.bincount(component, minlength=k)
        at = (counts.cumsum(0) - counts).unsqueeze(-1) + torch.arange(g, device=key.device)
        return other[order][at]


def search(
    kernel: LocalKernel,
    x: Tensor,
    held: Tensor,
    neighbours: Tensor,
    n_random: int,
    generator: torch.Generator,
    witnesses: Witnesses,
) -> Found:
    """Look for better candidates of rows among the neighbours of those held, and at random.

    What is held is given up only for what has a higher log-joint, so that no free energy falls.

    Args:
        kernel: scores pairs.
        x: rows as the kernel takes them, (n, D).
        held: candidates of each, (n, C).
        neighbours: of each component, itself first, (K, G).
        n_random: components E drawn for each row besides.
        generator: of these.
        witnesses: takes some of the scores.
    """
    n, width = held.shape
    k = len(neighbours)
    own, scores = kernel.search(x, held, neighbours)
    others = neighbours[held].flatten(1)
    scores = scores.flatten(1)
    witnesses.add(others, scores, kernel.offsets)
    row, component, place = _newcomers(others, scores, held, own.amin(-1))
    drawn = torch.randint(k, (n, n_random), generator=generator, device=x.device)
    known = torch.full((n, 2 * width + n_random), -1, dtype=held.dtype, device=x.device)
    known[:, :width] = held
    known[row, width + place] = component
    for e in range(n_random):
        fresh = (known != drawn[:, e : e + 1]).all(-1).nonzero().squeeze(-1)
        known[fresh, 2 * width + e] = drawn[fresh, e]
    row, place = (known[:, width:] >= 0).nonzero(as_tuple=True)
    joint = x.new_full(known.shape, -torch.inf)
    joint[:, :width] = own
    joint[row, width + place] = kernel.score(x, known[row, width + place], row)
    joint, order = joint.topk(width)
    return Found(known.gather(1, order), joint, n * (others.shape[1] + n_random))


def _newcomers(
    others: Tensor, scores: Tensor, held: Tensor, worst: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return pairs that may score above the worst held: row, component, and rank in the row.

    The scores (n, S) of others (n, S) are used up.
    """
    for slot in held.unbind(1):
        scores.masked_fill_(others == slot.unsqueeze(-1), -torch.inf)
    found = []
    rows = torch.arange(len(held), device=held.device)
    for place in range(held.shape[1]):
        top, at = scores.max(-1)
        keep = (top > worst[rows]).nonzero().squeeze(-1)
        rows, others, scores = rows[keep], others[keep], scores[keep]
        component = others.gather(1, at[keep].unsqueeze(-1))
        found.append((rows, component.squeeze(-1), torch.full_like(rows, place)))
        scores.masked_fill_(others == component, -torch.inf)
    row, component, place = (torch.cat(each) for each in zip(*found, strict=True))
    return row, component, place
