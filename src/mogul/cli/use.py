"""Commands that use a fitted model: sample, score, reconstruct, inpaint, show."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mogul.cli import completion, options
from mogul.cli.completion import offered
from mogul.cli.console import (
    check_output,
    rows,
    show,
    write_arrays,
    write_grid,
    write_picture,
    write_table,
)

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from mogul.data import DataSource
    from mogul.opened import Opened, OpenedDecoder
    from mogul.tasks import ComponentPictures


_EXPONENT = 1e6  # from which numpy would write float32 with one
_DRAWS = 16  # samples that the mean of a decoder's in-painting is taken over, at least


def sample(
    model: options.Model,
    output: options.Picture,
    n: options.Count = 64,
    noise: Annotated[
        bool | None,
        typer.Option(
            "--noise/--no-noise",
            help="Include the noise that no factor explains; default: for mixtures, not decoders.",
            show_default=False,
        ),
    ] = None,
    latents: Annotated[
        str | None,
        typer.Option(
            help="Decoders: where latents come from: prior, or gaussian, mixture or class, fitted "
            "to the particles; default mixture, or prior where there are no particles.",
            show_default=False,
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="Decoders, --latents class: a .npy or idx file with the class of every training "
            "row; default: those of the data set.",
            show_default=False,
        ),
    ] = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Draw new rows or images from a model."""
    from mogul.opened import OpenedDecoder, open_density
    from mogul.tasks import SUMMARIES, summarise

    since = time.perf_counter()
    check_output(output, (".png", ".csv", ".npy"), model)
    opened = open_density(model, device)
    _check_kind(output, opened)
    if isinstance(opened, OpenedDecoder):
        kind = latents or ("prior" if opened.model.particles is None else "mixture")
        _refuse(kind not in SUMMARIES, f"Unknown latents '{kind}'; see `mogul sample --help`.")
        of_class = kind == "class"
        _refuse(bool(labels) and not of_class, "--labels is for --latents class; leave it out.")
        classes = opened.labels(labels) if of_class else None
        source = summarise(opened.model, kind, labels=classes, seed=seed)
        x = opened.model.sample(n, seed, source, noise=bool(noise))
    else:
        _refuse(
            bool(latents or labels),
            f"{model} is a mixture, without latents; leave --latents and --labels out.",
        )
        x = opened.mixture.sample((n,), noise=noise is not False, seed=seed)
    if output.suffix == ".png":
        write_grid(output, opened.to_pixels(x))
    else:
        _write_rows(output, x, opened)
    figures = {"n": n, "output": str(output), "seconds": time.perf_counter() - since}
    show("Samples", figures, json)


def score(
    model: options.Model,
    data: options.Data,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="A .csv table or .npy array of every row's score."),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Autoencoders: draws per row of importance sampling; default 500.",
            show_default=False,
        ),
    ] = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Score every row of DATA: log-likelihood in nats; of mixtures, its percentile in training.

    The mean is weighted where rows have weights, as in Parquet by `mogul convert --weight`.
    """
    import numpy as np

    from mogul.algorithms import log_likelihoods
    from mogul.evaluation import bits_per_dim, importance_log_likelihood
    from mogul.opened import DRAWS, OpenedAutoencoder, OpenedNetwork, open_scored
    from mogul.tasks import percentile_of

    since = time.perf_counter()
    if output is not None:
        check_output(output, (".csv", ".npy"), model, data)
    opened = open_scored(model, device)
    source = opened.open(data)
    weights = _weights(source)
    _refuse(weights is not None and not weights.any(), f"All rows of {data} have a weight of zero.")
    doubt: dict[str, float] = {}
    ranks: dict[str, Any] = {}
    if isinstance(opened, OpenedAutoencoder):
        most = samples or DRAWS
        found = importance_log_likelihood(opened.model, source, (most,), seed)
        values = found.log_likelihood[most].numpy()
        mean, error = _mean(values, weights)
        bits = found.bits_per_dim(most)  # of the mean without weights, to which it is proportional
        bits = None if bits is None else bits * mean / found.mean(most)
        doubt = {
            "standard_error": error,
            "effective_samples": float(found.effective.median()),
        }
    elif isinstance(opened, OpenedNetwork):
        _refuse(samples is not None, f"{model} is scored exactly; leave --samples out.")
        values, bits = opened.scores(source).numpy(), None
    else:
        _refuse(samples is not None, f"{model} is a mixture, scored exactly; leave --samples out.")
        values = log_likelihoods(opened.mixture, source).numpy()
        whole = np.concatenate([~b.x.isnan().any(-1).cpu().numpy() for b in source.batches()])
        # The density of a part of a row cannot be compared with those of whole rows.
        ranks = {
            "training_percentile": np.where(whole, percentile_of(values, opened.quantiles), np.nan)
        }
        bits = bits_per_dim(source, _mean(values, weights)[0])
    if output is not None and output.suffix == ".npy":
        write_arrays(output, log_likelihood=values)
    elif output is not None:
        columns = {"log_likelihood": values} | ranks
        table = [
            [i, *(None if value != value else value for value in row)]  # NaN: an empty cell
            for i, row in enumerate(zip(*columns.values(), strict=True))
        ]
        write_table(output, ["row", *columns], table)
    scored = ~np.isnan(values)  # rows without a target have no score
    known = values[scored]
    counted = None if weights is None else weights[scored]
    nothing = not len(known) or (counted is not None and not counted.any())
    _refuse(nothing, f"No row of {data} has a target and a weight; there is nothing to score.")
    figures = {
        "log_likelihood": _mean(known, counted)[0],
        "bits_per_dim": bits,
        **doubt,
        **({} if counted is None else {"total_weight": float(counted.sum())}),
        "lowest": float(known.min()),
        "highest": float(known.max()),
        "n": len(known),
        "output": None if output is None else str(output),
        "seconds": time.perf_counter() - since,
    }
    show(f"Scores of {data}", figures, json)


def reconstruct(
    model: options.Model,
    data: options.Data,
    output: options.Picture,
    n: options.Rows = None,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Reconstruct the rows of DATA from the factors or latents of a model."""
    from mogul.opened import OpenedDecoder, open_density
    from mogul.report import stack_rows
    from mogul.tasks import reconstruct as rebuild

    since = time.perf_counter()
    check_output(output, (".png", ".csv", ".npy"), model, data)
    opened = open_density(model, device)
    _check_kind(output, opened)
    x = opened.rows(opened.open(data), _limit(n, output))
    neural = isinstance(opened, OpenedDecoder)
    rebuilt = opened.rebuild(x) if neural else rebuild(opened.mixture, x)
    if output.suffix == ".png":
        write_picture(output, stack_rows([opened.to_pixels(x), opened.to_pixels(rebuilt)]))
    else:
        _write_rows(output, rebuilt, opened)
    figures = {
        "reconstruction_mse": float((rebuilt - x).square().nanmean()),
        "n": len(x),
        "output": str(output),
        "seconds": time.perf_counter() - since,
    }
    show("Reconstruction", figures, json)


def inpaint(
    model: options.Model,
    data: options.Data,
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="A .png picture, a .csv table or .npy array of the filled rows, or an .npz file "
            "of all results.",
        ),
    ],
    mask: Annotated[
        str | None,
        typer.Option(
            help="What to hide; default right of images, nan of tables: left, right, top, bottom, "
            "centre, rectangle:TOP,LEFT,HEIGHT,WIDTH, "
            "random:FRACTION, nan (what is NaN in DATA), or a .npy mask, True where observed.",
            autocompletion=offered(*completion.MASKS),
        ),
    ] = None,
    n: options.Rows = None,
    samples: Annotated[int, typer.Option(help="Conditional samples per row.")] = 3,
    noise: Annotated[bool, typer.Option(help="Include noise in the samples.")] = False,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Fill hidden parts of the rows of DATA: by the exact conditional, or a decoder's posterior."""
    import numpy as np
    import torch

    from mogul.data import parse_mask
    from mogul.opened import OpenedDecoder, open_density
    from mogul.tasks import inpaint as fill
    from mogul.tasks import inpaint_latent

    since = time.perf_counter()
    check_output(output, (".png", ".csv", ".npy", ".npz"), model, data)
    opened = open_density(model, device)
    _check_kind(output, opened)
    source = opened.open(data)
    x = opened.rows(source, _limit(n, output))
    mask = mask or ("right" if opened.is_image else "nan")
    given = parse_mask(mask, len(x), opened.feature_shape, seed).to(x.device)
    observed = ~x.isnan() & given
    _refuse(samples < 0, f"{samples} samples were asked for; give zero or more.")
    if isinstance(opened, OpenedDecoder):
        done = inpaint_latent(opened.model, x, observed, max(samples, _DRAWS), seed=seed)
        reached = {"log_joint": float(done.log_joint.mean())}
    else:
        done = fill(opened.mixture, x, observed, samples, noise, seed)
        reached = {"observed_log_likelihood": float(done.log_likelihood.mean())}
    if output.suffix == ".png":
        from mogul.report import inpainting_picture

        write_picture(output, inpainting_picture(x, observed, done, opened.to_pixels, samples))
    elif output.suffix == ".csv":
        given = source.take(range(len(x)), torch.float64)  # what was observed keeps all its digits
        _write_cells(output, np.where(observed.cpu(), _cells(given), _cells(done.mean)), opened)
    else:
        shape = (-1, *opened.feature_shape)
        write_arrays(
            output,
            mean=done.mean.cpu().numpy().reshape(shape),
            deviation=done.deviation.cpu().numpy().reshape(shape),
            samples=done.samples[:samples].cpu().numpy().reshape(samples, len(x), *shape[1:]),
            observed=observed.cpu().numpy().reshape(shape),
        )
    known = ~observed & ~x.isnan()
    error = float((done.mean - x)[known].square().mean()) if bool(known.any()) else None
    figures = {
        "inpainting_mse": error,
        **reached,
        "n": len(x),
        "output": str(output),
        "seconds": time.perf_counter() - since,
    }
    show("In-painting", figures, json)


def show_model(
    model: options.Model,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="A .png picture: of images the components, or those of a network's prior, "
            "decoded; of an mdn the density of its first target along one input.",
        ),
    ] = None,
    n: options.Count = 12,
    json: options.Json = False,
) -> None:
    """Describe a model: what it is, what it reached, and its components by weight."""
    from mogul.opened import OpenedDecoder, OpenedNetwork, open_any
    from mogul.tasks import characteristic

    if output is not None:
        check_output(output, (".png",), model)
    opened = open_any(model, "cpu")
    if isinstance(opened, OpenedNetwork):
        if output is not None:
            from mogul.report import density_picture

            write_picture(output, density_picture(opened.model, opened.train(), opened.extra))
        kept = {key: opened.extra[key] for key in ("inputs", "targets")}
        figures = kept | opened.extra["settings"] | opened.reached
        figures |= {"command": opened.extra["command"], "history": opened.extra["history"]}
        show(str(model), figures, json)
        return
    if isinstance(opened, OpenedDecoder):
        if output is not None:
            from mogul.report import prior_picture

            _refuse(
                opened.model.prior.n_components == 1,
                f"The prior of {model} is one Gaussian, which has no components to show; use "
                "sample or report for its pictures.",
            )
            write_picture(output, prior_picture(opened.model, opened.to_pixels, n))
        parts = {key: opened.config[key] for key in ("decoder", "likelihood")}
        about = parts | {"algorithm": opened.extra["algorithm"], **opened.extra["settings"]}
        figures = {**about, **opened.reached, "command": opened.extra["command"]}
        show(str(model), figures | {"history": opened.extra["history"]}, json)
        return
    found = characteristic(opened.mixture, n)
    if output is not None:
        from mogul.report import components_picture

        write_picture(output, components_picture(found, opened.to_pixels)[0])
    if not json:
        _show_components(found, opened)
    figures = {
        **opened.config,
        **opened.reached,
        "data": opened.extra["options"]["data"],
        "command": opened.extra["command"],
        "weights": opened.mixture.weights.tolist(),
        "history": opened.extra["history"],
    }
    show(str(model), figures, json)


def _show_components(found: ComponentPictures, opened: Opened) -> None:
    """Print weights, noise and the length of factors.

    Columns of a table have units of their own, so that theirs are measured by their deviations.
    """
    noise, directions = found.noise, found.directions[:, :3]
    names = ["mean noise", *(f"factor {i + 1}" for i in range(directions.shape[1]))]
    title = "Components by weight"
    if len(opened.feature_shape) == 1:
        spread = opened.mixture.variance.sqrt()
        noise, directions = noise / spread, directions / spread
        figures = [noise.square().mean(-1, keepdim=True), directions.square().mean(-1)]
        sizes = [f.sqrt() for f in figures]
        names[0] = "noise"
        title += "; noise and factors relative to the deviations of the columns"
    else:
        sizes = [noise.mean(-1, keepdim=True), directions.norm(dim=-1)]
    table = [
        [int(k), float(w), *own.tolist(), *lengths.tolist()]
        for k, w, own, lengths in zip(found.index, found.weight, *sizes, strict=True)
    ]
    rows(title, ["component", "weight", *names], table)


def _refuse(wrong: bool, message: str) -> None:
    """Say what is wrong with the options, if it is.

    Raises:
        InputError: with the message.
    """
    from mogul.errors import InputError

    if wrong:
        raise InputError(message)


def _limit(n: int | None, output: Path) -> int | None:
    """Return how many rows to treat: those asked for, else as many as a picture shows, else all."""
    return 16 if n is None and output.suffix == ".png" else n


def _weights(source: DataSource) -> np.ndarray | None:
    """Return the weights of the rows (n,), or None where they have none."""
    import numpy as np

    found = []
    for batch in source.batches():
        if batch.weight is None:
            return None
        found.append(batch.weight.double().cpu().numpy())
    return np.concatenate(found)


def _mean(values: np.ndarray, weights: np.ndarray | None) -> tuple[float, float]:
    """Return the weighted mean of values (n,), and its standard error."""
    import numpy as np

    weights = np.ones(len(values)) if weights is None else weights
    share = weights / weights.sum()
    mean = float(share @ values)
    n = int((share > 0).sum())
    error = float(np.sqrt((share**2 @ (values - mean) ** 2) * n / (n - 1))) if n > 1 else math.inf
    return mean, error


def _check_kind(output: Path, opened: Opened | OpenedDecoder) -> None:
    """Refuse a table of rows that are no table's, before any work is done."""
    _refuse(
        output.suffix == ".csv" and len(opened.feature_shape) > 1,
        f"{output} would be a table, and {opened.path} models images of shape "
        f"{opened.feature_shape}; write a .png or .npy file.",
    )


def _write_rows(path: Path, x: Tensor, opened: Opened | OpenedDecoder) -> None:
    """Write rows (n, D): as a table with the names of the columns, or as an array."""
    if path.suffix == ".csv":
        _write_cells(path, _cells(x), opened)
    else:
        write_arrays(path, x=x.cpu().numpy().reshape(-1, *opened.feature_shape))


def _write_cells(path: Path, cells: np.ndarray, opened: Opened | OpenedDecoder) -> None:
    write_table(path, opened.columns, cells.tolist())


def _cells(x: Tensor) -> np.ndarray:
    """Return numbers as text, each with as many digits as its type needs; NaN as empty cells."""
    import numpy as np

    values = x.cpu().numpy()
    text = values.astype(str).astype(object)
    plain = np.char.endswith(text.astype(str), ".0") | (abs(values) >= _EXPONENT)
    text[plain] = [np.format_float_positional(value, trim="-") for value in values[plain]]
    return np.where(np.isnan(values), "", text)
