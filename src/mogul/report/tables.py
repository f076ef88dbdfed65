"""What a report shows of a mixture over the columns of a table."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from markupsafe import Markup

from mogul.data import DataSource
from mogul.distributions import Mixture
from mogul.report import figures
from mogul.report.page import Picture, Section, Table
from mogul.tasks import Outliers, characteristic, reconstruct

_COMPONENTS = 8  # side by side
_LOADED = 4  # components whose loadings are shown
_FACTORS = 6
_COLUMNS = 40
_SCATTERED = 2000  # rows
_RECONSTRUCTED = 1000
_WORST = 10


def scatter(mixture: Mixture, test: DataSource, names: Sequence[str], seed: int) -> Section:
    """Show new rows over real ones."""
    rows = test.take(range(min(_SCATTERED, len(test)))).numpy()
    drawn = mixture.sample((len(rows),), seed=seed).cpu().numpy()
    text = "New rows drawn from the model, over real ones."
    if mixture.n_features == 1:
        picture = Picture(
            "Histogram of data and samples.",
            f"The distribution of {names[0]}.",
            svg=Markup(figures.histogram(rows[:, 0], drawn[:, 0], names[0])),
        )
        return "Data and samples", text, [picture]
    i, j = _telling(mixture)
    picture = Picture(
        f"Scatter plot of data and samples: {names[i]} and {names[j]}.",
        "The two columns in which the components differ most, for their deviations."
        if mixture.n_components > 1
        else "Two columns.",
        svg=Markup(figures.scatter(rows, drawn, (i, j), (names[i], names[j]))),
    )
    return "Data and samples", text, [picture]


def _telling(mixture: Mixture) -> tuple[int, int]:
    """Return two columns in which components lie farthest apart, in units of their deviations."""
    w = mixture.weights.unsqueeze(-1)
    within = (w * mixture.variances).sum(0)
    first, second = (1 - within / mixture.variance).argsort(descending=True, stable=True)[:2]
    return int(first), int(second)


def components(mixture: Mixture, sharing: str, names: Sequence[str]) -> Section:
    """Show weights, means and deviations of components, and what their factors do."""
    found = characteristic(mixture, _COMPONENTS)
    shown = range(min(_COLUMNS, mixture.n_features))
    spread, middle = mixture.variance.sqrt(), mixture.mean
    each = mixture.variances.expand(mixture.n_components, -1)[found.index].sqrt()
    deviations = spread.tolist()
    rows = [
        [
            names[j],
            _both(middle[j], spread[j], deviations[j]),
            *(
                _both(m, s, deviations[j])
                for m, s in zip(found.mean[:, j], each[:, j], strict=True)
            ),
        ]
        for j in shown
    ]
    heads = [
        f"component {k} · {100 * w:.1f}\u00a0%"
        for k, w in zip(found.index.tolist(), found.weight.tolist(), strict=True)
    ]
    cut = "" if len(shown) == len(names) else f" The first {len(shown)} of {len(names)} columns."
    tables = [
        Table(
            f"Weights; mean ± standard deviation of each column in its units.{cut}",
            ["column", "all", *heads],
            rows,
        )
    ]
    for c in range(min(_LOADED, len(found.index)) if sharing == "own" else 1):
        factors = found.directions[c][:_FACTORS]
        if len(factors):
            whose = f"Component {int(found.index[c])}" if sharing == "own" else "All components"
            tables.append(_loadings(whose, found.noise[c], factors, names, deviations, shown))
    text = f"The {len(heads)} heaviest of {mixture.n_components} components, the heaviest first."
    if mixture.n_components <= len(heads):
        text = "All components, the heaviest first."
    if len(tables) > 1:
        text += (
            " Loadings tell by how much each column changes along a factor, for one standard "
            "deviation of it, the longest factor first; noise is the standard deviation that no "
            "factor explains. All are in the units of the column."
        )
    return "Components", text, tables


def _loadings(
    whose: str,
    noise: torch.Tensor,
    factors: torch.Tensor,
    names: Sequence[str],
    deviations: Sequence[float],
    shown: range,
) -> Table:
    return Table(
        f"{whose}: loadings and noise.",
        ["column", *(f"factor {h + 1}" for h in range(len(factors))), "noise"],
        [
            [names[j], *(_number(float(f[j]), deviations[j]) for f in (*factors, noise))]
            for j in shown
        ],
    )


def worst_rows(found: Outliers, mixture: Mixture, test: DataSource, names: Sequence[str]) -> Table:
    """Show the least likely rows, each with the value that lies farthest from its mean."""
    order = found.order[:_WORST].copy()
    x = test.take(order, torch.float64)
    mean, spread = mixture.mean.double().cpu(), mixture.variance.double().cpu().sqrt()
    away = (x - mean) / spread
    farthest = away.abs().nan_to_num(-1.0).argmax(1).tolist()
    numbers = order if test.numbers is None else test.numbers[order]
    rows = []
    for i, (row, j) in enumerate(zip(numbers.tolist(), farthest, strict=True)):
        value = _number(float(x[i, j]), float(spread[j]))
        score = f"{found.log_likelihood[order[i]]:,.1f}"
        rows.append([str(row), score, names[j], value, f"{float(away[i, j]):+.1f}"])
    return Table(
        "The least likely rows, numbered from 0 as in their file, and in each the value that lies "
        "farthest from the mean of its column, in deviations of the mixture.",
        ["row", "log-likelihood", "column", "value", "deviations"],
        rows,
    )


def explained(mixture: Mixture, test: DataSource) -> float:
    """Return the share of the columns' variance that reconstructions keep, mean over columns."""
    x = test.take(range(min(_RECONSTRUCTED, len(test))), mixture.dtype, mixture.device)
    left = (reconstruct(mixture, x) - x).square().nanmean(0)
    total = (x - x.nanmean(0)).square().nanmean(0)
    kept = (1 - left / total)[total > 0]
    return float(kept.mean()) if len(kept) else math.nan


def _both(mean: torch.Tensor, deviation: torch.Tensor, scale: float) -> str:
    return f"{_number(float(mean), scale)} ± {_number(float(deviation), scale)}"


def _number(value: float, scale: float) -> str:
    """Return a number with three digits of the deviation of its column."""
    if not (1e-6 < scale < 1e9):
        return f"{value:.4g}"
    decimals = max(0, 2 - math.floor(math.log10(scale)))
    return f"{np.round(value, decimals) + 0.0:,.{decimals}f}"
