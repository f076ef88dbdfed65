"""Log-densities of every family against 50-digit arithmetic, at growing condition numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mogul.distributions import Covariance, Full, Mixture, family
from torture._grid.exact import Exact
from torture.outcome import Outcome

COMPONENTS = 2
TYPES = {"float64": torch.float64, "float32": torch.float32}
LIMITS = {  # nats, up to which condition number
    torch.float64: (1e-6, 1e8),
    torch.float32: (1e-3, 1e4),
}


@dataclass(frozen=True)
class Cell:
    """One line of the table: a mixture, rows, and the error that is allowed."""

    name: str
    mixture: Mixture
    rows: Tensor
    limit: float


def full_covariance(d: int, condition: float, draw: torch.Generator) -> Full:
    """Return covariances (2, d, d) with eigenvalues from 1 to 1/condition, turned at random."""
    values = torch.logspace(0, -math.log10(condition), d, dtype=torch.float64)
    turned = []
    for _ in range(COMPONENTS):
        q = torch.linalg.qr(torch.randn(d, d, generator=draw, dtype=torch.float64)).Q
        r = torch.linalg.qr((q * values.sqrt()).mT).R
        turned.append((r * r.diagonal().sign().unsqueeze(-1)).mT)
    return Full(torch.stack(turned))


def diagonal_covariance(name: str, d: int, condition: float) -> Covariance:
    """Return variances from 1 to 1/condition over features, or over components if they share it."""
    spread = torch.logspace(0, -math.log10(condition), d, dtype=torch.float64)
    if name == "isotropic":
        spread = torch.tensor([[1.0], [1 / condition]], dtype=torch.float64)
    else:
        spread = spread.expand(COMPONENTS, d)
    return family(name).from_raw({"log_noise": spread.log()}, d)


def low_rank_covariance(
    name: str, d: int, rank: int, factor: float, noise: float, draw: torch.Generator
) -> Covariance:
    """Return loadings whose columns have the length `factor`, and noise of a variance."""
    loadings = torch.randn(COMPONENTS, d, rank, generator=draw, dtype=torch.float64)
    loadings = loadings * (factor / loadings.square().sum(-2, keepdim=True).sqrt())
    width = 1 if name == "ppca" else d
    tilt = 1 + torch.rand(COMPONENTS, width, generator=draw, dtype=torch.float64)
    return family(name).from_raw({"loadings": loadings, "log_noise": (noise * tilt).log()}, d)


def cells(quick: bool) -> Iterator[Cell]:
    """Yield what is measured."""
    draw = torch.Generator().manual_seed(0)
    widths = (2, 8) if quick else (2, 8, 64)
    for label, dtype in TYPES.items():
        limit, most = LIMITS[dtype]
        conditions = [c for c in (1e0, 1e2, 1e4, 1e6, 1e8) if c <= most]
        for name in ("full", "diagonal", "isotropic", "ppca", "factor-analysis"):
            for d in widths:
                for condition in conditions[:: 2 if quick else 1]:
                    if name == "full":
                        covariance = full_covariance(d, condition, draw)
                    elif name in ("diagonal", "isotropic"):
                        covariance = diagonal_covariance(name, d, condition)
                    else:
                        rank = min(3, d - 1)
                        length = math.sqrt(max(condition - 1, 1e-3))
                        covariance = low_rank_covariance(name, d, rank, length, 1.0, draw)
                    yield cell(f"{name} D={d} cond={condition:.0e}", label, covariance, limit, draw)
        for d in (64,) if quick else (64, 256):
            for name in ("ppca", "factor-analysis"):
                covariance = low_rank_covariance(name, d, 5, 100.0 * d**0.5, 1e-4, draw)
                low = 1e-5 if dtype == torch.float64 else math.inf
                yield cell(f"{name} D={d} factors 100, noise 1e-4", label, covariance, low, draw)


def cell(
    name: str, label: str, covariance: Covariance, limit: float, draw: torch.Generator
) -> Cell:
    """Return a mixture of a type, and rows of it: three typical ones and one far out."""
    dtype, d = TYPES[label], covariance.n_features
    centres = torch.randn(COMPONENTS, d, generator=draw, dtype=torch.float64)
    logits = torch.tensor([0.3, -0.2], dtype=torch.float64)
    origin = 3.0 * torch.ones(d, dtype=torch.float64)
    typical = Mixture(logits, centres, covariance, origin).sample((4,), seed=1)
    typical[-1] = origin + 2 * (typical[-1] - origin)
    held = covariance.map(lambda t: t.to(dtype))
    mixture = Mixture(logits.to(dtype), centres.to(dtype), held, origin.to(dtype))
    return Cell(f"{label} {name}", mixture, typical.to(dtype), limit)


Way = Callable[[Mixture, Tensor], Tensor]


def by_graph(mixture: Mixture, rows: Tensor) -> Tensor:
    """Score by the form that has gradients."""
    return mixture.log_prob(rows.clone().requires_grad_()).detach()


def batched(mixture: Mixture, rows: Tensor) -> Tensor:
    """Score every row under a mixture of its own, all alike."""
    n, k = len(rows), mixture.n_components
    covariance = mixture.covariance.map(lambda t: t.expand(n, *t.shape))
    logits, centres = mixture.logits.expand(n, k), mixture.centres.expand(n, k, -1)
    return Mixture(logits, centres, covariance, mixture.origin).log_prob(rows)


WAYS: dict[str, Way] = {
    "plain": lambda m, x: m.log_prob(x),
    "gradient": by_graph,
    "kernel": lambda m, x: m.kernel().score(x),
    "E-step": lambda m, x: m.kernel().expect(x),
    "batched": batched,
}


def errors(found: Cell) -> dict[str, float]:
    """Return the largest error of every way to score, in nats."""
    mixture, rows, exact = found.mixture, found.rows, Exact(found.mixture)
    d = mixture.n_features
    some = list(range(0, d, 2)) if d > 1 else [0]
    rest = [i for i in range(d) if i not in some]
    whole = [exact.log_prob(row) for row in rows]
    part = [exact.log_prob(row, some) for row in rows]
    measured = {name: difference(way(mixture, rows), whole) for name, way in WAYS.items()}
    measured["marginal"] = difference(mixture.marginal(some).log_prob(rows[:, some]), part)
    gaps = rows.clone()
    gaps[:, rest] = math.nan
    measured["gaps"] = difference(mixture.log_prob(gaps), part)
    conditioned = mixture.condition(some, rows[:, some]).log_prob(rows[:, rest])
    measured["condition"] = difference(
        conditioned, [a - b for a, b in zip(whole, part, strict=True)]
    )
    return measured


def difference(found: Tensor, wanted: list) -> float:
    """Return the largest error in nats beyond what the type can hold of such a number."""
    eps = torch.finfo(found.dtype).eps
    apart = [
        float(abs(mp_of(value) - exact) - eps * abs(exact))
        for value, exact in zip(found, wanted, strict=True)
    ]
    return max(0.0, *apart) if all(math.isfinite(a) for a in apart) else math.inf


def mp_of(value: Tensor) -> float:
    """Return a value as a Python number."""
    return float(value.detach())


def torchs_own(found: Cell) -> float | None:
    """Return the error of torch's LowRankMultivariateNormal on the first component."""
    covariance = found.mixture.covariance
    if covariance.loadings is None:
        return None
    mixture = found.mixture
    one = Mixture(
        mixture.logits[:1], mixture.centres[:1], covariance.map(lambda t: t[:1]), mixture.origin
    )
    wanted = [Exact(one).log_prob(row) for row in found.rows]
    try:
        theirs = torch.distributions.LowRankMultivariateNormal(
            one.means[0], one.covariance.loadings[0], one.covariance.noise_variances[0, :].squeeze()
        )
        return difference(theirs.log_prob(found.rows), wanted)
    except (ValueError, RuntimeError):
        return math.inf


def run(quick: bool) -> list[Outcome]:
    """Measure every cell by every way, and print the largest errors."""
    outcome, worst = Outcome("accuracy"), {label: 0.0 for label in TYPES}
    low = {"float64": 0.0, "float32": 0.0}
    torchs = dict(low)
    print(f"{'largest error in nats':58}" + "".join(f"{n:>10}" for n in [*WAYS, *EXTRA]))
    for found in cells(quick):
        measured = errors(found)
        label = found.name.split()[0]
        others = torchs_own(found)
        line = "".join(f"{value:10.1e}" for value in measured.values())
        print(f"{found.name:58}{line}" + ("" if others is None else f"   torch: {others:.1e}"))
        outcome.tried += len(measured)
        outcome.failures += [
            f"{found.name}, {way}: off by {value:.1e} nats, {found.limit:.0e} allowed"
            for way, value in measured.items()
            if not value <= found.limit
        ]
        if "factors 100" in found.name:
            low[label] = max(low[label], *measured.values())
            torchs[label] = max(torchs[label], others or 0.0)
        else:
            worst[label] = max(worst[label], *measured.values())
    outcome.note = (
        f"off by {worst['float64']:.1e} nats in float64 (condition to 1e8), {worst['float32']:.1e} "
        f"in float32 (to 1e4); factors 100 over noise 1e-4: {low['float64']:.1e} and "
        f"{low['float32']:.1e}, torch's own {torchs['float64']:.1e} and {torchs['float32']:.1e}"
    )
    return [outcome]


EXTRA = ("marginal", "gaps", "condition")
