r"""Kullback–Leibler divergences to a mixture, which have no closed form: bounds and estimates.

For $q = \sum_s w_s q_s$ with diagonal Gaussians $q_s$, and $p = \sum_k \pi_k p_k$ of any family:

    product bound ≤ KL(q ‖ p) ≤ variational bound.

The derivation is in docs/theory.md. All are in nats, one per row of the posterior.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mogul.compute.backend import in_full_precision
from mogul.distributions.mixture import Mixture
from mogul.distributions.posterior import Posterior
from mogul.errors import InputError


@in_full_precision
def component_divergences(q: Posterior, p: Mixture) -> Tensor:
    r"""Return $KL(q_s \,\|\, p_k)$ of every pair of components, (n, S, K): exact.

    $-H(q_s) - \log p_k(m_s) + \tfrac12\,\mathrm{tr}(\Sigma_k^{-1}\,\mathrm{diag}(v_s))$.
    """
    n, s, d = q.means.shape
    log_prob = p.covariance.log_prob((q.means - p.origin).reshape(n * s, d), p.centres)
    precision = p.covariance.precision_diagonal().to(q.means.dtype)
    traces = q.log_variances.exp() @ precision.mT
    return 0.5 * traces - log_prob.view(n, s, -1) - q.entropies().unsqueeze(-1)


def variational_bound(q: Posterior, p: Mixture) -> Tensor:
    r"""Return an upper bound of KL(q ‖ p), (n,): with it an evidence bound stays a lower bound.

    $\sum_s w_s \left(-\log\sum_k \pi_k\, e^{-KL(q_s \| p_k)}\right)$ (Hershey & Olsen 2007), by the
    convexity of KL in its first argument where S > 1. It is exact if p has one component and S = 1.

    Args:
        q: posteriors of n rows.
        p: the prior.

    Returns:
        (n,), in nats.
    """
    each = -(p.log_weights - component_divergences(q, p)).logsumexp(-1)
    return (q.log_weights.exp() * each).sum(-1)


def product_bound(q: Posterior, p: Mixture) -> Tensor:
    r"""Return a lower bound of KL(q ‖ p), (n,): a diagnostic, not an objective.

    $-\bar H(q) - \log\sum_{s,k} w_s\pi_k\,N(m_s; \mu_k, \mathrm{diag}(v_s)+\Sigma_k)$, by Jensen's
    inequality $E_q\log p \le \log E_q p$ (Durrieu, Thiran & Kelly 2012). $\bar H$ is the entropy of
    q where S = 1, and its upper bound $\sum_s w_s(H(q_s) - \log w_s)$ where S > 1. It is worked
    out in float64.

    Args:
        q: posteriors of n rows; n·S·K·d numbers are held, or n·S·K·d² if p has covariances.
        p: the prior.

    Returns:
        (n,), in nats.

    Raises:
        InputError: if a covariance of the prior is singular in float64.
    """
    weights = q.log_weights.exp()
    entropy = (weights * (q.entropies() - q.log_weights.clamp_min(-1e30))).sum(-1)
    overlap = _log_overlaps(q, p) + q.log_weights.unsqueeze(-1) + p.log_weights
    return (-entropy - overlap.flatten(-2).logsumexp(-1)).to(q.means.dtype)


def sampled_divergence(q: Posterior, p: Mixture, z: Tensor) -> Tensor:
    r"""Return unbiased estimates of KL(q ‖ p), (n,): the mean of $\log q(z) - \log p(z)$.

    Args:
        q: posteriors of n rows.
        p: the prior.
        z: draws of q, (T, n, d), such as `q.rsample`.
    """
    return (q.log_prob(z) - p.log_prob(z)).mean(0)


def marginal_divergence(q: Posterior, p: Mixture, z: Tensor) -> Tensor:
    r"""Return unbiased estimates of KL(q ‖ p), (n,), from stratified draws z (T, S, n, d).

    Components of both are summed exactly, none is drawn: $-H(q) - E_q\log p(z)$ with the entropy in
    closed form where S = 1, else $\sum_s w_s E_{q_s}[\log q(z) - \log p(z)]$.
    """
    cross = p.log_prob(z)
    if q.n_components == 1:
        return -q.entropies().squeeze(-1) - cross.mean((0, 1))
    return (q.log_weights.mT.exp() * (q.log_prob(z) - cross).mean(0)).sum(0)


def _log_overlaps(q: Posterior, p: Mixture) -> Tensor:
    """Return log ∫ q_s p_k, (n, S, K), in float64.

    Raises:
        InputError: if a covariance of the prior is singular.
    """
    variances = q.log_variances.double().exp().unsqueeze(-2)  # (n, S, 1, d)
    away = (q.means - p.origin).double().unsqueeze(-2) - p.centres.double()  # (n, S, K, d)
    covariance = p.covariance.map(torch.Tensor.double)
    const = p.n_features * math.log(2 * math.pi)
    if covariance.independent:
        wide = variances + covariance.variances
        return -0.5 * ((away.square() / wide + wide.log()).sum(-1) + const)
    tril, failed = torch.linalg.cholesky_ex(torch.diag_embed(variances) + covariance.dense())
    if bool(failed.any()):
        raise InputError(
            "A covariance of the prior is singular in float64, so that overlaps with it are not "
            "defined; raise its variance_floor."
        )
    z = torch.linalg.solve_triangular(tril, away.unsqueeze(-1), upper=False).squeeze(-1)
    log_det = 2 * tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return -0.5 * (z.square().sum(-1) + log_det + const)
