"""`mogul explore`."""

from __future__ import annotations

import importlib.util
from typing import Annotated

import typer

from mogul.cli import options
from mogul.cli.console import err
from mogul.errors import InputError

Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to serve on; 0 finds a free one.")]


def explore(
    model: options.Model,
    data: Annotated[
        str | None,
        typer.Argument(
            help="Data to look at; default: the test split of the training data, or these.",
            show_default=False,
            autocompletion=options.known_data,
        ),
    ] = None,
    port: Port = 0,
    browser: Annotated[
        bool, typer.Option(help="Open the page in the browser of this machine.")
    ] = True,
    device: options.Device = "auto",
) -> None:
    """Explore a model in a browser: components, in-painting while you draw, outliers, samples."""
    need_app()
    from mogul.app import Session, serve
    from mogul.opened import open_any

    session = Session(open_any(model, device), data)
    for which, why in session.missing.items():
        err.print(f"[yellow]No {which} data:[/yellow] {why}", soft_wrap=True)
    err.print("Open this address, and end with Ctrl-C; it answers to this machine alone.")
    serve(session, port, browser)


def need_app() -> None:
    """Say how to install what the explorer needs.

    Raises:
        InputError: if it is not installed.
    """
    absent = [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
    if absent:
        raise InputError(
            f"The explorer needs {' and '.join(absent)}, not installed here; install them: pip "
            "install 'mogul[app]'."
        )
