"""Expectation–maximisation, for any model that has additive moments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mogul.algorithms.base import Pass
from mogul.algorithms.scoring import default_batch_size
from mogul.errors import InputError
from mogul.protocols import HasMoments, Source


@dataclass
class _Worst:
    """The worst-explained rows of a pass: log-likelihoods (m,) and rows (m, D), ascending."""

    capacity: int
    log_prob: Tensor | None = None
    rows: Tensor | None = None

    def add(self, log_prob: Tensor, x: Tensor) -> None:
        """Keep the lowest of what is held and what came."""
        low, which = log_prob.topk(min(self.capacity, len(log_prob)), largest=False)
        rows = x[which]
        if self.log_prob is not None and self.rows is not None:
            low, rows = torch.cat([self.log_prob, low]), torch.cat([self.rows, rows])
        order = low.argsort()[: self.capacity]
        self.log_prob, self.rows = low[order], rows[order]


class EM:
    """Expectation–maximisation (Dempster, Laird & Rubin 1977), one pass over the data per step.

    The log-likelihood never falls from one pass to the next, except where the history tells of a
    component without data, which is restarted at the worst-explained row.

    Args:
        batch_size: rows per batch; default: what keeps buffers near 64 MB.
    """

    monotone = True

    def __init__(self, batch_size: int | None = None) -> None:
        """Choose the batch size."""
        self.batch_size = batch_size

    def init(self, model: HasMoments, source: Source, passes: int) -> bool:
        """Check that there are rows for all components; return whether values are missing.

        Raises:
            InputError: if there are fewer.
        """
        check_enough_rows(len(source), model.n_components)
        batches = source.batches(default_batch_size(source.n_features), model.dtype)
        return any(bool(batch.x.isnan().any()) for batch in batches)

    def step(
        self, model: HasMoments, source: Source, state: bool, seen: Callable[[int], None]
    ) -> tuple[bool, Pass]:
        """E-step over all batches, then one M-step.

        Raises:
            InputError: if a row has a log-likelihood that is not finite.
        """
        moments, total, mass = None, 0.0, 0.0
        log_prior = float(model.log_prior().detach())
        worst = _Worst(model.n_components)
        size = self.batch_size or default_batch_size(source.n_features)
        for x, weight, index in source.batches(size, model.dtype, model.device):
            batch_moments, log_prob = model.expect(x, weight, gaps=state)
            _check_finite(log_prob, index)
            moments = batch_moments if moments is None else moments + batch_moments
            mean_of = log_prob.double()
            total += float((mean_of if weight is None else mean_of * weight).sum())
            mass += float(len(x) if weight is None else weight.double().sum())
            some = slice(None) if weight is None else weight > 0
            worst.add(log_prob[some], x[some])
            seen(len(x))
        events = model.maximise(moments)
        dead = model.dead(moments, mass / len(source))
        if len(dead) and worst.rows is not None:
            dead = dead[: len(worst.rows)]
            model.reseed(dead, worst.rows[: len(dead)])
            events.append(
                f"component(s) {', '.join(map(str, dead.tolist()))} held no data and were "
                "restarted at the worst-explained rows"
            )
        restarted = bool(len(dead))
        return state, Pass(total / mass, events, (total + log_prior) / mass, restarted)


def check_enough_rows(n_rows: int, n_components: int) -> None:
    """Refuse more components than rows.

    Raises:
        InputError: if there are more components than rows.
    """
    if n_components > n_rows:
        raise InputError(
            f"{n_components} components were asked for, but the data have only {n_rows} row(s); "
            "choose at most as many components as rows."
        )


def _check_finite(log_prob: Tensor, index: Tensor) -> None:
    if bool(log_prob.isfinite().all()):
        return
    row = int(index[int((~log_prob.isfinite()).nonzero()[0])])
    raise InputError(
        f"Row {row} has a log-likelihood that is not finite; its values are too far from all "
        "others for this floating-point type: use float64, or drop the row."
    )
