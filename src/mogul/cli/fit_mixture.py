"""`mogul fit` of a mixture of Gaussians, by one process or by those that torchrun began."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mogul.cli.console import FitProgress, Followers, command_line, err, escaped, show
from mogul.cli.neural import going_on, tell_how_to_go_on
from mogul.cli.options import share_of
from mogul.errors import InputError

if TYPE_CHECKING:
    from mogul.compute.collective import Group
    from mogul.data import DataSource
    from mogul.models import Checkpoint, GaussianMixture

_FALL = 0.01  # of the held-out log-likelihood, from its best pass to the last, that is told of


@dataclass(frozen=True)
class MixtureSettings:
    """What the command line says of a mixture and of its fit."""

    components: int
    family: str
    rank: int | None
    sharing: str
    passes: int
    tolerance: float
    start: str
    n_init: int
    variance_floor: float
    seed: int
    dtype: str
    hide: float | None


def fit_mixture(
    data: str,
    output: Path,
    settings: MixtureSettings,
    algorithm: Any,
    reading: dict[str, Any],
    limit: int | None,
    test: str | None,
    resume: bool,
    group: Group,
    device: str,
    json: bool,
    followers: Followers,
) -> None:
    """Fit, writing the model after every pass.

    Args:
        data: what to fit to.
        output: the file to write.
        settings: the model, and where and for how long its fit goes.
        algorithm: how to fit it.
        reading: how to open the data.
        limit: rows to take, or None for all.
        test: held-out data, or the share of the rows to hold out; None for the test split of a data
            set.
        resume: go on with the fit in `output`.
        group: the processes that fit together.
        device: auto, cpu or cuda.
        json: print figures for machines.
        followers: who is told of passes besides the screen.

    Raises:
        Exit: when a signal asked to stop, having told how to go on.
    """
    import mogul
    from mogul.algorithms import StopReason, mean_log_likelihood
    from mogul.compute.backend import resolve_device, resolve_dtype
    from mogul.data import counterpart, resident
    from mogul.distributions import family
    from mogul.evaluation import bits_per_dim
    from mogul.models import Checkpoint

    family(settings.family)  # an unknown name is told before the data are read
    quiet = json or not group.first
    share = share_of(test)
    reading |= {} if share is None else {"test_share": share}
    whole = mogul.open_source(data, limit=limit, **reading)
    n = len(whole)
    warnings = wild_cells(whole, settings.variance_floor, quiet) if group.first else []
    chosen = resolve_device(device)
    whole = whole.shard(group)
    if settings.hide is None:
        source = whole = resident(whole, chosen)
    else:
        source = resident(whole.with_gaps(settings.hide, settings.seed), chosen)
    held_out = None
    if share is not None:
        held_out = mogul.open_source(data, limit=limit, split="test", **reading)
    elif name := test or counterpart(data):
        held_out = mogul.open_source(name, **reading)
    n_test = 0 if held_out is None else len(held_out)
    held_out = None if held_out is None else held_out.shard(group)
    mixture = mogul.GaussianMixture(
        settings.components, source.n_features, settings.family, settings.rank, settings.sharing,
        settings.variance_floor, dtype=resolve_dtype(settings.dtype),
        device=chosen,
    )  # fmt: skip
    checkpoint = Checkpoint(output, resume, facts=_about(whole, settings.hide))
    goes_on = group.said(group.first and _goes_on(checkpoint, source, settings, group.run))
    if not quiet:
        among = "" if group.world == 1 else f" among {group.world} processes"
        what = "going on" if goes_on else f"starting by {settings.start}"
        hidden = "" if settings.hide is None else f", {settings.hide:.0%} of their values hidden"
        apart = f", {n_test:,} rows held out" if n_test else ""
        err.print(f"{n:,} rows of shape {source.feature_shape}{hidden}{among}{apart}; {what} …")
    if not goes_on:
        mogul.initialise(mixture, source, settings.start, settings.n_init, settings.seed)
    with FitProgress(settings.passes, len(source), quiet, followers) as progress:
        fitted = mogul.fit(
            mixture, source, algorithm, passes=settings.passes, tolerance=settings.tolerance,
            validation=held_out, callback=progress.passed, seen=progress.seen,
            checkpoint=checkpoint,
        )  # fmt: skip
    if fitted.reason is StopReason.INTERRUPTED:
        if group.first:
            tell_how_to_go_on(checkpoint, len(fitted.history))
        raise typer.Exit(130)
    mixture.requires_grad_(False)
    figures: dict[str, Any] = {}
    if held_out is not None:
        reached = mean_log_likelihood(mixture(), held_out)
        figures["test_log_likelihood"] = reached
        figures["test_bits_per_dim"] = bits_per_dim(held_out, reached)
        figures["test_rows"] = n_test
    figures |= {
        "n_parameters": mixture.n_parameters, "passes": len(fitted.history),
        "seconds": sum(row["seconds"] for row in fitted.history), "stopped": fitted.reason.value,
    }  # fmt: skip
    figures, facts = facts_of(mixture, whole, fitted.history, figures, settings.hide)
    checkpoint.finish(mixture, source, facts)
    if group.first:
        figures |= {"warnings": warnings} if warnings else {}
        advice = overfitted(fitted.history) or fitted.reason.advice
        show(f"{output}", figures | {"advice": advice}, json)


def wild_cells(source: DataSource, variance_floor: float, quiet: bool) -> list[str]:
    """Tell of values so far off that they widen the floor of variances; return what was told."""
    from mogul.data import wild_columns

    told = [column.told(variance_floor) for column in wild_columns(source)]
    for text in () if quiet else told:
        err.print(f"[yellow]warning:[/yellow] {escaped(text)}", soft_wrap=True)
    return told


def overfitted(history: list[dict[str, Any]]) -> str | None:
    """Return what to do where held-out rows were likelier at an earlier pass, or None."""
    held_out = [row["validation"] for row in history if row["validation"] is not None]
    if not held_out or held_out[-1] > max(held_out) - _FALL * max(1.0, abs(max(held_out))):
        return None
    best = held_out.index(max(held_out)) + 1
    return (
        f"Held-out rows were likelier after pass {best} ({max(held_out):,.2f} nats) than at the "
        f"end ({held_out[-1]:,.2f}): the model overfits. Fit with --passes {best}, a larger "
        "--variance-floor, fewer components or factors, or another family."
    )


def _goes_on(
    checkpoint: Checkpoint, source: DataSource, settings: MixtureSettings, run: str
) -> bool:
    """Tell whether the fit goes on with an earlier one, which needs no start.

    Raises:
        InputError: if it cannot, or other values were hidden from the earlier one.
    """
    held = going_on(checkpoint, source, settings.passes, run)
    if held is None:
        return False
    if held.get("hidden") != settings.hide:
        raise InputError(
            f"{checkpoint.path} is of a fit with --hide {held.get('hidden')}, and "
            f"{settings.hide} came; go on with the same, or leave --resume out."
        )
    return True


def _about(source: DataSource, hidden: float | None = None) -> dict[str, Any]:
    """Return what other commands need to know of the data of a fit."""
    return {
        "hidden": hidden,
        "options": source.options,
        "feature_shape": list(source.feature_shape),
        "levels": source.scale.levels if source.scale else None,
        "command": command_line(),
    }


def facts_of(
    model: GaussianMixture,
    source: DataSource,
    history: list[dict[str, Any]],
    figures: dict[str, Any],
    hidden: float | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return figures of a fit, and all facts to keep with its model, over all processes' rows.

    They are of the rows as they came, with what the fit had hidden from it.
    """
    from mogul.algorithms import sampled_log_likelihoods
    from mogul.evaluation import bits_per_dim
    from mogul.tasks import training_quantiles

    mean, scores = sampled_log_likelihoods(model(), source)
    n = int(source.group.total(len(source))[0])
    reached = {"log_likelihood": mean, "bits_per_dim": bits_per_dim(source, mean)}
    figures = reached | {"n": n} | figures
    facts = {
        "history": history, "quantiles": training_quantiles(scores.numpy()), "figures": figures,
        "rows": n,
    }  # fmt: skip
    return figures, _about(source, hidden) | facts
