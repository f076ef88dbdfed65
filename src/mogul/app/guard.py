"""Who may ask: this machine's own page, with the token of its address, and not too much at once."""

from __future__ import annotations

import secrets
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 10 * 2**20  # of a request
_NAMES = ("127.0.0.1", "localhost")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """Lets requests through that name this server as host and origin, and know the token.

    A foreign host (DNS rebinding), a foreign origin (another page in the browser) and a missing
    token are refused by 403, more than 10 MiB by 413. The token comes with the first address and
    is then kept in a cookie that no other site can use; programs may send it as a bearer.

    Args:
        app: what to guard.
        token: the secret of the address.
        port: the port that is served.
    """

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        """Remember the names that this server goes by."""
        self._app, self._token, self._cookie = app, token, f"mogul-{port}"
        self._hosts = {f"{name}:{port}" for name in _NAMES}
        self._hosts |= set(_NAMES) if port == 80 else set()
        self._origins = {f"http://{host}" for host in self._hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return  # there are no web sockets here
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await refusal(scope, receive, _with_headers(send, None))
            return
        body = await _whole(receive)
        if body is None:
            await _too_large()(scope, receive, _with_headers(send, None))
            return
        new = f"{self._cookie}={self._token}; HttpOnly; SameSite=Strict; Path=/"
        given = None if self._cookie_of(headers) else new
        await self._app(scope, _replayed(body, receive), _with_headers(send, given))

    def _refusal(self, scope: Scope, headers: Headers) -> PlainTextResponse | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if host not in self._hosts:
            return _forbidden("This server answers to 127.0.0.1 and localhost only.")
        if origin is not None and origin not in self._origins:
            return _forbidden("A page of another origin asked; open the address that was printed.")
        if not self._knows_token(scope, headers):
            return _forbidden(
                "The token is missing or wrong; open the whole address that `mogul` printed."
            )
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MOST_BYTES:
            return _too_large()
        return None

    def _knows_token(self, scope: Scope, headers: Headers) -> bool:
        asked = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        found = (asked, bearer, self._cookie_of(headers))
        return any(secrets.compare_digest(t.encode(), self._token.encode()) for t in found)

    def _cookie_of(self, headers: Headers) -> str:
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(self._cookie)
        except CookieError:
            return ""
        return "" if cookie is None else cookie.value


def _forbidden(why: str) -> PlainTextResponse:
    return PlainTextResponse(why, 403)


def _too_large() -> PlainTextResponse:
    return PlainTextResponse(f"Requests may hold {MOST_BYTES >> 20} MiB at most.", 413)


async def _whole(receive: Receive) -> bytes | None:
    """Return the body of a request; none if it is longer than allowed, whatever was announced."""
    parts, total = [], 0
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        total += len(parts[-1])
        if total > MOST_BYTES:
            return None
        if not message.get("more_body", False):
            return b"".join(parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return a reader that gives a body which was read before, and then goes on."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def read() -> Message:
        return first.pop() if first else await receive()

    return read


def _with_headers(send: Send, cookie: str | None) -> Send:
    async def sent(message: Any) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers[name] = value
            if cookie is not None:
                headers.append("set-cookie", cookie)
        await send(message)

    return sent
