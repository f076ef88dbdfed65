"""What a pass costs, as a formula with few constants, fitted here and drawn out to larger machines.

python -m benchmarks cost_model
"""

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


def predicted(
    n: float, d: float, k: float, rank: float, world: int, flops: float, wire: float
) -> dict[str, float]:
    """Return what a pass of EM of a PPCA mixture is to cost on several GPUs.

    Args:
        n: rows.
        d: features.
        k: components.
        rank: factors.
        world: GPUs.
        flops: floating-point operations a second that each reaches in products.
        wire: bytes a second between any two.

    Returns:
        seconds of products and of sums on the wire, bytes sent by each per pass, and bytes held
        by each: rows as pixels with noise, sums, parameters.
    """
    operations = 2 * n * d * k * (rank + 2)
    sums = 8 * k * d * (rank + 2)
    sent = 2 * sums * (world - 1) / world  # a ring sends every byte twice, but for its own part
    return {
        "products s": operations / world / flops,
        "wire s": sent / wire,
        "sent GB": sent / 1e9,
        "rows GB": 2 * n * d / world / 1e9,
        "sums GB": sums / 1e9,
        "parameters GB": 4 * k * d * (rank + 1) / 1e9,
    }


def main() -> None:
    """Print predictions for 10⁸ images."""
    names = None
    for d, k in ((784, 500), (3072, 1000), (12_288, 1000)):
        for world in (1, 8, 64):
            found = predicted(1e8, d, k, 6, world, 25e12, 25e9)
            if names is None:
                names = ["D", "K", "GPUs", *found]
                print("| " + " | ".join(names) + " |\n|" + " --- |" * len(names))
            cells = [f"{d:,}", f"{k:,}", str(world), *[f"{v:,.3g}" for v in found.values()]]
            print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
