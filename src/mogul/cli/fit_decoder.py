"""`mogul fit --model decoder`: a neural decoder trained by particles."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mogul.cli.console import Followers, err, show
from mogul.cli.neural import Run, check_output_name, commands, refuse_changes
from mogul.errors import InputError

if TYPE_CHECKING:
    from mogul.algorithms import Preset
    from mogul.compute.collective import Group
    from mogul.data import DataSource
    from mogul.models import LatentVariableModel

# What algorithms have no use for, and would ignore.
_UNUSED = {
    "coin": ("step_size", "rate", "warm_up"),
    "pqn": ("rate",),
    "pmga": ("rate", "batch_size"),
    **dict.fromkeys(("soul", "short-run", "abp"), ("particles", "warm_up")),
}
_FIXED = (
    "decoder", "likelihood", "latents", "particles", "scale", "width", "prior", "components",
    "prior_learning",
)  # fmt: skip


@dataclass(frozen=True)
class Choices:
    """What the command line says of a decoder; None where it says nothing."""

    algorithm: str | None
    preset: str | None
    decoder: str | None
    likelihood: str | None
    latents: int | None
    particles: int | None
    scale: float | None
    width: int | None
    step_size: float | None
    rate: float | None
    batch_size: int | None
    warm_up: int | None
    prior: str | None
    components: int | None
    prior_learning: str | None
    resume: bool


def settings(
    output: Path, choices: Choices, passes: int | None, limit: int | None
) -> tuple[Preset, str]:
    """Return preset and algorithm, those of the file to go on with, or what the command line says.

    Raises:
        InputError: for an unknown preset, a file that is not a decoder, or a name that pictures
            beside the model would take.
    """
    import mogul
    from mogul.algorithms import PRESETS, Preset

    check_output_name(output)
    name, algorithm = choices.preset or "mnist-small", choices.algorithm
    if choices.resume:
        model, extra = mogul.load_model(output)
        if "particles" not in extra.get("settings", {}):
            raise InputError(f"{output} is not a decoder; leave --resume out to fit a new model.")
        given = {n: getattr(choices, n) for n in _FIXED if getattr(choices, n) is not None}
        refuse_changes(given, _held(model, extra["settings"]))
        base, algorithm = Preset(**extra["settings"]), algorithm or extra["algorithm"]
    elif name not in PRESETS:
        raise InputError(f"Unknown preset '{name}'; choose one of: {', '.join(PRESETS)}.")
    else:
        base = PRESETS[name]
    said = {
        "latents": choices.latents, "particles": choices.particles, "scale": choices.scale,
        "width": choices.width, "step_size": choices.step_size, "rate": choices.rate,
        "batch_size": choices.batch_size, "warm_up": choices.warm_up, "passes": passes,
        "rows": limit,
    }  # fmt: skip
    chosen = dataclasses.replace(base, **{k: v for k, v in said.items() if v is not None})
    if chosen.passes < 1:
        raise InputError(f"{chosen.passes} passes were asked for; it must be at least 1.")
    if (
        not choices.resume and choices.warm_up is None
    ):  # in a shorter run, the warm-up is as much shorter
        warm_up = base.warm_up * chosen.passes // base.passes
        chosen = dataclasses.replace(chosen, warm_up=warm_up)
    _refuse_unused(algorithm or "pga", choices)
    return chosen, algorithm or "pga"


def _held(model: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """Return by what a decoder was built, in the words of the command line."""
    config, mixture = model.config(), model.prior_model
    parts = {name: config[name] for name in ("decoder", "likelihood", "prior_learning")}
    prior = "normal" if mixture is None else "mixture"
    count = None if mixture is None else mixture.n_components
    return settings | parts | {"prior": prior, "components": count}


def _refuse_unused(algorithm: str, choices: Choices) -> None:
    unused = [n for n in _UNUSED.get(algorithm, ()) if getattr(choices, n) is not None]
    if choices.likelihood == "bernoulli" and choices.scale is not None:
        unused.append("scale")
    if choices.prior in (None, "normal"):
        unused += [n for n in ("components", "prior_learning") if getattr(choices, n) is not None]
    if unused:
        raise InputError(
            f"{algorithm} with {choices.likelihood or 'gaussian'} noise and a "
            f"{choices.prior or 'normal'} prior has no use for {', '.join(unused)}; leave it out."
        )


def fit_decoder(
    source: DataSource,
    output: Path,
    choices: Choices,
    preset: Preset,
    name: str,
    seed: int,
    device: str,
    dtype: str,
    json: bool,
    group: Group,
    followers: Followers,
) -> None:
    """Fit, writing the model after every pass and pictures at intervals.

    Raises:
        InputError: for an unknown algorithm, or a file that this fit cannot go on with.
    """
    from mogul.algorithms import estimated_seconds
    from mogul.compute.backend import resolve_device, resolve_dtype

    model, before = _model(source, output, choices, preset, seed)
    if not choices.resume:
        model.to(resolve_dtype(dtype))
    model.to(resolve_device(device))
    algorithm: Any = _algorithm(name, choices, preset, model, seed)
    quiet, rows = json or not group.first, len(source)
    if not quiet:
        err.print(
            f"{rows:,} rows of shape {source.feature_shape}, {model.n_parameters:,} "
            f"parameters, {preset.latents} latents; {name}"
        )
    if not quiet and group.world == 1:
        seconds = estimated_seconds(model, source, algorithm, preset.passes)
        left = preset.passes - int(model.training_state.get("done", 0))
        err.print(f"about {_duration(seconds)} for {left} passes, from the first steps")
    kept = dataclasses.asdict(preset) | {"data": source.options["data"], "rows": rows}
    run = Run(
        model, source.shard(group), output, kept, name, preset.passes, seed, commands(before),
        choices.resume, followers,
    )  # fmt: skip
    figures = run.fit(
        algorithm, quiet, figures_of=lambda history: {"log_joint": history[-1]["objective"]}
    )
    if group.first:
        show(f"{output}", figures, json)


def _model(
    source: DataSource, output: Path, choices: Choices, preset: Preset, seed: int
) -> tuple[LatentVariableModel, str | None]:
    """Return a new model, or the one in the output file with the commands that made it.

    Raises:
        InputError: for an unknown part, or a file that holds another kind of model.
    """
    import torch

    import mogul
    from mogul.models import (
        DECODERS,
        LIKELIHOODS,
        BernoulliLikelihood,
        LatentVariableModel,
    )

    if choices.resume:
        model, extra = mogul.load_model(output)
        assert isinstance(model, LatentVariableModel)
        return model, extra["command"]
    decoder_name, noise_name = choices.decoder or "conv", choices.likelihood or "gaussian"
    asked = [
        ("decoder", decoder_name, list(DECODERS)), ("likelihood", noise_name, list(LIKELIHOODS)),
        ("prior", choices.prior or "normal", ["normal", "mixture"]),
    ]  # fmt: skip
    for what, name, known in asked:
        if name not in known:
            raise InputError(f"Unknown {what} '{name}'; choose one of: {', '.join(known)}.")
    d, shape = preset.latents, source.feature_shape
    likelihood = LIKELIHOODS[noise_name]
    noise = likelihood() if likelihood is BernoulliLikelihood else likelihood(preset.scale)
    with torch.random.fork_rng(devices=[]):  # torch's layers draw from the global generator
        torch.manual_seed(seed)
        wide = {"width": preset.width} if decoder_name == "conv" else {}
        decoder = DECODERS[decoder_name](d, shape, **wide)
    if choices.prior != "mixture":
        return LatentVariableModel(decoder, d, shape, noise), None
    prior = mogul.GaussianMixture(choices.components or 10, d, "diagonal")
    with torch.no_grad():  # apart, so that EM can tell components apart
        prior.centres.normal_(generator=torch.Generator().manual_seed(seed))
    learning = choices.prior_learning or "em"
    return LatentVariableModel(decoder, d, shape, noise, prior, learning), None


def _algorithm(
    name: str, choices: Choices, preset: Preset, model: LatentVariableModel, seed: int
) -> Any:
    """Return the algorithm by name, with the preset's settings.

    Raises:
        InputError: for an unknown name.
    """
    from mogul.algorithms import PARTICLE_ALGORITHMS

    if name not in PARTICLE_ALGORITHMS:
        known = ", ".join(PARTICLE_ALGORITHMS)
        raise InputError(
            f"Unknown algorithm '{name}' for a decoder; choose one of: {known}; or --model vae, "
            "which has an encoder."
        )
    arguments: dict[str, Any] = {"seed": seed}
    if name != "pmga":
        arguments["batch_size"] = preset.batch_size
    if name != "coin" and (name != "momentum" or choices.step_size is not None):
        arguments["step_size"] = preset.step_size  # that of momentum has another unit
    if name in ("pga", "soul", "short-run", "abp", "momentum"):
        arguments |= {"rate": preset.rate, "smoothing": preset.smoothing}
    if name in ("pga", "pqn", "pmga", "momentum", "coin"):  # the others keep one chain a row
        arguments |= {"n_particles": preset.particles, "which": preset.which}
        arguments["burn_in"] = preset.burn_in
        if name != "coin":  # never parts copies
            arguments["warm_up"] = preset.warm_up
    return PARTICLE_ALGORITHMS[name](**arguments)


def _duration(seconds: float) -> str:
    """Return seconds in words."""
    if seconds < 120:
        return f"{math.ceil(seconds)} seconds"
    if seconds < 7200:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"
