"""The explorer's server over a model, asked as a page would ask."""

import base64

import numpy as np
from fastapi.testclient import TestClient

from mogul.app import Session, create_app
from mogul.cli.main import app
from mogul.opened import open_any

TOKEN, PORT = "secret", 8000


def client_of(session, token=TOKEN):
    """Return a client that knows the token, of this machine."""
    made = TestClient(create_app(session, TOKEN, PORT), base_url=f"http://127.0.0.1:{PORT}")
    if token:
        made.headers["authorization"] = f"Bearer {token}"
    return made


def fitted(path, command):
    """Fit by a command line, `mogul fit DATA ...`, to a file; return its path."""
    app(["fit", *command.split(), "-o", str(path)], standalone_mode=False)
    return path


def opened_session(path, data=None):
    """Return a session over a model file."""
    return Session(open_any(path, "cpu"), data)


def array(packed):
    """Return the array of an answer."""
    kind = {"u1": "u1", "f4": "<f4"}[packed["type"]]
    return np.frombuffer(base64.b64decode(packed["data"]), kind).reshape(packed["shape"])


def packed(array):
    """Return an 8-bit array as a request holds it."""
    data = base64.b64encode(np.ascontiguousarray(array, np.uint8).tobytes()).decode()
    return {"shape": list(array.shape), "type": "u1", "data": data}
