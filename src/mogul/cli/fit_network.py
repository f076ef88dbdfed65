"""`mogul fit --model mdn`: a network that predicts densities of some columns from the others."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mogul.cli.console import FitProgress, Followers, err, show
from mogul.cli.neural import commands, going_on, tell_how_to_go_on
from mogul.cli.options import listed, share_of
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
    reading: dict[str, Any],
    test: str | None,
    device: str,
    dtype: str,
    json: bool,
    followers: Followers,
) -> None:
    """Fit, writing the model after every pass, and tell how good it is.

    Args:
        data: a table with inputs and targets.
        output: the file to write.
        given: options of the command line, by name.
        reading: how to open the data.
        test: held-out rows to evaluate on, or the share of the rows to hold out; or None.
        device: auto, cpu or cuda.
        dtype: float32 or float64.
        json: whether to print figures for machines.
        followers: who is told of passes besides the screen.

    Raises:
        InputError: for options out of range, data that are no table with such columns, or a file
            that this fit cannot go on with.
        Exit: when a signal asked to stop, having written the best model so far, and told how to go
            on.
    """
    import mogul
    from mogul.algorithms import StopReason, Supervised
    from mogul.compute.backend import resolve_device, resolve_dtype

    settings = replace(
        Settings(), **{k: v for k, v in given.items() if k in {f.name for f in fields(Settings)}}
    )
    inputs, targets = chosen_columns(data, given.get("target"), given.get("columns"))
    columns = [*inputs, *targets]
    share = share_of(test)
    reading |= {"columns": columns, "seed": settings.seed}
    reading |= {} if share is None else {"test_share": share}
    source = mogul.open_source(data, **reading)
    algorithm = Supervised(
        settings.learning_rate, settings.batch_size, settings.weight_decay, settings.held_out,
        settings.patience, settings.input_noise, settings.target_noise, seed=settings.seed,
    )  # fmt: skip
    network = _network(settings, len(inputs), len(targets)).to(resolve_dtype(dtype))
    network.to(resolve_device(device))
    checkpoint = mogul.Checkpoint(output, bool(given.get("resume")))
    before = going_on(checkpoint, source, settings.passes)
    checkpoint.facts = {
        "options": source.options, "feature_shape": list(source.feature_shape), "levels": None,
        "inputs": inputs, "targets": targets, "settings": asdict(settings),
        "command": commands(None if before is None else before["command"]),
    }  # fmt: skip
    if not json:
        err.print(
            f"{len(source):,} rows; {', '.join(targets)} from {len(inputs)} column(s), "
            f"{network.n_parameters:,} parameters"
        )
    with FitProgress(settings.passes, len(source), json, followers) as progress:
        done = mogul.fit(
            network, source, algorithm, passes=settings.passes, callback=progress.passed,
            seen=progress.seen, checkpoint=checkpoint,
        )  # fmt: skip
    history = done.history
    made = {"history": history, "rows": len(source)}
    if done.reason is StopReason.INTERRUPTED:
        if checkpoint.kept:
            checkpoint.finish(network, source, made)  # with the best parameters so far
        tell_how_to_go_on(checkpoint, len(history))
        raise typer.Exit(130)
    network.requires_grad_(False)
    figures: dict[str, Any] = {"log_likelihood": algorithm.score(network, source)}
    if "held_out" in history[-1]:
        best = history[-1]["best_held_out"]
        scores = [row["held_out"] for row in history]
        figures |= {
            "held_out_log_likelihood": best,
            "best_pass": scores.index(best) + 1 if best in scores else 0,
        }
    if test is not None:
        held_out = (
            mogul.open_source(test, columns=columns)
            if share is None
            else mogul.open_source(data, split="test", **reading)
        )
        found = evaluated(network, held_out)
        figures |= {f"test_{k}": v for k, v in figures_of(found, targets).items()}
    figures |= {
        "n_parameters": network.n_parameters, "passes": len(history),
        "seconds": sum(row["seconds"] for row in history), "stopped": done.reason.value,
    }  # fmt: skip
    checkpoint.finish(network, source, made | {"figures": figures})
    show(f"{output}", figures | {"advice": done.reason.advice}, json)


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
    unknown = [name for name in (*targets, *inputs) if name not in known]
    if unknown:
        raise InputError(
            f"{data} has no column {', '.join(unknown)}; its columns are {', '.join(known)}."
        )
    if not inputs or len(set(targets)) < len(targets):
        raise InputError(
            f"Targets {', '.join(targets)} and inputs {', '.join(inputs) or 'none'} came for "
            f"{data}; choose at least one of each, every one once, from: {', '.join(known)}."
        )
    return inputs, targets


def evaluated(network: MixtureDensityNetwork, source: Any, seed: int = 0) -> ConditionalEvaluation:
    """Score the predictions of a network on rows."""
    from mogul.evaluation import evaluate_conditional

    return evaluate_conditional(
        network, source, network.n_features, dtype=network.dtype, units=network.head.scale,
        seed=seed,
    )  # fmt: skip


def figures_of(found: ConditionalEvaluation, targets: list[str]) -> dict[str, Any]:
    """Return figures by name, those of several targets with its name."""
    error = found.error if math.isfinite(found.error) else None  # of a single row
    figures: dict[str, Any] = {"log_likelihood": found.log_likelihood, "standard_error": error}
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
