"""Draw seconds per iteration of all libraries, from tables that `speed` printed.

python -m benchmarks chart TABLE.md … -o docs/pictures/speed.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from matplotlib.figure import Figure


def rows(paths: list[Path]) -> list[dict[str, str]]:
    """Return the rows of full covariances in float32 on most threads, by column name."""
    found: list[dict[str, str]] = []
    for path in paths:
        names: list[str] = []
        for line in path.read_text().splitlines():
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if cells[0] == "type":
                names = cells
            elif names and cells[0] == "full":
                found.append(dict(zip(names, cells, strict=True)))
    most = max(int(row["threads"]) for row in found)
    return [r for r in found if int(r["threads"]) == most and r["dtype"] == "float32"]


def main() -> None:
    """Draw the chart."""
    parser = argparse.ArgumentParser()
    parser.add_argument("tables", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    found = rows(arguments.tables)
    libraries = [name.removesuffix(" s") for name in found[0] if name.endswith(" s")]
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(libraries)
    for i, library in enumerate(libraries):
        at = [j + (i - len(libraries) / 2 + 0.5) * width for j in range(len(found))]
        seconds = [float(row[f"{library} s"]) for row in found]
        colour = "#d55e00" if library == "mogul" else str(0.35 + 0.1 * i)
        bars = axes.bar(at, seconds, width, color=colour, label=library)
        axes.bar_label(bars, [f"{s:.2g}" for s in seconds], fontsize=6.5, padding=1)
    axes.set_yscale("log")
    axes.set_xticks(range(len(found)), [f"{row['n × D, K']}" for row in found])
    axes.set_xlabel("rows × features, components")
    axes.set_ylabel("seconds per EM iteration")
    axes.set_title("Full covariances, float32, 4 cores: lower is better", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(ncols=len(libraries), fontsize=7, frameon=False, loc="upper left")
    axes.margins(y=0.15)
    figure.savefig(arguments.output, dpi=130)


if __name__ == "__main__":
    main()
