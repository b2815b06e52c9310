"""The Wyoming protocol (TCP), by which Home Assistant speaks with recognisers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from wyoming.asr import Transcribe, Transcript, TranscriptChunk, TranscriptStart, TranscriptStop
from wyoming.audio import AudioChunk, AudioFormat, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event, Eventable, async_write_event
from wyoming.info import AsrModel, AsrProgram, Attribution, Describe, Info
from wyoming.ping import Ping, Pong

from vermilion.errors import VermilionError
from vermilion.live.events import Final
from vermilion.live.options import LiveOptions
from vermilion.server.backend import Backend, LiveLink
from vermilion.server.errors import RequestError, shape
from vermilion.server.languages import NAMES, code_of
from vermilion.server.socket_helpers import TRY_LATER, Closing, Samples, cancel, feed, give_up
from vermilion.text import join_texts

log = logging.getLogger(__name__)
LINE_BYTES, DATA_BYTES, PAYLOAD_BYTES = 1 << 16, 1 << 20, 4 << 20
SESSION_SECONDS = 3600.0
"""longest audio of one request"""
WRITE_SECONDS = 30.0
"""a client that takes nothing for so long is given up"""
LINGER_SECONDS = 2.0
ANSWER_SECONDS = 900.0
"""longest wait for a transcript"""
PROGRAM = "vermilion"
ATTRIBUTION = Attribution("Vermilion", "https://arxiv.org/abs/2603.10420")
Models = dict[str, str] | Callable[[], dict[str, str]]


class WyomingServer:
    """Answers `describe` and `transcribe`."""

    def __init__(
        self,
        backend: Backend,
        *,
        models: Models,
        languages: list[str] | None,
        version: str,
        max_connections: int = 16,
        idle_seconds: float = 60.0,
    ) -> None:
        """Take the engines, and what is told about them.

        Args:
            backend: the engines.
            models: their names by stage, or what tells them when somebody asks.
            languages: codes that are recognised; None = any.
            version: of this program.
            max_connections: at once.
            idle_seconds: time in which a whole event must arrive.
        """
        self.backend, self.models, self.languages, self.version = backend, models, languages, version
        self.max_connections, self.idle_seconds = max_connections, idle_seconds
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.sockets[0].getsockname()[1]) if self._server is not None else 0

    @property
    def model(self) -> str:
        """Name of the recogniser."""
        models = self.models() if callable(self.models) else self.models
        return models.get("asr", PROGRAM)

    async def start(self, host: str, port: int) -> None:
        """Listen.

        Raises:
            OSError: the address is taken.
        """
        self._server = await asyncio.start_server(self._serve, host, port, limit=LINE_BYTES)

    async def serve(self, listener: socket.socket) -> None:
        """Listen on a socket that is bound already."""
        self._server = await asyncio.start_server(self._serve, sock=listener, limit=LINE_BYTES)

    async def close(self) -> None:
        """End all connections."""
        if self._server is not None:
            self._server.close()
        await cancel(*self._connections)

    def info(self) -> Info:
        """What `describe` is answered with."""
        known = sorted(set(self.languages if self.languages is not None else NAMES))
        name, version = self.model, self.version
        model = AsrModel(name, ATTRIBUTION, installed=True, description=name, version=version, languages=known)
        program = AsrProgram(
            PROGRAM,
            ATTRIBUTION,
            installed=True,
            description="Vermilion: speech to text with punctuation",
            version=version,
            models=[model],
            supports_transcript_streaming=True,
        )
        return Info(asr=[program])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            return
        self._connections.add(task)
        try:
            await self._talk(reader, writer)
        except (OSError, EOFError):
            writer.transport.abort()  # the client is gone, or takes nothing any more
        except Exception as error:
            if not isinstance(error, VermilionError | Closing):
                log.exception("a Wyoming connection failed")
            with contextlib.suppress(OSError):
                await _write(writer, _told(error))
                await _linger(reader, writer)
        finally:
            self._connections.discard(task)
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) > self.max_connections:
            raise Closing(TRY_LATER, "too many connections")
        await _Connection(self, reader, writer).run()


@dataclass
class _Request:
    """Audio on its way to a transcript."""

    format: AudioFormat
    link: LiveLink
    telling: asyncio.Task[None]
    samples: Samples
    seconds: float = 0.0


@dataclass
class _Connection:
    """One client; what goes wrong is told, and ends it: clients wait for a transcript or for the end."""

    server: WyomingServer
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    language: str | None = None
    request: _Request | None = None

    async def run(self) -> None:
        """Until the client leaves."""
        try:
            while (event := await self._next()) is not None:
                await self._take(event)
        finally:
            await self._drop()

    async def _next(self) -> Event | None:
        """The next event; None = the client has left, or says nothing any more."""
        try:
            async with asyncio.timeout(self.server.idle_seconds):
                return await read_event(self.reader)
        except TimeoutError:
            return None

    async def _take(self, event: Event) -> None:
        kind = event.type
        if Describe.is_type(kind):
            await _write(self.writer, self.server.info())
        elif Ping.is_type(kind):
            await _write(self.writer, Pong(_text(event.data.get("text"))))
        elif Transcribe.is_type(kind):
            await self._ask(Transcribe.from_event(event))
        elif AudioStart.is_type(kind):
            await self._begin(_format(event))
        elif AudioChunk.is_type(kind):
            await self._sound(_format(event), event.payload or b"")
        elif AudioStop.is_type(kind):
            await self._end()

    async def _ask(self, asked: Transcribe) -> None:
        """What the next audio is."""
        await self._drop()
        name = self.server.model
        if asked.name is not None and asked.name not in (name, PROGRAM):
            raise RequestError(
                f"there is no model {str(asked.name)[:60]!r}; this server has {name}",
                status=404,
                code="model_not_found",
            )
        self.language = code_of(_text(asked.language), self.server.languages)

    async def _begin(self, form: AudioFormat) -> _Request:
        await self._drop()
        link = await self.server.backend.open_live(LiveOptions(partials=False, events=False), self.language)
        telling = asyncio.ensure_future(self._tell(link))
        self.request = _Request(form, link, telling, Samples(form.width * form.channels))
        return self.request

    async def _sound(self, form: AudioFormat, audio: bytes) -> None:
        request = self.request or await self._begin(form)
        if form != request.format:
            raise RequestError("the audio changes its format", code="invalid_event")
        if request.telling.done():
            await request.telling  # raises what went wrong
        pcm = to_mono(request.samples.take(audio), form.width, form.channels)
        request.seconds += len(pcm) / 2 / form.rate
        if request.seconds > SESSION_SECONDS:
            raise RequestError(
                f"the audio is longer than {SESSION_SECONDS:g} seconds", status=413, code="audio_too_long"
            )
        await feed(request.link, pcm, form.rate)

    async def _end(self) -> None:
        """Always a transcript, also of nothing."""
        if self.request is None:
            await _write(self.writer, Transcript("", language=self.language))
            return
        await self.request.link.finish()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self.request.telling
        except TimeoutError as error:
            raise RequestError("the transcript takes too long", status=503, code="overloaded") from error
        await self._drop()

    async def _tell(self, link: LiveLink) -> None:
        text, language, failure = "", self.language, None
        async for event in link.events():
            if not isinstance(event, Final):
                continue
            failure = failure or event.failure
            if not event.text:
                continue
            language = language or event.language
            if not text:
                await _write(self.writer, TranscriptStart(language=language))
            grown = join_texts([text, event.text])
            await _write(self.writer, TranscriptChunk(grown[len(text) :]))
            text = grown
        if failure is not None and not text:
            raise RequestError(failure, status=500, code="failed")
        await _write(self.writer, Transcript(text, language=language))
        if text:
            await _write(self.writer, TranscriptStop())

    async def _drop(self) -> None:
        request, self.request = self.request, None
        if request is not None:
            await give_up(request.link)
            await cancel(request.telling)


async def read_event(reader: asyncio.StreamReader) -> Event | None:
    """Read one event, no larger than it may be (the package's own reader believes any length).

    Raises:
        RequestError: it is malformed or too large.
        EOFError: the client has gone in the middle.
    """
    try:
        line = await reader.readline()
    except ValueError as error:
        raise RequestError("the header of an event is too long", code="invalid_event") from error
    if not line:
        return None
    header = _object(line)
    kind, data = header.get("type"), header.get("data") or {}
    if not isinstance(kind, str) or not isinstance(data, dict):
        raise RequestError("an event needs a type", code="invalid_event")
    length = _length(header.get("data_length"), DATA_BYTES)
    if length:
        data = {**data, **_object(await reader.readexactly(length))}
    size = _length(header.get("payload_length"), PAYLOAD_BYTES)
    return Event(kind, data, await reader.readexactly(size) if size else None)


def _object(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError("an event's header is not JSON", code="invalid_event") from error
    if not isinstance(found, dict):
        raise RequestError("an event's header is not a JSON object", code="invalid_event")
    return found


def _length(value: Any, most: int) -> int:
    if value is None:
        return 0
    if not isinstance(value, int) or not 0 <= value <= most:
        raise RequestError(f"an event's length must lie between 0 and {most}", code="invalid_event")
    return value


def _format(event: Event) -> AudioFormat:
    rate, width, channels = (event.data.get(name) for name in ("rate", "width", "channels"))
    if not (isinstance(rate, int) and isinstance(width, int) and isinstance(channels, int)):
        raise RequestError("audio needs rate, width and channels", code="invalid_event")
    form = AudioFormat(rate, width, channels)
    if not (8000 <= form.rate <= 192_000 and form.width in (1, 2, 3, 4) and 1 <= form.channels <= 8):
        raise RequestError(
            "audio must have 8000 to 192000 samples per second, 1 to 4 bytes and 1 to 8 channels", code="invalid_value"
        )
    return form


def _text(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise RequestError("names and languages are texts", code="invalid_event")
    return value if value is None else value.encode("utf-8", "replace").decode()


def to_mono(audio: bytes, width: int, channels: int) -> bytes:
    """Samples of 8 (unsigned), 16, 24 or 32 bits → the mean of the channels in 16 bits; incomplete ones are dropped."""
    whole = audio[: len(audio) // (width * channels) * width * channels]
    if (width, channels) == (2, 1):
        return whole
    data = np.frombuffer(whole, np.uint8).reshape(-1, channels, width)
    top = data[..., -2:] if width > 1 else np.stack([np.zeros_like(data[..., 0]), data[..., 0] ^ 0x80], axis=-1)
    samples = np.ascontiguousarray(top).view("<i2")[..., 0]
    return np.asarray(samples.mean(axis=1).round().astype("<i2")).tobytes()


def _told(error: Exception) -> Error:
    if isinstance(error, Closing):
        return Error(error.reason, "overloaded")
    found = shape(error)
    return Error(found.message.encode("utf-8", "replace").decode(), found.code)


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Let the client read the end: closing over what it still sends would take it away."""
    writer.write_eof()
    async with asyncio.timeout(LINGER_SECONDS):
        while await reader.read(LINE_BYTES):
            pass


async def _write(writer: asyncio.StreamWriter, event: Eventable) -> None:
    async with asyncio.timeout(WRITE_SECONDS):
        await async_write_event(event.event(), writer)
