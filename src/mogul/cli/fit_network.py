"""`mogul fit --model mdn`: a network that predicts densities of some columns from the others."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mogul.cli.console import FitProgress, command_line, err, show
from mogul.cli.options import listed
from mogul.errors import InputError

if TYPE_CHECKING:
    from mogul.evaluation import ConditionalEvaluation
    from mogul.models import MixtureDensityNetwork


@dataclass(frozen=True)
class Settings:
    """All that a fit is made by."""

    components: int = 5
    covariance: str = "full"
    rank: int | None = None
    sharing: str = "own"
    variance_floor: float = 1e-6
    hidden: str = "64,64"
    learning_rate: float = 2e-3
    batch_size: int = 64
    weight_decay: float = 1e-4
    held_out: float = 0.1
    patience: int = 20
    input_noise: float = 0.0
    target_noise: float = 0.1
    passes: int = 1000
    seed: int = 0


def fit_network(
    data: str,
    output: Path,
    given: dict[str, Any],
    test: str | None,
    device: str,
    dtype: str,
    json: bool,
) -> None:
    """Fit, write the model with the names of its columns, and tell how good it is.

    Args:
        data: a table with inputs and targets.
        output: the file to write.
        given: options of the command line, by name.
        test: held-out rows to evaluate on, or None.
        device: auto, cpu or cuda.
        dtype: float32 or float64.
        json: whether to print figures for machines.

    Raises:
        InputError: for options out of range, or data that are no table with such columns.
    """
    import mogul
    from mogul.algorithms import Supervised
    from mogul.compute.backend import resolve_device, resolve_dtype

    settings = replace(
        Settings(), **{k: v for k, v in given.items() if k in {f.name for f in fields(Settings)}}
    )
    inputs, targets = chosen_columns(data, given.get("target"), given.get("columns"))
    columns, limit = [*inputs, *targets], given.get("limit")
    source = mogul.open_source(data, columns=columns, limit=limit)
    algorithm = Supervised(
        settings.learning_rate, settings.batch_size, settings.weight_decay, settings.held_out,
        settings.patience, settings.input_noise, settings.target_noise, seed=settings.seed,
    )  # fmt: skip
    network = _network(settings, len(inputs), len(targets)).to(resolve_dtype(dtype))
    network.to(resolve_device(device))
    if not json:
        err.print(
            f"{len(source):,} rows; {', '.join(targets)} from {len(inputs)} column(s), "
            f"{network.n_parameters:,} parameters"
        )
    with FitProgress(settings.passes, len(source), quiet=json) as progress:
        fitted = mogul.fit(
            network, source, algorithm, passes=settings.passes, callback=progress.passed,
            seen=progress.seen,
        )  # fmt: skip
    network.requires_grad_(False)
    figures: dict[str, Any] = {"log_likelihood": algorithm.score(network, source)}
    last = fitted.history[-1]
    figures |= {"held_out_log_likelihood": last["best_held_out"]} if "held_out" in last else {}
    if test is not None:
        found = evaluated(network, mogul.open_source(test, columns=columns))
        figures |= {f"test_{k}": v for k, v in figures_of(found, targets).items()}
    figures |= {
        "n_parameters": network.n_parameters, "passes": len(fitted.history),
        "seconds": fitted.seconds, "stopped": fitted.reason.value,
    }  # fmt: skip
    extra = {
        "options": source.options, "feature_shape": list(source.feature_shape), "levels": None,
        "inputs": inputs, "targets": targets, "settings": asdict(settings),
        "command": command_line(), "history": fitted.history, "figures": figures,
    }  # fmt: skip
    mogul.save_model(output, network, extra)
    show(f"{output}", figures | {"advice": fitted.reason.advice}, json)


def chosen_columns(
    data: str, target: str | None, columns: str | None
) -> tuple[list[str], list[str]]:
    """Return the names of inputs and of targets.

    Raises:
        InputError: if there is no target, or no input beside it, or a column does not exist.
    """
    from mogul.data import column_names

    known = column_names(data)
    targets = listed(target) or []
    if not targets:
        raise InputError(
            f"An mdn predicts columns from others; name them by --target, from: {', '.join(known)}."
        )
    inputs = [name for name in (listed(columns) or known) if name not in targets]
    unknown = [name for name in (*inputs, *targets) if name not in known]
    if unknown or not inputs or len(set(targets)) < len(targets):
        raise InputError(
            f"Targets {', '.join(targets)} and inputs {', '.join(inputs) or 'none'} came for "
            f"{data}; choose at least one of each, every one once, from: {', '.join(known)}."
        )
    return inputs, targets


def evaluated(network: MixtureDensityNetwork, source: Any, seed: int = 0) -> ConditionalEvaluation:
    """Score the predictions of a network on rows."""
    from mogul.evaluation import evaluate_conditional

    return evaluate_conditional(network, source, network.n_features, dtype=network.dtype, seed=seed)


def figures_of(found: ConditionalEvaluation, targets: list[str]) -> dict[str, Any]:
    """Return figures by name, those of several targets with its name."""
    figures: dict[str, Any] = {
        "log_likelihood": found.log_likelihood, "standard_error": found.error
    }  # fmt: skip
    for i, target in enumerate(targets):
        suffix = f"_{target}" if len(targets) > 1 else ""
        figures |= {f"rmse{suffix}": found.rmse[i], f"crps{suffix}": found.crps[i]}
        figures |= {
            f"coverage_{round(100 * level)}{suffix}": share[i]
            for level, share in found.coverage.items()
        }
    if found.energy_score is not None:
        figures["energy_score"] = found.energy_score
    return figures | {"n": found.n}


def _network(settings: Settings, n_inputs: int, n_targets: int) -> MixtureDensityNetwork:
    """Return a new network.

    Raises:
        InputError: for widths that are no numbers.
    """
    import torch

    from mogul.models import MLP, MixtureDensityNetwork

    widths = listed(settings.hidden) or []
    if not all(width.isdecimal() for width in widths):
        raise InputError(
            f"The widths '{settings.hidden}' are not understood; give whole numbers with commas, "
            "such as 64,64."
        )
    with torch.random.fork_rng(devices=[]):  # torch's layers draw from the global generator
        torch.manual_seed(settings.seed)
        return MixtureDensityNetwork(
            MLP(n_inputs, [int(width) for width in widths]), settings.components, n_targets,
            settings.covariance, settings.rank, settings.sharing, settings.variance_floor,
        )  # fmt: skip
