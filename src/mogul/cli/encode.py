"""`mogul encode`: the latents of rows."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mogul.cli import options
from mogul.cli.console import check_output, show, write_arrays, write_table

if TYPE_CHECKING:
    from torch import Tensor

    from mogul.opened import Opened, OpenedDecoder


def encode(
    model: options.Model,
    data: options.Data,
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="A .npy array of the latents, one row each, or a .csv table or .npz arrays: of "
            "mixtures with the component that they belong to, and its responsibility.",
        ),
    ],
    n: Annotated[
        int | None,
        typer.Option("-n", min=1, help="How many rows; default: all.", show_default=False),
    ] = None,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Write the latents of the rows of DATA.

    Of ppca and mfa the posterior means of the factors of each row's most responsible component, of
    autoencoders the posterior means, of decoders the most probable latents.
    """
    from mogul.opened import open_density

    since = time.perf_counter()
    check_output(output, (".npy", ".npz", ".csv"), model, data)
    opened = open_density(model, device)
    arrays = latents_of(opened, opened.rows(opened.open(data), n))
    found = arrays["latents"]
    if output.suffix == ".csv":
        about = [name for name in arrays if name != "latents"]
        names = [*about, *(f"latent_{i}" for i in range(1, found.shape[1] + 1))]
        columns = [arrays[name].tolist() for name in about] + found.T.tolist()
        table = [[i, *row] for i, row in enumerate(zip(*columns, strict=True))]
        write_table(output, ["row", *names], table)
    else:
        write_arrays(output, **arrays)
    figures = {
        "n": len(found), "latents": found.shape[1], "output": str(output),
        "seconds": time.perf_counter() - since,
    }  # fmt: skip
    show(f"Latents of {data}", figures, json)


def latents_of(opened: Opened | OpenedDecoder, x: Tensor) -> dict[str, Any]:
    """Return the latents of rows (n, D), the latents first, with what says whose they are.

    Raises:
        InputError: if the model is a mixture without factors.
    """
    from mogul.opened import OpenedDecoder

    if isinstance(opened, OpenedDecoder):
        return {"latents": opened.latents(x).cpu().numpy()}
    factors, component, responsibility = opened.factors(x)
    return {
        "latents": factors.cpu().numpy(), "component": component.cpu().numpy(),
        "responsibility": responsibility.cpu().numpy(),
    }  # fmt: skip
