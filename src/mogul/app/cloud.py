"""Latents of rows, and densities over them: what pages of models with latents are made of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mogul.app.session import Session
from mogul.compute.backend import make_generator
from mogul.data import open_labels
from mogul.distributions import Mixture
from mogul.errors import InputError
from mogul.evaluation import LatentPlane
from mogul.models import VariationalAutoencoder
from mogul.tasks import summarise

MOST_POINTS = 3_000
MOST_SUMMARISED = 4_000  # rows whose latents a mixture is fitted to, so that it takes seconds
_ROWS = 500  # encoded at a time, while others wait
_SEED = 0  # of draws from posteriors, and of fits to them


@dataclass(frozen=True)
class Cloud:
    """One latent for each of some rows.

    `rows` (n,) are their numbers in the set `of`, `latents` (n, d), and `points` (n, 2) where these
    lie in `plane`. Without the data that a decoder was fitted to, `of` is None.
    """

    of: str | None
    rows: Tensor
    latents: Tensor
    plane: LatentPlane
    points: Tensor

    def index(self, i: int) -> int:
        """Return the place of a latent of the cloud.

        Raises:
            InputError: if there are not so many.
        """
        if 0 <= i < len(self.rows):
            return i
        raise InputError(f"Latent {i} of the map was asked for; it has {len(self.rows)}, from 0.")

    def nearest(self, point: Tensor) -> int:
        """Return the place of the latent that lies nearest to a point (2,) in the plane."""
        return int((self.points - point).square().sum(-1).argmin())


def cloud(session: Session) -> Cloud:
    """Return the latents of training rows: means of particles, or of an encoder's posteriors."""
    return session.kept("cloud", lambda: _cloud(session))


def prior(session: Session) -> Mixture:
    """Return the prior over latents as a value."""
    return session.kept("prior", lambda: summarise(session.decoder.model, "prior"))


def summary(session: Session) -> Mixture:
    """Return a mixture fitted to particles of training rows, or to draws from their posteriors."""

    def found() -> Mixture:
        particles = _particles(session)
        return summarise(session.decoder.model, "mixture", seed=_SEED, particles=particles)

    return session.kept("summary", found)


def labels(session: Session) -> Tensor | None:
    """Return the classes of the rows of the cloud, if their data set has any."""
    found = cloud(session)
    if found.of is None:
        return None
    source = session.source(found.of)
    try:
        every = open_labels(source.name, len(source))
    except InputError:
        return None
    return every[found.rows] if len(every) == len(source) else None


@torch.no_grad()
def _cloud(session: Session) -> Cloud:
    model = session.decoder.model
    if isinstance(model, VariationalAutoencoder):
        of = _encoded(session)
        rows = _spread(len(session.source(of)), MOST_POINTS)
        z = _posteriors(session, model, of, rows, None)
    else:
        particles = _kept_particles(session)
        source = session.sources.get("train")
        of = "train" if source is not None and len(source) == len(particles) else None
        rows = _spread(len(particles), MOST_POINTS)
        z = particles[rows].mean(1)
    plane = LatentPlane.through(z)
    return Cloud(of, rows, z, plane, plane.project(z))


@torch.no_grad()
def _particles(session: Session) -> Tensor:
    """Return latents (M, N, d) that stand for M training rows."""
    model = session.decoder.model
    if not isinstance(model, VariationalAutoencoder):
        particles = _kept_particles(session)
        return particles[_spread(len(particles), MOST_SUMMARISED)]
    of = _encoded(session)
    rows = _spread(len(session.source(of)), MOST_SUMMARISED)
    return _posteriors(session, model, of, rows, _SEED).unsqueeze(1)


def _encoded(session: Session) -> str:
    """Return the set of rows that an encoder reads: those shown, where there are no others."""
    return "train" if "train" in session.sources else "shown"


def _posteriors(
    session: Session, model: VariationalAutoencoder, of: str, rows: Tensor, seed: int | None
) -> Tensor:
    """Return a draw from the posterior of every row, (n, d), or without a seed its mean."""
    draw, parts = make_generator(seed, model.device), []
    for part in rows.split(_ROWS):
        x = session.take(of, part.tolist())
        found = model.posterior(x)
        parts.append(found.mean if seed is None else found.sample(1, draw)[0])
    return torch.cat(parts)


def _kept_particles(session: Session) -> Tensor:
    """Return the particles (M, N, d).

    Raises:
        InputError: if there are none.
    """
    particles = session.decoder.model.particles
    if particles is None:
        raise InputError(
            "The model holds no particles, so that there is no cloud of latents to show; fit it by "
            "a particle algorithm such as pga."
        )
    return particles.detach()


def _spread(n: int, most: int) -> Tensor:
    """Return numbers of at most so many of n rows, evenly apart: data may be in order."""
    m = min(n, most)
    return torch.arange(m) * n // max(m, 1)
