"""Particle algorithms by name, and the presets of published runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mogul.algorithms.particle_moves import (
    Ascent,
    Coin,
    HeavyBall,
    Langevin,
    SteinCoin,
    Underdamped,
)
from mogul.algorithms.particle_parameters import ByGradient, ByMaximiser, ByNewton
from mogul.algorithms.particles import Chain, Particles


def pga(
    step_size: float = 1e-4, rate: float = 1e-3, smoothing: float | None = 0.1, **settings: Any
) -> Particles:
    """Particle gradient ascent (PGA; PGD of the negative), Kuntz, Lim & Johansen (2023).

    Args:
        step_size: h, of particles and of parameters.
        rate: λ, of the parameters besides.
        smoothing: of RMSprop's scaling; None for none.
        settings: of `Particles`.
    """
    move = Ascent(step_size, rate, smoothing)
    return Particles(Langevin(step_size), ByGradient(move), **settings)


def pqn(step_size: float = 0.1, **settings: Any) -> Particles:
    """Particle quasi-Newton (PQN), Kuntz, Lim & Johansen (2023): for few parameters."""
    return Particles(Langevin(step_size), ByNewton(step_size), **settings)


def pmga(step_size: float = 0.1, **settings: Any) -> Particles:
    """Particle marginal gradient ascent (PMGA), Kuntz, Lim & Johansen (2023).

    For models whose parameters have a closed-form maximiser given latents. A batch must hold all
    rows, so that it is that of all.
    """
    settings.setdefault("batch_size", 2**31)
    return Particles(Langevin(step_size), ByMaximiser(), **settings)


def _chained(chain: Chain, move: Ascent, settings: dict[str, Any]) -> Particles:
    """Return Langevin chains, one a row unless the settings say otherwise."""
    settings.setdefault("n_particles", 1)
    return Particles(Langevin(move.step_size), ByGradient(move), chain=chain, **settings)


def soul(
    step_size: float = 1e-4,
    rate: float = 1e-3,
    smoothing: float | None = 0.1,
    moves: int = 10,
    **settings: Any,
) -> Particles:
    """Stochastic optimisation by unadjusted Langevin (SOUL), De Bortoli et al. (2021).

    One chain per row makes `moves` steps, and the gradient is averaged over them.
    """
    return _chained(Chain(moves, average=True), Ascent(step_size, rate, smoothing), settings)


def short_run(
    step_size: float = 1e-4,
    rate: float = 1e-3,
    smoothing: float | None = 0.1,
    moves: int = 20,
    **settings: Any,
) -> Particles:
    """Short-run MCMC, Nijkamp et al. (2020): chains begin anew at draws from the prior."""
    return _chained(Chain(moves, restart=True), Ascent(step_size, rate, smoothing), settings)


def abp(
    step_size: float = 1e-4,
    rate: float = 1e-3,
    smoothing: float | None = 0.1,
    moves: int = 20,
    **settings: Any,
) -> Particles:
    """Alternating back-propagation, Han et al. (2017): one chain per row that never begins anew."""
    return _chained(Chain(moves), Ascent(step_size, rate, smoothing), settings)


def momentum(
    step_size: float = 1e-2,
    rate: float = 1e-3,
    smoothing: float | None = 0.1,
    friction: float = 10.0,
    **settings: Any,
) -> Particles:
    """Momentum particle descent, Lim et al. (2024): particles and parameters with velocities."""
    move = HeavyBall(step_size, friction, rate, smoothing)
    return Particles(Underdamped(step_size, friction), ByGradient(move), **settings)


def coin(**settings: Any) -> Particles:
    """Tuning-free coin updates, Sharrock, Dodd & Nemeth (2024): no step size at all."""
    return Particles(SteinCoin(), ByGradient(Coin()), **settings)


PARTICLE_ALGORITHMS: dict[str, Callable[..., Particles]] = {
    "pga": pga,
    "pqn": pqn,
    "pmga": pmga,
    "soul": soul,
    "short-run": short_run,
    "abp": abp,
    "momentum": momentum,
    "coin": coin,
}


@dataclass(frozen=True)
class Preset:
    """Settings of a run: data, model, and algorithm.

    `scale` is σ on pixels in (0, 1): half of the figure for pixels in (−1, 1).
    """

    data: str
    rows: int
    latents: int
    scale: float
    passes: int
    step_size: float
    rate: float
    which: str
    width: int = 64
    particles: int = 10
    batch_size: int = 128
    smoothing: float = 0.1
    warm_up: int = 0
    burn_in: float = 1.0


def _small(data: str, rows: int, *, latents: int, scale: float, width: int) -> Preset:
    """Return a run of minutes on four cores: fewer images and particles, a narrower decoder."""
    rate = 4.0 / rows  # so that a step of the parameters is as long whatever the rows
    return Preset(
        data, rows, latents, scale, passes=100, step_size=5e-4, rate=rate, which="batch",
        width=width, particles=4, batch_size=64, smoothing=0.9, warm_up=80, burn_in=0.85,
    )  # fmt: skip


PRESETS = {
    "mnist-small": _small("mnist", 4_000, latents=10, scale=0.15, width=24),
    "faces-small": _small("celeba", 4_000, latents=32, scale=0.1, width=24),
    "mnist-note": Preset("mnist", 10_000, 10, 0.15, 35, 1e-4, 1e-3, "full"),
    "celeba-note": Preset("celeba", 40_000, 64, 0.15, 12, 1e-4, 2.5e-4, "full"),
    "mnist-paper": Preset("mnist", 10_000, 64, 0.005, 100, 1e-3, 1e-4, "batch"),
    "celeba-paper": Preset("celeba", 40_000, 64, 0.005, 100, 1e-3, 2.5e-5, "batch"),
}
