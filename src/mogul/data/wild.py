"""Columns of tables whose variance a few wild values make."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from mogul.data.sources import DataSource

_TIMES = 30.0  # the standard deviation over that of a normal law with the same quartiles
_QUARTILES = 1.349  # between the quartiles of a normal law, in standard deviations
_MOST_VALUES = 10_000_000  # that quartiles are taken from


@dataclass(frozen=True)
class WildColumn:
    """A column of which a few values are so far off that they make its variance.

    Attributes:
        name: of the column, or its number.
        row: number of the row with the value that lies farthest from the median.
        value: that value.
        deviation: standard deviation of the column.
        quartiles: the lower and the upper quartile.
    """

    name: str
    row: int
    value: float
    deviation: float
    quartiles: tuple[float, float]

    def told(self, variance_floor: float) -> str:
        """Say what is wrong, what it does to a fit with this floor, and the remedy."""
        low, high = self.quartiles
        least = variance_floor**0.5 * self.deviation
        return (
            f"column {self.name}: {self.value:,.6g} in row {self.row:,} (counted from 0) is far "
            f"off: half of the column lies between {low:,.4g} and {high:,.4g}. By such values its "
            f"standard deviation is {self.deviation:,.4g}, and the variance floor, a fraction of "
            f"its square, keeps components from being narrower than {least:,.4g}. Mend the cell or "
            "leave it empty; where such values are right, fit their logarithm, or lower the floor "
            "(--variance-floor)."
        )


def wild_columns(source: DataSource) -> list[WildColumn]:
    """Find columns of a table whose standard deviation is 30 times what their quartiles tell.

    A normal law has deviations of 1/1.349 of the distance between its quartiles; a single value of
    1e9 among thousands of order one makes them a million times as large. Columns of which half of
    the values are equal are left out, as are images, and data that can be read once only.

    Args:
        source: the rows; they are read once.

    Returns:
        the columns, in order.
    """
    if len(source.feature_shape) > 1 or source.scale is not None or not source.repeatable:
        return []
    n = min(len(source), max(1000, _MOST_VALUES // source.n_features))
    x = source.head(n, torch.float64).numpy()
    low, middle, high = _quartiles(x)
    spread = torch.from_numpy((high - low) / _QUARTILES)
    centre = torch.from_numpy(middle)
    count, total, squares = (torch.zeros(source.n_features, dtype=torch.float64) for _ in range(3))
    farthest = torch.full((source.n_features,), -1.0, dtype=torch.float64)
    rows, values = torch.zeros(source.n_features, dtype=torch.long), torch.from_numpy(middle)
    seen = 0
    for batch in source.batches(dtype=torch.float64):
        x = batch.x.cpu()
        away = x - centre
        count += (~away.isnan()).sum(0)
        total += away.nansum(0)
        squares += away.square().nansum(0)
        most, at = away.abs().nan_to_num(-1.0).max(0)
        further = most > farthest
        rows = torch.where(further, seen + at, rows)
        values = torch.where(further, x.gather(0, at[None])[0], values)
        farthest = torch.maximum(most, farthest)
        seen += len(away)
    count = count.clamp_min(1)
    deviation = (squares / count - (total / count).square()).clamp_min(0).sqrt()
    found = ((spread > 0) & (deviation > _TIMES * spread)).nonzero().flatten().tolist()
    names = source.columns or list(map(str, range(source.n_features)))
    numbers = rows.numpy() if source.numbers is None else source.numbers[rows.numpy()]
    return [
        WildColumn(
            names[j], int(numbers[j]), float(values[j]), float(deviation[j]),
            (float(low[j]), float(high[j])),
        )
        for j in found
    ]  # fmt: skip


def _quartiles(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the quartiles and the median of every column, NaN left aside, (D,); zero of none."""
    empty = np.isnan(x).all(0)
    found = np.nanquantile(np.where(empty, 0.0, x), [0.25, 0.5, 0.75], axis=0)
    return found[0], found[1], found[2]
