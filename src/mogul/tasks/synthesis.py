"""Synthesis: densities over latents to draw from, and pictures between two others."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mogul.algorithms import EM, fit, initialise, mean_log_likelihood
from mogul.data import ArraySource
from mogul.distributions import Full, Mixture
from mogul.errors import InputError
from mogul.models import GaussianMixture, LatentVariableModel
from mogul.tasks.encode import decode_rows, encode

SUMMARIES = ("prior", "gaussian", "mixture", "class")
_MOST_COMPONENTS = 64
_STARTS = 3


def summarise(
    model: LatentVariableModel,
    kind: str,
    n_components: int | None = None,
    labels: Tensor | None = None,
    seed: int = 0,
    particles: Tensor | None = None,
) -> Mixture:
    r"""Return a density over latents to draw from: `model.sample(n, seed, latents=...)`.

    The prior is what latents were meant to follow; the particles of all rows, a cloud in latent
    space, are what they do follow. Fits to the cloud are by EM, with full covariances. Draws from
    the posteriors of an autoencoder stand for its aggregate posterior, if given as particles.

    - "prior": the prior itself.
    - "gaussian": the cloud's mean and covariance.
    - "mixture": K Gaussians. Without `n_components`, K doubles from 1 to at most 64 while
      $BIC = -2 M \bar\ell + p \log M$ falls, and is then searched for between the last powers of
      two; $\bar\ell$ is the mean log-likelihood of the cloud, p the parameters, M the rows
      (Schwarz 1978). Particles of one row do not count as further rows.
    - "class": one Gaussian per class, in increasing order of the labels, weighted by how many rows
      each has.

    Args:
        model: the fitted model.
        kind: "prior", "gaussian", "mixture" or "class".
        n_components: K of "mixture".
        labels: classes of the M rows the model was fitted to, (M,), for "class".
        seed: seed of the fits' starts.
        particles: the cloud, (M, N, d), N latents for each of M rows; default: the model's own.

    Returns:
        the density, over (d,) latents.

    Raises:
        InputError: for an unknown kind, a model without particles where none are given, particles
            too few for a covariance, or labels that are missing or of another number.
    """
    if kind not in SUMMARIES:
        raise InputError(f"Unknown summary '{kind}'; choose one of: {', '.join(SUMMARIES)}.")
    if kind == "prior":
        return _detached(model.prior)
    particles = _particles(model) if particles is None else particles
    if kind == "class":
        return _by_class(particles, _checked_labels(labels, len(particles)), seed)
    if kind == "mixture" and n_components is None:
        return _chosen(particles, seed)
    k = 1 if n_components is None or kind == "gaussian" else n_components
    return _fitted(particles, k, seed)[0]


def of_class(mixture: Mixture, k: int) -> Mixture:
    """Return component k of a mixture, such as one class of a summary, as a mixture of its own.

    Raises:
        InputError: if there is no such component.
    """
    if not 0 <= k < mixture.n_components:
        raise InputError(
            f"Component {k} was asked for; choose one from 0 to {mixture.n_components - 1}."
        )
    own = slice(k, k + 1)
    shared = mixture.covariance.n_covariances == 1
    covariance = mixture.covariance if shared else mixture.covariance.map(lambda t: t[own])
    logits = torch.zeros_like(mixture.logits[own])
    return Mixture(logits, mixture.centres[own], covariance, mixture.origin)


def interpolate(
    model: LatentVariableModel, a: Tensor, b: Tensor, n: int = 8, seed: int = 0
) -> Tensor:
    """Decode along the straight line between the latents of two rows.

    Arcs about the origin keep to the shell where a standard normal of many dimensions has its mass;
    a mixture has no such shell, nor an origin that means anything, so that the line is straight: it
    stays the same line if the latents are shifted, turned or scaled.

    Args:
        model: the fitted model.
        a: rows to begin at, (n_pairs, D); NaN marks what is missing.
        b: rows to end at, (n_pairs, D).
        n: rows to return per pair, the ends among them.
        seed: seed of the encodings.

    Returns:
        decoded rows (n_pairs, n, D); the first and last are reconstructions of a and b.

    Raises:
        InputError: for rows of another width, unlike numbers of them, or n below 2.
    """
    if len(a) != len(b) or n < 2:
        raise InputError(
            f"{len(a)} and {len(b)} rows and n={n} came; give as many rows to begin at as to end "
            "at, and n of at least 2."
        )
    first, last = (encode(model, rows, seed=seed).latents for rows in (a, b))
    share = torch.linspace(0, 1, n, dtype=first.dtype, device=first.device).view(-1, 1)
    return decode_rows(model, torch.lerp(first.unsqueeze(1), last.unsqueeze(1), share))


def _particles(model: LatentVariableModel) -> Tensor:
    """Return the particles (M, N, d).

    Raises:
        InputError: if there are none.
    """
    if model.particles is None:
        raise InputError(
            "The model has no particles to summarise; fit it by a particle algorithm such as pga, "
            "or choose the summary 'prior'."
        )
    return model.particles


def _fitted(particles: Tensor, k: int, seed: int) -> tuple[Mixture, float]:
    """Return the K Gaussians that fit particles (M, N, d) best, and the BIC with M rows.

    Raises:
        InputError: if they are too few for a covariance.
    """
    cloud = particles.detach().reshape(-1, particles.shape[-1])
    if len(cloud) <= cloud.shape[1]:
        raise InputError(
            f"{len(cloud)} particle(s) came for a covariance of {cloud.shape[1]} latents, which "
            f"takes at least {cloud.shape[1] + 1}; fit with more particles, or merge classes."
        )
    source = ArraySource(cloud.cpu())
    model = GaussianMixture(k, cloud.shape[1], "full", dtype=cloud.dtype, device=cloud.device)
    initialise(model, source, n_init=_STARTS if k > 1 else 1, seed=seed)
    history = fit(model, source, EM()).history
    mixture, rows = _detached(model()), len(particles)
    bic = model.n_parameters * math.log(rows) - 2 * rows * mean_log_likelihood(mixture, source)
    # A component on the floor of variances has a likelihood that means nothing.
    return mixture, math.inf if k > 1 and history[-1]["events"] else bic


def _chosen(particles: Tensor, seed: int) -> Mixture:
    """Return the mixture with the lowest BIC: doubling, then ever smaller steps of K."""
    fits: dict[int, tuple[Mixture, float]] = {}
    most = min(_MOST_COMPONENTS, len(particles))

    def bic(k: int) -> float:
        if k not in fits:
            fits[k] = _fitted(particles, k, seed)
        return fits[k][1]

    k = 1
    while 2 * k <= most and bic(2 * k) < bic(k):
        k *= 2
    step = k // 2
    while step:
        k = min((n for n in (k, k - step, k + step) if n <= most), key=bic)
        step //= 2
    bic(k)
    return fits[k][0]


def _by_class(particles: Tensor, labels: Tensor, seed: int) -> Mixture:
    """Return one Gaussian per class, measured from the mean of all."""
    classes, counts = labels.unique(return_counts=True)
    members = [_fitted(particles[(labels == c).to(particles.device)], 1, seed)[0] for c in classes]
    origin = particles.detach().flatten(0, 1).mean(0)
    centres = torch.cat([member.means - origin for member in members])
    covariance = Full(torch.cat([member.covariance.tril() for member in members]))
    return Mixture(counts.to(centres).log(), centres, covariance, origin)


def _checked_labels(labels: Tensor | None, rows: int) -> Tensor:
    """Return the labels as a tensor.

    Raises:
        InputError: if they are missing, or not one for each row.
    """
    found = None if labels is None else torch.as_tensor(labels)
    if found is None or found.shape != (rows,):
        came = "no labels" if found is None else f"labels of shape {tuple(found.shape)}"
        raise InputError(
            f"The summary 'class' needs one label for each of the {rows} rows the model was fitted "
            f"to, and {came} came; give labels=."
        )
    return found


def _detached(mixture: Mixture) -> Mixture:
    """Return a copy that later fits do not change."""

    def copy(tensor: Tensor) -> Tensor:
        return tensor.detach().clone()

    return Mixture(
        copy(mixture.logits),
        copy(mixture.centres),
        mixture.covariance.map(copy),
        copy(mixture.origin),
    )
