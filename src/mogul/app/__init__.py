"""The explorer: a page on this machine over a fitted model, or over a fit under way."""

from mogul.app.serve import serve
from mogul.app.server import create_app
from mogul.app.session import Session

__all__ = ["Session", "create_app", "serve"]
