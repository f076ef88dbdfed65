"""`mogul outliers`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mogul.cli import options
from mogul.cli.console import check_output, err, rows, show, write_grid, write_table
from mogul.errors import InputError

if TYPE_CHECKING:
    from mogul.opened import Opened, OpenedDecoder


def outliers(
    model: options.Model,
    data: options.Data,
    fraction: Annotated[
        float, typer.Option(help="Share of training rows below the threshold.")
    ] = 0.01,
    n: options.Count = 20,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="A .png picture or .csv table of the first n rows."),
    ] = None,
    train: options.Train = None,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Rank the rows of DATA from the least likely up, and mark outliers.

    Mixtures rank by log-likelihood in nats, autoencoders by its estimate from 500 draws a row,
    decoders by log p(x, z) of the most probable latents.
    """
    from mogul.opened import OpenedDecoder, open_density
    from mogul.tasks import percentile_of, rank_rows, rows_with_gaps

    since = time.perf_counter()
    if output is not None:
        check_output(output, (".png", ".csv"), model, data)
    opened = open_density(model, device)
    source = opened.open(data)
    if isinstance(opened, OpenedDecoder) and not json:
        err.print(f"scoring training rows and {len(source):,} rows by {opened.scored_by} …")
    usual = _usual(opened, train)
    found = rank_rows(opened.scores(source).numpy(), rows_with_gaps(source), usual, fraction)
    first = found.order[:n]
    values = found.log_likelihood[first]
    percentile = percentile_of(values, usual)
    table = [
        [int(i), float(v), None, "has gaps"]
        if found.incomplete[i]
        else [int(i), float(v), float(p), "yes" if v < found.threshold else "no"]
        for i, v, p in zip(first, values, percentile, strict=True)
    ]
    columns = ["row", opened.scored_by, "training_percentile", "outlier"]
    if output is not None and output.suffix == ".png":
        write_grid(output, opened.to_pixels(source.take(first)))
    elif output is not None:
        write_table(output, columns, table)
    if not json:
        rows(f"Least likely rows of {data}", [c.replace("_", " ") for c in columns], table)
    figures = {
        "threshold": found.threshold,
        "n_outliers": found.n_below,
        "n_with_gaps": int(found.incomplete.sum()),
        "n": len(found.order),
        "rows": first.tolist(),
        f"{opened.scored_by}s": values.tolist(),
        "output": None if output is None else str(output),
        "seconds": time.perf_counter() - since,
    }
    show("Outliers", figures, json)


def _usual(opened: Opened | OpenedDecoder, train: str | None) -> list[float]:
    """Return the quantiles of training rows' scores: those of the file, or worked out.

    Raises:
        InputError: if training data are given for a mixture, whose file holds what is needed.
    """
    from mogul.opened import Opened
    from mogul.tasks import training_quantiles

    if not isinstance(opened, Opened):
        return training_quantiles(opened.usual_scores(train))
    if train is not None:
        raise InputError(
            f"{opened.path} knows how likely its training rows are; leave --train out."
        )
    return opened.quantiles
