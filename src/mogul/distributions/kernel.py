"""The E-step as a few large products per batch: scores, responsibilities and moments in place."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from mogul.compute.backend import full_precision
from mogul.compute.threads import n_workers, spread
from mogul.distributions.linear_algebra import in_blocks
from mogul.distributions.moments import Moments

if TYPE_CHECKING:
    from mogul.distributions.covariance import Covariance


_CACHED = 2**15  # values that are widened at a time
_BATCH_VALUES = 2**22  # rows × features scored at a time, 16 MB in float32


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
        work: the type to compute in; default: that of the centres.
    """

    def __init__(
        self,
        covariance: Covariance,
        centres: Tensor,
        offsets: Tensor,
        origin: Tensor,
        work: torch.dtype | None = None,
    ) -> None:
        """Hold the parameters; subclasses prepare what their products need."""
        self.covariance = covariance
        self.centres = centres
        self.dtype = centres.dtype
        self.work = centres.dtype if work is None else work
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

    @classmethod
    def in_double(
        cls, covariance: Covariance, centres: Tensor, offsets: Tensor, origin: Tensor
    ) -> Self:
        """Return a kernel that computes in float64 for a model in another type."""
        wide = covariance.map(torch.Tensor.double)
        kernel = cls(wide, centres.double(), offsets.double(), origin.double())
        kernel.dtype = centres.dtype
        return kernel

    @property
    def note(self) -> str | None:
        """What a user should know of how this kernel computes, or None."""
        if self.dtype == torch.float64 or self.work == self.dtype:
            return None
        return (
            "data lie so far apart in units of the spread of components that float32 would lose "
            "digits: computed in float64"
        )

    @abstractmethod
    def joint(self, x: Tensor) -> Tensor:
        """Return log π_k + log N(x; k) of rows x (n, D) about the origin, as (K, n), in nats.

        Where a component cannot matter to a row, −∞ may stand.
        """

    @abstractmethod
    def accumulate(self, x: Tensor, resp: Tensor, weight: Tensor | None) -> None:
        """Add the moments of the rows x (n, D) last scored, by resp (K, n) and weights (n,)."""

    @property
    @abstractmethod
    def moments(self) -> Moments:
        """The moments of all batches since the kernel was made or forked."""

    def absorb(self, other: Self) -> None:
        """Add the moments that a fork has summed."""
        for name, value in other._sums.items():
            self._add(name, value)

    def sums(self) -> dict[str, Tensor]:
        """Return all that was added, by name, so that `take_up` can go on with it."""
        strides = {f"{name}/stride": torch.tensor(t.stride()) for name, t in self._sums.items()}
        return self._sums | strides

    def take_up(self, sums: dict[str, Tensor]) -> None:
        """Go on with what another kernel with these parameters had added."""
        for name, value in sums.items():
            if not name.endswith("/stride"):
                stride = tuple(sums[f"{name}/stride"].tolist())  # products round by the layout
                self._sums[name] = self._total(name, value.shape, stride).copy_(value)

    def fork(self) -> Self:
        """Return a kernel with the same parameters, its own buffers, and no moments."""
        other = copy.copy(self)
        other.workspace, other._sums = {}, {}
        return other

    def expect(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """Add the expected moments of rows (n, D) with weights (n,); return log p(x), (n,)."""
        with torch.no_grad(), full_precision(x.device):
            return self._expect(self._centred(x), weight).to(self.dtype)

    def score(self, x: Tensor) -> Tensor:
        """Return log p(x) of rows (n, D), as (n,), in nats."""
        with torch.no_grad(), full_precision(x.device):
            log_prob = self._score(self._centred(x)).to(self.dtype)
            lost = self._lost(x, log_prob)
            if len(lost):
                log_prob[lost] = self._exact(x[lost]).logsumexp(0).to(self.dtype)
            return log_prob

    def responsibilities(self, x: Tensor) -> Tensor:
        """Return p(k | x) of rows (n, D), as (n, K)."""
        out = torch.empty(len(x), len(self.centres), dtype=self.dtype, device=x.device)
        with torch.no_grad(), full_precision(x.device):
            log_prob, resp = self._posterior(self._centred(x))
            out.copy_(resp.mT)
            lost = self._lost(x, log_prob)
            if len(lost):
                out[lost] = self._exact(x[lost]).softmax(0).mT.to(self.dtype)
        return out

    def _expect(self, x: Tensor, weight: Tensor | None) -> Tensor:
        """Add the moments of rows about the origin, and return log p (n,)."""
        log_prob, resp = self._posterior(x)
        self.accumulate(x, resp, None if weight is None else weight.to(resp))
        return log_prob

    def _posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return log p (n,) and responsibilities (K, n) of rows about the origin."""
        joint = self.joint(x)
        return softmax_(joint), joint

    def _score(self, x: Tensor) -> Tensor:
        """Return log p (n,) of rows about the origin."""
        return self._posterior(x)[0]

    @staticmethod
    def _lost(x: Tensor, log_prob: Tensor) -> Tensor:
        """Return the rows without gaps whose density left the range of the type."""
        if bool(log_prob.sum().isfinite()):
            return torch.empty(0, dtype=torch.long, device=x.device)
        return (~log_prob.isfinite() & x.isfinite().all(-1)).nonzero().squeeze(-1)

    def _exact(self, x: Tensor) -> Tensor:
        """Return log π_k + log N of a few rows (n, D), as (K, n), by the dense twin in float64."""
        wide = self.covariance.map(torch.Tensor.double)
        rows = x.double() if self.origin is None else x.double() - self.origin.double()
        return wide.log_prob(rows, self.centres.double()).mT + self.offsets.double()[:, None]

    def _centred(self, x: Tensor) -> Tensor:
        if self.origin is None:
            return x.to(self.work)
        return self._less_origin(x, self._buffer("centred", tuple(x.shape), self.work))

    def _less_origin(self, x: Tensor, out: Tensor) -> Tensor:
        """Write x − origin, in the wider of the two types, into out."""
        assert self.origin is not None
        if x.dtype == out.dtype:
            return torch.sub(x, self.origin.to(out.dtype), out=out)
        wide = torch.promote_types(x.dtype, out.dtype)
        return out.copy_(x.to(wide) - self.origin.to(wide))

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
        total = self._sums.get(name)
        if total is None:
            self._sums[name] = self._total(name, value.shape, value.stride()).copy_(value)
            return
        # A wider copy of the whole would pass through main memory.
        step = max(1, _CACHED // max(1, value[:1].numel()))
        for part, more in zip(total.split(step), value.split(step), strict=True):
            part += more

    def _total(self, name: str, shape: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
        """Return memory for a total, the same as in the pass before.

        New memory is costly: the system hands it out page by page, to one thread at a time.
        """
        held = self.workspace.get(f"sum of {name}")
        if held is None or held.shape != shape or held.stride() != stride:
            device = self.centres.device
            held = torch.empty_strided(shape, stride, dtype=torch.float64, device=device)
            self.workspace[f"sum of {name}"] = held
        return held

    def _sum(self, name: str, *shape: int) -> Tensor:
        """Return a total, zero if no batch came."""
        if name not in self._sums:
            stride = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
            self._sums[name] = self._total(name, shape, tuple(stride)).zero_()
        return self._sums[name]


class DirectKernel(Kernel):
    """Any family, by its own `log_prob` and `statistics`: slower, and exact wherever these are."""

    def joint(self, x: Tensor) -> Tensor:
        """Score by the family's density."""
        return self.covariance.log_prob(x, self.centres).mT.contiguous().add_(self.offsets[:, None])

    def accumulate(self, x: Tensor, resp: Tensor, weight: Tensor | None) -> None:
        """Sum the family's own moments."""
        resp = resp if weight is None else resp * weight
        found = self.covariance.statistics(x, resp.mT, self.centres)
        self._total = found if self._total is None else self._total + found

    _total: Moments | None = None

    def absorb(self, other: Self) -> None:
        """Add the total of a fork."""
        if other._total is not None:
            self._total = other._total if self._total is None else self._total + other._total

    def sums(self) -> dict[str, Tensor]:
        """Return the total, by name."""
        return {} if self._total is None else self._total.tensors()

    def take_up(self, sums: dict[str, Tensor]) -> None:
        """Go on with a total."""
        self._total = Moments(**sums) if sums else None

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
    """Mark what matters of responsibilities (..., n): the rest is rounding in their sum."""
    least = torch.finfo(resp.dtype).eps / max(resp.shape[-1], 1)
    return resp > least * resp.amax(-1, keepdim=True)


def softmax_(joint: Tensor) -> Tensor:
    """Turn log-joint scores (K, n) into responsibilities, in place; return their log-sum (n,).

    Those too small to matter stop short of where numbers are no longer normal, which is slow.
    """
    top = joint.amax(0)
    least = 0.9 * math.log(torch.finfo(joint.dtype).tiny)
    total = joint.sub_(top).clamp_min_(least).exp_().sum(0)
    joint.div_(total)
    return total.log_().add_(top)


def near_zero(centres: Tensor, origin: Tensor, noise: Tensor) -> bool:
    """Return whether zero serves as well as the origin, in units of the noise (K, D) or (K, 1)."""
    shifted = centres + origin

    def work(own: Tensor, moved: Tensor, noise: Tensor) -> tuple[Tensor, ...]:
        return tuple((c.double().square() / noise).sum(-1) for c in (own, moved))

    found = in_blocks(work, centres, shifted, noise.expand(len(centres), -1), values=2**18)
    about, zero = (distance.max() for distance in found)
    return bool(zero <= 4 * about)


def in_batches(kernel: Kernel, rows: Tensor, what: Callable[[Kernel, Tensor], Tensor]) -> Tensor:
    """Apply a method of a kernel to rows (n, D), a batch at a time, one batch a core."""
    size = max(256, min(16_384, _BATCH_VALUES // rows.shape[-1]))
    batches = list(enumerate(rows.split(size)))
    number = max(1, min(n_workers(kernel.centres.device), len(batches)))
    kernels = [kernel, *(kernel.fork() for _ in range(number - 1))]
    found: dict[int, Tensor] = {}

    def work(own: Kernel, item: tuple[int, Tensor]) -> None:
        found[item[0]] = what(own, item[1])

    spread(batches, [partial(work, own) for own in kernels])
    return torch.cat([found[i] for i in range(len(batches))])
