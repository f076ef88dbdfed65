"""Encoding: the most probable latents of rows, from whatever features of each are observed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mogul.algorithms.base import check_gradients
from mogul.algorithms.particles import held_still
from mogul.compute.backend import make_generator
from mogul.errors import InputError
from mogul.models import LatentVariableModel

CHUNK = 1280  # latents decoded at a time
_PATIENCE = 10  # steps without a gain after which a start's learning rate is halved
_GAIN = 1e-7  # least gain, in nats, that counts
_FLOOR = 1e-3  # fraction of the first learning rate below which a start has arrived
_MEMORY = (0.9, 0.99)  # Adam's; its usual 0.999 would hold the steep first steps against all others
_TINY = 1e-8
_ROUND = 12  # steps after which the worse half of a row's starts is given up, then twice as many


@dataclass(frozen=True)
class Encoding:
    """Latents of rows.

    `latents` (n, d) is the best found of each row, `log_joint` (n,) its log p(observed part, z) in
    nats, and `steps` how many were taken at most.
    """

    latents: Tensor
    log_joint: Tensor
    steps: int


def encode(
    model: LatentVariableModel,
    x: Tensor,
    n_starts: int = 16,
    steps: int = 500,
    learning_rate: float = 0.2,
    seed: int = 0,
    start: Tensor | None = None,
) -> Encoding:
    r"""Find the posterior mode of every row, $\operatorname{argmax}_z \log p(x_{observed}, z)$.

    The prior counts, so that latents of rows with few observed features stay where training put
    them. Every row climbs from several starts by Adam (Kingma & Ba 2015). The worse half of them is
    given up after 12 steps, half of the rest after 24, and so on (successive halving, Jamieson &
    Talwalkar 2016); a start whose own objective stalls goes back to its best point at half the
    learning rate, and ends when this is small.
    Starts are draws from the prior; where the model has particles, every second one is a particle
    of a training row. They depend on the row's number and on the seed, not on other rows.

    Args:
        model: the fitted model.
        x: rows (n, D); NaN marks what is missing.
        n_starts: starts per row.
        steps: most steps of each.
        learning_rate: of Adam at first, in units of the latents.
        seed: seed of the starts.
        start: latents (n, d) to climb from alone, such as those of the same rows when less was
            hidden; `n_starts` and `seed` then do not count.

    Returns:
        the latents, and their log-density.

    Raises:
        InputError: for rows of another width, a start of another shape, numbers out of range, or a
            row whose log-density is finite at no start.
    """
    x = checked_rows(model, x)
    if min(n_starts, steps) < 1 or not 0 < learning_rate < float("inf"):
        raise InputError(
            f"{n_starts} starts, {steps} steps and a learning rate of {learning_rate} came; the "
            "first two must be at least 1, the last positive, such as 0.1."
        )
    if start is not None:
        check_latents(model, x, start)
        n_starts = 1
    parts, taken, size = [], 0, max(1, CHUNK // n_starts)
    with held_still(model):
        for number, rows in enumerate(x.split(size)):
            if start is None:
                z = _starts(model, size, n_starts, seed * 1_000_003 + number)[: len(rows)]
            else:
                z = start[number * size : number * size + len(rows), None].to(rows)
            best, score, needed = _climb(model, rows, z, steps, learning_rate)
            chosen = score.argmax(1)
            each = torch.arange(len(rows), device=x.device)
            parts.append((best[each, chosen], score[each, chosen]))
            taken = max(taken, needed)
    latents, log_joint = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    _check_finite(log_joint)
    return Encoding(latents, log_joint, taken)


def _starts(model: LatentVariableModel, rows: int, n_starts: int, seed: int) -> Tensor:
    """Return where to start, (rows, n_starts, d)."""
    z = model.prior.sample((rows, n_starts), seed=seed).to(model.dtype)
    if model.particles is not None:
        cloud = model.particles.reshape(-1, model.n_latents)
        generator = make_generator(seed + 1, cloud.device)
        second = z[:, 1::2]
        size = second.shape[:-1]
        z[:, 1::2] = cloud[
            torch.randint(len(cloud), size, generator=generator, device=cloud.device)
        ]
    return z


def _climb(
    model: LatentVariableModel, x: Tensor, z: Tensor, steps: int, learning_rate: float
) -> tuple[Tensor, Tensor, int]:
    """Return the best latents on the way from z (n, S, d), their scores (n, S), and the steps."""
    n_starts, shape = z.shape[1], z.shape
    z = z.reshape(-1, model.n_latents).clone()
    best, score = z.clone(), z.new_full((len(z),), -torch.inf)
    rate, stale = torch.full_like(score, learning_rate), torch.zeros_like(score)
    mean, square = torch.zeros_like(z), torch.zeros_like(z)
    a, b = _MEMORY
    taken, kept = 0, n_starts
    for step in range(1, steps + 1):
        if kept > 1 and step > _ROUND * n_starts / kept:
            kept = (kept + 1) // 2
            rank = score.view(shape[:-1]).argsort(1, descending=True).argsort(1)
            rate[rank.view(-1) >= kept] = 0.0
        live = (rate >= _FLOOR * learning_rate).nonzero().squeeze(-1)
        if not len(live):
            break
        value, gradient = log_joint_and_gradient(model, x[live // n_starts], z[live])
        better = value > score[live] + _GAIN
        gained = live[better]
        best[gained], score[gained] = z[gained], value[better]
        stale[live] = torch.where(better, 0.0, stale[live] + 1)
        stalled = live[stale[live] >= _PATIENCE]
        rate[stalled] /= 2
        stale[stalled] = 0.0
        mean[live] = a * mean[live] + (1 - a) * gradient
        square[live] = b * square[live] + (1 - b) * gradient.square()
        size = (square[live] / (1 - b**step)).sqrt() + _TINY
        z[live] += rate[live].unsqueeze(-1) * mean[live] / (1 - a**step) / size
        z[stalled], mean[stalled] = best[stalled], 0.0  # at rest, lest it swing past again
        taken = step
    return best.view(shape), score.view(shape[:-1]), taken


def log_joint_and_gradient(
    model: LatentVariableModel, x: Tensor, z: Tensor
) -> tuple[Tensor, Tensor]:
    """Return log p(x, z) (m,) in nats, and its gradient in z (m, d), of rows x (m, D).

    The model must be `held_still`.
    """
    check_gradients()
    with torch.enable_grad():
        variable = z.detach().requires_grad_()
        value = model.log_joint(x, variable)
        (gradient,) = torch.autograd.grad(value.sum(), variable)
    return value.detach(), gradient


@torch.no_grad()
def decode_rows(model: LatentVariableModel, z: Tensor) -> Tensor:
    """Return E[x | z], rows (..., D), of latents (..., d): as trained, and some at a time."""
    with held_still(model):
        parts = [model.decode(part) for part in z.reshape(-1, model.n_latents).split(CHUNK)]
    return torch.cat(parts).view(*z.shape[:-1], -1)


def checked_rows(model: LatentVariableModel, x: Tensor) -> Tensor:
    """Return rows in the type of the model and where it lives.

    Raises:
        InputError: if they are not rows (n, D) of its width, or none.
    """
    if not isinstance(x, Tensor) or x.dim() != 2 or x.shape[1] != model.n_features or not len(x):
        came = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else f"a {type(x).__name__}"
        raise InputError(
            f"Rows came as {came}; give a tensor (n, {model.n_features}) of at least one row, with "
            "images flattened: x.reshape(len(x), -1)."
        )
    return x.to(model.device, model.dtype)


def check_latents(model: LatentVariableModel, x: Tensor, latents: Tensor) -> None:
    """Check that there is one latent for every row.

    Raises:
        InputError: if there is not.
    """
    if latents.shape != (len(x), model.n_latents):
        raise InputError(
            f"Latents of shape {tuple(latents.shape)} came for {len(x)} rows; give "
            f"({len(x)}, {model.n_latents}), such as encode(model, x).latents."
        )


def _check_finite(log_joint: Tensor) -> None:
    bad = (~log_joint.isfinite()).nonzero().squeeze(-1).tolist()
    if bad:
        raise InputError(
            f"The log-density of {len(bad)} row(s), the first of them row {bad[0]}, is finite at "
            "no start; look for infinite or very large values there, and mark them as missing "
            "(NaN), or give more starts."
        )
