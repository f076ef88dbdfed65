"""`mogul fit --model vae`: an autoencoder with a prior of one's choice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mogul.cli.console import Followers, err, show
from mogul.cli.neural import (
    Run,
    check_output_name,
    chosen,
    commands,
    open_images,
    refuse_changes,
)
from mogul.cli.options import share_of
from mogul.errors import InputError

if TYPE_CHECKING:
    from mogul.algorithms import Variational
    from mogul.compute.collective import Group
    from mogul.data import DataSource
    from mogul.models import VariationalAutoencoder

_SAMPLES = (1, 50, 500)  # of the importance-sampled likelihood at the end
_SCORED = 1000  # held-out rows that it is told of
_MEASURED = 100_000  # rows that the units of columns are taken from
OBJECTIVES = ("elbo", "iwae")


@dataclass(frozen=True)
class Settings:
    """All that a fit is made by, kept in its file so that it can go on."""

    prior: str = "normal"
    components: int = 10
    prior_learning: str = "gradient"
    posterior_components: int = 1
    decoder: str = "mlp"
    likelihood: str | None = None
    latents: int = 10
    scale: float | None = None  # default: 0.1 of pixels, half of the deviation of a column
    width: int = 32
    objective: str = "elbo"
    divergence: str = "marginal"
    samples: int | None = None
    free_bits: float = 0.0
    warm_up: int = 0
    learning_rate: float = 5e-4
    batch_size: int = 100
    binarise: str | None = None
    passes: int = 30
    seed: int = 0


_FIXED = (
    "prior", "components", "prior_learning", "posterior_components", "decoder", "likelihood",
    "latents", "scale", "width", "binarise",
)  # fmt: skip
_READING = ("limit",)  # how data were opened


def fit_autoencoder(
    data: str,
    output: Path,
    given: dict[str, Any],
    reading: dict[str, Any],
    device: str,
    dtype: str,
    json: bool,
    group: Group,
    followers: Followers,
) -> None:
    """Fit, writing the model after every pass and pictures at intervals.

    Args:
        data: what to fit to.
        output: the file to write.
        given: options of the command line, by name.
        reading: how to open the data.
        device: auto, cpu or cuda.
        dtype: float32 or float64.
        json: whether to print figures for machines.
        group: the processes that fit together.
        followers: who is told of passes besides the screen.

    Raises:
        InputError: for options that do not fit each other, or a file that this fit cannot go on
            with.
    """
    from mogul.compute.backend import resolve_device, resolve_dtype
    from mogul.data import counterpart

    check_output_name(output)
    model, settings, before = None, None, None
    resume = bool(given.get("resume"))
    if resume:
        model, settings, extra = _resumed(output, given)
        before = extra["command"]
        reading = {k: v for k, v in extra["options"].items() if k != "data"}
    settings = _chosen(settings, given)
    reading |= {"dequantise": False, "binarise": settings.binarise, "seed": settings.seed}
    share = share_of(given.get("test"))
    reading |= {} if share is None else {"test_share": share}
    source = open_images(data, settings.decoder, reading)
    static = {"binarise": "static" if settings.binarise else None}
    held_out_name = given.get("test") or counterpart(data)
    held_out = None
    if "test_share" in reading:
        held_out = open_images(data, settings.decoder, reading | static | {"split": "test"})
    elif held_out_name:
        unlimited = reading | static | {"limit": None}
        held_out = open_images(held_out_name, settings.decoder, unlimited)
        if held_out.n_features != source.n_features:
            raise InputError(
                f"{held_out_name} has rows of shape {held_out.feature_shape}, and {data} of shape "
                f"{source.feature_shape}; give held-out data of that shape."
            )
    if model is None:
        model = _model(settings, source).to(resolve_dtype(dtype))
    model.to(resolve_device(device))
    quiet, rows = json or not group.first, len(source)
    if not quiet:
        err.print(
            f"{rows:,} rows of shape {source.feature_shape}, {model.n_parameters:,} "
            f"parameters, {settings.latents} latents, {settings.prior} prior"
        )
    run = Run(
        model, source.shard(group), output, asdict(settings) | {"rows": rows}, settings.objective,
        settings.passes, settings.seed, commands(before), resume, followers,
    )  # fmt: skip

    def figures_of(history: list[dict[str, Any]]) -> dict[str, Any]:
        figures = {"evidence_bound": history[-1]["evidence_bound"]}
        if held_out is None or not group.first:
            return figures
        most = _SCORED if settings.decoder != "conv" else _SCORED // 10
        if not quiet:
            err.print(f"scoring {min(most, len(held_out)):,} held-out rows by importance sampling")
        found = scored(model, held_out, _SAMPLES, most, settings.seed)
        return found | figures | _best(history)

    validation = None if held_out is None else held_out.shard(group)
    figures = run.fit(algorithm(settings), quiet, validation, figures_of)
    if group.first:
        show(f"{output}", figures, json)


def scored(
    model: VariationalAutoencoder,
    held_out: DataSource,
    samples: tuple[int, ...],
    most_rows: int,
    seed: int,
) -> dict[str, Any]:
    """Return figures of the importance-sampled log-likelihood of some held-out rows."""
    from mogul.data import ArraySource
    from mogul.evaluation import importance_log_likelihood

    n = min(len(held_out), most_rows)
    rows = ArraySource(held_out.take(range(n), model.dtype))
    found = importance_log_likelihood(model, rows, samples, seed)
    figures: dict[str, Any] = {
        f"test_log_likelihood_{count}": found.mean(count) for count in found.log_likelihood
    }
    most = max(samples)
    if found.discrete:
        figures["test_bits_per_dim"] = found.bits_per_dim(most)
        figures["test_perplexity"] = found.perplexity(most)
    return figures | {"test_rows": n}


def algorithm(settings: Settings) -> Variational:
    """Return the algorithm of some settings."""
    from mogul.algorithms import EvidenceBound, ImportanceBound, Variational

    samples = settings.samples
    objective: Any = ImportanceBound(50 if samples is None else samples)
    if settings.objective == "elbo":
        samples = 1 if samples is None else samples
        objective = EvidenceBound(settings.divergence, samples, settings.free_bits)
    return Variational(
        objective, settings.learning_rate, settings.batch_size, settings.warm_up,
        settings.binarise == "dynamic", settings.seed,
    )  # fmt: skip


def _resumed(
    output: Path, given: dict[str, Any]
) -> tuple[VariationalAutoencoder, Settings, dict[str, Any]]:
    """Return the model of a file, its settings and the facts kept with it.

    Raises:
        InputError: if it holds another model, or what cannot change is to change.
    """
    import mogul
    from mogul.models import VariationalAutoencoder

    model, extra = mogul.load_model(output)
    if not isinstance(model, VariationalAutoencoder):
        raise InputError(f"{output} is not a vae; leave --resume out to fit a new model.")
    kept = {k: v for k, v in extra["settings"].items() if k in {f.name for f in fields(Settings)}}
    held = {name: kept[name] for name in (*_FIXED, "seed")}
    reading = dict.fromkeys(_READING) | extra["options"]
    refuse_changes(given, held | {name: reading[name] for name in _READING})
    return model, Settings(**kept), extra


def _best(history: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the best held-out bound, and after how many passes it was reached."""
    scores = [row["validation"] for row in history]  # of the passes before each
    best = max(scores)
    return {"best_held_out_bound": best, "after_passes": history[scores.index(best)]["pass"] - 1}


def _chosen(base: Settings | None, given: dict[str, Any]) -> Settings:
    """Return settings with what the command line says.

    Raises:
        InputError: for an unknown name, or options that have no use together.
    """
    names = {f.name for f in fields(Settings)}
    said = {k: v for k, v in given.items() if k in names}
    new = replace(base or Settings(), **said)
    if new.likelihood is None:
        new = replace(new, likelihood="bernoulli" if new.binarise else "gaussian")
    if new.objective not in OBJECTIVES:
        raise InputError(
            f"Unknown objective '{new.objective}'; choose one of: {', '.join(OBJECTIVES)}."
        )
    unused = {
        "divergence": new.objective != "elbo", "free_bits": new.objective != "elbo",
        "components": new.prior == "normal", "prior_learning": new.prior != "mixture",
        "width": new.decoder != "conv", "scale": new.likelihood == "bernoulli",
    }  # fmt: skip
    idle = ["--" + name.replace("_", "-") for name, no in unused.items() if no and name in given]
    if idle:
        raise InputError(
            f"{', '.join(idle)} has no use with the {new.prior} prior, {new.objective}, a "
            f"{new.decoder} decoder and {new.likelihood} noise; leave it out."
        )
    return new


def _model(settings: Settings, source: DataSource) -> VariationalAutoencoder:
    """Return a new model.

    Raises:
        InputError: for an unknown part.
    """
    import torch

    import mogul
    from mogul.models import PosteriorFamily, VampPrior, VariationalAutoencoder

    shape, d = source.feature_shape, settings.latents
    q = PosteriorFamily(d, settings.posterior_components)
    priors: dict[str, Callable[[], Any]] = {
        "normal": lambda: None,
        "mixture": lambda: mogul.GaussianMixture(settings.components, d, "diagonal"),
        "vamp": lambda: VampPrior(settings.components, shape, bounded=source.is_image),
    }
    with torch.random.fork_rng(devices=[]):  # torch's layers draw from the global generator
        torch.manual_seed(settings.seed)
        encoder, decoder = _networks(settings, q.n_outputs, shape)
        noise, prior = _likelihood(settings, source), chosen("prior", settings.prior, priors)
        if len(shape) == 1 and settings.likelihood == "gaussian":
            _standardise(source, encoder, decoder, noise)
    learning = settings.prior_learning if settings.prior == "mixture" else "gradient"
    return VariationalAutoencoder(encoder, decoder, q, shape, noise, prior, learning)


def _standardise(source: DataSource, encoder: Any, decoder: Any, noise: Any) -> None:
    """Tell networks and noise of the units of a table's columns.

    Raises:
        InputError: if a column has gaps, which an encoder cannot read.
    """
    import torch

    from mogul.compute.columns import column_deviations, column_means

    x = source.take(range(min(len(source), _MEASURED)), torch.float64)
    if bool(x.isnan().any()):
        raise InputError(
            "The data have gaps (NaN), which an encoder cannot read; leave the rows out, or fit a "
            "mixture, which takes them."
        )
    spread = column_deviations(x)
    spread = torch.where(spread > 0, spread, 1.0)
    for network in (encoder, decoder):
        network.units.set(column_means(x), spread)
    with torch.no_grad():
        noise.log_scale.add_(spread.log())


def _networks(settings: Settings, n_outputs: int, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Return encoder and decoder.

    Raises:
        InputError: for an unknown kind.
    """
    from mogul.models import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder

    d, width = settings.latents, settings.width
    bounded = settings.likelihood != "bernoulli"

    def layered(hidden: tuple[int, ...]) -> tuple[Any, Any]:
        units = len(shape) == 1 and settings.likelihood == "gaussian"  # columns of a table
        return MLPEncoder(n_outputs, shape, units=units), MLPDecoder(d, shape, hidden, units)

    made: dict[str, Callable[[], tuple[Any, Any]]] = {
        "mlp": lambda: layered((300, 300)),
        "linear": lambda: layered(()),
        "conv": lambda: (
            ConvEncoder(n_outputs, shape, width), ConvDecoder(d, shape, width, bounded),
        ),
    }  # fmt: skip
    return chosen("decoder", settings.decoder, made)


def _likelihood(settings: Settings, source: DataSource) -> Any:
    """Return the noise, its scale learned.

    Raises:
        InputError: for an unknown likelihood, or one that the data are not made for.
    """
    from mogul.models import (
        BernoulliLikelihood,
        DiscretisedLogisticLikelihood,
        GaussianLikelihood,
    )

    levels = source.scale.levels if source.scale else None
    if settings.likelihood == "discretised-logistic" and (levels is None or settings.binarise):
        raise InputError(
            "The discretised-logistic likelihood is for integer pixels that are not binarised; "
            "give images, or choose gaussian or bernoulli."
        )
    table = len(source.feature_shape) == 1
    columns = source.n_features if table else None
    scale = settings.scale if settings.scale is not None else 0.5 if table else 0.1
    made: dict[str, Callable[[], Any]] = {
        "gaussian": lambda: GaussianLikelihood(scale, learn=True, n_features=columns),
        "bernoulli": lambda: BernoulliLikelihood(logits=True),
        "discretised-logistic": lambda: DiscretisedLogisticLikelihood(scale, levels or 0),
    }
    return chosen("likelihood", settings.likelihood, made)
