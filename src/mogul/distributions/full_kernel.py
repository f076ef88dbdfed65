"""Scores and moments under full covariances, skipping components that cannot matter.

For any matrix P, the Mahalanobis distance of Pᵀx under the marginal of Pᵀx is at most that of x:
a few well-chosen directions bound all components from above, and only those are whitened whose
bound comes within rounding of the best. Rows are taken about each centre before whitening, so
digits are kept wherever the data lie.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mogul.distributions.grouped import Chosen, Pairs
from mogul.distributions.kernel import Kernel, active, near_zero
from mogul.distributions.linear_algebra import in_blocks, inverted
from mogul.distributions.moments import Moments
from mogul.distributions.natural import fill_quadratic, rounding

if TYPE_CHECKING:
    from mogul.distributions.covariance import Covariance

_DIRECTIONS = 24  # at most, and a third of the features
_MOST_SLACK = 8.0  # nats of rounding in the bound beyond which it would prune nothing
_MOST_PAIRS = 0.4  # fraction of all pairs from which on whitening them all is faster
_FAR = 1e-3  # share of the square left about the mean below which float32 sums cost digits
_CACHED = 2**15  # values of rows that are worked on at a time where all components see them
_AT_ONCE = 4096  # rows whose bounds are worked out at a time
_BLOCK = 128  # features from which on triangular matrices are treated in blocks
_FEW = 32  # rows up to which one product is faster than two smaller ones
_COLLINEAR = 1e3  # variance inflation from which on float32 products would cost digits


class PrunedKernel(Kernel):
    """Full covariances of their own: bound, then whiten what the bound leaves."""

    def __init__(
        self, covariance: Covariance, centres: Tensor, offsets: Tensor, origin: Tensor
    ) -> None:
        """Invert the Cholesky factors in float64, and prepare the bound."""
        tril, d = covariance.tril(), centres.shape[-1]
        conditional = tril.double().diagonal(dim1=-2, dim2=-1).square()
        if bool(origin.any()) and near_zero(centres, origin, conditional):
            centres, origin = centres + origin, torch.zeros_like(origin)  # spares a copy of rows
        super().__init__(covariance, centres, offsets, origin)
        inverse, inflation = in_blocks(inverted, tril)
        self._whiten = inverse.mT.contiguous().unbind(0)
        n_blocks = max(1, d // _BLOCK)
        edges = [d * i // n_blocks for i in range(1 + n_blocks)]
        self._blocks = list(pairwise(edges))
        const = d * math.log(2 * math.pi) + covariance.log_det()
        self._const = offsets.double() - 0.5 * const
        self._wide = centres.dtype == torch.float64
        self._double = (inflation > _COLLINEAR).tolist()
        self._bound = _Bound(tril, centres.double(), self._const, offsets.double(), centres.dtype)

    def joint(self, x: Tensor) -> Tensor:
        """Whiten all rows for every component, some at a time, so that they stay in the cache."""
        out = self._buffer("joint", (len(self.centres), len(x)))
        for rows, scores in self._in_cache(x, out.mT):
            y, white = (self._buffer(name, tuple(rows.shape)) for name in ("y", "scratch"))
            for k in range(len(self.centres)):
                torch.sub(rows, self.centres[k], out=y)
                self._whitened(y, k, white)
                torch.sum(white.square_(), -1, out=scores[:, k])
        return out.mul_(-0.5).add_(self._const.to(out.dtype).unsqueeze(-1))

    def _in_cache(self, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Yield some rows of each tensor at a time."""
        size = max(64, _CACHED // self.centres.shape[-1])
        return zip(*(t.split(size) for t in tensors), strict=True)

    def _whitened(self, y: Tensor, k: int, out: Tensor) -> None:
        """Write y L⁻ᵀ to out; L⁻ᵀ is upper triangular, so blocks of columns need only some of y."""
        whiten = self._whiten[k]
        if len(self._blocks) == 1 or len(y) < _FEW:
            torch.mm(y, whiten, out=out)
            return
        for a, b in self._blocks:
            torch.mm(y[:, :b], whiten[:b, a:b], out=out[:, a:b])

    def _symmetric(self, heavy: Tensor, y: Tensor, out: Tensor) -> None:
        """Add the blocks on and above the diagonal of heavyᵀ y, a symmetric matrix, to out."""
        if len(self._blocks) == 1 or len(y) < _FEW:
            out.addmm_(heavy.mT, y)
            return
        for a, b in self._blocks:
            out[:b, a:b].addmm_(heavy[:, :b].mT, y[:, a:b])

    def _expect(self, x: Tensor, weight: Tensor | None) -> Tensor:
        """Add the expected moments of rows, from the pairs that matter if these are few."""
        found = self._sparse(x)
        if found is None:
            log_prob, resp = super()._posterior(x)
            self.accumulate(x, resp, None if weight is None else weight.to(resp))
            return log_prob
        w = None if weight is None else weight.to(x.dtype)
        self._accumulate(lambda: ((c.gather(), c.mass(w)) for c in found[1]))
        return found[0]

    def _posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return log p and responsibilities, from the pairs that matter if these are few."""
        found = self._sparse(x)
        if found is None:
            return super()._posterior(x)
        resp = x.new_zeros(len(self.centres), len(x))
        for chosen in found[1]:
            resp[chosen.component, chosen.row] = chosen.score
        return found[0], resp

    def _score(self, x: Tensor) -> Tensor:
        """Return log p, from the pairs that matter if these are few."""
        found = self._sparse(x)
        return super()._posterior(x)[0] if found is None else found[0]

    def _sparse(self, x: Tensor) -> tuple[Tensor, list[Chosen]] | None:
        """Return log p (n,) and the pairs that matter, with responsibilities, if few do."""
        found = self._near(x) if self._bound.useful else None
        if found is None:
            return None
        first, *others = found
        top = torch.empty_like(first.score).index_copy_(0, first.row, first.score)
        for c in others:
            c.score = self._scores(c.gather())
            top.scatter_reduce_(0, c.row, c.score, "amax")
        total = torch.zeros_like(top)
        for c in found:
            total.index_add_(0, c.row, c.score.sub_(top[c.row]).exp_())
        for c in found:
            c.score.div_(total[c.row])
        least = torch.finfo(x.dtype).eps / len(x)
        return total.log_().add_(top), [first, *(c.above(least) for c in others)]

    def _near(self, x: Tensor) -> list[Chosen] | None:
        """Return pairs whose bound comes near the best, the best with scores; None if many do."""
        upper = self._buffer("upper", (len(self.centres), len(x)))
        features = self._buffer("features", (self._bound.n_values, _AT_ONCE))
        best = torch.empty(len(x), dtype=torch.long, device=x.device)
        for rows, part, which in zip(
            x.split(_AT_ONCE), upper.split(_AT_ONCE, -1), best.split(_AT_ONCE), strict=True
        ):
            self._bound(rows, features[:, : len(rows)], part)
            torch.max(part, 0, out=(torch.empty_like(part[0]), which))
        row = best.argsort(stable=True)
        y = self._buffer("y", tuple(x.shape))
        first = Chosen(x, self.centres, best[row], row, y, alone=True)
        first.score = reached = self._scores(first.gather())
        eps = torch.finfo(x.dtype).eps
        threshold = x.new_empty(len(x)).index_copy_(0, first.row, reached)
        # Less than rounding in all; the bound of a far-out row is itself rounded.
        threshold -= math.log(len(self.centres)) - math.log(eps) + 32 * eps * threshold.abs()
        near = upper >= threshold
        near[best, torch.arange(len(x), device=x.device)] = False
        row = near.any(0).nonzero().squeeze(-1)  # few: spares a search among all pairs
        component, of_those = near[:, row].nonzero(as_tuple=True)
        row = row[of_those]
        if len(row) > _MOST_PAIRS * upper.numel():
            return None
        # As many at a time as there are rows, so that memory does not grow with their number.
        shape = (min(len(row), len(x)), x.shape[1])
        parts = zip(component.split(len(x)), row.split(len(x)), strict=True) if len(row) else ()
        y = self._buffer("other", shape)
        return [first, *(Chosen(x, self.centres, *part, y) for part in parts)]

    def _scores(self, pairs: Pairs) -> Tensor:
        """Return log π_k + log N of every pair, (p,)."""
        white = self._buffer("scratch", tuple(pairs.y.shape))
        for k, (y, target) in pairs.each(white):
            self._whitened(y, k, target)
        const = self._const.to(white.dtype).index_select(0, pairs.component)
        return white.square_().sum(-1).mul_(-0.5).add_(const)

    def accumulate(self, x: Tensor, resp: Tensor, weight: Tensor | None) -> None:
        """Sum the moments about each centre over the rows that are active in it."""
        k_total, d = self.centres.shape
        first, second = self._sum("first", k_total, d), self._sum("second", k_total, d, d)
        marked = active(resp)
        often = (marked.sum(-1) > 0.5 * len(x)).tolist()  # where all rows cost less than a choice
        resp = resp if weight is None else resp * weight
        for k in range(k_total):
            rows, r = x, resp[k]
            if not often[k]:
                row = marked[k].nonzero().squeeze(-1)
                rows, r = x[row], r[row]
            of_k, product = self._summed(k, rows, r)
            first[k] += of_k
            second[k] += product
        self._add("count", resp.sum(-1, dtype=torch.float64))

    def _summed(self, k: int, x: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        """Return the moments of rows (n, D) with masses r (n,) about centre k, some at a time."""
        d = x.shape[1]
        first = torch.zeros(d, dtype=x.dtype, device=x.device)
        product = self._buffer("product", (d, d)).zero_()

        def parts() -> Iterator[tuple[Tensor, Tensor]]:
            for rows, mass in self._in_cache(x, r):
                y = self._buffer("y", tuple(rows.shape))
                yield torch.sub(rows, self.centres[k], out=y), mass[:, None]

        for y, mass in parts():
            heavy = torch.mul(y, mass, out=self._buffer("scratch", tuple(y.shape)))
            first += heavy.sum(0)
            self._symmetric(heavy, y, product)
        if self._wide or not (self._double[k] or _moved_far(product, first, r.sum())):
            return first, product
        wide = ((y.double(), mass.double()) for y, mass in parts())
        return first, sum(((y * mass).mT @ y for y, mass in wide), product.double().zero_())

    def _accumulate(self, parts: Callable[[], Iterable[tuple[Pairs, Tensor]]]) -> None:
        """Sum the moments of pairs with masses (p,), which may be asked for twice."""
        k_total, d = self.centres.shape
        second = self._sum("second", k_total, d, d)
        products = second if self._wide else self._buffer("products", (k_total, d, d)).zero_()
        first = torch.zeros(k_total, d, dtype=products.dtype, device=products.device)
        count = torch.zeros_like(first[:, 0])
        for pairs, r in parts():
            weighted = self._weighted(pairs, r)
            first.index_add_(0, pairs.component, weighted)
            count.index_add_(0, pairs.component, r)
            for k, (y, heavy) in pairs.each(weighted):
                if self._wide or not self._double[k]:
                    self._symmetric(heavy, y, products[k])
        self._add("count", count)
        self._add("first", first)
        if self._wide:
            return
        far = _moved_far(products, first, count).tolist()
        lost = [k for k in range(k_total) if self._double[k] or far[k]]
        for pairs, r in parts() if lost else ():
            for k, (y, heavy) in pairs.each(self._weighted(pairs, r)):
                if k in lost:
                    second[k].addmm_(heavy.mT.double(), y.double())
        products[lost] = 0.0
        self._add("second", products)

    def _weighted(self, pairs: Pairs, r: Tensor) -> Tensor:
        out = self._buffer("scratch", tuple(pairs.y.shape))
        return torch.mul(pairs.y, r.unsqueeze(-1), out=out)

    @property
    def moments(self) -> Moments:
        """The sums about the centres."""
        k, d = self.centres.shape
        first, second = self._sum("first", k, d), self._sum("second", k, d, d)
        for a, b in self._blocks[1:]:
            second[:, a:b, :a] = second[:, :a, a:b].mT
        return Moments(self._sum("count", k), first, second)


def _moved_far(products: Tensor, first: Tensor, mass: Tensor) -> Tensor:
    """Mark components whose rows lie so far from the old centre that digits would be lost.

    What the M-step will take off, the square of the mean, is then nearly all there is.
    """
    square = products.diagonal(dim1=-2, dim2=-1)
    left = square - first.square() / mass.clamp_min(torch.finfo(mass.dtype).tiny).unsqueeze(-1)
    return (left < _FAR * square).any(-1)


class _Bound:
    """An upper bound on every component's log-joint, from a few directions of the rows.

    The directions are those in which centres lie farthest apart in units of the spread within
    components (Fisher's discriminant); the bound holds for any.
    """

    def __init__(
        self, tril: Tensor, centres: Tensor, const: Tensor, offsets: Tensor, dtype: torch.dtype
    ) -> None:
        k, d = centres.shape
        m = min(_DIRECTIONS, k - 1, d // 3)
        self.useful = False
        if m < 1:
            return
        within = torch.zeros(d, d, dtype=torch.float64, device=tril.device)
        for heavy in offsets.topk(min(k, 16)).indices.tolist():
            wide = tril[heavy].double()
            within += wide @ wide.mT
        within, info = torch.linalg.cholesky_ex(within / min(k, 16))
        if int(info):  # collinear beyond float64: the bound is only there for speed
            return
        spread = (centres - centres.mean(0)) * offsets.exp().sqrt().unsqueeze(-1)
        apart = torch.linalg.solve_triangular(within, spread.mT, upper=False)
        leading = torch.linalg.svd(apart, full_matrices=False).U[:, :m]
        directions = torch.linalg.solve_triangular(within.mT, leading, upper=True)  # (D, m)
        marginal = (directions.to(tril.dtype).mT @ tril).double().mT  # LᵀP, (K, D, m)
        factor = torch.linalg.qr(marginal).R.mT  # of the marginal covariances
        precision = torch.cholesky_inverse(factor).expand(k, m, m)
        means = centres @ directions
        linear = (precision @ means.unsqueeze(-1)).squeeze(-1)
        quadratic = (linear * means).sum(-1)
        i, j = torch.triu_indices(m, m, device=tril.device)
        square = precision[:, i, j] * torch.where(i == j, -0.5, -1.0)
        size = means.abs() + factor.square().sum(-1).sqrt()
        terms = (precision.abs() @ size.unsqueeze(-1)).squeeze(-1).mul(size).sum(-1)
        slack = 8 * rounding(terms, dtype)
        top = (const - 0.5 * quadratic + slack).unsqueeze(-1)
        self.useful = slack < _MOST_SLACK
        self._theta = torch.cat([square, linear, top], -1).to(dtype)
        self._directions = directions.mT.contiguous().to(dtype)
        self._n_directions, self.n_values = m, m * (m + 1) // 2 + m + 1

    def __call__(self, x: Tensor, features: Tensor, out: Tensor) -> None:
        """Write the bound for rows (n, D) about the origin to out (K, n); features is scratch."""
        m = self._n_directions
        torch.mm(self._directions, x.mT, out=features[-m - 1 : -1])
        torch.mm(self._theta, fill_quadratic(features, m), out=out)
