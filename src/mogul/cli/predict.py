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

_FAINT = 0.02  # of the highest mode: density from which another is counted


def predict(
    model: options.Model,
    data: options.Data,
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="A .csv table of means, deviations, quantiles, the highest mode (joint, if of "
            "several targets) and the number of modes of at least 1/50 of its density; or an .npz "
            "file of these, samples, and the mixtures.",
        ),
    ],
    quantiles: Annotated[
        str, typer.Option(help="Probabilities of the quantiles, with commas.")
    ] = "0.05,0.25,0.5,0.75,0.95",
    samples: Annotated[
        int | None,
        typer.Option(
            min=1, help="Draws per row, for an .npz file; default 100.", show_default=False
        ),
    ] = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Predict the targets of every row of DATA, which need not hold them, with a model of mdn."""
    import torch

    from mogul.distributions import modes
    from mogul.opened import open_network

    since = time.perf_counter()
    check_output(output, (".csv", ".npz"), model, data)
    probabilities = _probabilities(quantiles)
    _check_samples(samples, output)
    opened = open_network(model, device)
    source = opened.open_inputs(data)
    mixture = opened.model(source.take(range(len(source)), opened.model.dtype))
    peaks = modes(mixture)
    drawn = _summary(mixture, probabilities) | {"mode": peaks.points[:, 0]}
    if output.suffix == ".npz":
        draws = mixture.sample((samples or 100,), seed=seed)
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
        several = len(targets) > 1
        drawn = {("joint_mode" if several and n == "mode" else n): v for n, v in drawn.items()}
        names = [f"{t}_{name}" if several else name for name in drawn for t in targets]
        table = torch.cat(list(drawn.values()), 1).tolist()
        counts = peaks.above(_FAINT).sum(-1).tolist()
        write_table(
            output, ["row", *names, "modes"],
            [[i, *row, count] for i, (row, count) in enumerate(zip(table, counts, strict=True))],
        )  # fmt: skip
    figures = {
        "n": len(source), "output": str(output), "seconds": time.perf_counter() - since,
    }  # fmt: skip
    show(f"Predictions of {', '.join(opened.extra['targets'])}", figures, json)


def _check_samples(samples: int | None, output: Path) -> None:
    """Refuse samples where no file holds them.

    Raises:
        InputError: if the output is a table.
    """
    if samples is not None and output.suffix != ".npz":
        raise InputError(f"--samples are for an .npz file, and {output} is none; leave them out.")


def _summary(mixture: Mixture, probabilities: list[float]) -> dict:
    """Return what is told of every row, each (n, D)."""
    import torch

    found = {"mean": mixture.mean, "standard_deviation": mixture.variance.sqrt()}
    values = mixture.icdf(torch.tensor(probabilities, dtype=torch.float64))
    return found | {
        f"quantile_{p:g}": value for p, value in zip(probabilities, values, strict=True)
    }


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
