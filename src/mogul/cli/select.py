"""`mogul select`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from mogul.cli import options
from mogul.cli.console import check_output, out, rows, show


def select(
    data: options.Data,
    families: Annotated[
        str, typer.Option(help="Covariance families, with commas.")
    ] = "full,diagonal,isotropic",
    components: Annotated[str, typer.Option(help="Numbers of Gaussians: 1-9, or 2,4,8.")] = "1-9",
    ranks: Annotated[str, typer.Option(help="Numbers of factors, for ppca and mfa.")] = "1,2",
    sharing: Annotated[str, typer.Option(help="own, shared, or both with a comma.")] = "own,shared",
    criterion: Annotated[str, typer.Option(help="bic, aic, icl, or validation.")] = "bic",
    test: Annotated[
        str | None,
        typer.Option(
            help="Held-out data, for the criterion validation, or a share of the rows of DATA to "
            "hold out for it, such as 0.1."
        ),
    ] = None,
    n_init: Annotated[int, typer.Option(help="Starts per candidate.")] = 3,
    passes: Annotated[int, typer.Option(help="Most passes per candidate.")] = 200,
    columns: options.Columns = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="A file for the best model.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="An .svg plot of the criterion.")] = None,
    jobs: Annotated[int, typer.Option(help="Processes; -1 is one per core.")] = -1,
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:
    """Fit families × components × factors to DATA, and rank them."""
    import mogul
    from mogul.cli.fit_mixture import facts_of, wild_cells
    from mogul.compute.checkpoint import atomic_write
    from mogul.evaluation import select as choose
    from mogul.report import selection_lines

    since = time.perf_counter()
    if output is not None:
        check_output(output, ())
    if plot is not None:
        check_output(plot, (".svg",))
    chosen = options.listed(columns)
    share = options.share_of(test)
    reading: dict[str, Any] = {"columns": chosen, "seed": seed}
    reading |= {} if share is None else {"test_share": share}
    source = mogul.open_source(data, **reading)
    held_out = None
    if share is not None:
        held_out = mogul.open_source(data, split="test", **reading)
    elif test is not None:
        held_out = mogul.open_source(test, **reading)
    warnings = wild_cells(source, mogul.GaussianMixture(1, 1).variance_floor, json)
    found = choose(
        source,
        families.split(","),
        _numbers(components),
        _numbers(ranks),
        sharing.split(","),
        criterion,
        held_out,
        passes=passes,
        n_init=n_init,
        seed=seed,
        jobs=jobs,
    )
    table = [candidate.row() for candidate in found.candidates]
    if plot is not None:
        atomic_write(plot, selection_lines(table, criterion).encode())
    best = table[0]
    figures = {k: best[k] for k in ("covariance", "sharing", "components", "rank", criterion)}
    figures |= {"n_parameters": best["n_parameters"], "seconds": time.perf_counter() - since}
    if output is not None:
        mogul.save_model(output, found.model, facts_of(found.model, source, [], figures)[1])
    if json:
        figures["candidates"] = table
        figures |= {"warnings": warnings} if warnings else {}
    else:
        criteria = ["aic", "bic", "validation" if criterion == "validation" else "icl"]
        shown = [
            [_name(row) + (" !" if row["trouble"] else ""), row["components"], row["n_parameters"]]
            + [_brief(name, row[name]) for name in criteria]
            for row in table[:20]
        ]
        headings = [
            "model",
            "K",
            "parameters",
            *(n.upper() if len(n) == 3 else n for n in criteria),
        ]
        rows(f"The best of {len(table)} candidates, of K components", headings, shown)
        if any(row["trouble"] for row in table[:20]):
            out.print("! ended on the floor of variances, so its criteria mean little")
    show(f"Best by {criterion}", figures, json)


def _brief(name: str, value: float) -> str:
    """Return a criterion, without decimals where it is large; validation is in nats per row."""
    decimals = 3 if name == "validation" else 1
    return f"{value:,.{0 if abs(value) >= 1e3 else decimals}f}"


def _name(row: dict[str, Any]) -> str:
    rank = "" if row["rank"] is None else f" × {row['rank']}"
    return f"{row['covariance']}{rank}" + ("" if row["sharing"] == "own" else f", {row['sharing']}")


def _numbers(text: str) -> list[int]:
    """Read "1-9" or "2,4,8".

    Raises:
        InputError: if it is neither.
    """
    from mogul.errors import InputError

    found: list[int] = []
    for part in text.split(","):
        low, _, high = part.partition("-")
        if not (low.isdecimal() and (high.isdecimal() or not high)):
            raise InputError(f"The numbers '{text}' are not understood; give 1-9, or 2,4,8.")
        found += range(int(low), int(high or low) + 1)
    return found
