"""The explorer as a web application: its page, its errors, and the answers of its views."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path

import anyio.to_thread
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from mogul.app.about import VIEWS, about
from mogul.app.guard import Guard
from mogul.app.session import Session
from mogul.errors import InputError

_STATIC = Path(str(resources.files("mogul.app") / "static"))
_BAD_REQUEST = 400
_AT_ONCE = 4  # answers worked out; each thread that does has threads of torch's own, and buffers


@asynccontextmanager
async def _few_threads(app: FastAPI) -> AsyncGenerator[None]:
    """Let requests wait for each other, rather than all of them share the cores."""
    anyio.to_thread.current_default_thread_limiter().total_tokens = _AT_ONCE
    yield


def create_app(session: Session, token: str, port: int) -> ASGIApp:
    """Return the application.

    Args:
        session: the model, its data, or the fit under way.
        token: the secret that requests must know.
        port: the port that it will be served on, by which requests are told to be its own.

    Returns:
        an ASGI application; errors come as JSON {"error": what came, what is allowed}.
    """
    # Its own documentation pages would load scripts from elsewhere.
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=_few_threads)

    @app.exception_handler(InputError)
    def refused(request: Request, error: InputError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, _BAD_REQUEST)

    @app.exception_handler(RequestValidationError)
    def malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        return JSONResponse({"error": f"{place}: {first['msg']}."}, _BAD_REQUEST)

    @app.get("/")
    def page() -> FileResponse:
        return FileResponse(_STATIC / "index.html")

    @app.get("/api/model")
    def model() -> dict[str, object]:
        return about(session)

    for view in VIEWS:
        app.include_router(view.router(session), prefix="/api")
    app.mount("/static", StaticFiles(directory=_STATIC))
    return Guard(app, token, port)
