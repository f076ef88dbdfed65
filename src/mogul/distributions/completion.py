"""Exact inference of hidden features when every row has its own pattern of observed ones."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mogul.compute.backend import in_full_precision, make_generator
from mogul.distributions.checks import has_gaps
from mogul.distributions.kernel import active
from mogul.distributions.linear_algebra import cholesky
from mogul.distributions.low_rank import DiagonalPlusLowRank
from mogul.distributions.masked import MaskedMoments
from mogul.distributions.moments import Moments
from mogul.errors import InputError

if TYPE_CHECKING:
    from mogul.distributions.mixture import Mixture


_FAR = 1e7  # squares of centres to those about them, above which their difference lacks digits


class Completion(ABC):
    """What a mixture knows of the hidden features of rows (n, D) given the observed ones.

    `log_prob` (n, K) holds log π_k + log p(observed part | k), in nats.
    """

    def __init__(self, mixture: Mixture, x: Tensor, observed: Tensor) -> None:
        """Hold the rows about the origin, zero where hidden, and the boolean mask (n, D)."""
        self.mixture = mixture
        self.observed = observed
        self.x = torch.where(observed, x - mixture.origin, 0.0).to(mixture.dtype)
        self.log_prob = self._component_log_prob() + mixture.log_weights

    @property
    def device(self) -> torch.device:
        """Where the rows are."""
        return self.x.device

    @property
    def responsibilities(self) -> Tensor:
        """p(k | observed part), (n, K)."""
        return self.log_prob.softmax(-1)

    @property
    @in_full_precision
    def mean(self) -> Tensor:
        """The rows with E[hidden | observed] filled in, (n, D), in the units of the data."""
        filled = torch.where(self.observed, self.x, self._mean())
        return self.mixture.origin + filled

    @property
    @in_full_precision
    def reconstruction(self) -> Tensor:
        """Posterior mean of the noise-free part of all features, (n, D), in data units."""
        return self.mixture.origin + self._noise_free()

    @property
    @in_full_precision
    def variance(self) -> Tensor:
        """Var[hidden | observed] of each feature, (n, D); zero where observed."""
        return torch.where(self.observed, 0.0, self._moments()[1].to(self.x.dtype))

    @in_full_precision
    def sample(self, noise: bool = True, seed: int | None = None) -> Tensor:
        """Draw the hidden features given the observed ones, (n, D), observed ones kept."""
        generator = make_generator(seed, self.x.device)
        component = torch.multinomial(self.responsibilities, 1, generator=generator).squeeze(-1)
        draw = torch.where(self.observed, self.x, self._draw(component, noise, generator))
        return self.mixture.origin + draw

    @in_full_precision
    def statistics(self, weight: Tensor | None) -> Moments | MaskedMoments:
        """Return the expected moments of the rows, for an M-step.

        Args:
            weight: one weight per row, (n,), or None.

        Returns:
            moments that add; of the kind that the family's `maximise` takes.
        """
        resp = self.responsibilities
        return self._statistics(resp if weight is None else resp * weight.unsqueeze(-1))

    @abstractmethod
    def _statistics(self, resp: Tensor) -> Moments | MaskedMoments:
        """Return the expected moments weighted by resp (n, K)."""

    @abstractmethod
    def _component_log_prob(self) -> Tensor:
        """Return log p(observed | k), (n, K)."""

    @abstractmethod
    def _noise_free(self) -> Tensor:
        """Return the posterior mean of the noise-free part about the origin, (n, D)."""

    @abstractmethod
    def _mean(self) -> Tensor:
        """Return the mean of hidden features about the origin, (n, D)."""

    @abstractmethod
    def _moments(self) -> tuple[Tensor, Tensor]:
        """Return mean about the origin, and variance, of hidden features, (n, D), in float64."""

    @abstractmethod
    def _draw(self, component: Tensor, noise: bool, generator: torch.Generator) -> Tensor:
        """Draw hidden features about the origin from the given component of each row."""


class LowRankCompletion(Completion):
    r"""All rows at once: $M_n = I + \sum_d o_{nd}\,w_dw_d^\top/\psi_d$ is one matrix product."""

    def _component_log_prob(self) -> Tensor:
        cov, centres, x = self.mixture.covariance, self.mixture.centres, self.x
        assert isinstance(cov, DiagonalPlusLowRank)
        if bool(cov.steep(centres).any()):
            cov = cov.map(torch.Tensor.double)
            centres, x = centres.double(), x.double()
        n, (k, d) = x.shape[0], centres.shape
        o = self.observed.to(x.dtype)
        W = cov._loadings.expand(k, d, -1)
        h = W.shape[-1]
        psi = cov.noise_variances.expand(k, d)
        scaled = W / psi.unsqueeze(-1)
        gram = (scaled.unsqueeze(-1) * W.unsqueeze(-2)).movedim(0, 1).reshape(d, k * h * h)
        M = (o @ gram).reshape(n, k, h, h).double()
        M = M + torch.eye(h, dtype=M.dtype, device=M.device)
        # b = Wᵀ Ψ⁻¹ o(x − μ)
        flat = scaled.movedim(0, 1).reshape(d, k * h)
        pull = (centres.unsqueeze(-1) * scaled).movedim(0, 1).reshape(d, k * h)
        b = (x @ flat - o @ pull).reshape(n, k, h, 1).double()
        self._R = cholesky(M)
        white = torch.linalg.solve_triangular(self._R, b, upper=False)
        z = torch.linalg.solve_triangular(self._R.mT, white, upper=True)
        self._z = z.squeeze(-1).to(self.x.dtype)
        squares = cov._quadratic(x, centres, o)
        quad = squares - white.squeeze(-1).square().sum(-1).to(x.dtype)
        log_det = o @ psi.log().mT
        log_det = log_det + 2 * self._R.diagonal(dim1=-2, dim2=-1).log().sum(-1).to(x.dtype)
        nats = -0.5 * (quad + log_det + o.sum(-1, keepdim=True) * math.log(2 * math.pi))
        size = o @ (centres.square() / psi).mT
        terms, dtype = squares + 2 * size, self.x.dtype
        return cov.rescored(x, centres, nats, terms, self.observed, dtype).to(dtype)

    @property
    def factors(self) -> Tensor:
        """E[z | observed part, k], (n, K, H)."""
        return self._z

    @cached_property
    def _extended(self) -> Tensor:
        """[μ, W] (K, D, H+1), to which [1, z] belongs."""
        cov, centres = self.mixture.covariance, self.mixture.centres
        assert isinstance(cov, DiagonalPlusLowRank)
        W = cov._loadings.expand(*centres.shape, -1)
        return torch.cat([centres.unsqueeze(-1), W], dim=-1)

    def _extended_factors(self) -> Tensor:
        """[1, E[z]], (n, K, H+1)."""
        return torch.cat([torch.ones_like(self.log_prob).unsqueeze(-1), self._z], dim=-1)

    def _noise_free(self) -> Tensor:
        E = self._extended
        rz = self.responsibilities.unsqueeze(-1) * self._extended_factors()
        return rz.flatten(1) @ E.movedim(1, -1).flatten(0, 1)

    def _mean(self) -> Tensor:
        return self._noise_free()

    def _moments(self) -> tuple[Tensor, Tensor]:
        r, E = self.responsibilities.double(), self._extended.double()
        z, covariance = self._extended_factors().double(), self._factor_covariance()
        noise = self.mixture.noise_variances.double()
        mean, variance = (
            (r.unsqueeze(-1) * z).flatten(1) @ E.movedim(1, -1).flatten(0, 1),
            r @ noise,
        )
        # Component by component: all outer products at once would be D·K·H² numbers.
        for k in range(len(E)):
            rows = active(r[:, k]).nonzero().squeeze(-1)
            if not len(rows):
                continue
            away = z[rows, k] @ E[k].mT - mean[rows]  # squares about the origin would cancel
            spread = ((covariance[rows, k] @ E[k, :, 1:].mT) * E[k, :, 1:].mT).sum(1)
            variance.index_add_(0, rows, r[rows, k, None] * (away.square() + spread))
        return mean, variance

    def _factor_covariance(self) -> Tensor:
        """M_n⁻¹, the posterior covariance of the factors, (n, K, H, H)."""
        eye = torch.eye(self._R.shape[-1], dtype=self._R.dtype, device=self._R.device)
        R_inv = torch.linalg.solve_triangular(self._R, eye.expand_as(self._R), upper=False)
        return R_inv.mT @ R_inv

    def _statistics(self, resp: Tensor) -> MaskedMoments:
        k, h = resp.shape[1], self._z.shape[-1]
        r, z = resp.double(), self._z.double()
        o, x = self.observed.double(), self.x.double()
        zz = self._factor_covariance() + z.unsqueeze(-1) * z.unsqueeze(-2)
        rz = r.unsqueeze(-1) * z
        rzz = r[..., None, None] * zz
        # The largest product runs in the type of the data; all that is subtracted from is float64.
        gram = self.observed.to(self.x.dtype).mT @ rzz.flatten(1).to(self.x.dtype)
        joint = torch.cat([r, rz.flatten(1)], dim=-1)
        seen, of_x = o.mT @ joint, x.mT @ joint
        n, value = seen[:, :k].mT, of_x[:, :k].mT
        factor = seen[:, k:].unflatten(-1, (k, h)).movedim(0, 1)
        c = self.mixture.centres.double()
        about = c.square() * n
        square = (x.square().mT @ r).mT - 2 * c * value + about
        if bool((_FAR * square < about).any()):
            value, square, product = self._about_each(c, r, z)
        else:
            value = value - c * n
            product = of_x[:, k:].unflatten(-1, (k, h)).movedim(0, 1) - c.unsqueeze(-1) * factor
        found = MaskedMoments(
            count=r.sum(0),
            seen=n,
            value=value,
            square=square,
            factor=factor,
            product=product,
            gram=gram.double().unflatten(-1, (k, h, h)).movedim(0, 1),
            factor_mean=rz.sum(0),
            factor_gram=rzz.sum(0),
        )
        return found.summed if self.mixture.covariance.n_covariances == 1 else found

    def _about_each(self, c: Tensor, r: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sum deviations from one centre after another, which cannot cancel.

        Returns:
            `value`, `square` and `product` of the moments.
        """
        value, square = (torch.zeros_like(c) for _ in range(2))
        product = c.new_zeros(*c.shape, z.shape[-1])
        for k in range(len(c)):
            away = torch.where(self.observed, self.x.double() - c[k], 0.0)
            weighted = r[:, k, None] * away
            value[k], square[k] = weighted.sum(0), (weighted * away).sum(0)
            product[k] = weighted.mT @ z[:, k]
        return value, square, product

    def _draw(self, component: Tensor, noise: bool, generator: torch.Generator) -> Tensor:
        E, n = self._extended, self.x.shape[0]
        rows = torch.arange(n, device=self.x.device)
        R = self._R[rows, component]
        shape = (n, R.shape[-1], 1)
        white = torch.empty(shape, dtype=R.dtype, device=R.device).normal_(generator=generator)
        spread = torch.linalg.solve_triangular(R.mT, white, upper=True).squeeze(-1)
        z = self._z[rows, component] + spread.to(self.x.dtype)
        z = torch.cat([torch.ones_like(z[:, :1]), z], dim=-1) if z.shape[-1] else z.new_ones(n, 1)
        out = torch.zeros_like(self.x)
        if noise:
            out.normal_(generator=generator)
        scale = self.mixture.noise_variances.sqrt()
        for k in component.unique().tolist():
            of_k = (component == k).nonzero().squeeze(-1)
            out[of_k] = out[of_k] * scale[k] + z[of_k] @ E[k].mT
        return out


class _PatternCompletion(Completion):
    """Any family: rows with equal patterns are conditioned together."""

    def _component_log_prob(self) -> Tensor:
        patterns, which = torch.unique(self.observed, dim=0, return_inverse=True)
        self._groups = []
        cov, centres = self.mixture.covariance, self.mixture.centres
        log_prob = self.x.new_zeros(len(self.x), len(centres))
        for g, pattern in enumerate(patterns):
            rows = (which == g).nonzero().squeeze(-1)
            seen, hidden = pattern.nonzero().squeeze(-1), (~pattern).nonzero().squeeze(-1)
            x = self.x[rows][:, seen]
            if len(hidden) == 0:
                log_prob[rows] = cov.log_prob(x, centres)
                continue
            if len(seen) == 0:
                means = centres.expand(len(rows), -1, -1)
                self._groups.append((rows, hidden, means, cov))
                continue
            log_prob[rows], means, conditional = cov.condition(seen, hidden, x, centres)
            self._groups.append((rows, hidden, means, conditional))
        return log_prob

    def _statistics(self, resp: Tensor) -> Moments:
        cov, centres = self.mixture.covariance, self.mixture.centres
        total = cov.statistics(self.x[:0], resp[:0], centres)
        whole = self.observed.all(-1)
        if bool(whole.any()):
            total = total + cov.statistics(self.x[whole], resp[whole], centres)
        for rows, hidden, means, conditional in self._groups:
            r = resp[rows].double().mT  # (K, n)
            y = self.x[rows].expand(len(centres), -1, -1).clone()
            y[:, :, hidden] = means.movedim(1, 0)
            y = (y - centres.unsqueeze(1)).double()
            ry = r.unsqueeze(-1) * y
            second = ry.mT @ y
            spread = conditional.dense().double() * r.sum(1)[:, None, None]
            second[:, hidden[:, None], hidden] += spread
            if cov.n_covariances == 1:
                second = second.sum(0, keepdim=True)
            total = total + Moments(r.sum(1), ry.sum(1), second)
        return total

    def _noise_free(self) -> Tensor:
        return self.responsibilities @ self.mixture.centres

    def _mean(self) -> Tensor:
        return self._moments()[0].to(self.x.dtype)

    def _moments(self) -> tuple[Tensor, Tensor]:
        mean = torch.zeros_like(self.x).double()
        variance, resp = torch.zeros_like(mean), self.responsibilities.double().unsqueeze(-1)
        for rows, hidden, means, cov in self._groups:
            r, means = resp[rows], means.double()
            middle = (r * means).sum(1)
            away = means - middle.unsqueeze(1)  # squares about the origin would cancel
            mean[rows[:, None], hidden] = middle
            variance[rows[:, None], hidden] = (r * (away.square() + cov.variances)).sum(1)
        return mean, variance

    def _draw(self, component: Tensor, noise: bool, generator: torch.Generator) -> Tensor:
        out = torch.zeros_like(self.x)
        for rows, hidden, means, cov in self._groups:
            k = component[rows]
            centre = means[torch.arange(len(rows), device=k.device), k]
            out[rows[:, None], hidden] = centre + cov.sample(k, noise, generator)
        return out


class CompletingKernel:
    """The E-step over rows with gaps: each batch is completed, and its moments added.

    Args:
        mixture: an unbatched mixture.
    """

    note = None

    def __init__(self, mixture: Mixture) -> None:
        """Start without rows."""
        self.mixture = mixture
        self.workspace: dict[str, Tensor] = {}
        self._total: Any = None

    @property
    def footprint(self) -> int:
        """Bytes of the sums: the factors' second moments of every feature, or D×D matrices."""
        k, d = self.mixture.centres.shape
        h = 0 if self.mixture.loadings is None else self.mixture.loadings.shape[-1]
        low_rank = isinstance(self.mixture.covariance, DiagonalPlusLowRank)
        return 8 * k * d * ((h + 2) ** 2 if low_rank else d)

    @property
    def moments(self) -> Any:
        """The moments of all batches so far."""
        if self._total is None:
            self.expect(self.mixture.centres[:0])
        return self._total

    @torch.no_grad()
    def expect(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """Add rows (n, D), NaN where missing; return log p of what is observed, (n,)."""
        completion = self.mixture.complete(x)
        self._add(completion.statistics(weight))
        return completion.log_prob.logsumexp(-1)

    def absorb(self, other: CompletingKernel) -> None:
        """Add the moments that a fork has summed."""
        if other._total is not None:
            self._add(other._total)

    def _add(self, found: Any) -> None:
        self._total = found if self._total is None else self._total + found

    def sums(self) -> dict[str, Tensor]:
        """Return all that was added, by name."""
        return {} if self._total is None else self._total.tensors()

    def take_up(self, sums: dict[str, Tensor]) -> None:
        """Go on with what was added before."""
        kind = MaskedMoments if "gram" in sums else Moments
        self._total = kind(**sums) if sums else None

    def fork(self) -> CompletingKernel:
        """Return the same E-step without rows."""
        return CompletingKernel(self.mixture)


def complete(mixture: Mixture, x: Tensor, observed: Tensor) -> Completion:
    """Return the completion of rows (n, D) by the way that suits the mixture's family.

    Args:
        mixture: an unbatched mixture.
        x: rows (n, D).
        observed: boolean mask (n, D), True where observed.

    Returns:
        the completion.

    Raises:
        InputError: if the mask has the wrong shape or type, or marks a NaN as observed, or an
            observed value is infinite.
    """
    if observed.shape != x.shape or observed.dtype != torch.bool:
        raise InputError(
            f"The mask has shape {tuple(observed.shape)} and type {observed.dtype}; it must be "
            f"boolean, True where observed, with the shape of the rows, {tuple(x.shape)}."
        )
    if has_gaps(x[observed]):
        raise InputError("The mask marks a NaN value as observed; hide it in the mask, or fill it.")
    low_rank = isinstance(mixture.covariance, DiagonalPlusLowRank)
    return (LowRankCompletion if low_rank else _PatternCompletion)(mixture, x, observed)
