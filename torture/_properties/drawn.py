"""What a case is, and the mixtures and rows that belong to it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from mogul import GaussianMixture, Mixture
from mogul.data import ArraySource
from mogul.distributions import Covariance, Full, families
from mogul.models.gaussian_mixture import SHARINGS

_WIDE = 27  # features, more than full covariances are scored by quadratic features for


@dataclass(frozen=True)
class Case:
    """One input: a mixture's form, a unit (a power of ten) and a seed for all else."""

    family: str
    sharing: str
    k: int
    d: int
    rank: int
    n: int
    unit: int
    seed: int

    @property
    def generator(self) -> torch.Generator:
        """A fresh generator of this case."""
        return torch.Generator().manual_seed(self.seed)

    def randn(self, *shape: int) -> Tensor:
        """Standard normal numbers; the same ones for the same shape."""
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def permutation(self, n: int) -> Tensor:
        """A permutation of n."""
        return torch.randperm(n, generator=self.generator)

    @property
    def scale(self) -> float:
        """The unit in which the rows are given."""
        return 10.0**self.unit


@st.composite
def cases(draw: st.DrawFn, least_d: int = 1, full: bool = False) -> Case:
    """Draw a case of at least so many features; `full`: of rotatable families alone."""
    rotatable = ("full", "ppca", "isotropic")
    family = draw(st.sampled_from(rotatable if full else sorted(families())))
    low_rank = families()[family].low_rank
    few = st.integers(max(least_d, 2 if low_rank else 1), 7)
    d = draw(st.one_of(*[few] * 7, st.just(_WIDE)))
    k = draw(st.integers(1, 5))
    return Case(
        family=family,
        sharing=draw(st.sampled_from(SHARINGS)),
        k=k,
        d=d,
        rank=draw(st.integers(1, min(3, d - 1))) if low_rank else 0,
        n=draw(st.integers(40, 160)) + (4 * d * k if d == _WIDE else 0),
        unit=draw(st.integers(-3, 3)),
        seed=draw(st.integers(0, 2**31)),
    )


def mixture_of(case: Case, spread: float = 2.0) -> Mixture:
    """A well-conditioned mixture of the case's form, in float64, about an origin of its own."""
    cls = families()[case.family]
    n_covariances = case.k if case.sharing == "own" else 1
    shapes = cls.raw_shapes(n_covariances, case.d, case.rank)
    generator = case.generator

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    raw = {name: 0.5 * randn(*shape) for name, shape in shapes.items()}
    if cls is Full:
        raw["lower"] /= math.sqrt(case.d)
    covariance = cls.from_raw(raw, case.d).rescaled(torch.full((case.d,), case.scale).double())
    centres = spread * case.scale * randn(case.k, case.d)
    return Mixture(randn(case.k), centres, covariance, 10 * case.scale * randn(case.d))


def gaps_in(x: Tensor, case: Case, share: float = 0.25) -> Tensor:
    """Rows (n, D) with a share of their values missing, and the first row whole."""
    hidden = torch.rand(x.shape, generator=case.generator) < share
    hidden[0] = False
    return torch.where(hidden, torch.nan, x)


def start_of(case: Case, mixture: Mixture | None = None) -> GaussianMixture:
    """A model with the case's mixture, or another one of the same form, to begin a fit with."""
    model = GaussianMixture(
        case.k, case.d, case.family, case.rank or None, case.sharing, dtype=torch.float64
    )
    model.load(mixture_of(case) if mixture is None else mixture)
    return model


def rows_of(case: Case, n: int | None = None) -> Tensor:
    """Rows (n, D) of a mixture that differs from the case's own in its shape."""
    mixture = mixture_of(case)
    wider = Mixture(mixture.logits.flip(0), 1.5 * mixture.centres, mixture.covariance)
    drawn = wider.sample((case.n if n is None else n,), seed=case.seed)
    return mixture.origin + drawn


def source_of(x: Tensor, weight: Tensor | None = None) -> ArraySource:
    """Rows as a source."""
    return ArraySource(x, weight)


def same(found: Tensor, expected: Tensor, tolerance: float) -> None:
    """Hold two tensors to be equal, to a tolerance relative to the size of each or of one."""
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def full_of(covariance: Covariance) -> Full:
    """The same covariances by their Cholesky factors."""
    return Full(covariance.tril())
