"""OpenAI's realtime transcription over a WebSocket, in its present shape and in that of the beta."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import logging
import secrets
from collections.abc import Collection, Coroutine, Sequence
from dataclasses import replace
from typing import Any

from fastapi import WebSocket, WebSocketDisconnect

from vermilion.errors import VermilionError
from vermilion.live.events import Final, LiveEvent, Partial, SpeechEnded, SpeechStarted
from vermilion.server.admission import Buffer
from vermilion.server.backend import Backend, LiveLink
from vermilion.server.errors import RequestError, shape
from vermilion.server.g711 import expand
from vermilion.server.languages import code_of
from vermilion.server.pieces import continuation
from vermilion.server.realtime_session import Session, configure
from vermilion.server.socket_helpers import (
    INTERNAL,
    STALL_SECONDS,
    Closing,
    Frames,
    Samples,
    SocketLimits,
    TooBig,
    cancel,
    close,
    feed,
    give_up,
    parse,
    send,
)
from vermilion.transcript import to_ms

log = logging.getLogger(__name__)
PROTOCOL = "realtime"
MANUAL_SECONDS = 600.0
"""longest utterance that a client cuts itself, and all those together that wait for their text"""
LEAST_SECONDS = 0.1
EVENT_ID_MOST = 512
ITEM = "conversation.item"
DELTA = f"{ITEM}.input_audio_transcription.delta"
COMPLETED = f"{ITEM}.input_audio_transcription.completed"
FAILED = f"{ITEM}.input_audio_transcription.failed"
LIMITS = SocketLimits()


async def serve_realtime(
    websocket: WebSocket,
    backend: Backend,
    *,
    models: Sequence[str] | None = None,
    languages: Collection[str] | None = None,
    limits: SocketLimits = LIMITS,
    buffer: Buffer | None = None,
) -> None:
    """Serve one socket.

    Args:
        websocket: not yet accepted.
        backend: the engines.
        models: names that a session may give; None = any.
        languages: codes that are recognised; None = any.
        limits: of the socket.
        buffer: for audio that the client will commit.
    """
    await websocket.accept(PROTOCOL if PROTOCOL in websocket.scope["subprotocols"] else None)
    talk = _Conversation(websocket, backend, models, languages, limits, Buffer() if buffer is None else buffer)
    try:
        await talk.run()
        await close(websocket)
    except Closing as end:
        await close(websocket, end.code, end.reason)
    except WebSocketDisconnect:
        return
    except Exception as error:
        await close(websocket, INTERNAL, shape(error).message)
        raise
    finally:
        await talk.close()


class _Conversation:
    """One socket."""

    def __init__(
        self,
        websocket: WebSocket,
        backend: Backend,
        models: Sequence[str] | None,
        languages: Collection[str] | None,
        limits: SocketLimits,
        buffer: Buffer,
    ) -> None:
        self.websocket, self.backend, self.models, self.languages = websocket, backend, models, languages
        self.beta = "realtime=v1" in websocket.headers.get("openai-beta", "")
        self.id = f"sess_{secrets.token_hex(12)}"
        self.session = Session(model=self._asked_for())
        self._frames = Frames(websocket, limits, lambda: bool(self._pending or (self._turns and self._turns.busy)))
        self._samples = Samples()
        self._buffer = buffer
        """audio that the client will commit"""
        self._pending = 0.0
        """seconds that it has committed, without text yet"""
        self._turns: _Turns | None = None
        self._retired: asyncio.Task[None] | None = None
        """the stream before, which still tells what it heard"""
        self._work: set[asyncio.Task[None]] = set()
        self._deaf = False
        """the client takes nothing any more"""
        self._order = asyncio.Lock()
        self._previous: str | None = None
        self._heard = self._committed_until = 0.0
        """seconds of audio since the beginning, and how far the client has committed them"""

    async def run(self) -> None:
        """Until the client leaves."""
        await self.tell("transcription_session.created" if self.beta else "session.created", session=self._shown())
        while True:
            event: dict[str, Any] = {}
            try:
                event = _event(await anext(self._frames))
                if self._deaf:
                    return
                await self._take(event)
            except StopAsyncIteration:
                return
            except TooBig as error:
                await self.fail(RequestError(error.reason, code="frame_too_large"))
            except VermilionError as error:
                await self.fail(error, event.get("event_id"))

    async def close(self) -> None:
        """Give up what is still at work."""
        self._buffer.clear()
        await give_up(self._turns.link if self._turns is not None else None)
        await cancel(*self._work)
        await self._frames.close()

    async def _take(self, event: dict[str, Any]) -> None:
        match event.get("type"):
            case "session.update":
                self.beta = False
                await self._update(event.get("session"), "session.updated")
            case "transcription_session.update":
                self.beta = True
                await self._update(event.get("session"), "transcription_session.updated")
            case "input_audio_buffer.append":
                await self._append(event.get("audio"))
            case "input_audio_buffer.commit":
                await self._commit()
            case "input_audio_buffer.clear":
                await self._clear()
            case other:
                raise RequestError(f"{str(other)[:60]!r} is no event of a transcription session", code="unknown_event")

    # ---- configuration

    async def _update(self, value: Any, answer: str) -> None:
        session = configure(self.session, value)
        if self.models is not None and session.model is not None and session.model not in self.models:
            raise RequestError(
                f"there is no model {session.model[:60]!r}; known are {', '.join(self.models)}",
                code="model_not_found",
                param="session.audio.input.transcription.model",
            )
        session = replace(session, language=code_of(session.language, self.languages))
        if session.stream != self.session.stream:
            if self._buffer:
                raise RequestError("commit or clear the buffer before the audio changes", code="buffer_not_empty")
            await self._retire()
            self._samples = Samples()
        self.session = session
        await self.tell(answer, session=self._shown())

    def _shown(self) -> dict[str, Any]:
        return self.session.shown(self.id, self.beta)

    def _asked_for(self) -> str | None:
        """The model in the address, if it is one of ours; other names there mean models that talk."""
        model = self.websocket.query_params.get("model")
        return model if self.models is None or model in self.models else None

    # ---- audio

    async def _append(self, audio: Any) -> None:
        pcm = self._decoded(audio)
        rate = self.session.samples_per_second
        if self.session.turns is None:
            if len(self._buffer) + len(pcm) > MANUAL_SECONDS * rate * 2:
                raise RequestError(f"commit at least every {MANUAL_SECONDS:g} seconds", code="buffer_full")
            self._buffer.add(pcm)
        elif pcm:
            offset, self._heard = self._heard, self._heard + len(pcm) / 2 / rate
            turns = self._turns or await self._open(offset)
            await feed(turns.link, pcm, rate)

    def _decoded(self, audio: Any) -> bytes:
        try:
            data = base64.b64decode(audio, validate=True)
        except (TypeError, ValueError, binascii.Error) as error:
            raise RequestError("audio must be base64", code="invalid_audio", param="audio") from error
        kind = self.session.kind
        return self._samples.take(data) if kind == "audio/pcm" else expand(data, kind)

    async def _open(self, offset: float) -> _Turns:
        if self._retired is not None:  # a client has one stream at a time
            await self._frames.during(_end_of(self._retired))
        link = await self.backend.open_live(self.session.live_options(), self.session.language)
        self._turns = _Turns(self, link, offset)
        self._turns.task = self._start(self._follow(self._turns))
        return self._turns

    async def _retire(self, *, uncommitted: bool = True) -> None:
        """End the stream: what was said is still told; what was not committed only if it is wanted."""
        turns, self._turns = self._turns, None
        if turns is None:
            return
        if not uncommitted:
            turns.drop_uncommitted()
        self._retired = turns.task
        await turns.link.finish()

    async def _clear(self) -> None:
        self._buffer.clear()
        self._samples = Samples()
        await self._retire(uncommitted=False)
        self._committed_until = self._heard
        await self.tell("input_audio_buffer.cleared")

    async def _commit(self) -> None:
        if self.session.turns is not None:
            if self._turns is None or self._heard - self._committed_until < LEAST_SECONDS:
                raise _empty()
            self._committed_until = self._heard
            await self._turns.link.cut()
            return
        rate = self.session.samples_per_second
        if len(self._buffer) < LEAST_SECONDS * rate * 2:
            raise _empty()
        seconds = len(self._buffer) / 2 / rate
        while self._pending and self._pending + seconds > MANUAL_SECONDS:
            await self._frames.during(_first_of(self._work))
        pcm = self._buffer.take()
        item = await self.committed(new_item())
        self._pending += seconds
        self._start(self._transcribe(item, pcm, seconds, self.session))

    # ---- answers

    async def _transcribe(self, item: str, pcm: bytes, seconds: float, session: Session) -> None:
        try:
            async with self._order:  # of the commits
                found = await self.backend.transcribe_samples(pcm, session.samples_per_second, session.language)
                failure = "; ".join(str(f.error) for f in found.failures) or None
                await self.finish(item, found.text, found.text, found.duration, failure)
        except VermilionError as error:
            await self.failed(item, error)
        finally:
            self._pending -= seconds

    async def _follow(self, turns: _Turns) -> None:
        try:
            await turns.follow()
        except VermilionError as error:
            for item in turns.unfinished:
                await self.failed(item, error)
            await self.fail(error)
        finally:
            if self._turns is turns:
                self._turns = None  # the next audio opens another

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(self._guarded(work))
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return task

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except WebSocketDisconnect:
            self._deaf = True
        except Exception as error:
            log.exception("a realtime session failed")
            with contextlib.suppress(WebSocketDisconnect):
                await self.fail(error)

    async def committed(self, item: str) -> str:
        """Tell that the audio of an item is complete."""
        previous, self._previous = self._previous, item
        await self.tell("input_audio_buffer.committed", item_id=item, previous_item_id=previous)
        content = [{"type": "input_audio", "transcript": None}]
        message = {"id": item, "type": "message", "status": "completed", "role": "user", "content": content}
        if self.beta:
            message["object"] = "realtime.item"
        for kind in ("created",) if self.beta else ("added", "done"):
            await self.tell(f"{ITEM}.{kind}", previous_item_id=previous, item=message)
        return item

    async def finish(self, item: str, rest: str, text: str, seconds: float, failure: str | None) -> None:
        """Tell the end of an item.

        Args:
            item: its id.
            rest: what no delta has told yet.
            text: all of it.
            seconds: of its audio.
            failure: what went wrong.
        """
        if rest:
            await self.tell(DELTA, item_id=item, content_index=0, delta=rest)
        if failure is not None:
            await self.failed(item, RequestError(failure, status=500, code="failed"))
            return
        usage = {"type": "duration", "seconds": round(seconds, 3)}
        await self.tell(COMPLETED, item_id=item, content_index=0, transcript=text, usage=usage)

    async def failed(self, item: str, error: Exception) -> None:
        """Tell that an item has no text, or not all of it."""
        await self.tell(FAILED, item_id=item, content_index=0, error=shape(error).body()["error"])

    async def fail(self, error: Exception, event_id: Any = None) -> None:
        """Tell that something went wrong, by which event of the client."""
        known = event_id[:EVENT_ID_MOST] if isinstance(event_id, str) else None
        await self.tell("error", error={**shape(error).body()["error"], "event_id": known})

    async def tell(self, kind: str, **fields: Any) -> None:
        """Send an event."""
        await send(self.websocket, {"type": kind, "event_id": f"event_{secrets.token_hex(10)}", **fields})


class _Turns:
    """The utterances of one live session as items."""

    def __init__(self, talk: _Conversation, link: LiveLink, offset: float) -> None:
        self.talk, self.link, self.offset = talk, link, offset
        self.task: asyncio.Task[None] | None = None
        self._items: dict[int, str] = {}
        self._said: dict[int, str] = {}
        self._committed: set[int] = set()
        self._dropping = False

    @property
    def busy(self) -> bool:
        """An utterance waits for its text."""
        return bool(self._committed)

    @property
    def unfinished(self) -> list[str]:
        """Items whose audio is complete, but not their text."""
        return [self._items[number] for number in sorted(self._committed)]

    def drop_uncommitted(self) -> None:
        """Tell only of utterances that are over already."""
        self._dropping = True
        self._items = {number: item for number, item in self._items.items() if number in self._committed}

    async def follow(self) -> None:
        """Tell what happens until the session is over."""
        try:
            async for event in self.link.events():
                await self._take(event)
        finally:
            await self.link.close()

    async def _take(self, event: LiveEvent) -> None:
        if isinstance(event, SpeechStarted) and not self._dropping:
            item = self._items[event.utterance] = new_item()
            await self._tell("speech_started", audio_start_ms=self._ms(event.time), item_id=item)
        item_of = self._items.get(getattr(event, "utterance", 0))
        if item_of is None:
            return
        match event:
            case Partial():
                rest = self._rest(event.utterance, event.text)
                if rest:
                    await self.talk.tell(DELTA, item_id=item_of, content_index=0, delta=rest)
            case SpeechEnded():
                self._committed.add(event.utterance)
                await self._tell("speech_stopped", audio_end_ms=self._ms(event.time), item_id=item_of)
                await self.talk.committed(item_of)
            case Final():
                await self._final(item_of, event)

    async def _final(self, item: str, event: Final) -> None:
        rest = self._rest(event.utterance, event.text)
        await self.talk.finish(item, rest, event.text, event.end - event.start, event.failure)
        del self._items[event.utterance]
        self._said.pop(event.utterance, None)
        self._committed.discard(event.utterance)

    def _rest(self, utterance: int, text: str) -> str:
        """What no delta has told yet: clients put them behind each other, and none can be taken back."""
        rest = continuation(self._said.get(utterance, ""), text)
        if rest:
            self._said[utterance] = text
        return rest

    async def _tell(self, kind: str, **fields: Any) -> None:
        await self.talk.tell(f"input_audio_buffer.{kind}", **fields)

    def _ms(self, seconds: float) -> int:
        return to_ms(self.offset + seconds)


def new_item() -> str:
    """An id."""
    return f"item_{secrets.token_hex(12)}"


def _event(frame: str | bytes) -> dict[str, Any]:
    if isinstance(frame, bytes):
        raise RequestError("send text frames: audio goes into input_audio_buffer.append", code="invalid_json")
    return parse(frame)


def _empty() -> RequestError:
    return RequestError(
        "the buffer is empty: append at least 100 ms of audio first", code="input_audio_buffer_commit_empty"
    )


async def _end_of(task: asyncio.Task[None]) -> None:
    """Wait until it has told everything, but not for ever."""
    await asyncio.wait((task,), timeout=STALL_SECONDS)
    await cancel(task)


async def _first_of(tasks: Collection[asyncio.Task[None]]) -> None:
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
