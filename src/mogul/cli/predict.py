"""`mogul predict`: what a mixture density network says of rows."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mogul.cli import options
from mogul.cli.console import check_output, show, write_arrays, write_table
from mogul.errors import InputError

if TYPE_CHECKING:
    from mogul.distributions import Mixture


def predict(
    model: options.Model,
    data: options.Data,
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="A .csv table of means, deviations, quantiles and the highest mode, or an .npz "
            "file of these, samples, and the mixtures themselves.",
        ),
    ],
    quantiles: Annotated[
        str, typer.Option(help="Probabilities of the quantiles, with commas.")
    ] = "0.05,0.25,0.5,0.75,0.95",
    samples: Annotated[int, typer.Option(min=1, help="Draws per row, in an .npz file.")] = 100,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Predict the targets of every row of DATA, which need not hold them, with a model of mdn."""
    import torch

    from mogul.cli.opened import open_network

    since = time.perf_counter()
    check_output(output, (".csv", ".npz"), model, data)
    probabilities = _probabilities(quantiles)
    opened = open_network(model, device)
    source = opened.open_inputs(data)
    mixture = opened.model(source.take(range(len(source)), opened.model.dtype))
    drawn = _summary(mixture, probabilities)
    if output.suffix == ".npz":
        draws = mixture.sample((samples,), seed=seed)
        write_arrays(
            output,
            samples=draws.cpu().numpy(),
            weights=mixture.weights.cpu().numpy(),
            means=mixture.means.cpu().numpy(),
            covariances=mixture.covariance.dense().cpu().numpy(),
            **{name: values.cpu().numpy() for name, values in drawn.items()},
        )
    else:
        targets = opened.extra["targets"]
        names = [
            f"{target}_{name}" if len(targets) > 1 else name for name in drawn for target in targets
        ]
        table = torch.cat(list(drawn.values()), 1).tolist()
        write_table(output, ["row", *names], [[i, *row] for i, row in enumerate(table)])
    figures = {
        "n": len(source), "output": str(output), "seconds": time.perf_counter() - since,
    }  # fmt: skip
    show(f"Predictions of {', '.join(opened.extra['targets'])}", figures, json)


def _summary(mixture: Mixture, probabilities: list[float]) -> dict:
    """Return what is told of every row, each (n, D)."""
    import torch

    from mogul.distributions import modes

    found = {"mean": mixture.mean, "standard_deviation": mixture.variance.sqrt()}
    values = mixture.icdf(torch.tensor(probabilities, dtype=torch.float64))
    found |= {f"quantile_{p:g}": value for p, value in zip(probabilities, values, strict=True)}
    highest = modes(mixture)
    return found | {
        "mode": highest.points[:, 0], "modes": highest.count.unsqueeze(-1).expand_as(mixture.mean)
    }  # fmt: skip


def _probabilities(text: str) -> list[float]:
    """Read numbers between 0 and 1.

    Raises:
        InputError: if there are others.
    """
    try:
        found = [float(part) for part in options.listed(text) or []]
    except ValueError:
        found = []
    if not found or not all(0 < p < 1 for p in found):
        raise InputError(
            f"The quantiles '{text}' are not understood; give numbers between 0 and 1, with commas."
        )
    return found
