"""The modules alone: segments, events, languages, punctuation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from vermilion.server.backend import Task
from vermilion.server.errors import RequestError
from vermilion.server.schemas import (
    ERRORS,
    FILE,
    Events,
    Languages,
    PunctuateRequest,
    PunctuateResponse,
    Segments,
    errors,
    form_of,
)
from vermilion.server.uploads import read_json
from vermilion.server.work import Desk
from vermilion.transcript import EventResult, LanguageResult, Span, VadResult

TEXTS = 1000
FORM = form_of({"file": FILE}, ["file"])
BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": PunctuateRequest.model_json_schema()}},
    }
}


def router(desk: Desk) -> APIRouter:
    """Routes under `/v1/audio`."""
    routes = APIRouter(prefix="/v1/audio", tags=["Modules"])

    async def run(request: Request, method: str, shape: Callable[[Task, Any], dict[str, Any]]) -> JSONResponse:
        async def work() -> dict[str, Any]:
            async with desk.recording(form) as task:
                return shape(task, await desk.engines.call(method, task=task))

        async with desk.form(request) as form:
            return JSONResponse(await desk.attended(request, work()))

    @routes.post("/segments", summary="Find speech", response_model=Segments, responses=ERRORS, openapi_extra=FORM)
    async def segments(request: Request) -> JSONResponse:
        """Voice activity detection alone."""
        return await run(request, "segments", _segments)

    @routes.post(
        "/events", summary="Find speech, singing, music", response_model=Events, responses=ERRORS, openapi_extra=FORM
    )
    async def events(request: Request) -> JSONResponse:
        """Audio event detection alone."""
        return await run(request, "events", _events)

    @routes.post("/languages", summary="Name languages", response_model=Languages, responses=ERRORS, openapi_extra=FORM)
    async def languages(request: Request) -> JSONResponse:
        """Language identification of every segment of speech, and of the whole."""
        return await run(request, "languages", _languages)

    @routes.post(
        "/punctuate",
        summary="Restore punctuation",
        response_model=PunctuateResponse,
        responses=errors(400, 401, 403, 408, 413, 429, 500, 501, 503),
        openapi_extra=BODY,
    )
    async def punctuate(request: Request) -> JSONResponse:
        """Punctuation and casing of plain text."""
        limits = desk.options.limits
        with desk.admission.enter(request.state.peer):
            text = _texts(await read_json(request, limits), limits.text_characters)
            found = await desk.attended(request, _punctuated(desk.engines.call, text))
            return JSONResponse({"text": found if isinstance(text, list) else found[0]})

    return routes


async def _punctuated(call: Callable[..., Awaitable[Any]], text: str | list[str]) -> list[str]:
    texts = text if isinstance(text, list) else [text]
    found: list[str] = await call("punctuate", texts=texts)
    return found


def _texts(body: Any, most: int) -> str | list[str]:
    text: Any = body.get("text") if isinstance(body, dict) else None
    texts: list[Any] = text if isinstance(text, list) else [text]
    if not texts or len(texts) > TEXTS or not all(isinstance(t, str) for t in texts):
        raise RequestError(f'send {{"text": "…"}}, or a list of 1 to {TEXTS} texts', code="invalid_value", param="text")
    if sum(len(t) for t in texts) > most:
        raise RequestError(f"the text is longer than {most:,} characters", status=413, code="text_too_long")
    found: str | list[str] = text
    return found


def _segments(task: Task, found: VadResult) -> dict[str, Any]:
    return {"duration": round(task.seconds, 3), "segments": [_span(s) for s in found.segments]}


def _events(task: Task, found: EventResult) -> dict[str, Any]:
    events = [{"label": label, **_span(s)} for label, spans in found.spans.items() for s in spans]
    events.sort(key=lambda e: (e["start"], e["end"]))
    ratios = {label: round(float(ratio), 4) for label, ratio in found.ratios.items()}
    return {"duration": round(task.seconds, 3), "events": events, "ratios": ratios}


def _languages(task: Task, found: list[tuple[Span, LanguageResult]]) -> dict[str, Any]:
    seconds: defaultdict[tuple[str, str | None], float] = defaultdict(float)
    sure: defaultdict[tuple[str, str | None], float] = defaultdict(float)
    for span, result in found:
        seconds[result.language, result.dialect] += span.duration
        sure[result.language, result.dialect] += span.duration * result.confidence
    main = max(seconds, key=lambda k: seconds[k]) if seconds else None
    return {
        "duration": round(task.seconds, 3),
        "language": main[0] if main else None,
        "dialect": main[1] if main else None,
        "confidence": round(sure[main] / max(seconds[main], 1e-9), 4) if main else 0.0,
        "segments": [
            {**_span(s), "language": r.language, "dialect": r.dialect, "confidence": round(float(r.confidence), 4)}
            for s, r in found
        ],
    }


def _span(span: Span) -> dict[str, float]:
    return {"start": round(float(span.start), 3), "end": round(float(span.end), 3)}
