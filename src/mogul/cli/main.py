"""The commands, put together."""

from __future__ import annotations

from typing import Annotated

import typer

import mogul
from mogul.cli import (
    compare,
    console,
    convert,
    demo,
    demo_mixture,
    denoise,
    doctor,
    encode,
    explore,
    fit,
    outliers,
    predict,
    select,
    use,
)

app = typer.Typer(
    help="Density modelling with mixtures of Gaussians: fit, predict, score, sample, find "
    "outliers, encode, in-paint, denoise, compare, report, explore.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"mogul {mogul.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


app.command()(console.guarded(fit.fit))
app.command()(console.guarded(select.select))
app.command()(console.guarded(predict.predict))
app.command()(console.guarded(use.sample))
app.command()(console.guarded(use.score))
app.command()(console.guarded(outliers.outliers))
app.command()(console.guarded(encode.encode))
app.command()(console.guarded(use.reconstruct))
app.command()(console.guarded(use.inpaint))
app.command()(console.guarded(denoise.denoise))
app.command()(console.guarded(compare.evaluate))
app.command(name="show")(console.guarded(use.show_model))
app.command()(console.guarded(compare.report))
app.command()(console.guarded(explore.explore))
app.command()(console.guarded(convert.convert))
app.command()(console.guarded(doctor.doctor))
demos = typer.Typer(invoke_without_command=True, help="Show what mogul does.")
demos.callback()(console.guarded(demo.demo))
demos.command()(console.guarded(demo_mixture.mixture))
app.add_typer(demos, name="demo")


def main() -> None:
    """Run the command line."""
    console.run(app)
