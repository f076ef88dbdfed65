"""`mogul demo`: the main job, by the commands a user would type."""

from __future__ import annotations

import contextlib
import io
import json as json_format
import shlex
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from mogul.cli import options
from mogul.cli.console import err, out


def demo(
    context: typer.Context,
    folder: Annotated[Path, typer.Option("-o", "--output", help="Folder to write to.")] = Path(
        "mogul-demo"
    ),
    json: options.Json = False,
) -> None:
    """Run the main job on handwritten digits, and write a report about it."""
    if context.invoked_subcommand is not None:
        return
    since = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    model, page = shlex.quote(str(folder / "digits.mogul")), folder / "report.html"
    commands = (
        f"mogul fit digits -o {model} --model mfa --components 20 --rank 4 --passes 40",
        f"mogul report {model} -o {shlex.quote(str(page))} --bins 20",
    )
    figures: dict[str, object] = {}
    for command in commands:
        figures |= _run(context, command, json)
    if json:
        print(json_format.dumps(figures | {"seconds": time.perf_counter() - since}))
        return
    out.print(f"Done in {time.perf_counter() - since:.0f} s. Open the report in a browser:")
    out.print(str(page.resolve()), soft_wrap=True)
    out.print(f"Look around in the model: mogul explore {model}", soft_wrap=True)


def _run(context: typer.Context, command: str, json: bool) -> dict[str, object]:
    """Run one command line as if it had been typed; return its figures if they are wanted."""
    typed, sys.argv = sys.argv, shlex.split(command)
    arguments = sys.argv[1:] + (["--json"] if json else [])
    captured = io.StringIO()
    try:
        if not json:
            err.print(f"[bold]{command}[/bold]")
        with contextlib.redirect_stdout(captured) if json else contextlib.nullcontext():
            context.find_root().command.main(arguments, standalone_mode=False)
    finally:
        sys.argv = typed
    return json_format.loads(captured.getvalue()) if json else {}
