"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

Data = Annotated[
    str,
    typer.Argument(
        help="A .npy, .npz, .csv, idx or zip file, a folder of images, or a data set: digits, "
        "mnist, fashion-mnist, celeba, each with :train or :test.",
        show_default=False,
    ),
]
Model = Annotated[Path, typer.Argument(help="A file that `mogul fit` wrote.", show_default=False)]
Test = Annotated[
    str | None,
    typer.Argument(
        help="Held-out data; default: the test split of the data set the model was fitted to.",
        show_default=False,
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Json = Annotated[bool, typer.Option("--json", help="Print the figures as one line of JSON.")]
Columns = Annotated[
    str | None,
    typer.Option(help="Columns of a CSV file, with commas; default all.", show_default=False),
]
Count = Annotated[int, typer.Option("-n", min=1, help="How many.")]
Rows = Annotated[
    int | None,
    typer.Option(
        "-n", min=1, help="How many rows; default: 16 in a picture, all in an array.",
        show_default=False,
    ),
]  # fmt: skip
Picture = Annotated[
    Path, typer.Option("-o", "--output", help="A .png picture or .npy array to write.")
]


def _text(help_: str) -> Any:
    return typer.Option(help=help_, show_default=False, rich_help_panel="Decoders")


Algorithm = Annotated[
    str | None,
    _text("pga (default), soul, short-run, abp, momentum, coin, vae; pqn, pmga: linear only."),
]
PresetName = Annotated[
    str | None,
    _text(
        "mnist-small, faces-small, mnist-note, celeba-note, mnist-paper or celeba-paper; the "
        "options below take the place of its settings."
    ),
]
Decoder = Annotated[str | None, _text("conv (images, brought to 32x32; default) or linear.")]
LikelihoodName = Annotated[str | None, _text("gaussian (default) or bernoulli.")]
Latents = Annotated[int | None, _text("Latent dimensions.")]
NParticles = Annotated[int | None, _text("Particles per row.")]
Scale = Annotated[float | None, _text("Standard deviation of the noise, on pixels in (0, 1).")]
Width = Annotated[int | None, _text("Channels inside the convolutional decoder.")]
StepSize = Annotated[float | None, _text("Step of the particles.")]
Rate = Annotated[float | None, _text("Step of the parameters, relative to it.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with OUTPUT.", rich_help_panel="Decoders")
]


def listed(text: str | None) -> list[str] | None:
    """Split names at commas."""
    return None if text is None else [name.strip() for name in text.split(",")]
