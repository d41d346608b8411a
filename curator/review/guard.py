"""Who may talk to the page: the browser that was given the token, at the address that was printed.

In: every request. Out: the request, or a refusal. Checked in this order:
    Host      one of the addresses that the server listens at (no other name leads here: DNS rebinding)
    Origin    where it is sent: the page's own; a change needs one
    fetch     another site's page may lead a person here, and read nothing
    token     in the cookie, which other sites' requests do not carry; or in the address, once
    body      JSON, small, and sent within seconds
Every response says that nothing may be loaded from elsewhere.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 1_000_000
SECONDS = 20.0
"""How large a request may be, and how long it may take to arrive."""

POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
CLOSED = "This page needs the address that `curator review` printed in the terminal: it holds a token."


class Guard:
    """The outermost layer of the application.

    Args:
        hosts: host:port pairs by which the server is reached.
        token: the secret. cookie: the name under which the browser keeps it.
    """

    def __init__(self, app: ASGIApp, *, hosts: Iterable[str], token: str, cookie: str) -> None:
        self.app = app
        self._hosts = frozenset(hosts)
        self._origins = frozenset(f"http://{host}" for host in self._hosts)
        self._token = token
        self._cookie = cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no web sockets here
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = Headers(scope=scope)
        refused = self._refusal(scope, headers)
        asked = self._in_address(scope)
        if refused is None and not (asked or self._known(headers)):
            refused = self._closed(scope)
        body: list[Message] = []
        if refused is None and scope["method"] not in ("GET", "HEAD"):
            refused = await _read(receive, body)

        async def receive_again() -> Message:
            return body.pop(0) if body else await receive()

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                out = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    out[name] = value
                out.setdefault("cache-control", "no-store")
                if asked and refused is None:
                    out.append(
                        "set-cookie", f"{self._cookie}={self._token}; Path=/; HttpOnly; SameSite=Strict"
                    )
            await send(message)

        await (refused or self.app)(scope, receive_again, send_safely)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        if headers.get("host") not in self._hosts:
            return _refuse(403, "another Host than this server's")
        origin = headers.get("origin")
        changes = scope["method"] not in ("GET", "HEAD")
        if (origin is not None or changes) and origin not in self._origins:
            return _refuse(403, "another Origin than this page's")
        site, mode = headers.get("sec-fetch-site"), headers.get("sec-fetch-mode")
        if site in ("cross-site", "same-site") and (mode != "navigate" or changes):
            return _refuse(403, "asked for by another site")
        kind = headers.get("content-type", "").partition(";")[0].strip()
        if changes and kind != "application/json":
            return _refuse(415, "expected application/json")
        return None

    def _in_address(self, scope: Scope) -> bool:
        if scope["method"] != "GET" or scope["path"].startswith(("/api", "/static")):
            return False
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])
        return hmac.compare_digest(given[0].encode(), self._token.encode())

    def _known(self, headers: Headers) -> bool:
        try:
            kept = SimpleCookie(headers.get("cookie", "")).get(self._cookie)
        except CookieError:
            return False
        return kept is not None and hmac.compare_digest(kept.value.encode(), self._token.encode())

    def _closed(self, scope: Scope) -> Response:
        if scope["path"].startswith(("/api", "/static")):
            return _refuse(403, CLOSED)
        return PlainTextResponse(CLOSED + "\n", status_code=403)


def _refuse(status: int, why: str) -> Response:
    return JSONResponse({"error": why}, status_code=status)


async def _read(receive: Receive, body: list[Message]) -> Response | None:
    """The whole body, or why it is not taken."""
    size, more = 0, True
    try:
        async with asyncio.timeout(SECONDS):
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return _refuse(400, "the request ended early")
                size += len(message.get("body", b""))
                if size > MOST_BYTES:
                    return _refuse(413, f"expected at most {MOST_BYTES} bytes")
                body.append(message)
                more = bool(message.get("more_body", False))
    except TimeoutError:
        return _refuse(408, f"the request did not arrive within {SECONDS:g} seconds")
    return None
