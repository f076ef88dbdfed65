"""The E-step as a few large products per batch: scores, responsibilities and moments in place."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from mogul.distributions.moments import Moments

if TYPE_CHECKING:
    from mogul.distributions.covariance import Covariance


class Kernel(ABC):
    """One E-step of K components: parameters prepared once, batches scored and summed in turn.

    Scores and responsibilities lie components first, (K, n), so that sums over components run
    along contiguous rows. Buffers are kept from batch to batch. A kernel serves one thread;
    `fork` gives another thread its own, with the same parameters.

    Args:
        covariance: covariances of the components, C = K or 1.
        centres: (K, D), measured from the origin.
        offsets: what is added to each component's log-density, (K,): its log-weight.
        origin: reference point of the rows, (D,).
    """

    def __init__(
        self, covariance: Covariance, centres: Tensor, offsets: Tensor, origin: Tensor
    ) -> None:
        """Hold the parameters; subclasses prepare what their products need."""
        self.covariance = covariance
        self.centres = centres
        self.offsets = offsets
        self.origin = origin if bool(origin.any()) else None
        self.workspace: dict[str, Tensor] = {}  # scratch memory, which a later kernel may take over
        self._sums: dict[str, Tensor] = {}

    @property
    def footprint(self) -> int:
        """Bytes of the sums that a fork holds, and of what is added to them."""
        return 12 * self._moment_values()

    def _moment_values(self) -> int:
        k, d = self.centres.shape
        return k * d * (d + 1)

    @property
    def note(self) -> str | None:
        """What a user should know of how this kernel computes, or None."""
        return None

    @abstractmethod
    def joint(self, x: Tensor) -> Tensor:
        """Return log π_k + log N(x; k) of rows x (n, D) about the origin, as (K, n), in nats.

        Where a component cannot matter to a row, −∞ may stand.
        """

    @abstractmethod
    def accumulate(self, x: Tensor, resp: Tensor) -> None:
        """Add the moments of the rows x (n, D) last scored, weighted by resp (K, n)."""

    @property
    @abstractmethod
    def moments(self) -> Moments:
        """The moments of all batches since the kernel was made or forked."""

    def absorb(self, other: Self) -> None:
        """Add the moments that a fork has summed."""
        for name, value in other._sums.items():
            self._add(name, value)

    def fork(self) -> Self:
        """Return a kernel with the same parameters, its own buffers, and no moments."""
        other = copy.copy(self)
        other.workspace, other._sums = {}, {}
        return other

    @torch.no_grad()
    def expect(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """Add the expected moments of rows (n, D) with weights (n,); return log p(x), (n,)."""
        x = self._centred(x)
        joint = self.joint(x)
        log_prob = softmax_(joint)
        if weight is not None:
            joint.mul_(weight)
        self.accumulate(x, joint)
        return log_prob

    @torch.no_grad()
    def score(self, x: Tensor) -> Tensor:
        """Return log p(x) of rows (n, D), as (n,), in nats."""
        return softmax_(self.joint(self._centred(x)))

    @torch.no_grad()
    def responsibilities(self, x: Tensor) -> Tensor:
        """Return p(k | x) of rows (n, D), as (n, K)."""
        joint = self.joint(self._centred(x))
        softmax_(joint)
        return joint.mT.contiguous()

    def _centred(self, x: Tensor) -> Tensor:
        if self.origin is None:
            return x.to(self.centres.dtype)
        out = self._buffer("centred", tuple(x.shape), torch.result_type(x, self.origin))
        return torch.sub(x, self.origin, out=out).to(self.centres.dtype)

    def _buffer(
        self, name: str, shape: tuple[int, ...], dtype: torch.dtype | None = None
    ) -> Tensor:
        """Return uninitialised memory of this shape, the same as last time if that was enough."""
        dtype = dtype or self.centres.dtype
        size = 1
        for length in shape:
            size *= length
        held = self.workspace.get(name)
        if held is None or held.numel() < size or held.dtype != dtype:
            held = torch.empty(size, dtype=dtype, device=self.centres.device)
            self.workspace[name] = held
        return held[:size].view(shape)

    def _add(self, name: str, value: Tensor) -> None:
        """Add a batch's sum to the total, in float64."""
        if name in self._sums:
            self._sums[name] += value
        else:
            self._sums[name] = value.to(torch.float64, copy=True)

    def _sum(self, name: str, *shape: int) -> Tensor:
        """Return a total, zero if no batch came."""
        if name not in self._sums:
            self._sums[name] = torch.zeros(shape, dtype=torch.float64, device=self.centres.device)
        return self._sums[name]


class DirectKernel(Kernel):
    """Any family, by its own `log_prob` and `statistics`: slower, and exact wherever these are."""

    def joint(self, x: Tensor) -> Tensor:
        """Score by the family's density."""
        return self.covariance.log_prob(x, self.centres).mT.contiguous().add_(self.offsets[:, None])

    def accumulate(self, x: Tensor, resp: Tensor) -> None:
        """Sum the family's own moments."""
        found = self.covariance.statistics(x, resp.mT, self.centres)
        self._total = found if self._total is None else self._total + found

    _total: Moments | None = None

    def absorb(self, other: Self) -> None:
        """Add the total of a fork."""
        if other._total is not None:
            self._total = other._total if self._total is None else self._total + other._total

    def fork(self) -> Self:
        """Forget the moments."""
        other = super().fork()
        other._total = None
        return other

    @property
    def moments(self) -> Moments:
        """The sum so far."""
        if self._total is None:
            empty = self.centres[:0]
            resp = empty.new_zeros(0, len(self.centres))
            return self.covariance.statistics(empty, resp, self.centres)
        return self._total


def active(resp: Tensor) -> Tensor:
    """Mark responsibilities above rounding: the rest could not change a row's or a batch's sum."""
    return resp > torch.finfo(resp.dtype).eps


def softmax_(joint: Tensor) -> Tensor:
    """Turn log-joint scores (K, n) into responsibilities, in place; return their log-sum (n,).

    Those too small to matter stop short of where numbers are no longer normal, which is slow.
    """
    top = joint.amax(0)
    least = 0.9 * math.log(torch.finfo(joint.dtype).tiny)
    total = joint.sub_(top).clamp_min_(least).exp_().sum(0)
    joint.div_(total)
    return total.log_().add_(top)
