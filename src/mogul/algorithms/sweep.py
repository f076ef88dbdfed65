"""One truncated E-step over all rows: better candidates, and the moments under them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mogul.algorithms.candidates import Found, Witnesses, search
from mogul.algorithms.expectation import check_finite
from mogul.algorithms.scoring import default_batch_size
from mogul.algorithms.watch import Watch
from mogul.compute.collective import group_of
from mogul.compute.prefetch import made_ahead
from mogul.compute.transfer import staged
from mogul.distributions import LocalKernel
from mogul.protocols import Batch, Source


@dataclass
class Variational:
    """The variational state of truncated EM, of this process's rows.

    `held` (N, C) are the components K_n of each row, the best first; `neighbours` (K, G) those of
    each component, itself first. `rows` is memory for a batch, kept from pass to pass, and `whole`
    the batch itself where it holds all rows.
    """

    held: Tensor
    neighbours: Tensor
    rows: Tensor | None = None
    whole: Batch | None = None

    def join(self, component: int, near: int, row: int | None) -> None:
        """Make a component that has moved to a row known there, and to the best one of that row.

        Args:
            component: which one moved.
            near: the best component of the row.
            row: the row, or None if it is another process's.
        """
        around = self.neighbours[near]
        others = around[around != component]
        self.neighbours[component, 1:] = others[: self.neighbours.shape[1] - 1]
        if near != component and len(others) == len(around) > 1:
            self.neighbours[near, -1] = component
        if row is not None and not bool((self.held[row] == component).any()):
            self.held[row, -1] = component


@dataclass
class Sweep:
    """What an E-step found, summed over this process's rows.

    `free_energy` in nats, `mass` the weight of rows, `evaluations` log-joints worked out; `gap` and
    `sampled` the sums, over a sample, of weights times log-likelihood less free energy, and of
    weights. `worst` are free energies and places of the rows that are explained worst.
    """

    free_energy: float = 0.0
    mass: float = 0.0
    evaluations: int = 0
    gap: float = 0.0
    sampled: float = 0.0
    worst: tuple[Tensor, Tensor] = field(default_factory=lambda: (torch.empty(0), torch.empty(0)))

    def mean(self, source: Source) -> float:
        """Return the mean free energy over all processes' rows."""
        total, mass = group_of(source).total(self.free_energy, self.mass)
        return total / mass

    def keep_worst(self, free_energy: Tensor, place: Tensor, capacity: int) -> None:
        """Keep the lowest of what is held and what came."""
        values = torch.cat([self.worst[0].to(free_energy), free_energy])
        places = torch.cat([self.worst[1].to(place), place])
        low, which = values.topk(min(capacity, len(values)), largest=False)
        self.worst = low, places[which]


def sweep(
    kernel: LocalKernel,
    source: Source,
    state: Variational,
    n_random: int,
    size: int,
    draw: torch.Generator,
    watch: Watch,
    sample: Tensor | None = None,
    observe: Callable[[slice, Found, Tensor | None], None] | None = None,
) -> Sweep:
    """Make an E-step, which changes the state.

    Args:
        kernel: the parameters; takes the moments if there is a sample.
        source: the rows.
        state: changed in place.
        n_random: components drawn for each row.
        size: rows worked on together.
        draw: of these.
        watch: told of rows.
        sample: rows (m,), ascending, to score under all components; None for an E-step that only
            looks for candidates.
        observe: called for every batch with the places of its rows, what was found, and weights.
    """
    found, at = Sweep(), 0
    k = len(state.neighbours)
    witnesses = Witnesses(k)
    for x, weight, index in read(source, size, state, kernel):
        part = slice(at, at + len(x))
        x = kernel.centred(x)
        held = state.held[part].to(x.device, torch.long)
        one = search(kernel, x, held, state.neighbours, n_random, draw, witnesses)
        state.held[part] = one.held.to(state.held)
        free_energy = one.joint.logsumexp(-1)
        each = free_energy if weight is None else free_energy * weight
        total = float(each.sum(dtype=torch.float64))
        if not abs(total) < float("inf"):
            check_finite(free_energy, index)
        found.free_energy += total
        found.mass += float(len(x) if weight is None else weight.sum(dtype=torch.float64))
        found.evaluations += one.evaluations
        if observe is not None:
            observe(part, one, weight)
        if sample is not None:
            _learn(kernel, x, weight, one, free_energy)
            own = sample[(sample >= at) & (sample < part.stop)].to(x.device) - at
            _compare(kernel, x, weight, free_energy, own, found)
            counts = torch.ones_like(free_energy) if weight is None else weight
            some = counts.nonzero().squeeze(-1)
            found.keep_worst(free_energy[some], some + at, k)
            watch.seen(len(x))
        at = part.stop
        watch.rest()
    group = group_of(source)
    if group.world > 1:
        witnesses = Witnesses.joined(group.gather(witnesses.parts()), k, state.neighbours.device)
    state.neighbours = witnesses.neighbours(state.neighbours)
    return found


def _learn(
    kernel: LocalKernel, x: Tensor, weight: Tensor | None, found: Found, free_energy: Tensor
) -> None:
    """Add the moments of rows by their responsibilities, but for those lost to rounding."""
    resp = (found.joint - free_energy.unsqueeze(-1)).exp_()
    row, slot = (resp > torch.finfo(resp.dtype).eps).nonzero(as_tuple=True)
    mass = resp[row, slot]
    kernel.add(x, found.held[row, slot], row, mass if weight is None else mass * weight[row])


def _compare(
    kernel: LocalKernel,
    x: Tensor,
    weight: Tensor | None,
    free_energy: Tensor,
    rows: Tensor,
    found: Sweep,
) -> None:
    """Score some rows (m,) under all components: the bound's distance from the log-likelihood."""
    k = len(kernel.offsets)
    component = torch.arange(k, device=x.device).repeat(len(rows))
    joint = kernel.score(x, component, rows.repeat_interleave(k)).view(len(rows), k)
    gap = (joint.logsumexp(-1) - free_energy[rows]).double()
    w = torch.ones_like(gap) if weight is None else weight[rows].double()
    found.gap += float((w * gap).sum())
    found.sampled += float(w.sum())


def read(source: Source, size: int, state: Variational, kernel: LocalKernel) -> Iterator[Batch]:
    """Yield batches of up to `size` rows, read ahead by parts, however long these are.

    Batches share their memory: the next one takes the place of the last. Where one holds all rows,
    they are read in the first pass alone.
    """
    if state.whole is not None and size >= len(source):
        yield state.whole
        return
    dtype, device = kernel.dtype, kernel.device
    shape = min(size, len(source)), source.n_features
    if state.rows is None or state.rows.shape != shape:
        state.rows = torch.empty(shape, dtype=dtype, device=device)
    small = min(size, default_batch_size(source.n_features, dtype))
    held: list[Batch] = []
    filled = 0
    for part in made_ahead(staged(source, small, dtype, device)):
        if filled + len(part.x) > len(state.rows):
            yield _joined(held, state.rows[:filled])
            held, filled = [], 0
        state.rows[filled : filled + len(part.x)] = part.x
        held.append(part._replace(x=part.x[:0]))
        filled += len(part.x)
    batch = _joined(held, state.rows[:filled])
    if filled == len(source):
        state.whole = batch
    yield batch


def _joined(parts: list[Batch], x: Tensor) -> Batch:
    """Return a batch of rows (n, D) with the weights and numbers that its parts have."""
    weights = [part.weight for part in parts if part.weight is not None]
    return Batch(x, torch.cat(weights) if weights else None, torch.cat([p.index for p in parts]))
