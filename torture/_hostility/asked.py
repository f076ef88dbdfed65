"""Requests to the explorer: from strangers, too large, or of values that make no sense."""

from __future__ import annotations

import io
import random
from typing import Any
from urllib.parse import quote

import numpy as np
from fastapi.testclient import TestClient
from PIL import Image

from mogul.app import Session, create_app
from mogul.app.guard import MOST_BYTES
from torture._corruption.mutate import mutant
from torture.outcome import Outcome

TOKEN, PORT = "a-token-that-is-a-secret", 8123
_OWN = f"127.0.0.1:{PORT}"
_ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2, 10**9, 2**63, 2**100, 1e308, -1e308, 0.5, "", "train", "shown",
    "x" * 999,
    "../../etc/passwd", "<script>", [], [[]], [1], [-1], [2**70], [None], {}, {"a": 1},
    "nan", "\x00",
)  # fmt: skip
_OK, _REFUSED, _TOO_LARGE = 200, 403, 413
_WORDS = (200, 400, 404, 405, 413, 422)  # answers in words


def client(session: Session, token: str = TOKEN, host: str = _OWN) -> TestClient:
    """Return a client that names a host and a token; what fails in the server is raised."""
    made = TestClient(create_app(session, TOKEN, PORT), base_url=f"http://{host}")
    if token:
        made.headers["authorization"] = f"Bearer {token}"
    return made


def strangers(session: Session) -> Outcome:
    """Ask with foreign hosts, foreign origins, and without the token."""
    outcome = Outcome("strangers at the explorer's door")
    paths = ("/", "/api/model", "/api/history", "/static/main.js", "/api/upload", "/api/nothing")
    hosts = ("pwned.invalid", f"pwned.invalid:{PORT}", f"127.0.0.1:{PORT + 1}", "127.0.0.1",
             f"127.0.0.1.pwned.invalid:{PORT}", f"0.0.0.0:{PORT}", f"[::1]:{PORT}",
             f"10.0.0.1:{PORT}",
             f"localhost.pwned.invalid:{PORT}", f"127.1:{PORT}", f"2130706433:{PORT}",
             "localhost",
             f"127.0.0.1:{PORT}@pwned.invalid", f"127.0.0.1:{PORT}, pwned.invalid", "")  # fmt: skip
    origins = ("http://pwned.invalid", "null", "", f"https://127.0.0.1:{PORT}", "file://",
               f"http://127.0.0.1:{PORT + 1}", f"http://127.0.0.1:{PORT}.pwned.invalid",
               f"http://127.0.0.1:{PORT}/", f"http://pwned.invalid#http://127.0.0.1:{PORT}",
               "chrome-extension://pwned", "*")  # fmt: skip
    tokens = ("", "x", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), " ", "Bearer", "é", "\u202e", "null",
              "' or 1=1", "*", TOKEN[::-1], "0", "undefined")  # fmt: skip
    known, unknown = client(session), client(session, "")
    for path in paths:
        asked = [(f"host '{host}'", known.get(path, headers={"host": host})) for host in hosts]
        asked += [(f"origin '{o}'", known.post(path, headers={"origin": o})) for o in origins]
        asked += [(f"token '{t}'", unknown.get(path, params={"token": t})) for t in tokens]
        cookies = {t: {b"cookie": f"mogul-{PORT}={t}".encode()} for t in tokens}
        asked += [(f"cookie '{t}'", unknown.get(path, headers=c)) for t, c in cookies.items()]
        for what, answer in asked:
            outcome.tried += 1
            if answer.status_code != _REFUSED:
                outcome.failures.append(f"{path} with {what}: {answer.status_code}")
    outcome.note = "all refused by 403, before anything was looked at"
    return outcome


def too_large(session: Session) -> Outcome:
    """Send more than is allowed: announced, unannounced, and with a lie about the length."""
    outcome, asker = Outcome("requests that are too large"), client(session)
    content = bytes(MOST_BYTES + 1)
    pieces = (content[i : i + 2**20] for i in range(0, len(content), 2**20))
    for path in ("/api/upload", "/api/score", "/api/nothing"):
        for sent, headers in ((content, {}), (pieces, {}), (b"", {"content-length": str(2**60)}),
                              (b"x", {"content-length": "-1"}),
                              (b"x", {"content-length": "1e9"})):  # fmt: skip
            outcome.tried += 1
            answer = asker.post(path, content=sent, headers=headers)
            pieces = (content[i : i + 2**20] for i in range(0, len(content), 2**20))
            if answer.status_code != _TOO_LARGE:
                outcome.failures.append(f"{path} {headers}: {answer.status_code}")
    outcome.note = "all refused by 413"
    return outcome


def outside(session: Session) -> Outcome:
    """Ask for files beside those of the page."""
    outcome, asker = Outcome("files beside those of the page"), client(session)
    ups = (
        "..",
        "%2e%2e",
        "..%2f",
        "%2e%2e%2f",
        "....//",
        "..\\",
        "%252e%252e",
        "..;",
        "..%00",
        "%c0%ae",
    )
    ends = ("session.py", "server.py", "etc/passwd", "../etc/passwd", "static/../guard.py")
    for up in ups:
        for end in ends:
            for depth in (1, 3):
                outcome.tried += 1
                path = "/static/" + f"{up}/" * depth + end
                answer = asker.get(path)
                if answer.status_code == _OK:
                    outcome.failures.append(f"{path}: {answer.text[:60]}")
    return outcome


def uploads(session: Session, n: int) -> Outcome:
    """Upload damaged pictures: each is refused by 400, or answered."""
    outcome, asker, taken = Outcome("damaged uploads"), client(session), 0
    grey = Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 20), np.uint8))
    files = []
    for kind in ("PNG", "JPEG"):
        for image in (grey, grey.convert("RGB")):
            out = io.BytesIO()
            image.save(out, kind)
            files.append(out.getvalue())
    for seed in range(n):
        outcome.tried += 1
        content = mutant(files[seed % len(files)], seed)
        try:
            code = asker.post("/api/upload", content=content).status_code
        except Exception as error:
            code = f"{type(error).__name__}: {error}"
        taken += code == _OK
        if code not in (_OK, 400):
            outcome.failures.append(f"seed {seed}: {code}")
    outcome.note = f"{taken:,} could be read"
    return outcome


def nonsense(name: str, session: Session, n: int) -> Outcome:
    """Ask every address for values that make no sense: each is answered in words."""
    outcome, asker = Outcome(f"requests of odd values to {name}"), client(session)
    about = asker.app._app.openapi()  # pyright: ignore[reportAttributeAccessIssue]
    places = [
        (path, way, told) for path, ways in about["paths"].items() for way, told in ways.items()
    ]
    schemas, codes = about.get("components", {}).get("schemas", {}), dict[int, int]()
    for seed in range(n):
        draw = random.Random(f"{name} {seed}")
        path, way, told = places[seed % len(places)]
        query: dict[str, Any] = {}
        for parameter in told.get("parameters", []):
            value = _value(parameter["schema"], schemas, draw)
            if parameter["in"] == "path":
                path = path.replace(f"{{{parameter['name']}}}", quote(str(value), safe="") or "0")
            elif draw.random() < 0.8:
                query[parameter["name"]] = value if isinstance(value, list) else str(value)
        body = told.get("requestBody", {}).get("content", {}).get("application/json", {})
        sent = {"json": _value(body["schema"], schemas, draw)} if "schema" in body else {}
        outcome.tried += 1
        try:
            answer = asker.request(way, path, params=query, **sent)
            codes[answer.status_code] = codes.get(answer.status_code, 0) + 1
            if answer.status_code not in _WORDS:
                outcome.failures.append(f"seed {seed}, {way} {path}: {answer.status_code}")
        except Exception as error:
            outcome.failures.append(
                f"seed {seed}, {way} {path} {query} {str(sent)[:80]}: {type(error).__name__}: "
                f"{str(error)[:100]}"
            )
    outcome.note = ", ".join(f"{k}: {v:,}" for k, v in sorted(codes.items()))
    return outcome


def _value(schema: dict[str, Any], known: dict[str, Any], draw: random.Random) -> Any:
    """Return a value of a schema, or now and then one that is odd."""
    if draw.random() < 0.15:
        return draw.choice(_ODD)
    if "$ref" in schema:
        return _value(known[schema["$ref"].split("/")[-1]], known, draw)
    if "anyOf" in schema:
        return _value(draw.choice(schema["anyOf"]), known, draw)
    kind = schema.get("type")
    if kind == "object":
        return {name: _value(of, known, draw) for name, of in schema.get("properties", {}).items()
                if draw.random() < 0.9}  # fmt: skip
    if kind == "array":
        return [
            _value(schema.get("items", {}), known, draw)
            for _ in range(draw.choice((0, 1, 2, 3, 4)))
        ]
    plain = {
        "integer": lambda: draw.choice((0, 1, 2, 3, 8, -1, 10**6)),
        "number": lambda: draw.choice((0.0, 1.5, -3.0, 1e30, 1e-30)),
        "string": lambda: draw.choice(("train", "shown", "u1", "f4", "", "AAAA", "x")),
        "boolean": lambda: draw.random() < 0.5,
        "null": lambda: None,
    }
    return plain.get(kind, lambda: draw.choice(_ODD))()
