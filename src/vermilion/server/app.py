"""The application: everything that is served, put together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import tempfile
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from vermilion import __version__
from vermilion.errors import OptionsError, VermilionError
from vermilion.live.options import LiveOptions
from vermilion.server import modules_http, openai_http
from vermilion.server.admission import Admission, Admitted, Buffer, ClientLeft
from vermilion.server.backend import Engines
from vermilion.server.engines import EnginePool
from vermilion.server.errors import RequestError, shape
from vermilion.server.gate import Gate
from vermilion.server.jobs import routes as jobs_http
from vermilion.server.jobs.runner import JobRunner
from vermilion.server.jobs.store import JobStore
from vermilion.server.languages import code_of
from vermilion.server.metrics import Measured, Metrics, Reading
from vermilion.server.native import serve_live
from vermilion.server.options import ServerOptions
from vermilion.server.realtime import serve_realtime
from vermilion.server.schemas import ErrorBody, Health, ServerInfo
from vermilion.server.socket_helpers import admitted
from vermilion.server.uploads import Spool
from vermilion.server.work import Desk

log = logging.getLogger(__name__)
PAGE = Path(__file__).with_name("page")
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "connect-src 'self' blob:; worker-src 'self' blob:; font-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
DOCS_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
DESCRIPTION = """Speech to text with voice activity, languages, word times and punctuation.

Errors have OpenAI's shape. Where the server asks for keys: `Authorization: Bearer KEY`."""


@dataclass
class Server:
    """What lives as long as the application."""

    desk: Desk
    runner: JobRunner
    _stopping: asyncio.Future[None] = field(init=False)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Load the models, take up what an earlier run left; put it back at the end."""
        desk = self.desk
        desk.spool.prepare()
        try:
            await desk.engines.start()
            await self.runner.start()
            yield
        finally:
            self.drain()
            await self._stopping
            await desk.engines.close()

    def drain(self) -> None:
        """Let nobody in any more; who waits gets an answer, jobs go on at the next start."""
        if not self.desk.admission.draining:
            self.desk.admission.draining = True
            self._stopping = asyncio.ensure_future(self.runner.stop(grace=2.0))


def processes(options: ServerOptions, spool: Spool) -> Engines:
    """Engines that are processes of this machine."""
    return EnginePool(
        options.models,
        spool,
        workers=options.workers,
        live_sessions=options.limits.live_sessions,
        keep_alive=options.keep_alive,
    )


def create_server(options: ServerOptions) -> Server:
    """Put the parts together; nothing runs yet."""
    spool = Spool(options.spool, options.limits.spool_bytes)
    engines = (options.engines or processes)(options, spool)
    desk = Desk(options, engines, spool, Admission(options.limits, lambda: engines.rate.value), Metrics())
    _take_folder(options.data)
    store = JobStore(options.database or f"sqlite:///{options.data / 'jobs.sqlite'}")
    server = Server(desk, JobRunner(store, engines, options))
    desk.metrics.read(lambda: _readings(server))
    return server


def _take_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise OptionsError(f"cannot write into the folder {folder} ({reason}); choose another with --data") from error


def create_app(options: ServerOptions, server: Server | None = None) -> FastAPI:
    """Build the application.

    Args:
        options: what is served, and to whom.
        server: its parts; made of the options if None.
    """
    parts = server or create_server(options)
    desk = parts.desk

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with parts.running():
            yield

    app = FastAPI(
        title="Vermilion",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    app.state.server = parts
    _describe(app)
    _add_errors(app)
    app.include_router(openai_http.router(desk))
    app.include_router(modules_http.router(desk))
    app.include_router(jobs_http.router(parts.runner, options, desk.spool))
    _add_state(app, parts)
    _add_sockets(app, parts)
    _add_files(app, options)
    app.add_middleware(Gate, options=options)
    app.add_middleware(Measured, metrics=desk.metrics)
    if options.origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=list(options.origins), allow_methods=["*"], allow_headers=["*"]
        )
    return app


def _add_errors(app: FastAPI) -> None:
    """Whatever goes wrong, the client gets OpenAI's error object."""

    def answer(error: Exception) -> Response:
        found = shape(error)
        return JSONResponse(found.body(), found.status, found.headers())

    @app.exception_handler(VermilionError)
    async def ours(_: Request, error: VermilionError) -> Response:
        return answer(error)

    @app.exception_handler(ClientLeft)
    async def left(_: Request, error: ClientLeft) -> Response:
        return Response(status_code=499)  # nobody reads it; the log does

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = [str(part) for part in first["loc"]]
        return answer(RequestError(f"{'.'.join(where)}: {first['msg']}", code="invalid_value", param=where[-1]))

    @app.exception_handler(HTTPException)
    async def known(_: Request, error: HTTPException) -> Response:
        response = answer(RequestError(str(error.detail), status=error.status_code))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(Exception)
    async def unknown(_: Request, error: Exception) -> Response:
        return answer(error)


def _describe(app: FastAPI) -> None:
    """The description says what is so: a request that cannot be gets 400 here, never the framework's 422."""
    make = app.openapi

    def described() -> dict[str, Any]:
        found = make()
        for path in found["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        for name in ("HTTPValidationError", "ValidationError"):
            found["components"]["schemas"].pop(name, None)
        return found

    app.openapi = described  # type: ignore[method-assign]


def _add_state(app: FastAPI, server: Server) -> None:
    desk = server.desk

    @app.get("/health", tags=["Server"], response_model=Health)
    async def health() -> Any:
        """The process answers."""
        return {"status": "ok"}

    @app.get("/ready", tags=["Server"], response_model=Health, responses={503: {"model": Health}})
    async def ready() -> Response:
        """Requests are let in."""
        if desk.admission.draining or not desk.engines.available:
            return JSONResponse({"status": "stopping"}, 503)
        return JSONResponse({"status": "ok"})

    @app.get(
        "/metrics",
        tags=["Server"],
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, 401: {"model": ErrorBody}},
    )
    async def metrics() -> Response:
        """Figures for Prometheus."""
        body, kind = await asyncio.to_thread(desk.metrics.text)  # it asks the job store
        return Response(body, media_type=kind)

    @app.get("/v1/server", tags=["Server"], response_model=ServerInfo)
    async def info() -> Any:
        """What is here: models, languages, limits."""
        limits = desk.options.limits
        return {
            "version": __version__,
            "models": desk.engines.models,
            "languages": desk.engines.languages,
            "limits": {
                "upload_bytes": limits.upload_bytes,
                "audio_seconds": limits.audio_seconds,
                "request_seconds": limits.request_seconds,
            },
            "auth": desk.options.keys is not None,
        }


def _add_sockets(app: FastAPI, server: Server) -> None:
    engines, admission = server.desk.engines, server.desk.admission
    backend = Admitted(engines, admission)

    @app.websocket("/v1/realtime")
    async def realtime(websocket: WebSocket) -> None:
        models, languages = openai_http.names_of(server.desk), engines.languages
        buffer = Buffer(admission)
        await admitted(
            websocket,
            admission,
            lambda: serve_realtime(websocket, backend, models=models, languages=languages, buffer=buffer),
        )

    @app.websocket("/v1/live")
    async def live(websocket: WebSocket) -> None:
        try:
            rate, language = _live_query(websocket, engines.languages)
        except VermilionError as error:
            await websocket.close(1008, str(error)[:120])
            return
        await admitted(
            websocket,
            admission,
            lambda: serve_live(websocket, engines, rate=rate, language=language, options=LiveOptions()),
        )


def _live_query(websocket: WebSocket, languages: list[str] | None) -> tuple[int, str | None]:
    query = websocket.query_params
    rate = query.get("rate", "16000")
    if not (rate.isascii() and rate.isdigit() and 8000 <= int(rate[:7]) <= 192_000):
        raise OptionsError("rate must lie between 8000 and 192000 samples per second")
    return int(rate), code_of(query.get("language"), languages)


def _add_files(app: FastAPI, options: ServerOptions) -> None:
    from vermilion.server.docs_page import add_docs

    add_docs(app, DOCS_POLICY)
    if not options.page:
        return

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return _page()

    @app.get("/page/{name}", include_in_schema=False)
    async def part(name: str) -> Response:
        return _file(name)

    @app.get("/favicon.ico", include_in_schema=False)
    async def icon() -> Response:
        return _file("icon.svg")


def _page() -> Response:
    """The page; its waveform writes a style of its own, which a number used once lets through."""
    nonce = secrets.token_urlsafe(16)
    html = (PAGE / "index.html").read_text("utf-8").replace("__NONCE__", nonce)
    policy = PAGE_POLICY.replace("style-src 'self'", f"style-src 'self' 'nonce-{nonce}'")
    return HTMLResponse(html, headers={"content-security-policy": policy, "cache-control": "no-store"})


def _file(name: str) -> Response:
    path = PAGE / name
    if path.parent != PAGE or path.suffix not in KINDS or not path.is_file():
        raise RequestError("there is no such file", status=404)
    headers = {"content-security-policy": PAGE_POLICY, "cache-control": "no-cache"}
    return FileResponse(path, media_type=KINDS[path.suffix], headers=headers)


def _readings(server: Server) -> Iterable[Reading]:
    desk = server.desk
    engines, admission = desk.engines, desk.admission
    yield "vermilion_requests_inside", "Requests at work or waiting", "", {"": admission.inside}
    yield (
        "vermilion_audio_waiting_seconds",
        "Audio of requests and jobs in the engines",
        "",
        {"": engines.waiting_seconds},
    )
    yield "vermilion_socket_bytes", "Audio that sockets hold", "", {"": admission.held}
    yield "vermilion_live_sessions", "Live sessions", "", {"": engines.live_open}
    yield "vermilion_engines_loaded", "Engines with their models in memory", "", {"": engines.loaded}
    yield "vermilion_engine_deaths", "Requests that lost their engine", "", {"": engines.deaths}
    yield "vermilion_speed", "Seconds of audio per second of work, lately", "", {"": engines.rate.value}
    yield "vermilion_spool_bytes", "Temporary files", "", {"": desk.spool.used()}
    yield (
        "vermilion_refused",
        "Requests refused, by reason",
        "reason",
        {k: float(v) for k, v in admission.refused.items()},
    )
    yield "vermilion_jobs", "Jobs by status", "status", {k: float(v) for k, v in server.runner.counts().items()}
