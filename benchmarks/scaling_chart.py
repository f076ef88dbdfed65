"""Draw seconds per pass against rows, and speed-up against processes, from tables in a page.

python -m benchmarks scaling_chart docs/scaling.md -o docs/pictures/scaling.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure


def main() -> None:
    """Draw the chart."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    found = tables(options.page.read_text())
    figure = Figure(figsize=(8.5, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    cost = next(table for table in found if "varied" in table[0])
    _cost(left, [row for row in cost if row["varied"] == "n"])
    _processes(right, next(table for table in found if "speed-up" in table[0]))
    figure.savefig(options.output, dpi=130)


def tables(page: str) -> list[list[dict[str, str]]]:
    """Return the tables of a page, each a list of rows by name of column."""
    found: list[list[dict[str, str]]] = []
    names: list[str] = []
    for line in page.splitlines():
        if not line.startswith("|"):
            names = []
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not names:
            names = cells
            found.append([])
        elif set(line) - set("|- :"):
            found[-1].append(dict(zip(names, cells, strict=True)))
    return [table for table in found if table]


def _cost(axes: Axes, rows: list[dict[str, str]]) -> None:
    n = [float(row["N"].replace(",", "")) for row in rows]
    seconds = [float(row["seconds per pass"]) for row in rows]
    axes.loglog(n, seconds, "o-", color="#20639b")
    axes.set(
        xlabel="rows", ylabel="seconds per pass, one core", title="PPCA, K = 50, D = 196, 6 factors"
    )
    axes.grid(alpha=0.3)


def _processes(axes: Axes, rows: list[dict[str, str]]) -> None:
    most = max(int(row["processes"]) for row in rows)
    axes.plot([1, most], [1, most], color="0.6", linestyle="--", label="as many times as fast")
    cases = dict.fromkeys((row["model"], row["rows"]) for row in rows)
    for case, colour in zip(cases, ("#20639b", "#3caea3", "#ed553b"), strict=False):
        own = [row for row in rows if (row["model"], row["rows"]) == case]
        axes.plot(
            [int(row["processes"]) for row in own], [float(row["speed-up"]) for row in own], "o-",
            color=colour, label=f"{case[0]}; {case[1]} rows",
        )  # fmt: skip
    axes.set(xlabel="processes, one core each", ylabel="speed-up", title="EM, rows in Parquet")
    axes.set_xticks(range(1, most + 1))
    axes.legend(fontsize=7)
    axes.grid(alpha=0.3)


if __name__ == "__main__":
    main()
