"""Split-and-merge moves of mixtures with many components, many at once, each judged by its rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mogul.algorithms.candidates import Found
from mogul.algorithms.truncated_em import TruncatedEM
from mogul.protocols import HasLocalMoments, Source

AT_ONCE = 20  # one of so many components is split at a time


@dataclass
class Survey:
    """What an E-step tells of rows and components.

    Of rows: `free_energy` (N,), `best` component (N,), and `weight` (N,). Of components: summed
    responsibilities `mass`, their squares `norm`, and `own` log-densities weighted by them, (K,).
    `key` i·K + j and `overlap` Σ r_i r_j of the pairs i < j that share rows.
    """

    free_energy: Tensor
    best: Tensor
    weight: Tensor
    mass: Tensor
    norm: Tensor
    own: Tensor
    key: Tensor
    overlap: Tensor

    @property
    def mean(self) -> float:
        """Mean free energy."""
        return float((self.weight * self.free_energy).sum() / self.weight.sum())


@dataclass(frozen=True)
class Proposal:
    """Two components `merged` into the first, so that the second can take half of `split`."""

    merged: tuple[int, int]
    split: int

    @property
    def touched(self) -> list[int]:
        """All three."""
        return [*self.merged, self.split]


def survey(model: HasLocalMoments, source: Source, algorithm: TruncatedEM, state: Any) -> Survey:
    """Make an E-step, and tell of rows and components."""
    n, k = len(source), model.n_components
    offsets = model().log_weights.double()
    found = Survey(
        *(torch.zeros(n, dtype=torch.float64), torch.zeros(n, dtype=torch.long)),
        torch.ones(n, dtype=torch.float64),
        *torch.zeros(3, k, dtype=torch.float64, device=model.device),
        *(torch.zeros(0, dtype=kind, device=model.device) for kind in (torch.long, torch.float64)),
    )

    def observe(rows: slice, one: Found, weight: Tensor | None) -> None:
        joint = one.joint.double()
        free_energy = joint.logsumexp(-1)
        found.free_energy[rows], found.best[rows] = free_energy.cpu(), one.held[:, 0].cpu()
        if weight is not None:
            found.weight[rows] = weight.double().cpu()
        resp = (joint - free_energy.unsqueeze(-1)).exp()
        mass = resp if weight is None else resp * weight.double().unsqueeze(-1)
        which = one.held.flatten()
        found.mass.index_add_(0, which, mass.flatten())
        found.norm.index_add_(0, which, (mass * resp).flatten())
        found.own.index_add_(0, which, (mass * (joint - offsets[one.held])).flatten())
        i, j = torch.combinations(torch.arange(joint.shape[1], device=joint.device)).unbind(-1)
        low, high = one.held[:, i], one.held[:, j]
        key = torch.minimum(low, high) * k + torch.maximum(low, high)
        key = torch.cat([found.key, key.flatten()])
        overlap = torch.cat([found.overlap, (mass[:, i] * resp[:, j]).flatten()])
        found.key, which = key.unique(return_inverse=True)
        found.overlap = torch.zeros_like(found.key, dtype=torch.float64)
        found.overlap.index_add_(0, which, overlap)

    algorithm.explore(model, source, state, observe)
    return found


def proposals(found: Survey, most: int) -> list[Proposal]:
    """Return moves that touch no component twice, the most promising first.

    Pairs to merge are ranked by the cosine of their responsibilities; components to split by the
    mean log-density that they reach on their own rows, the lowest first.
    """
    k = len(found.mass)
    i, j = found.key // k, found.key % k
    scale = found.norm.sqrt().clamp_min(1e-300)
    pairs = (found.overlap / scale[i] / scale[j]).argsort(descending=True).tolist()
    heavy = found.mass > 2 * found.mass.sum() / k / AT_ONCE
    mean = torch.where(heavy, found.own / found.mass.clamp_min(1e-300), torch.inf)
    splits = iter(mean.argsort()[: int(heavy.sum())].tolist())
    used, chosen = set[int](), list[Proposal]()
    for pair in pairs:
        merged = int(i[pair]), int(j[pair])
        if len(chosen) == most:
            break
        if used & set(merged):
            continue
        split = next((s for s in splits if s not in used and s not in merged), None)
        if split is None:
            break
        chosen.append(Proposal(merged, split))
        used |= {*merged, split}
    return chosen


def move_state(state: Any, proposal: Proposal) -> None:
    """Let rows and neighbours know of a move: of the merged, rows go to the first of the two."""
    held, neighbours = state.variational.held, state.variational.neighbours
    (i, j), k = proposal.merged, proposal.split
    lost = (held == j) & ~(held == i).any(-1, keepdim=True)
    held[lost] = i
    rows = ((held == k).any(-1) & ~(held == j).any(-1)).nonzero().squeeze(-1)
    if held.shape[1] > 1:
        held[rows[held[rows, -1] != k], -1] = j
    state.variational.join(j, k, None)
    around = neighbours[k].tolist()
    for other in around[1:]:
        if j not in neighbours[other].tolist() and other != j:
            neighbours[other, -1] = j


class Snapshot:
    """A model and the variational state, to go back to."""

    def __init__(self, model: Any, state: Any) -> None:
        """Copy both."""
        self.parameters = {name: t.clone() for name, t in model.state_dict().items()}
        self.held = state.variational.held.clone()
        self.neighbours = state.variational.neighbours.clone()

    def restore(self, model: Any, state: Any) -> None:
        """Put all back."""
        model.load_state_dict(self.parameters)
        state.variational.held[:], state.variational.neighbours = self.held, self.neighbours

    @torch.no_grad()
    def undo(self, model: Any, state: Any, proposal: Proposal, rows: Tensor) -> None:
        """Put back the components of one move, with the candidates of rows (m,)."""
        which = proposal.touched
        logits = self.parameters["logits"].log_softmax(-1)
        model.logits.copy_(model.logits.log_softmax(-1))
        model.logits[which] = logits[which]
        model.centres[which] = self.parameters["centres"][which]
        for name, raw in model.raw.items():
            raw[which] = self.parameters[f"raw.{name}"][which]
        state.variational.held[rows] = self.held[rows]
        state.variational.neighbours[which] = self.neighbours[which]
