"""Arguments and options that several commands share."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated, Any

import typer

from mogul.cli import completion
from mogul.cli.completion import offered

known_data = offered(*completion.DATA_SETS, *completion.SPLITS)

Data = Annotated[
    str,
    typer.Argument(
        help="A .npy, .npz, .csv, .tsv, .parquet, .arrow or idx file; a .zip or .tar of images, "
        "or tars as 'x-{000..012}.tar'; a folder of images, Parquet files or tars; or a data set: "
        "digits, mnist, fashion-mnist, celeba, each with :train or :test.",
        show_default=False,
        autocompletion=known_data,
    ),
]
Model = Annotated[Path, typer.Argument(help="A file that `mogul fit` wrote.", show_default=False)]
Test = Annotated[
    str | None,
    typer.Argument(
        help="Held-out data; default: the test split of the data set the model was fitted to.",
        show_default=False,
        autocompletion=known_data,
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Device = Annotated[
    str, typer.Option(help="auto, cpu or cuda.", autocompletion=offered("auto", "cpu", "cuda"))
]
Json = Annotated[bool, typer.Option("--json", help="Print the figures as one line of JSON.")]
Board = Annotated[
    Path | None,
    typer.Option(
        help="A folder to write the history of the fit into, pass by pass, for TensorBoard.",
        show_default=False,
    ),
]
Columns = Annotated[
    str | None,
    typer.Option(
        help="Columns of a table, with commas; names that hold one in double quotes; default all.",
        show_default=False,
    ),
]
Crop = Annotated[
    str | None, typer.Option(help="Central crop of images, HEIGHTxWIDTH.", show_default=False)
]
Resize = Annotated[
    str | None, typer.Option(help="Size to bring images to, HEIGHTxWIDTH.", show_default=False)
]
Colour = Annotated[
    bool | None, typer.Option("--colour/--grey", help="Read images in colour or grey.")
]
Limit = Annotated[int | None, typer.Option(help="Take the first rows only.", show_default=False)]
Train = Annotated[
    str | None,
    typer.Option(
        help="Where the training data are, to compare with; default: where the fit read them.",
        show_default=False,
    ),
]
Count = Annotated[int, typer.Option("-n", min=1, help="How many.")]
Rows = Annotated[
    int | None,
    typer.Option(
        "-n", min=1, help="How many rows; default: 16 in a picture, all in a table or array.",
        show_default=False,
    ),
]  # fmt: skip
Picture = Annotated[
    Path,
    typer.Option(
        "-o", "--output", help="A .png picture, .csv table (of columns) or .npy array to write."
    ),
]


_DECODERS, _AUTOENCODERS = "Decoders", "Autoencoders (vae)"
_NETWORKS = "Mixture density networks (mdn)"


def _text(help_: str, panel: str = _DECODERS, *names: str, values: tuple[str, ...] = ()) -> Any:
    return typer.Option(
        *names, help=help_, show_default=False, rich_help_panel=panel,
        autocompletion=offered(*values) if values else None,
    )  # fmt: skip


def _of_truncated(help_: str) -> Any:
    return _text(help_, "Truncated EM (truncated-em)")


Algorithm = Annotated[
    str | None,
    _text(
        "pga (default), soul, short-run, abp, momentum, coin; pqn, pmga: linear only. Of a "
        "mixture: em (default), online-em, which learns many times in a pass, or truncated-em, for "
        "thousands of components.",
        values=(*completion.MIXTURE_ALGORITHMS, *completion.PARTICLE_ALGORITHMS),
    ),
]
Candidates = Annotated[int | None, _of_truncated("Components that each row is held to; default 3.")]
Neighbours = Annotated[
    int | None, _of_truncated("Components that are looked at for each of them; default 15.")
]
AtRandom = Annotated[
    int | None, _of_truncated("Components looked at by chance, per row; default 1.")
]
PresetName = Annotated[
    str | None,
    _text(
        "mnist-small, faces-small, mnist-note, celeba-note, mnist-paper or celeba-paper; the "
        "options below take the place of its settings.",
        values=completion.PRESETS,
    ),
]
Decoder = Annotated[
    str | None,
    _text(
        "conv (images, brought to 32x32; default), mlp (two gated layers of 300; default of a "
        "vae) or linear; the encoder of a vae is of the same kind.",
        values=completion.DECODERS,
    ),
]
LikelihoodName = Annotated[
    str | None,
    _text(
        "gaussian (default), bernoulli (default where pixels are binarised) or "
        "discretised-logistic.",
        values=completion.LIKELIHOODS,
    ),
]
Latents = Annotated[int | None, _text("Latent dimensions.", _DECODERS, "--latents", "--latent")]
NParticles = Annotated[int | None, _text("Particles per row.")]
Scale = Annotated[
    float | None,
    _text(
        "Standard deviation of the noise, on pixels in (0, 1), or as a share of a column's; of a "
        "vae the one that learning begins with."
    ),
]
Width = Annotated[int | None, _text("Channels inside the convolutional decoder.")]
StepSize = Annotated[float | None, _text("Step of the particles.")]
Rate = Annotated[float | None, _text("Step of the parameters, relative to it.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with the fit in OUTPUT, with the same options.")
]

Watch = Annotated[
    bool,
    typer.Option(
        "--watch",
        help="Show the fit in a browser while it goes on, and then explore its model.",
    ),
]


def _of_vae(help_: str, *values: str) -> Any:
    return _text(help_, _AUTOENCODERS, values=values)


PriorName = Annotated[
    str | None,
    _text(
        "normal (default), mixture, or, of a vae, vamp; the last two of --components Gaussians.",
        values=("normal", "mixture", "vamp"),
    ),
]
PriorLearning = Annotated[
    str | None,
    _text(
        "Of a mixture: em (a step on particles or encoded rows after every pass; default of "
        "decoders), gradient (default of a vae) or fixed.",
        values=("em", "gradient", "fixed"),
    ),
]
PosteriorComponents = Annotated[int | None, _of_vae("Gaussians in every row's posterior.")]
ObjectiveName = Annotated[
    str | None,
    _of_vae(
        "elbo (default) or iwae, which is siwae where posteriors are mixtures.", "elbo", "iwae"
    ),
]
Divergence = Annotated[
    str | None,
    _of_vae(
        "Of the elbo: marginal (default), sampled or variational.",
        "marginal",
        "sampled",
        "variational",
    ),
]
Samples = Annotated[int | None, _of_vae("Draws per row and component; default 1, of iwae 50.")]
FreeBits = Annotated[float | None, _of_vae("Least divergence that counts, in nats.")]
WarmUp = Annotated[
    int | None,
    _text(
        "Passes with one particle per row, which is then copied; of a vae, those over which the "
        "divergence gets its full weight."
    ),
]
LearningRate = Annotated[
    float | None, _of_vae("Of Adam; default 5e-4, of an mdn 2e-3, where it falls by itself.")
]
BatchSize = Annotated[
    int | None,
    _text("Rows per step; default that of the preset, or 100; of an mdn 64; of online-em by N."),
]
Binarise = Annotated[
    str | None,
    _of_vae(
        "Make pixels 0 or 1: static (once) or dynamic (anew in every pass).", "static", "dynamic"
    ),
]


def _of_mdn(help_: str, *values: str) -> Any:
    return _text(help_, _NETWORKS, values=values)


Target = Annotated[
    str | None,
    _of_mdn("Columns to predict, with commas: names of a CSV file, numbers of an array."),
]
CovarianceName = Annotated[
    str | None,
    _of_mdn(
        "full (default), diagonal, isotropic, ppca or factor-analysis; of several targets.",
        *completion.FAMILIES,
    ),
]
Hidden = Annotated[str | None, _of_mdn("Widths of the layers, with commas; default 64,64.")]
HeldOut = Annotated[
    float | None, _of_mdn("Share of the rows that say when to stop; default 0.1; 0 never does.")
]
Patience = Annotated[
    int | None,
    _of_mdn("Passes without progress on them before the learning rate falls; default 20."),
]
InputNoise = Annotated[
    float | None,
    _of_mdn("First noise on inputs while training, as a share of their deviation; default 0."),
]
TargetNoise = Annotated[float | None, _of_mdn("The same of targets; default 0.1.")]
WeightDecay = Annotated[float | None, _of_mdn("Default 1e-4.")]


def listed(text: str | None) -> list[str] | None:
    """Split names at commas, as a CSV file does: a name that holds a comma stands in quotes.

    Raises:
        InputError: if quotes are not closed.
    """
    if text is None:
        return None
    from mogul.errors import InputError

    try:
        found = next(csv.reader([text], skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise InputError(
            f"The names {text} are not understood ({error}); give them with commas, and those that "
            "hold a comma in double quotes, the whole in single ones: --columns 'a,\"b,c\"'."
        ) from error
    return [name.strip() for name in found or [""]]


def share_of(test: str | None) -> float | None:
    """Return the share of the rows that --test holds out, or None where it names data.

    Raises:
        InputError: for a number that is no share.
    """
    if test is None or Path(test).exists():
        return None
    try:
        share = float(test)
    except ValueError:
        return None
    from mogul.errors import InputError

    if not 0 < share < 1:
        raise InputError(
            f"--test {test} is no share of the rows; give a number between 0 and 1, or held-out "
            "data."
        )
    return share


def image_size(text: str | None) -> tuple[int, int] | None:
    """Read "64" or "64x48" (height × width).

    Raises:
        InputError: if it is neither.
    """
    if text is None:
        return None
    from mogul.errors import InputError

    parts = text.lower().replace("×", "x").split("x")
    if len(parts) > 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise InputError(f"The size '{text}' is not understood; give HEIGHTxWIDTH, such as 64x64.")
    return int(parts[0]), int(parts[-1])
