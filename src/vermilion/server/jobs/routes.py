"""`/v1/jobs`: long recordings."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, Field

from vermilion.formats import FORMATS, format_of, render
from vermilion.server.errors import Busy, RequestError
from vermilion.server.jobs.runner import JobRunner
from vermilion.server.jobs.store import JobRow, new_id
from vermilion.server.languages import code_of
from vermilion.server.options import ServerOptions
from vermilion.server.outbound import check_url
from vermilion.server.schemas import ERRORS, FILE, ErrorBody, ErrorDetail, errors
from vermilion.server.uploads import Form, Spool, read_json, receive
from vermilion.transcript import Transcript

STREAMS = 256
"""open progress streams"""
KEEP_ALIVE = 15.0
KINDS = {
    "json": "application/json",
    "jsonl": "application/jsonl; charset=utf-8",
    "srt": "application/x-subrip; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
    "tsv": "text/tab-separated-values; charset=utf-8",
}
Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]


class JobFile(BaseModel):
    """The recording."""

    name: str
    bytes: int


class Job(BaseModel):
    """A long transcription."""

    id: str
    object: Literal["transcription.job"]
    status: Status
    created_at: float
    started_at: float | None
    finished_at: float | None
    file: JobFile
    duration: float | None = Field(description="seconds, once it is decoded")
    progress: float = Field(ge=0, le=1)
    stage: Literal["queued", "decode", "vad", "asr", "done"]
    segments_done: int
    segments_total: int | None
    language: str | None
    error: ErrorDetail | None
    position: int | None = Field(description="jobs before it, while it is queued")


class JobList(BaseModel):
    """A client's jobs, the newest first."""

    object: Literal["list"]
    data: list[Job]
    has_more: bool


class JobByReference(BaseModel):
    """A job whose recording the server has, or may fetch."""

    path: str | None = Field(None, description="under one of the server's --job-folders")
    url: str | None = Field(None, description="at one of the server's --fetch-hosts")
    language: str | None = None
    channels: Literal["mix", "separate"] | None = None
    webhook: str | None = Field(None, description="at one of the server's --webhook-hosts")


def _body() -> dict[str, Any]:
    form = {
        "type": "object",
        "required": ["file"],
        "properties": {
            "file": FILE,
            "language": {"type": "string"},
            "channels": {"type": "string", "enum": ["mix", "separate"], "default": "mix"},
            "webhook": {"type": "string"},
        },
    }
    content = {
        "multipart/form-data": {"schema": form},
        "application/json": {"schema": JobByReference.model_json_schema()},
    }
    return {"requestBody": {"required": True, "content": content}}


def router(runner: JobRunner, options: ServerOptions, spool: Spool) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/v1/jobs", tags=["Jobs"])
    store = runner.store
    streams = 0

    def check(name: str, value: str) -> None:
        """What can be judged before the recording is read."""
        if name == "language":
            code_of(value, getattr(runner.backend, "languages", None))

    async def own(request: Request, id: str) -> JobRow:
        row = await runner.ask(store.get, id, request.state.client)
        if row is None:
            raise RequestError("there is no such job", status=404, code="job_not_found")
        return row

    async def public(row: JobRow) -> dict[str, Any]:
        return row.public(await runner.ask(store.position, row))

    @routes.post(
        "", status_code=202, summary="Begin a job", response_model=Job, responses=ERRORS, openapi_extra=_body()
    )
    async def create(
        request: Request, idempotency_key: Annotated[str | None, Header(max_length=200)] = None
    ) -> Response:
        """A file, or a path or URL as JSON; the same `Idempotency-Key` gives the same job."""
        if runner.is_stopping:
            raise Busy("the server is stopping; ask again in a moment", retry_after=10, code="stopping")
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "application/json":
            body = await read_json(request, options.limits)
            values = await asyncio.to_thread(_referred, body, options)
        else:
            async with receive(request, spool, options.limits, check=check) as form:
                values = await asyncio.to_thread(_uploaded, form, options, spool)
        return await stored(request, values, idempotency_key)

    async def stored(request: Request, values: dict[str, Any], key: str | None) -> Response:
        row = JobRow(**values, client=request.state.client, same=key)
        try:
            language = code_of(row.language, getattr(runner.backend, "languages", None))
            row = replace(row, language=language)
            found = await runner.submit(row)
        except BaseException:
            await runner.ask(_forget, row)
            raise
        if found.id != row.id:
            await runner.ask(_forget, row)
        return JSONResponse(await public(found), 202, {"location": f"/v1/jobs/{found.id}"})

    @routes.get("", summary="List jobs", response_model=JobList, responses=errors(400, 401, 403))
    async def index(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        after: Annotated[str | None, Query(max_length=64, description="id of the last job of the page before")] = None,
        status: Status | None = None,
    ) -> Response:
        """The newest first."""
        found = await runner.ask(store.newest, request.state.client, limit + 1, _plain(after), status)
        data = [row.public() for row in found[:limit]]
        return JSONResponse({"object": "list", "data": data, "has_more": len(found) > limit})

    @routes.get("/{id}", summary="Look at a job", response_model=Job, responses=errors(400, 401, 403, 404))
    async def show(request: Request, id: str) -> Response:
        """How far it is."""
        return JSONResponse(await public(await own(request, _plain(id))))

    @routes.delete("/{id}", summary="Cancel or forget a job", response_model=Job, responses=errors(400, 401, 403, 404))
    async def remove(request: Request, id: str) -> Response:
        """What waits or is at work is cancelled; what is finished is deleted with its transcript."""
        row = await runner.remove(await own(request, _plain(id)))
        return JSONResponse(row.public())

    @routes.get(
        "/{id}/events",
        summary="Follow a job",
        response_class=StreamingResponse,
        responses={**errors(400, 401, 403, 404, 429), 200: {"content": {"text/event-stream": {}}}},
    )
    async def follow(request: Request, id: str) -> Response:
        """Server-sent events: `progress` and `done` with the job, `segment` with sentences as they are finished."""
        row = await own(request, _plain(id))
        if streams >= STREAMS:
            raise Busy("too many streams are open", retry_after=10, status=429, code="rate_limit_exceeded")
        return StreamingResponse(lines(row.id), media_type="text/event-stream", headers={"x-accel-buffering": "no"})

    async def lines(id: str) -> AsyncIterator[bytes]:
        nonlocal streams
        streams += 1
        events = runner.events(id)
        try:
            async for name, data in _with_pauses(events):
                if not name:
                    yield b": still at work\n\n"
                    continue
                text = json.dumps(data, ensure_ascii=False)
                yield f"event: {name}\ndata: {text}\n\n".encode("utf-8", "replace")
        finally:
            streams -= 1

    @routes.get(
        "/{id}/transcript",
        summary="Get the transcript",
        response_class=Response,
        responses={
            **errors(400, 401, 403, 404),
            409: {"model": ErrorBody, "description": "not finished, or failed"},
            200: {"content": {kind.partition(";")[0]: {} for kind in [*KINDS.values(), "text/plain"]}},
        },
    )
    async def transcript(
        request: Request, id: str, format: Annotated[str, Query(max_length=16, description=", ".join(FORMATS))] = "json"
    ) -> Response:
        """In any of the formats."""
        row = await own(request, _plain(id))
        name = format_of(format)
        if row.status != "succeeded":
            raise RequestError(f"the job is {row.status}: there is no transcript", status=409, code=f"job_{row.status}")
        result = await runner.ask(store.result, row.id)
        body = await asyncio.to_thread(_rendered, result or "{}", name)
        return Response(body, media_type=KINDS.get(name, "text/plain; charset=utf-8"))

    return routes


async def _with_pauses(events: AsyncIterator[tuple[str, dict[str, Any]]]) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Further events, and an empty one after a while without."""
    getting: asyncio.Future[tuple[str, dict[str, Any]]] | None = None
    try:
        while True:
            getting = getting or asyncio.ensure_future(anext(events))
            await asyncio.wait((getting,), timeout=KEEP_ALIVE)
            if not getting.done():
                yield "", {}
                continue
            done, getting = getting, None
            try:
                yield done.result()
            except StopAsyncIteration:
                return
    finally:
        if getting is not None:
            getting.cancel()
            await asyncio.gather(getting, return_exceptions=True)


def _rendered(result: str, name: str) -> bytes:
    if name == "json":
        return result.encode("utf-8", "replace")
    return render(Transcript.from_dict(json.loads(result)), name).encode("utf-8", "replace")


def _plain(id: str | None) -> Any:
    """Databases take no NUL, and no half of a character."""
    return None if id is None else id.replace("\0", "").encode("utf-8", "replace").decode()


def _uploaded(form: Form, options: ServerOptions, spool: Spool) -> dict[str, Any]:
    upload = form.files.get("file")
    if upload is None:
        raise RequestError("send the recording in the field `file`", code="missing_file", param="file")
    values = _common({name: form.first(name) for name in ("language", "channels", "webhook")}, options)
    id = new_id()
    target = options.uploads / id
    spool.keep(upload, target)
    return {"id": id, "name": upload.name, "kind": "upload", "source": str(target), "bytes": upload.size, **values}


def _referred(body: Any, options: ServerOptions) -> dict[str, Any]:
    try:
        wanted = JobByReference.model_validate(body)
    except ValueError as error:
        raise RequestError("send a file, or JSON with `path` or `url`", code="invalid_value") from error
    if (wanted.path is None) == (wanted.url is None):
        raise RequestError("give either `path` or `url`", code="invalid_value")
    values = _common(wanted.model_dump(), options)
    if wanted.path is not None:
        path = allowed_path(wanted.path, options.job_folders)
        size = path.stat().st_size
        return {"id": new_id(), "name": path.name, "kind": "path", "source": str(path), "bytes": size, **values}
    if not options.fetch_hosts:
        raise RequestError("this server fetches nothing (--fetch-hosts)", status=403, code="not_allowed", param="url")
    url = str(wanted.url)
    check_url(url, options.fetch_hosts)
    name = Path(url.partition("?")[0]).name[:200] or "recording"
    return {"id": new_id(), "name": name, "kind": "url", "source": url, "bytes": 0, **values}


def _common(values: dict[str, Any], options: ServerOptions) -> dict[str, Any]:
    channels = values.get("channels") or "mix"
    if channels not in ("mix", "separate"):
        raise RequestError("channels must be mix or separate", code="invalid_value", param="channels")
    webhook = values.get("webhook")
    if webhook is not None:
        if not options.webhook_hosts:
            raise RequestError(
                "this server notifies nobody (--webhook-hosts)", status=403, code="not_allowed", param="webhook"
            )
        check_url(webhook, options.webhook_hosts)
    return {"language": values.get("language"), "channels": channels, "webhook": webhook}


def allowed_path(name: str, folders: tuple[Path, ...]) -> Path:
    """A file under one of the folders, after all links were followed.

    Raises:
        RequestError: 403 for everything else, whether it exists or not.
    """
    refused = RequestError(
        "the path is not a file under one of this server's --job-folders", status=403, code="not_allowed", param="path"
    )
    try:
        path = Path(name).resolve(strict=True)
        inside = any(path.is_relative_to(folder.resolve()) for folder in folders)
        if not (inside and Path(name).is_absolute() and path.is_file()):
            raise refused
    except (OSError, ValueError, RuntimeError) as error:
        raise refused from error
    return path


def _forget(row: JobRow) -> None:
    """The upload of a job that was not stored."""
    if row.kind == "upload":
        Path(row.source).unlink(missing_ok=True)
