"""What stands before every request: the right name of the server, the right page, the right key; safe headers after."""

from __future__ import annotations

import ipaddress
import logging
import re
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from vermilion.server.errors import RequestError, shape
from vermilion.server.keys import KeyFile
from vermilion.server.options import ServerOptions

log = logging.getLogger("vermilion.access")
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = ("/", "/health", "/ready", "/favicon.ico", "/docs", "/openapi.json", "/v1/server")
"""paths that need no key"""
OPEN_BELOW = ("/page/", "/docs/")
FORWARDED = (b"forwarded", b"x-forwarded-for", b"x-real-ip")
"""headers that proxies add"""
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "microphone=(self), camera=(), geolocation=()",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'",
}
KEY_PROTOCOLS = ("key.", "openai-insecure-api-key.")
"""browsers can give a key to a WebSocket only as the name of a subprotocol"""


class Gate:
    """ASGI middleware."""

    def __init__(self, app: App, options: ServerOptions) -> None:
        """Take what is behind it."""
        self.app, self.options = app, options
        self.keys = KeyFile(options.keys) if options.keys is not None else None
        self._hosts = {"localhost", options.host.strip("[]").lower(), *(h.lower() for h in options.hosts)}
        self._warned = False
        self._any_address = options.host in ("0.0.0.0", "::", "")  # bound on purpose, with --insecure or keys
        if self._any_address:
            self._hosts.add(socket.gethostname().lower())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it here."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["id"] = f"req_{secrets.token_hex(8)}"
        watched = _Watched(send, state["id"])
        began = time.monotonic()
        try:
            self._check(scope)
        except RequestError as error:
            await _refuse(scope, receive, watched, error)
        else:
            await self.app(_answered_by_get(scope), receive, watched)
        finally:
            log.info(
                "%s %s %s %s %.0f ms %s",
                state["id"],
                scope.get("method", "SOCKET"),
                _printable(scope["path"]),
                watched.status or "-",
                (time.monotonic() - began) * 1000,
                state.get("client") or state.get("peer") or "-",
            )

    def _check(self, scope: Scope) -> None:
        headers = dict(scope["headers"])
        state = scope["state"]
        state["client"], state["peer"] = "", (scope.get("client") or ("",))[0]
        self._warn_of_proxy(headers)
        self._check_host(headers)
        self._check_origin(scope, headers)
        if self.keys is None or _is_open(scope):
            return
        name = self.keys.name_of(_given(scope, headers))
        if name is None:
            raise RequestError(
                "give one of this server's keys as `Authorization: Bearer KEY`", status=401, code="invalid_api_key"
            )
        state["client"] = state["peer"] = name

    def _warn_of_proxy(self, headers: dict[bytes, bytes]) -> None:
        """A proxy that calls us by the loopback name lets everybody in whom it lets in: no key is asked for here."""
        if self.keys is not None or self._warned or not any(name in headers for name in FORWARDED):
            return
        self._warned = True
        log.warning(
            "a proxy passes requests of others on to this server, which asks for no keys: make one with "
            "`vermilion keys add NAME` and start with --keys FILE, or let the proxy ask who may call"
        )

    def _check_host(self, headers: dict[bytes, bytes]) -> None:
        """Without keys, a page of another site could reach us by a name that it lets point here (DNS rebinding)."""
        if self.keys is not None:
            return
        name = _host(headers.get(b"host", b"").decode("latin-1"))
        if name not in self._hosts and not self._is_ours(name):
            raise RequestError(
                f"this server is not called {_printable(name)!r}; start it with --hosts if it is",
                status=403,
                code="unknown_host",
            )

    def _is_ours(self, name: str) -> bool:
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or self._any_address

    def _check_origin(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        """Pages of other sites may neither open sockets nor send anything."""
        origin = headers.get(b"origin", b"").decode("latin-1")
        if scope["type"] == "http" and scope["method"] in SAFE_METHODS:
            return
        if not origin or origin in self.options.origins:
            return
        if origin.partition("://")[2] != headers.get(b"host", b"").decode("latin-1"):
            raise RequestError(
                f"pages of {_printable(origin)} may not call this server; start it with --origins if they may",
                status=403,
                code="unknown_origin",
            )


class _Watched:
    """Sends with safe headers, and remembers the status."""

    def __init__(self, send: Send, number: str) -> None:
        self.send, self.number, self.status = send, number, 0

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            present = {name.lower() for name, _ in message["headers"]}
            added = {**HEADERS, "x-request-id": self.number}
            more = [(n.encode(), v.encode()) for n, v in added.items() if n.encode() not in present]
            message = {**message, "headers": [*message["headers"], *more]}
        elif message["type"] in ("websocket.accept", "websocket.close"):
            self.status = 101 if message["type"] == "websocket.accept" else message.get("code", 1000)
        await self.send(message)


async def _refuse(scope: Scope, receive: Receive, send: Send, error: RequestError) -> None:
    from starlette.responses import JSONResponse

    found = shape(error)
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": found.message[:120]})
        return
    headers = {**found.headers(), "connection": "close"}
    if found.status == 401:
        headers["www-authenticate"] = "Bearer"
    await JSONResponse(found.body(), found.status, headers)(scope, receive, send)


def _answered_by_get(scope: Scope) -> Scope:
    """HEAD is GET without the body, which the HTTP server leaves out; only a stream of events would never end."""
    if scope["type"] == "http" and scope["method"] == "HEAD" and not scope["path"].endswith("/events"):
        return {**scope, "method": "GET"}
    return scope


def _is_open(scope: Scope) -> bool:
    path = scope["path"]
    if scope["type"] == "http" and scope["method"] == "OPTIONS":
        return True  # a browser's question before the request carries no key
    return scope["type"] == "http" and (path in OPEN or path.startswith(OPEN_BELOW))


def _given(scope: Scope, headers: dict[bytes, bytes]) -> str:
    kind, _, key = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    if kind.lower() == "bearer" and key:
        return key.strip()
    if b"api-key" in headers:
        return headers[b"api-key"].decode("latin-1")
    for protocol in scope.get("subprotocols", []):
        for prefix in KEY_PROTOCOLS:
            if protocol.startswith(prefix):
                return str(protocol[len(prefix) :])
    return ""


def _host(value: str) -> str:
    """`localhost:8000` → `localhost`, `[::1]:8000` → `::1`."""
    found = re.fullmatch(r"(?:\[([^\]]*)\]|([^:]*))(?::\d+)?", value)
    return (found.group(1) or found.group(2) or "").lower() if found else ""


def _printable(text: str) -> str:
    return re.sub(r"[^\x21-\x7e]", "?", text)[:200]
