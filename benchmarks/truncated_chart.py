"""Draw likelihood against time from curves, and time against components from a page's table.

python -m benchmarks truncated_chart CURVES PAGE -o PICTURE
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.scaling_chart import tables

_COLOURS = {"dense": "#b5483a", "truncated": "#20639b"}


def main() -> None:
    """Draw the chart."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("curves", type=Path)
    parser.add_argument("page", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    figure = Figure(figsize=(9.5, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    with options.curves.open() as file:
        _likelihood(left, list(csv.DictReader(file)))
    found = tables(options.page.read_text())
    _cost(right, next(table for table in found if "seconds per pass" in table[0]))
    figure.savefig(options.output, dpi=130)


def _likelihood(axes: Axes, rows: list[dict[str, str]]) -> None:
    for name, colour in _COLOURS.items():
        own = [row for row in rows if row["steps"] == name]
        seconds = [float(row["so far"]) for row in own]
        axes.plot(seconds, [float(row["test"]) for row in own], "o-", ms=3, color=colour,
                  label=f"{name} E-steps")  # fmt: skip
    last = [float(row["test"]) for row in rows]
    axes.set(
        xlabel="seconds", ylabel="test log-likelihood, nats per image",
        title="MNIST and Fashion-MNIST, one dot a pass", ylim=(sorted(last)[2], max(last) + 5),
    )  # fmt: skip
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="lower right")


def _cost(axes: Axes, rows: list[dict[str, str]]) -> None:
    for name, column in (("truncated", "seconds per pass"), ("dense", "dense: seconds per pass")):
        own = [row for row in rows if row[column]]
        axes.loglog(
            [float(row["components"].replace(",", "")) for row in own],
            [float(row[column]) for row in own], "o-", color=_COLOURS[name],
            label=f"{name} E-steps",
        )  # fmt: skip
    names = [row["components"] for row in rows]
    axes.set_xticks([float(name.replace(",", "")) for name in names], names)
    axes.set_yticks([1, 2, 5, 10], ["1", "2", "5", "10"])
    axes.minorticks_off()
    axes.set(xlabel="components", ylabel="seconds per pass", title="120,000 rows of 784 features")
    axes.grid(alpha=0.3, which="both")
    axes.legend(frameon=False)


if __name__ == "__main__":
    main()
