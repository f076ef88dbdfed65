"""`mogul fit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mogul.cli import completion, options
from mogul.cli.completion import offered
from mogul.cli.console import Followers, check_output
from mogul.cli.fit_autoencoder import fit_autoencoder
from mogul.cli.fit_decoder import Choices, fit_decoder, settings
from mogul.cli.fit_mixture import MixtureSettings, fit_mixture
from mogul.cli.fit_network import fit_network
from mogul.cli.neural import open_images
from mogul.cli.options import image_size as _size
from mogul.cli.watch import watched

if TYPE_CHECKING:
    from mogul.app.session import Live
    from mogul.report import TensorBoard

_BOTH = (
    "decoder", "likelihood", "latents", "scale", "width", "resume", "prior", "prior_learning",
    "components", "warm_up", "batch_size",
)  # fmt: skip
# Options that not every algorithm for mixtures has a use for.
_OF_ALGORITHM = {
    "em": ("tolerance",),
    "online-em": ("batch_size",),
    "truncated-em": ("tolerance", "candidates", "neighbours", "random"),
}
# Options that not every kind of model has a use for.
_OF = {
    "a mixture": (
        "components", "rank", "sharing", "tolerance", "start", "n_init", "test", "variance_floor",
        "dequantise", "resume", "algorithm", "batch_size", "candidates", "neighbours", "random",
        "hide",
    ),
    "a decoder": (*_BOTH, "algorithm", "preset", "particles", "step_size", "rate"),
    "a vae": (
        *_BOTH, "test", "posterior_components", "objective", "divergence", "samples", "free_bits",
        "learning_rate", "binarise",
    ),
    "an mdn": (
        "components", "rank", "sharing", "test", "variance_floor", "learning_rate", "batch_size",
        "target", "covariance", "hidden", "held_out", "patience", "input_noise", "target_noise",
        "weight_decay", "resume",
    ),
}  # fmt: skip


def fit(
    context: typer.Context,
    data: options.Data,
    output: Annotated[Path, typer.Option("-o", "--output", help="The model file to write.")],
    model: Annotated[
        str,
        typer.Option(
            help="Covariance family: full (gmm), diagonal, isotropic, ppca (mppca) or "
            "factor-analysis (mfa); or decoder, a neural network, vae, one with an encoder, or "
            "mdn, one that predicts the densities of --target columns from the others.",
            autocompletion=offered(*completion.MODELS),
        ),
    ] = "ppca",
    components: Annotated[
        int,
        typer.Option(help="Number of Gaussians; of a vae, of its prior; of an mdn, default 5."),
    ] = 10,
    rank: Annotated[
        int | None,
        typer.Option(
            help="Factors per component, for ppca and mfa; default 6.", show_default=False
        ),
    ] = None,
    sharing: Annotated[
        str,
        typer.Option(
            help="Covariances: own (one each), shared (one for all), or constant.",
            autocompletion=offered(*completion.SHARINGS),
        ),
    ] = "own",
    passes: Annotated[
        int | None,
        typer.Option(
            help="Most passes over the data; default 30, or the preset's.", show_default=False
        ),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="Stop when a pass gains less, in nats per feature; 0 never does.")
    ] = 1e-6,
    start: Annotated[
        str,
        typer.Option(
            help="k-means, k-means++ or random; of many components truncated-k-means or afk-mc2.",
            autocompletion=offered(*completion.STARTS),
        ),
    ] = "k-means",
    n_init: Annotated[int, typer.Option(help="Starts to try; the most likely is kept.")] = 1,
    test: Annotated[
        str | None,
        typer.Option(
            help="Held-out data to score at every pass, or a share of the rows of DATA to hold out "
            "for this, such as 0.1; default: the test split of a data set.",
            show_default=False,
            autocompletion=offered(*completion.SPLITS),
        ),
    ] = None,
    variance_floor: Annotated[
        float,
        typer.Option(
            help="Least variance of a feature, as a fraction of its variance in the data."
        ),
    ] = 1e-6,
    crop: options.Crop = None,
    size: options.Resize = None,
    colour: options.Colour = None,
    columns: options.Columns = None,
    dequantise: Annotated[
        bool, typer.Option(help="Add uniform noise to integer pixels, so bits per dimension hold.")
    ] = True,
    limit: options.Limit = None,
    hide: Annotated[
        float | None,
        typer.Option(
            help="Share of the values (of images: pixels) to hide from the fit, at random; its "
            "figures at the end are of whole rows.",
            show_default=False,
        ),
    ] = None,
    algorithm: options.Algorithm = None,
    candidates: options.Candidates = None,
    neighbours: options.Neighbours = None,
    random: options.AtRandom = None,
    preset: options.PresetName = None,
    decoder: options.Decoder = None,
    likelihood: options.LikelihoodName = None,
    latents: options.Latents = None,
    particles: options.NParticles = None,
    scale: options.Scale = None,
    width: options.Width = None,
    step_size: options.StepSize = None,
    rate: options.Rate = None,
    resume: options.Resume = False,
    prior: options.PriorName = None,
    prior_learning: options.PriorLearning = None,
    posterior_components: options.PosteriorComponents = None,
    objective: options.ObjectiveName = None,
    divergence: options.Divergence = None,
    samples: options.Samples = None,
    free_bits: options.FreeBits = None,
    warm_up: options.WarmUp = None,
    learning_rate: options.LearningRate = None,
    batch_size: options.BatchSize = None,
    binarise: options.Binarise = None,
    target: options.Target = None,
    covariance: options.CovarianceName = None,
    hidden: options.Hidden = None,
    held_out: options.HeldOut = None,
    patience: options.Patience = None,
    input_noise: options.InputNoise = None,
    target_noise: options.TargetNoise = None,
    weight_decay: options.WeightDecay = None,
    tensorboard: options.Board = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    dtype: Annotated[
        str,
        typer.Option(
            help="float32 (default; of an mdn float64) or float64.",
            autocompletion=offered("float32", "float64"),
        ),
    ] = "float32",
    json: options.Json = False,
    watch: options.Watch = False,
) -> None:
    """Fit a mixture of Gaussians or a network that is made with one to DATA; write it to a file."""
    from mogul.compute.collective import joined

    check_output(output, (), data, test)
    _refuse_unknown(model)
    page = watched(watch, output, given_options(context))
    board = None if tensorboard is None else _board(tensorboard)

    def followers(live: Live | None, first: bool = True) -> Followers:
        return Followers(live, board if first else None)

    if model == "decoder":
        _refuse(context, "a decoder")
        choices = Choices(
            algorithm, preset, decoder, likelihood, latents, particles, scale, width, step_size,
            rate, batch_size, warm_up, prior, given_options(context).get("components"),
            prior_learning, resume,
        )  # fmt: skip
        chosen, name = settings(output, choices, passes, limit)
        source = open_images(data, decoder, {
            "limit": chosen.rows, "crop": _size(crop), "size": _size(size), "colour": colour,
            "dequantise": False, "columns": options.listed(columns), "seed": seed,
        })  # fmt: skip
        with page as live, joined() as group:
            told = followers(live, group.first)
            fit_decoder(
                source, output, choices, chosen, name, seed, device, dtype, json, group, told
            )
        return
    if model == "vae":
        _refuse(context, "a vae")
        given = given_options(context)
        reading = {"limit": limit, "crop": _size(crop), "size": _size(size), "colour": colour,
                   "columns": options.listed(columns), "seed": seed}  # fmt: skip
        with page as live, joined() as group:
            told = followers(live, group.first)
            fit_autoencoder(data, output, given, reading, device, dtype, json, group, told)
        return
    if model == "mdn":
        _refuse(context, "an mdn")
        refuse_several("an mdn")
        given = given_options(context)
        reading = {
            "limit": limit,
            "crop": _size(crop),
            "size": _size(size),
            "colour": colour,
        }
        # A table's columns may lie far from zero, and small networks lose little by it.
        precision = given.get("dtype", "float64")
        with page as live:
            told = followers(live)
            fit_network(data, output, given, reading, test, device, precision, json, told)
        return
    _refuse(context, "a mixture")
    learning = _learning(given_options(context), seed)
    reading: dict[str, Any] = {
        "crop": _size(crop), "size": _size(size), "colour": colour, "dequantise": dequantise,
        "columns": options.listed(columns),
        "seed": seed,
    }  # fmt: skip
    asked = MixtureSettings(
        components, model, rank, sharing, 30 if passes is None else passes, tolerance, start,
        n_init, variance_floor, seed, dtype, hide,
    )  # fmt: skip
    with page as live, joined() as group:
        told = followers(live, group.first)
        fit_mixture(
            data, output, asked, learning, reading, limit, test, resume, group, device, json, told
        )


def _refuse_unknown(model: str) -> None:
    """Refuse a kind of model that there is not.

    Raises:
        InputError: naming those that there are.
    """
    from mogul.errors import InputError

    if model.lower().replace("_", "-") not in completion.MODELS:
        families = [f"{name} ({', '.join(others)})" for name, *others in completion.KINDS]
        raise InputError(
            f"There is no model '{model}'; choose a mixture, by its covariance family: "
            f"{', '.join(families)}; or a network: {', '.join(completion.NETWORKS)}."
        )


def _board(folder: Path) -> TensorBoard:
    from mogul.report import TensorBoard

    return TensorBoard(folder)


def refuse_several(model: str) -> None:
    """Refuse to fit by several processes.

    Raises:
        InputError: if torchrun began this process as one of them.
    """
    from mogul.compute.collective import is_launched
    from mogul.errors import InputError

    if is_launched():
        raise InputError(
            f"{model.capitalize()} is fitted by one process; start it without torchrun."
        )


def given_options(context: typer.Context) -> dict[str, Any]:
    """Return the options that were given on the command line, with their values."""
    return {
        name: value
        for name, value in context.params.items()
        if str(context.get_parameter_source(name)).endswith("COMMANDLINE")
    }


def _learning(given: dict[str, Any], seed: int) -> Any:
    """Return the algorithm that a mixture is to be fitted by.

    Raises:
        InputError: for an unknown one, or an option that it has no use for.
    """
    import mogul
    from mogul.errors import InputError

    algorithm = given.get("algorithm", "em")
    if algorithm not in _OF_ALGORITHM:
        *others, last = _OF_ALGORITHM
        raise InputError(
            f"A mixture is not fitted by '{algorithm}'; choose {', '.join(others)} or {last}."
        )
    useful = _OF_ALGORITHM[algorithm]
    idle = {name for names in _OF_ALGORITHM.values() for name in names}.difference(useful)
    refused = ["--" + name.replace("_", "-") for name in given if name in idle]
    if refused:
        raise InputError(f"{', '.join(refused)}: {algorithm} has no use for this; leave it out.")
    if algorithm == "em":
        return mogul.EM()
    if algorithm == "truncated-em":
        numbers = {name: given[name] for name in useful if name in given and name != "tolerance"}
        return mogul.TruncatedEM(**numbers, seed=seed)
    refuse_several("a mixture by online-em")
    return mogul.OnlineEM(given.get("batch_size"), seed=seed)


def _refuse(context: typer.Context, model: str) -> None:
    """Refuse options that were given and that this model has no use for.

    Raises:
        InputError: naming them.
    """
    from mogul.errors import InputError

    others = {name for names in _OF.values() for name in names} - set(_OF[model])
    given = ["--" + n.replace("_", "-") for n in given_options(context) if n in others]
    if given:
        raise InputError(f"{', '.join(given)}: {model} has no use for this; leave it out.")
