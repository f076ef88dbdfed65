"""EM on many small data sets, or from many starts, in one tensor program."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mogul.algorithms.em import check_enough_rows
from mogul.compute.columns import column_deviations, column_means
from mogul.distributions import Covariance, Mixture, family
from mogul.errors import InputError


@dataclass(frozen=True)
class BatchedFit:
    """B fitted mixtures.

    `mixture` has batch shape (B,); `log_likelihood` (B,) is the mean per row in nats; `passes` were
    made.
    """

    mixture: Mixture
    log_likelihood: Tensor
    passes: int

    def select(self, index: int) -> Mixture:
        """Return one of the mixtures, without batch dimension."""
        m = self.mixture
        covariance = m.covariance.map(lambda t: t[index])
        return Mixture(m.logits[index], m.centres[index], covariance, m.origin)

    def best(self) -> Mixture:
        """Return the mixture of the highest likelihood: the winner of many starts."""
        return self.select(int(self.log_likelihood.argmax()))


@torch.no_grad()
def fit_batched(
    x: Tensor,
    n_components: int,
    covariance: str = "full",
    rank: int = 1,
    starts: int = 1,
    weight: Tensor | None = None,
    passes: int = 100,
    tolerance: float = 1e-6,
    variance_floor: float = 1e-6,
    seed: int = 0,
) -> BatchedFit:
    """Fit a mixture of its own to every data set, all at once.

    For data sets that together fit in memory K times over; see `fit` for large ones. Every
    component has its own covariance.

    Args:
        x: data sets (B, n, D), or one data set (n, D); complete.
        n_components: components K of each.
        covariance: a registered family or alias.
        rank: factors, for low-rank families.
        starts: fits per data set, from different k-means++ seeds; B becomes B·starts, the starts
            of a data set next to each other.
        weight: weights of rows (B, n), for example zeros that pad data sets of unequal size.
        passes: most EM passes.
        tolerance: stop when no data set gains more, in nats per row and feature.
        variance_floor: smallest variance, a fraction of that of the feature in the data set in
            which it is smallest.
        seed: seed of the starts.

    Returns:
        the fits.

    Raises:
        InputError: for another number of dimensions, missing values, too few rows or features, or
            data without spread.
    """
    x = x.unsqueeze(0) if x.dim() == 2 else x
    if x.dim() != 3 or not bool(x.isfinite().all()):
        raise InputError(
            f"Data of shape {tuple(x.shape)} came, or with values that are not finite; give "
            "complete data sets (B, n, D), or one (n, D)."
        )
    cls = family(covariance)
    check_enough_rows(x.shape[1], n_components)
    if cls.low_rank and not 1 <= rank < x.shape[2]:
        raise InputError(f"Rank {rank} came; choose from 1 to {x.shape[2] - 1}.")
    weight = torch.ones_like(x[..., 0]) if weight is None else weight.to(x)
    x, weight = (t.repeat_interleave(starts, dim=0) for t in (x, weight))
    origin = x.mean((0, 1))
    x = x - origin
    variances = column_deviations(x).square()
    if bool((variances.mean(1) == 0).any()):
        raise InputError("A data set has equal rows only, so it has no scale; leave it out.")
    varying = torch.where(variances > 0, variances, torch.inf).amin(0)
    floor = variance_floor * torch.where(varying.isfinite(), varying, variances.mean())
    centres = _seeds(x, weight, n_components, seed)
    cov = _first(cls, x, n_components, rank, floor, seed)
    logits = x.new_zeros(len(x), n_components)
    mass, before, made = weight.sum(1), None, 0
    while made < passes:
        made += 1
        joint = cov.log_prob(x, centres) + logits.log_softmax(-1).unsqueeze(1)
        log_prob = joint.logsumexp(-1)
        reached = (weight * log_prob).sum(1) / mass
        gain = None if before is None else reached - before
        before = reached
        resp = (joint - log_prob.unsqueeze(-1)).exp() * weight.unsqueeze(-1)
        logits, centres, cov = _step(cov, x, resp, centres, floor)
        if gain is not None and bool((gain < tolerance * x.shape[2]).all()):
            break
    mixture = Mixture(logits, centres, cov, origin)
    joint = cov.log_prob(x, centres) + mixture.log_weights.unsqueeze(1)
    return BatchedFit(mixture, (weight * joint.logsumexp(-1)).sum(1) / mass, made)


def _step(
    cov: Covariance, x: Tensor, resp: Tensor, centres: Tensor, floor: Tensor
) -> tuple[Tensor, Tensor, Covariance]:
    """Make the M-step of every data set; the components of all are one list to the family."""
    b, k, d = centres.shape
    r = resp.mT.double()  # (B, K, n)
    y = (x.unsqueeze(1) - centres.unsqueeze(2)).double()  # (B, K, n, D)
    ry = r.unsqueeze(-1) * y
    count, first = r.sum(-1).flatten(), ry.sum(2).reshape(b * k, d)
    second = (ry.mT @ y).reshape(b * k, d, d)
    flat = cov.map(lambda t: t.flatten(0, 1))
    moments = flat.moments_of(count, first, second)
    shift, fitted, _ = flat.maximise(moments, floor)
    centres = centres + shift.reshape(b, k, d).to(centres.dtype)
    logits = count.reshape(b, k).clamp_min(1e-30).log().to(centres.dtype)
    return logits, centres, fitted.map(lambda t: t.unflatten(0, (b, k)))


def _first(
    cls: type[Covariance], x: Tensor, k: int, rank: int, floor: Tensor, seed: int
) -> Covariance:
    """Return, for every component, the covariance of its data set."""
    members = []
    for rows in x:
        deviations = rows - column_means(rows)
        prior = torch.maximum(deviations.square().mean(0), floor)
        members.append(cls.from_cluster(deviations, rank, floor, prior, seed))
    stacked = cls.stack(members).map(lambda t: t.to(x.dtype))
    return stacked.map(lambda t: t.unsqueeze(1).expand(-1, k, *t.shape[1:]).contiguous())


def _seeds(x: Tensor, weight: Tensor, k: int, seed: int) -> Tensor:
    """Return k-means++ centres of every data set, (B, K, D) (Arthur & Vassilvitskii 2007)."""
    generator = torch.Generator(device=x.device).manual_seed(seed)
    rows = torch.arange(len(x), device=x.device)
    odds = weight
    chosen: list[Tensor] = []
    for _ in range(k):
        # Data sets of fewer distinct rows than components fall back to any row.
        odds = torch.where(odds.sum(1, keepdim=True) > 0, odds, weight)
        pick = torch.multinomial(odds, 1, generator=generator).squeeze(1)
        chosen.append(x[rows, pick])
        distance = torch.stack([(x - c.unsqueeze(1)).square().sum(-1) for c in chosen])
        odds = weight * distance.amin(0)
    return torch.stack(chosen, dim=1)
