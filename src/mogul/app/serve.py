"""The explorer served on this machine, and to nobody else."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import threading
import webbrowser
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import uvicorn

from mogul.app.server import create_app
from mogul.app.session import Session
from mogul.errors import InputError

_HOST = "127.0.0.1"


@dataclass(frozen=True)
class Served:
    """A page that is being served at `address`, which holds its token."""

    address: str
    server: uvicorn.Server
    listening: socket.socket

    def run(self) -> None:
        """Serve on this thread, until Ctrl-C or SIGTERM."""
        self.server.run(sockets=[self.listening])


def prepare(session: Session, port: int = 0) -> Served:
    """Bind a port of this machine for a session.

    Args:
        session: what to show.
        port: the port, or 0 for one that is free.

    Returns:
        what to run.

    Raises:
        InputError: if the port is taken.
    """
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((_HOST, port))
        listening.listen()  # whoever comes before the server runs waits for it
    except (OSError, OverflowError) as error:
        listening.close()
        raise InputError(
            f"Cannot serve on port {port} of {_HOST}: {error}; choose another, or leave --port out."
        ) from error
    bound, token = listening.getsockname()[1], secrets.token_urlsafe(24)
    config = uvicorn.Config(
        create_app(session, token, bound), log_level="warning", access_log=False,
        server_header=False, ws="none", timeout_graceful_shutdown=2,
    )  # fmt: skip
    logging.getLogger("uvicorn.error").addFilter(_unexpected)
    return Served(f"http://{_HOST}:{bound}/?token={token}", uvicorn.Server(config), listening)


def _unexpected(record: logging.LogRecord) -> bool:
    """Whether to log something: not that a request was given up since the server ends."""
    return record.exc_info is None or not isinstance(record.exc_info[1], asyncio.CancelledError)


def serve(session: Session, port: int = 0, show: bool = False) -> None:
    """Serve a session until Ctrl-C, printing its address.

    Args:
        session: what to show.
        port: the port, or 0 for one that is free.
        show: open the page in a browser.

    Raises:
        InputError: if the port is taken.
    """
    served = prepare(session, port)
    print(served.address, flush=True)
    if show:
        webbrowser.open(served.address)
    with suppress(KeyboardInterrupt):  # the way to end it
        served.run()


@contextmanager
def beside(session: Session, port: int = 0, show: bool = False) -> Generator[Served]:
    """Serve a session on a thread of its own while something else goes on.

    Raises:
        InputError: if the port is taken.
    """
    served = prepare(session, port)
    thread = threading.Thread(target=served.run, daemon=True)
    thread.start()
    if show:
        webbrowser.open(served.address)
    try:
        yield served
    finally:
        served.server.should_exit = True
        thread.join()
