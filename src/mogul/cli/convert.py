"""`mogul convert`: any data as Parquet or Arrow, to be streamed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from mogul.cli import options
from mogul.cli.console import RowProgress, check_output, show


def convert(
    data: options.Data,
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="A .parquet or .arrow file to write; with --rows-per-file, a folder to make.",
        ),
    ],
    columns: options.Columns = None,
    weight: Annotated[
        str | None, typer.Option(help="Column of weights of the rows.", show_default=False)
    ] = None,
    crop: options.Crop = None,
    size: options.Resize = None,
    colour: options.Colour = None,
    limit: options.Limit = None,
    row_group: Annotated[
        int | None,
        typer.Option(min=1, help="Rows to a row group; default: 8 MB.", show_default=False),
    ] = None,
    rows_per_file: Annotated[
        int | None,
        typer.Option(min=1, help="Rows to a file of a folder of Parquet.", show_default=False),
    ] = None,
    json: options.Json = False,
) -> None:
    """Write DATA as Parquet or Arrow, from which rows are streamed; memory does not grow with it.

    8-bit images stay 8-bit images, and are made numbers of when they are read.
    """
    from mogul.data import column_names, open_streaming, write_store

    folder = rows_per_file is not None
    check_output(output, () if folder else (".parquet", ".pq", ".arrow", ".feather"), data)
    chosen = options.listed(columns)
    if weight is not None:
        chosen = [name for name in chosen or column_names(data) if name != weight] + [weight]
    source = open_streaming(
        data, columns=chosen, crop=options.image_size(crop), size=options.image_size(size),
        colour=colour, limit=limit,
    )  # fmt: skip
    since = time.perf_counter()
    with RowProgress(len(source), quiet=json) as progress:
        n = write_store(
            source, output, names=chosen, weight=weight, row_group=row_group,
            rows_per_file=rows_per_file, seen=progress.seen,
        )  # fmt: skip
    # The column of weights is a feature of the source, and none of what is written.
    shape = source.feature_shape if weight is None else (source.n_features - 1,)
    figures = {
        "n": n, "feature_shape": "×".join(map(str, shape)),
        **({} if weight is None else {"weight": weight}),
        "output": str(output), "seconds": time.perf_counter() - since,
    }  # fmt: skip
    show(str(output), figures, json)
