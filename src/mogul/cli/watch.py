"""`mogul fit --watch`: the explorer beside a fit, and then over its model."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mogul.cli.console import err
from mogul.cli.explore import need_app

if TYPE_CHECKING:
    from mogul.app.session import Live


@contextmanager
def watched(wanted: bool, output: Path, given: dict[str, Any]) -> Generator[Live | None]:
    """Serve the history of a fit while it goes on, and its model from then on until Ctrl-C.

    Of several processes, the first one serves. A fit that fails or is interrupted ends the page.

    Args:
        wanted: whether to serve.
        output: the file that the fit writes.
        given: options of the command line, by name.

    Yields:
        what to tell of passes, or None where nothing is served.

    Raises:
        InputError: if the explorer is not installed, or a fit is to go on whose file is damaged.
    """
    if not wanted or os.environ.get("RANK", "0") != "0":
        yield None
        return
    need_app()
    from mogul.app.serve import beside
    from mogul.app.session import Live, Session
    from mogul.models import Checkpoint
    from mogul.opened import open_any

    held = Checkpoint(output, "resume" in given).held()
    live = Live(output.name, passes=0, history=list((held or {}).get("history", [])))
    session = Session(live=live)
    with beside(session, show=sys.stdout.isatty()) as served:
        err.print(f"Watch the fit at {served.address}", soft_wrap=True)
        yield live  # ruff: ignore[fallible-context-manager] - a fit that fails leaves no model
        session.open(open_any(output, given.get("device", "auto")))
        live.ended = True
        sys.stdout.flush()  # figures, which another program may wait for
        err.print(f"{output} is at the same address; end with Ctrl-C.", soft_wrap=True)
        _wait()


def _wait() -> None:
    """Wait for Ctrl-C or SIGTERM, the way to end it."""
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        return
