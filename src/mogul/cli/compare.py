"""Commands that judge a model: evaluate and report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mogul.cli import options
from mogul.cli.console import check_output, command_line, err, show
from mogul.cli.fit_network import evaluated, figures_of
from mogul.errors import InputError

if TYPE_CHECKING:
    from mogul.evaluation import Evaluation
    from mogul.opened import OpenedAutoencoder

_BINS = 100  # as many as usual

Bins = Annotated[
    int | None,
    typer.Option(
        help="Number of k-means bins; default 100, or one for ten training rows if that is fewer.",
        show_default=False,
    ),
]


def evaluate(
    model: options.Model,
    test: options.Test = None,
    train: options.Train = None,
    bins: Bins = None,
    whiten: Annotated[bool, typer.Option(help="Scale features to unit variance to bin.")] = False,
    labels: Annotated[
        str | None,
        typer.Option(
            help="Autoencoders: a .npy or idx file with the class of every row, to compare "
            "components with; default: those of the data set.",
            show_default=False,
        ),
    ] = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Measure a model on held-out data: log-likelihood, NDB, errors, coverage and others."""
    from mogul.evaluation import evaluate as measure
    from mogul.opened import OpenedAutoencoder, OpenedNetwork, open_scored

    opened = open_scored(model, device)
    if isinstance(opened, OpenedNetwork):
        idle = {"--train": train, "--bins": bins, "--whiten": whiten, "--labels": labels}
        _refuse_idle([name for name, value in idle.items() if value])
        source = opened.test(test)
        found = evaluated(opened.model, source, seed)
        show(f"{model} on {source.name}", figures_of(found, opened.extra["targets"]), json)
        return
    if isinstance(opened, OpenedAutoencoder):
        show(f"{model} on held-out data", _of_autoencoder(opened, test, labels, seed), json)
        return
    training, source = opened.train(train), opened.test(test)
    found = measure(opened.mixture, training, source, bins, whiten, seed)
    if not json:
        _tell_bins(bins, found, len(training))
    what = "held-out data" if opened.held_out(source) else "its training data"
    show(f"{model} on {what}", _told(found, opened.held_out(source)), json)


def _told(found: Evaluation, held_out: bool) -> dict[str, Any]:
    """Return figures, without those that compare training rows with themselves."""
    own = {} if held_out else {"ndb_held_out": None, "js_held_out": None}
    return found.figures() | own | {"held_out": held_out}


def _tell_bins(asked: int | None, found: Evaluation, n: int) -> None:
    """Tell of bins that are fewer than usual."""
    if asked is None and found.samples is not None and found.samples.n_bins < _BINS:
        err.print(f"{found.samples.n_bins} bins, because there are {n:,} training rows")


def _refuse_idle(given: list[str]) -> None:
    """Refuse options that a mixture density network has no use for.

    Raises:
        InputError: naming them.
    """
    if given:
        raise InputError(f"{', '.join(given)}: an mdn has no use for this; leave it out.")


def _of_autoencoder(
    opened: OpenedAutoencoder, test: str | None, labels: str | None, seed: int
) -> dict[str, Any]:
    """Return figures of likelihood, latents, and clusters against labels where there are any."""
    from mogul.evaluation import (
        cluster_accuracy,
        importance_log_likelihood,
        normalised_mutual_information,
        purity,
        summarise_latents,
    )
    from mogul.opened import DRAWS

    source, most = opened.test(test), DRAWS
    scores = importance_log_likelihood(opened.model, source, (1, 50, most), seed)
    found = summarise_latents(opened.model, source)
    figures: dict[str, Any] = {f"log_likelihood_{n}": scores.mean(n) for n in (1, 50, most)}
    figures |= {
        "standard_error": scores.error(most),
        "effective_samples": float(scores.effective.median()),
        "bits_per_dim": scores.bits_per_dim(most), "perplexity": scores.perplexity(most),
        "active_latents": found.active_units, "used_components": found.used_components,
        "assignment_entropy": found.assignment_entropy, "usage_entropy": found.usage_entropy,
        "n": len(source),
    }  # fmt: skip
    classes = opened.classes(source, labels)
    if classes is not None and opened.model.prior.n_components > 1:
        measures = (cluster_accuracy, purity, normalised_mutual_information)
        figures |= {measure.__name__: measure(found.assignments, classes) for measure in measures}
    return figures


def report(
    model: options.Model,
    test: options.Test = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="The .html file to write.")] = Path(
        "report.html"
    ),
    train: options.Train = None,
    bins: Bins = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Write one self-contained page about a model: pictures, curves, figures, the command."""
    from mogul.evaluation import evaluate as measure
    from mogul.opened import Opened, OpenedAutoencoder, OpenedDecoder, OpenedNetwork, open_any
    from mogul.report import (
        ConditionalReport,
        DecoderReport,
        ReportData,
        write_autoencoder_report,
        write_conditional_report,
        write_decoder_report,
        write_report,
    )
    from mogul.tasks import find_outliers

    since = time.perf_counter()
    check_output(output, (".html",), model, test, train)
    opened = open_any(model, device)
    training = opened.train(train)
    of_mixture = isinstance(opened, Opened)
    held_out = opened.judged(test) if of_mixture else opened.test(test)
    if isinstance(opened, OpenedNetwork):
        about = ConditionalReport(
            opened.model, training, held_out, opened.extra, command_line(), seed
        )
        write_conditional_report(output, about)
        show("Report", {"report": str(output), "seconds": time.perf_counter() - since}, json)
        return
    if isinstance(opened, OpenedDecoder):
        about = DecoderReport(opened.model, training, held_out, opened.extra, command_line(), seed)
        write = write_decoder_report
        if isinstance(opened, OpenedAutoencoder):
            write = write_autoencoder_report
        write(output, about)
        show("Report", {"report": str(output), "seconds": time.perf_counter() - since}, json)
        return
    found = measure(opened.mixture, training, held_out, bins, seed=seed)
    if not json:
        _tell_bins(bins, found, len(training))
        if not opened.held_out(held_out):
            err.print(
                "The report is of training rows, because none were held out; `mogul fit --test "
                "0.1` holds a tenth of them out, or give held-out data after the model."
            )
    data = ReportData(
        mixture=opened.mixture,
        model=opened.config,
        train=training,
        test=held_out,
        evaluation=found,
        outliers=find_outliers(opened.mixture, held_out, opened.quantiles),
        history=opened.extra["history"],
        fit_command=opened.extra["command"],
        report_command=command_line(),
        seed=seed,
        held_out=opened.held_out(held_out),
        columns=() if held_out.is_image else opened.columns,
    )
    write_report(output, data)
    figures = {"report": str(output), **_told(found, data.held_out)}
    show("Report", figures | {"seconds": time.perf_counter() - since}, json)
