"""What a pass costs, as a formula with few constants fitted to measurements."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import nnls

_TERMS = (
    "N·D·K·(H+2), products of the E-step",
    "N·D, rows read, copied and made into moments",
    "N·K·(H+3), scores and responsibilities",
    "K·D·(H+1)², the M-step",
    "1, fixed",
)


def terms(n: float, d: float, k: float, rank: float) -> list[float]:
    """Return what each constant is multiplied by, for low-rank families."""
    return [n * d * k * (rank + 2), n * d, n * k * (rank + 3), k * d * (rank + 1) ** 2, 1.0]


def fitted(rows: list[dict[str, Any]]) -> str:
    """Return the constants as a table, non-negative and least in relative squares, and how good.

    Args:
        rows: measurements with n, d, k, rank and seconds of a pass on one core.
    """
    seconds = np.array([row["seconds"] for row in rows])
    design = np.array([terms(row["n"], row["d"], row["k"], row["rank"]) for row in rows])
    scale = design.max(0)
    found, _ = nnls(design / scale / seconds[:, None], np.ones(len(rows)))
    constants = found / scale
    error = design @ constants / seconds - 1
    lines = ["", "| term | seconds per unit, one core |", "| --- | --- |"]
    for what, value in zip(_TERMS, constants, strict=True):
        lines.append(f"| {what} | {value:.3g} |")
    lines.append("")
    lines.append(
        f"relative error of the formula: median {np.median(np.abs(error)):.0%}, "
        f"largest {np.abs(error).max():.0%}, over {len(rows)} measurements"
    )
    return "\n".join(lines)
