"""OpenAI's HTTP interface for transcription."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse

from vermilion.assembly import state_sentences
from vermilion.server import openai_format as shapes
from vermilion.server.backend import Step, Task
from vermilion.server.errors import RequestError, shape
from vermilion.server.languages import code_of
from vermilion.server.schemas import (
    ERRORS,
    Model,
    ModelList,
    Transcription,
    TranscriptionDiarized,
    TranscriptionVerbose,
    errors,
    transcription_form,
)
from vermilion.server.uploads import Form
from vermilion.server.work import Desk
from vermilion.transcript import Sentence, Transcript

log = logging.getLogger(__name__)
NAME = "vermilion"
ALIASES = ("whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe", "gpt-4o-transcribe-diarize")
"""names that clients have built in"""
FORMATS = ("json", "text", "srt", "verbose_json", "vtt", "diarized_json")
STREAMED = ("json", "text", "verbose_json", "diarized_json")
"""response formats that `stream` may be asked for with; events look alike for all but the last"""
GRANULARITIES = ("word", "segment")
KEEP_ALIVE = 15.0
"""seconds without a word after which a stream gets a comment, so that nobody on the way closes it"""


@dataclass(frozen=True)
class Wanted:
    """What a client asks of a transcription."""

    form: str = "json"
    language: str | None = None
    granularities: frozenset[str] = frozenset({"segment"})
    logprobs: bool = False
    stream: bool = False
    ignored: tuple[str, ...] = ()
    """parameters that change nothing here"""


def router(desk: Desk) -> APIRouter:
    """Routes under `/v1`."""
    routes = APIRouter(prefix="/v1", tags=["OpenAI"])

    @routes.post(
        "/audio/transcriptions",
        summary="Transcribe a recording",
        response_model=Transcription | TranscriptionVerbose | TranscriptionDiarized,
        responses={**ERRORS, 200: _contents()},
        openapi_extra=transcription_form(FORMATS),
    )
    async def transcriptions(request: Request) -> Response:
        """As OpenAI's; `prompt`, `temperature` and the like are taken and change nothing (`x-vermilion-ignored`)."""
        async with contextlib.AsyncExitStack() as stack:
            form = await stack.enter_async_context(desk.form(request, checks(desk)))
            wanted = read(form, names_of(desk), desk.engines.languages)
            answer = await _answer(desk, request, form, wanted, stack)
            if wanted.ignored:
                answer.headers["x-vermilion-ignored"] = ", ".join(wanted.ignored)
            return answer

    @routes.post("/audio/translations", summary="Not supported", responses=errors(400, 401, 403), status_code=400)
    async def translations() -> Response:
        """Speech is written in its own language here; ask for a transcription."""
        raise RequestError("translation is not supported; use /v1/audio/transcriptions", code="not_supported")

    @routes.get("/models", summary="Models", response_model=ModelList, responses=errors(401, 403))
    async def models() -> Response:
        """The names that a request's `model` may have."""
        return JSONResponse({"object": "list", "data": [_model(name) for name in names_of(desk)]})

    @routes.get("/models/{name}", summary="One model", response_model=Model, responses=errors(401, 403, 404))
    async def model(name: str) -> Response:
        """One of the names."""
        check_model(name, names_of(desk))
        return JSONResponse(_model(name))

    return routes


def names_of(desk: Desk) -> list[str]:
    """Names of the model that requests may give."""
    own = desk.engines.models.get("asr")
    return [NAME, *([own] if own and own != NAME else []), *ALIASES]


def check_model(name: str | None, known: list[str]) -> None:
    """Raise 400 or 404 unless it is one of ours."""
    if name is None:
        raise RequestError("say which `model`; `vermilion` will do", code="missing_model", param="model")
    if name not in known:
        raise RequestError(
            f"there is no model {name[:60]!r} here; known are {', '.join(known)}",
            status=404,
            code="model_not_found",
            param="model",
        )


def checks(desk: Desk) -> Callable[[str, str], None]:
    """What can be judged before the recording is read: a wrong name should not cost an upload."""

    def check(name: str, value: str) -> None:
        if name == "model" and value:
            check_model(value, names_of(desk))
        elif name == "response_format" and value:
            _one_of(value, FORMATS, name)
        elif name == "language":
            code_of(value, desk.engines.languages)

    return check


def read(form: Form, models: list[str], languages: list[str] | None) -> Wanted:
    """Read the parameters of a request.

    Raises:
        RequestError: one of them cannot be.
        UnsupportedLanguageError: nobody here recognises the language.
    """
    check_model(form.first("model"), models)
    kind = _one_of(form.first("response_format") or "json", FORMATS, "response_format")
    granularities = frozenset(
        _one_of(g, GRANULARITIES, "timestamp_granularities") for g in form.values.get("timestamp_granularities", [])
    )
    if granularities and kind != "verbose_json":
        raise RequestError(
            "timestamp_granularities need response_format verbose_json",
            code="invalid_value",
            param="timestamp_granularities",
        )
    include = form.values.get("include", [])
    for name in include:
        _one_of(name, ("logprobs",), "include")
    if include and kind != "json":
        raise RequestError("logprobs need response_format json", code="invalid_value", param="include")
    _number(form, "temperature", 0.0, 1.0)
    stream = _flag(form, "stream")
    if stream and kind not in STREAMED:
        raise RequestError(
            f"a stream is events, not {kind}: ask for {', '.join(STREAMED)}, or without stream",
            code="invalid_value",
            param="stream",
        )
    return Wanted(
        kind,
        code_of(form.first("language"), languages),
        granularities or frozenset({"segment"}),
        bool(include),
        stream,
        tuple(n for n in ("prompt", "keywords", "temperature", "chunking_strategy") if form.first(n) is not None),
    )


def _one_of(value: str, known: tuple[str, ...], name: str) -> str:
    if value not in known:
        raise RequestError(f"{name} must be one of {', '.join(known)}", code="invalid_value", param=name)
    return value


def _number(form: Form, name: str, least: float, most: float) -> None:
    value = form.first(name)
    if value is None:
        return
    try:
        good = least <= float(value) <= most
    except ValueError:
        good = False
    if not good:
        raise RequestError(f"{name} must lie between {least:g} and {most:g}", code="invalid_value", param=name)


def _flag(form: Form, name: str) -> bool:
    value = (form.first(name) or "false").lower()
    return _one_of(value, ("true", "false", "1", "0"), name) in ("true", "1")


async def _answer(
    desk: Desk, request: Request, form: Form, wanted: Wanted, stack: contextlib.AsyncExitStack
) -> Response:
    channels = "separate" if wanted.form == "diarized_json" else "mix"
    opened = desk.recording(form, channels=channels, language=wanted.language, events=False)
    task = await desk.attended(request, stack.enter_async_context(opened))
    if wanted.stream:
        return _Stream(_events(desk, task, wanted), stack.pop_all())
    transcript = await desk.attended(request, desk.transcribe(task))
    _check(transcript)
    return rendered(transcript, wanted)


def _check(transcript: Transcript) -> None:
    """A transcript with holes is worth having; one without anything because all failed is an error."""
    if transcript.failures and not transcript.sentences:
        raise transcript.failures[0].error


def rendered(transcript: Transcript, wanted: Wanted) -> Response:
    """The answer in the format that was asked for."""
    headers = {"x-vermilion-failures": str(len(transcript.failures))} if transcript.failures else {}
    match wanted.form:
        case "json":
            return JSONResponse(shapes.plain(transcript, wanted.logprobs), headers=headers)
        case "verbose_json":
            return JSONResponse(shapes.verbose(transcript, wanted.granularities), headers=headers)
        case "diarized_json":
            return JSONResponse(shapes.diarized(transcript), headers=headers)
    return PlainTextResponse(shapes.text_file(transcript, wanted.form), headers=headers)


class _Stream(StreamingResponse):
    """Server-sent events; ends the work and removes the files when the client has the answer, or has gone."""

    def __init__(self, events: AsyncIterator[bytes], stack: contextlib.AsyncExitStack) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"x-accel-buffering": "no"})
        self._stack = stack

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async with self._stack:
            await super().__call__(scope, receive, send)


async def _events(desk: Desk, task: Task, wanted: Wanted) -> AsyncIterator[bytes]:
    """Sentences as they are finished, then the whole."""
    told: asyncio.Queue[list[Sentence]] = asyncio.Queue()
    deltas, count = shapes.Deltas(), 0

    async def report(step: Step) -> None:
        states = sorted(step.segments, key=lambda s: (s["start"], s["channel"] or 0))
        told.put_nowait([s for state in states for s in state_sentences(state)])

    work = asyncio.ensure_future(_within(desk.options.limits.deadline, desk.transcribe(task, report)))
    try:
        while not (work.done() and told.empty()):
            sentences = await _next(told, work)
            if sentences is None:
                yield b": still at work\n\n"
                continue
            for delta, sentence in deltas.add(sentences):
                yield _event(_delta(delta, sentence, wanted, count))
                count += 1
        transcript = work.result()
        _check(transcript)
        yield _event(_done(transcript, wanted))
    except Exception as error:  # noqa: BLE001 - the status is sent already: the error becomes the last event
        yield _event(_failed(error, desk))
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def _within(seconds: float, work: Coroutine[Any, Any, Transcript]) -> Transcript:
    async with asyncio.timeout(seconds):
        return await work


async def _next(told: asyncio.Queue[list[Sentence]], work: asyncio.Future[Transcript]) -> list[Sentence] | None:
    """The next sentences, [] when the work is done, None after a while without any."""
    if not told.empty():
        return told.get_nowait()
    getting = asyncio.ensure_future(told.get())
    try:
        await asyncio.wait((getting, work), timeout=KEEP_ALIVE, return_when=asyncio.FIRST_COMPLETED)
        if getting.done():
            return getting.result()
        return [] if work.done() else None
    finally:
        getting.cancel()


def _delta(delta: str, sentence: Sentence, wanted: Wanted, number: int) -> dict[str, Any]:
    if wanted.form == "diarized_json":
        return shapes.diarized_segment(number, sentence)
    found: dict[str, Any] = {"type": "transcript.text.delta", "delta": delta}
    return found | ({"logprobs": shapes.logprobs_of([sentence])} if wanted.logprobs else {})


def _done(transcript: Transcript, wanted: Wanted) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "transcript.text.done", "text": transcript.text}
    if wanted.logprobs:
        found["logprobs"] = shapes.logprobs_of(transcript.sentences)
    return {**found, "usage": shapes.usage(transcript)}


def _failed(error: Exception, desk: Desk) -> dict[str, Any]:
    if isinstance(error, TimeoutError):
        error = RequestError("the answer takes too long; send a job", status=503, code="deadline_exceeded")
    found = shape(error)
    if found.status == 500:
        log.error("a stream failed", exc_info=error)
    return {"type": "error", **found.body()}


def _event(data: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n".encode("utf-8", "replace")


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "vermilion"}


def _contents() -> dict[str, Any]:
    return {
        "description": "the transcript, in the format that was asked for",
        "content": {
            "text/plain": {"schema": {"type": "string"}},
            "text/event-stream": {"schema": {"type": "string"}},
        },
    }
