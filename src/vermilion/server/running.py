"""Runs the server until it is told to stop, then lets everybody finish."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import logging.config
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, WebSocket
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from vermilion import __version__
from vermilion.errors import OptionsError
from vermilion.server.admission import Admitted, Buffer
from vermilion.server.app import Server, create_app, create_server
from vermilion.server.errors import RequestError, shape
from vermilion.server.funasr import serve_funasr
from vermilion.server.gate import Gate
from vermilion.server.options import ServerOptions
from vermilion.server.socket_helpers import admitted
from vermilion.server.wyoming import WyomingServer

log = logging.getLogger(__name__)
FRAME_BYTES = 16 << 20
"""largest frame of a WebSocket"""
CONNECTIONS_WAITING = 512
HEAD_SECONDS = 20.0
HEAD_BYTES = 64 * 1024
"""largest head of a request"""


@dataclass(frozen=True)
class Running:
    """How the process behaves."""

    drain_seconds: float = 30.0
    """time that requests get to finish after the signal; jobs go on at the next start"""
    verbose: bool = True
    """log every request"""
    certificate: Path | None = None
    """TLS certificate (PEM)"""
    private_key: Path | None = None
    """its key (PEM)"""


def serve(options: ServerOptions, running: Running | None = None) -> None:
    """Serve until SIGTERM or SIGINT; blocks.

    Raises:
        OptionsError: the options contradict each other, or an address is taken.
        VermilionError: the models cannot be loaded.
    """
    logging.config.dictConfig(_logging((running or Running()).verbose))
    asyncio.run(_serve(options, running or Running()))


async def _serve(options: ServerOptions, running: Running) -> None:
    with contextlib.ExitStack() as taken:  # all addresses before the models: what is taken is said at once
        listener = taken.enter_context(contextlib.closing(bind(options.host, options.port)))
        funasr, wyoming = (
            taken.enter_context(contextlib.closing(bind(options.host, port, option))) if port is not None else None
            for port, option in ((options.funasr_port, "--funasr-port"), (options.wyoming_port, "--wyoming-port"))
        )
        parts = create_server(options)
        app = create_app(options, parts)
        servers = [_Uvicorn(_config(app, running))]
        sockets = [listener]
        if funasr is not None:
            servers.append(_Uvicorn(_config(funasr_app(parts, options), running)))
            sockets.append(funasr)
        async with parts.running(), _wyoming(parts, wyoming):
            with _signals(parts, servers):
                models = parts.desk.engines.models.items()
                log.info("models: %s", ", ".join(f"{stage} {name}" for stage, name in models))
                log.info("listening on %s", _address(listener, running))
                await asyncio.gather(*(s.serve([at]) for s, at in zip(servers, sockets, strict=True)))
    log.info("stopped")


class PatientProtocol(HttpToolsProtocol):
    """Limits the head of a request, in time and size: else clients could hold connections or memory without a key."""

    _hurry: asyncio.TimerHandle | None = None
    _in_head = True
    _head = 0
    """bytes of the head so far"""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Pass bytes on; of a head no more than it may have."""
        while data and self._in_head:
            room = HEAD_BYTES - self._head
            if room <= 0:
                self._refuse()
                return
            part, data = data[:room], data[room:]
            super().data_received(part)
            if self._in_head:
                self._head += len(part)
        if data and not self.transport.is_closing():
            super().data_received(data)

    def _refuse(self) -> None:
        self._rest()
        error = RequestError(f"the head of a request may have {HEAD_BYTES:,} bytes", status=431, code="head_too_large")
        body = json.dumps(shape(error).body()).encode()
        head = (
            "HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def on_message_begin(self) -> None:
        """Begin to wait for the next head."""
        self._in_head, self._head = True, 0
        self._wait()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is there; the body's time is limited where it is read."""
        self._in_head = False
        self._rest()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing to wait for."""
        self._rest()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._rest()
        self._hurry = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _rest(self) -> None:
        if self._hurry is not None:
            self._hurry.cancel()


class _Uvicorn(uvicorn.Server):
    """A server whose signals somebody else handles."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them alone."""
        yield


@contextlib.contextmanager
def _signals(parts: Server, servers: list[_Uvicorn]) -> Iterator[None]:
    """The first signal lets everybody finish; the second does not."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        for server in servers:
            server.force_exit = server.should_exit
            server.should_exit = True
        parts.drain()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def bind(host: str, port: int, option: str = "--port") -> socket.socket:
    """Take an address.

    Raises:
        OptionsError: it cannot be had.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        found = socket.create_server((host, port), family=family, backlog=CONNECTIONS_WAITING)
    except (OSError, OverflowError) as error:
        raise OptionsError(f"cannot listen on {host} port {port}: {error}; choose another with {option}") from error
    return found


def funasr_app(parts: Server, options: ServerOptions) -> FastAPI:
    """What answers on FunASR's port: its clients connect to the root."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.websocket("/")
    async def funasr(websocket: WebSocket) -> None:
        admission = parts.desk.admission
        backend, buffer = Admitted(parts.desk.engines, admission), Buffer(admission)
        await admitted(websocket, admission, lambda: serve_funasr(websocket, backend, buffer=buffer))

    app.add_middleware(Gate, options=options)
    return app


@contextlib.asynccontextmanager
async def _wyoming(parts: Server, listener: socket.socket | None) -> AsyncIterator[None]:
    if listener is None:
        yield
        return
    engines = parts.desk.engines
    server = WyomingServer(engines, models=engines.models, languages=engines.languages, version=__version__)
    await server.serve(listener)
    log.info("Wyoming on %s port %d", *listener.getsockname()[:2])
    try:
        yield
    finally:
        await server.close()


def _config(app: FastAPI, running: Running) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=PatientProtocol,
        log_config=None,
        access_log=False,  # the gate logs, without query strings
        server_header=False,
        lifespan="off",
        ws_max_size=FRAME_BYTES,
        timeout_keep_alive=20,
        timeout_graceful_shutdown=max(1, round(running.drain_seconds)),
        proxy_headers=False,
        ssl_certfile=running.certificate,
        ssl_keyfile=running.private_key,
    )


def _address(listener: socket.socket, running: Running) -> str:
    host, port = listener.getsockname()[:2]
    name = f"[{host}]" if ":" in host else host
    return f"{'https' if running.certificate else 'http'}://{name}:{port}"


def _logging(verbose: bool) -> dict[str, Any]:
    level = "INFO" if verbose else "WARNING"
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "loggers": {
            "vermilion": {"level": level},
            "python_multipart": {"level": "ERROR"},
        },  # it tells of every bad form
        "root": {"handlers": ["stderr"], "level": "WARNING"},
    }
