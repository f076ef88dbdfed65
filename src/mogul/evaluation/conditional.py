"""How good predicted densities are: scores, and whether what they say of themselves is true."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mogul.distributions import Mixture
from mogul.errors import InputError
from mogul.protocols import Source

LEVELS = (0.5, 0.8, 0.9, 0.95)
_VALUES = 2**22  # numbers held at a time
_DRAWS = 200  # of the energy score, per row


def crps(mixture: Mixture, y: Tensor) -> Tensor:
    r"""Return the continuous ranked probability score of every target, (..., D), in their units.

    $\mathrm{CRPS} = \sum_k w_k A(y-\mu_k, \sigma_k^2)
    - \tfrac12\sum_{kl} w_k w_l A(\mu_k-\mu_l, \sigma_k^2+\sigma_l^2)$ with
    $A(m, s^2) = 2s\,\varphi(m/s) + m\,(2\Phi(m/s) - 1)$: zero is best, and a certain prediction
    scores its absolute error. A missing target scores NaN.

    Source: Grimit, Gneiting, Berrocal & Johnson (2006).

    Args:
        mixture: predictions, of batch shape (...).
        y: what came, (..., D).
    """
    w, m = mixture.weights.double(), mixture.centres.double()
    v, x = mixture.variances.double(), (y - mixture.origin).double()
    first = (w.unsqueeze(-1) * _mean_distance(x.unsqueeze(-2) - m, v)).sum(-2)
    pairs = (w.unsqueeze(-1) * w.unsqueeze(-2)).unsqueeze(-1)  # (..., K, K, 1)
    between = _mean_distance(m.unsqueeze(-2) - m.unsqueeze(-3), v.unsqueeze(-2) + v.unsqueeze(-3))
    return first - 0.5 * (pairs * between).sum((-2, -3))


def _mean_distance(mean: Tensor, variance: Tensor) -> Tensor:
    """Return E|X| of X ~ N(mean, variance)."""
    s = variance.sqrt()
    z = mean / s
    density = (-0.5 * z.square()).exp() / math.sqrt(2 * math.pi)
    return 2 * s * density + mean * torch.erf(z / math.sqrt(2))


@torch.no_grad()
def energy_score(
    mixture: Mixture,
    y: Tensor,
    units: Tensor | None = None,
    n_samples: int = 200,
    seed: int = 0,
) -> Tensor:
    r"""Estimate the energy score $E\|X-y\| - \tfrac12 E\|X-X'\|$ of every row, (...).

    The continuous ranked probability score of several targets together; zero is best. Without bias:
    the second term is a mean over distinct pairs. A row with a missing target scores NaN.

    Source: Gneiting & Raftery (2007).

    Args:
        mixture: predictions, of batch shape (...).
        y: what came, (..., D).
        units: what distances of every target are measured in, (D,); default one.
        n_samples: draws per row.
        seed: seed of the draws.

    Raises:
        InputError: for fewer than two draws.
    """
    if n_samples < 2:
        raise InputError(f"{n_samples} draw(s) came; an energy score needs two or more.")
    scale = torch.ones_like(mixture.origin) if units is None else units
    # About the origin and in float64, because differences of far values have few digits.
    x, at = (((t - mixture.origin).double() / scale.double()) for t in (
        mixture.sample((n_samples,), seed=seed), y
    ))  # fmt: skip
    drawn = x.movedim(0, -2)  # (..., m, D)
    exact = "donot_use_mm_for_euclid_dist"
    pairs = torch.cdist(drawn, drawn, compute_mode=exact).sum((-1, -2))
    return (x - at).norm(dim=-1).mean(0) - 0.5 * pairs / (n_samples * (n_samples - 1))


@dataclass(frozen=True)
class ConditionalEvaluation:
    """Figures of predictions p(y | x) for n rows that have a target, weights left aside.

    `log_likelihood` is the mean per row in nats, `error` its standard error; `rmse` and `crps` have
    one value per target, in its units; `energy_score` is in the units that were
    asked for, None for one target. `coverage` gives the share of targets inside central intervals
    of a nominal level, `width` the mean width of these in units of the target. `pit` (n, D) holds
    P(Y ≤ y | x), uniform where predictions are calibrated; `residuals` (n, D) are targets less
    predicted means. Both are NaN where a target is missing.
    """

    n: int
    log_likelihood: float
    error: float
    rmse: list[float]
    crps: list[float]
    energy_score: float | None
    coverage: dict[float, list[float]]
    width: dict[float, list[float]]
    pit: Tensor
    means: Tensor
    targets: Tensor

    @property
    def residuals(self) -> Tensor:
        """Targets less predicted means, (n, D)."""
        return self.targets - self.means


@torch.no_grad()
def evaluate_conditional(
    predict: Callable[[Tensor], Mixture],
    source: Source,
    n_features: int,
    levels: Sequence[float] = LEVELS,
    dtype: torch.dtype = torch.float32,
    units: Tensor | None = None,
    seed: int = 0,
) -> ConditionalEvaluation:
    """Score predictions on rows of inputs and targets.

    Args:
        predict: inputs (n, n_inputs) to mixtures of batch shape (n,): a network, or a mixture's
            `condition`.
        source: rows, inputs first; targets may be NaN.
        n_features: number of targets D, the last columns.
        levels: nominal levels of central intervals.
        dtype: floating-point type to read rows in.
        units: what distances of the energy score are measured in, (D,); default: the deviations of
            these targets.
        seed: seed of the energy score's draws.

    Returns:
        all figures; intervals are central, from (1 − level)/2 to (1 + level)/2.

    Raises:
        InputError: if a level does not lie between 0 and 1, or a target has no value in any row.
    """
    if not all(0 < level < 1 for level in levels):
        raise InputError(f"Levels {list(levels)} came; give numbers between 0 and 1.")
    ends = torch.tensor([[(1 - level) / 2, (1 + level) / 2] for level in levels]).double()
    parts: dict[str, list[Tensor]] = {}
    batch = _batch_size(source, n_features)
    if units is None and n_features > 1:
        units = _deviations(source, n_features)
    for number, rows in enumerate(source.batches(batch, dtype)):
        x, y = rows.x[:, :-n_features], rows.x[:, -n_features:]
        mixture = predict(x)
        y = y.to(mixture.device)
        bounds = mixture.icdf(ends.flatten().to(y.device)).double().unflatten(0, (-1, 2))
        found = {
            "log_prob": mixture.log_prob(y), "mean": mixture.mean, "y": y,
            "crps": crps(mixture, y), "pit": mixture.cdf(y),
            "width": (bounds[:, 1] - bounds[:, 0]).movedim(0, 1),  # (n, levels, D)
        }  # fmt: skip
        if n_features > 1:
            found["energy"] = energy_score(mixture, y, units, _DRAWS, seed + number)
        for name, value in found.items():
            parts.setdefault(name, []).append(value.double().cpu())
    whole = {name: torch.cat(values) for name, values in parts.items()}
    empty = whole["y"].isnan().all(0).nonzero().flatten().tolist()
    if empty:
        raise InputError(
            f"Target(s) {empty} have no value in any of the {len(source)} row(s), so that nothing "
            "can be said of predictions; give rows with targets."
        )
    return _summary(whole, list(levels))


def _summary(whole: dict[str, Tensor], levels: list[float]) -> ConditionalEvaluation:
    """Return means over rows."""
    pit = whole["pit"]
    log_prob = whole["log_prob"][~pit.isnan().all(-1)]
    n = len(log_prob)
    inside = {c: _share((pit - 0.5).abs() <= c / 2, pit) for c in levels}
    squares = (whole["y"] - whole["mean"]).square()
    return ConditionalEvaluation(
        n=n,
        log_likelihood=float(log_prob.mean()),
        error=float(log_prob.std() / math.sqrt(n)) if n > 1 else math.inf,
        rmse=squares.nanmean(0).sqrt().tolist(),
        crps=whole["crps"].nanmean(0).tolist(),
        energy_score=float(whole["energy"].nanmean()) if "energy" in whole else None,
        coverage={c: share.tolist() for c, share in inside.items()},
        width={c: whole["width"][:, i].mean(0).tolist() for i, c in enumerate(levels)},
        pit=pit,
        means=whole["mean"],
        targets=whole["y"],
    )


def _share(inside: Tensor, pit: Tensor) -> Tensor:
    """Return the share of rows (n, D) that are inside, (D,), of those that are not NaN."""
    return inside.double().where(~pit.isnan(), torch.nan).nanmean(0)


def _deviations(source: Source, n_features: int) -> Tensor:
    """Return standard deviations of the targets, (D,), one where they are constant."""
    y = torch.cat([rows.x[:, -n_features:] for rows in source.batches(dtype=torch.float64)])
    away = y - y.nanmean(0)
    deviation = away.square().nanmean(0).sqrt()
    return torch.where(deviation > 0, deviation, 1.0)


def _batch_size(source: Source, n_features: int) -> int:
    """Return rows to score at a time, by what the draws of the energy score hold."""
    per_row = _DRAWS * (_DRAWS + n_features) if n_features > 1 else 2048
    return max(1, min(8192, _VALUES // per_row, len(source)))
