"""Split-and-merge moves that escape local optima of EM, kept only when the likelihood rises."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch

from mogul.algorithms.base import fit
from mogul.algorithms.em import EM
from mogul.algorithms.local_moves import AT_ONCE, Snapshot, move_state, proposals, survey
from mogul.algorithms.scoring import default_batch_size, mean_log_likelihood
from mogul.algorithms.truncated_em import TruncatedEM
from mogul.algorithms.watch import Watch
from mogul.compute.collective import group_of
from mogul.errors import InputError
from mogul.protocols import Source

_DRAWS = 200


@dataclass(frozen=True)
class Move:
    """One proposal: components merged, component split, what it reached, whether it was kept."""

    merged: tuple[int, int]
    split: int
    log_likelihood: float
    accepted: bool


def split_and_merge(
    model: Any,
    source: Source,
    moves: int = 10,
    passes: int = 20,
    tolerance: float = 1e-6,
    seed: int = 0,
    algorithm: TruncatedEM | None = None,
) -> list[Move]:
    """Improve a fitted mixture, in place (Ueda, Nakano, Ghahramani & Hinton 2000).

    A move merges two components that share their rows, and splits the one whose rows are explained
    worst, so that the number of components stays; EM then runs, and the model is kept only if the
    mean log-likelihood of all rows has risen.

    With `TruncatedEM`, and more components than are worth a dense E-step, moves of unlike
    components are made together, one for every twenty components. Each is undone if the free
    energy of the rows that its components explained has not risen, and all are if that of all rows
    has not.

    Args:
        model: a fitted `GaussianMixture` with own covariances and at least three components.
        source: the rows it was fitted to.
        moves: most proposals; the search ends after a round without an improvement.
        passes: EM passes after each move.
        tolerance: of these passes, and the least rise worth keeping, in nats per feature.
        seed: seed of the draws that find the longest axis of what is split.
        algorithm: what makes the passes; default: `EM`.

    Returns:
        the moves tried, in order; of those made together, each with the mean free energy of all
        rows to which it alone would lead.

    Raises:
        InputError: if the model has fewer than three components or shares covariances, or rows are
            split among processes.
    """
    if model.n_components < 3 or model.sharing != "own":
        raise InputError(
            f"A model of {model.n_components} component(s) with sharing '{model.sharing}' came; "
            "split-and-merge needs three or more with covariances of their own."
        )
    if group_of(source).world > 1:
        raise InputError(
            f"Moves are judged by all rows, and there are {group_of(source).world} processes with "
            "a share each; call split_and_merge in one process, on the whole source."
        )
    if algorithm is not None and not algorithm.is_dense(model):
        return _local(model, source, algorithm, moves, passes, tolerance, seed)
    reached, tried = mean_log_likelihood(model(), source), list[Move]()
    while len(tried) < moves:
        improved = False
        for i, j, k in _candidates(model, source)[: moves - len(tried)]:
            trial = copy.deepcopy(model)
            _move(trial, i, j, k, seed + len(tried))
            fit(trial, source, EM(), passes=passes, tolerance=tolerance)
            value = mean_log_likelihood(trial(), source)
            improved = value > reached + tolerance * source.n_features
            tried.append(Move((i, j), k, value, improved))
            if improved:
                model.load_state_dict(trial.state_dict())
                reached = value
                break
        if not improved:
            break
    return tried


def _local(
    model: Any,
    source: Source,
    algorithm: TruncatedEM,
    moves: int,
    passes: int,
    tolerance: float,
    seed: int,
) -> list[Move]:
    """Make moves together, as long as some of them raise the free energy."""
    state, tried = algorithm.init(model, source, passes), list[Move]()
    before = survey(model, source, algorithm, state)
    while len(tried) < moves:
        together = min(moves - len(tried), max(1, model.n_components // AT_ONCE))
        proposed = proposals(before, together)
        kept = Snapshot(model, state)
        for proposal in proposed:
            _move(model, *proposal.merged, proposal.split, seed + len(tried))
            move_state(state, proposal)
        for _ in range(passes):
            state, _ = algorithm.step(model, source, state, Watch())
        after = survey(model, source, algorithm, state)
        gained = before.weight * (after.free_energy - before.free_energy)
        for proposal in proposed:
            rows = torch.isin(before.best, torch.tensor(proposal.touched)).nonzero().squeeze(-1)
            gain = float(gained[rows].sum() / before.weight.sum())
            accepted = gain > 0
            if not accepted:
                kept.undo(model, state, proposal, rows)
            tried.append(Move(proposal.merged, proposal.split, before.mean + gain, accepted))
        after = survey(model, source, algorithm, state)
        if after.mean <= before.mean + tolerance * source.n_features:
            kept.restore(model, state)
            tried[-len(proposed) :] = [replace(m, accepted=False) for m in tried[-len(proposed) :]]
            break
        before = after
    return tried


@torch.no_grad()
def _candidates(model: Any, source: Source) -> list[tuple[int, int, int]]:
    """Return (merge, merge, split) triples, the most promising first.

    Pairs are ranked by the cosine of their responsibilities; splits by the mean log-density that a
    component reaches on its own rows, the lowest first.
    """
    mixture, k = model(), model.n_components
    overlap = torch.zeros(k, k, dtype=torch.float64, device=model.device)
    own = torch.zeros(k, dtype=torch.float64, device=model.device)
    mass = torch.zeros_like(own)
    size = default_batch_size(source.n_features)
    for x, weight, _ in source.batches(size, model.dtype, model.device):
        joint = mixture.component_log_prob(x).double()
        resp = joint.softmax(-1)
        weighted = resp if weight is None else resp * weight.double().unsqueeze(-1)
        overlap += weighted.mT @ resp
        own += (weighted * (joint - mixture.log_weights)).sum(0)
        mass += weighted.sum(0)
    norm = overlap.diagonal().sqrt().clamp_min(1e-300)
    cosine = (overlap / norm / norm.unsqueeze(-1)).triu(1)
    worst = (own / mass.clamp_min(1e-300)).argsort().tolist()
    pairs = cosine.flatten().argsort(descending=True)[: 2 * k].tolist()
    found = [(p // k, p % k, s) for p in pairs if p // k < p % k for s in worst[:3]]
    return [(i, j, s) for i, j, s in found if s not in (i, j)]


@torch.no_grad()
def _move(model: Any, i: int, j: int, k: int, seed: int) -> None:
    """Merge component j into i, and give j half of component k."""
    weights = model().weights.double()
    share = (weights[i] / (weights[i] + weights[j])).to(model.dtype)
    model.centres[i] = share * model.centres[i] + (1 - share) * model.centres[j]
    generator = torch.Generator(device=model.device).manual_seed(seed)
    which = torch.full((_DRAWS,), k, device=model.device)
    cloud = model().covariance.sample(which, True, generator)
    # The longest axis of the component, found from draws so that no D×D matrix is built.
    _, lengths, axes = torch.linalg.svd(cloud, full_matrices=False)
    step = axes[0] * lengths[0] / len(cloud) ** 0.5
    model.centres[j] = model.centres[k] + step
    model.centres[k] = model.centres[k] - step
    for raw in model.raw.values():
        raw[j] = raw[k].clone()
    new = weights.clone()
    new[i], new[j], new[k] = weights[i] + weights[j], weights[k] / 2, weights[k] / 2
    model.logits.copy_(new.log())
