"""FunASR's WebSocket protocol: offline, online and 2pass."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import WebSocket, WebSocketDisconnect

from vermilion.errors import VermilionError
from vermilion.live.events import Final, Partial
from vermilion.live.options import LiveOptions
from vermilion.server.admission import Buffer
from vermilion.server.backend import Backend, LiveLink
from vermilion.server.errors import RequestError, shape
from vermilion.server.pieces import continuation
from vermilion.server.socket_helpers import (
    Closing,
    Frames,
    Samples,
    SocketLimits,
    both,
    close,
    closing_code,
    feed,
    give_up,
    parse,
    send,
)
from vermilion.text import join_texts
from vermilion.transcript import Sentence, to_ms

PROTOCOL = "binary"
MODES = ("offline", "online", "2pass")
OFFLINE_BYTES = 64 << 20
"""longest recording of offline mode: 35 minutes at 16 kHz"""
SILENCE_MS = 800
LIMITS = SocketLimits(text_bytes=1 << 20)  # hot words may be many


@dataclass(frozen=True)
class Config:
    """A client's first frame; `hotwords`, `itn` and `chunk_size` are taken and change nothing."""

    mode: str = "2pass"
    name: str = "demo"
    rate: int = 16000

    @classmethod
    def of(cls, data: dict[str, Any]) -> Config:
        """Read it.

        Raises:
            RequestError: it asks for what is not here.
        """
        mode, rate = data.get("mode", "2pass"), data.get("audio_fs", 16000)
        if mode not in MODES:
            raise RequestError(f"mode must be one of {', '.join(MODES)}", code="invalid_value")
        if not isinstance(rate, int) or not 8000 <= rate <= 192_000:
            raise RequestError("audio_fs must lie between 8000 and 192000", code="invalid_value")
        if str(data.get("wav_format", "pcm")).lower() != "pcm":
            raise RequestError("wav_format must be pcm: send 16-bit samples without a header", code="invalid_value")
        return cls(mode, str(data.get("wav_name", "demo"))[:200], rate)


async def serve_funasr(
    websocket: WebSocket, backend: Backend, *, limits: SocketLimits = LIMITS, buffer: Buffer | None = None
) -> None:
    """Serve one socket; after the end of a stream the next may follow.

    Args:
        websocket: not yet accepted.
        backend: the engines.
        limits: of the socket.
        buffer: for audio that is transcribed all at once.
    """
    await websocket.accept(PROTOCOL if PROTOCOL in websocket.scope["subprotocols"] else None)
    frames, audio = Frames(websocket, limits), Buffer() if buffer is None else buffer
    try:
        async for frame in frames:
            if isinstance(frame, bytes):
                raise RequestError("begin with a text frame that names the mode", code="invalid_value")
            data = parse(frame)
            if not is_end(data):
                await _Stream(websocket, backend, Config.of(data), audio).run(frames)
        await close(websocket)
    except Closing as end:
        await close(websocket, end.code, end.reason)
    except WebSocketDisconnect:
        return
    except VermilionError as error:
        await close(websocket, closing_code(error), str(error))
    except Exception as error:
        await close(websocket, closing_code(error), shape(error).message)
        raise
    finally:
        audio.clear()
        await frames.close()


def is_end(data: dict[str, Any]) -> bool:
    """The client has sent all its audio."""
    return data.get("is_speaking") is False or data.get("is_finished") is True


class _Stream:
    """One stream of speech."""

    def __init__(self, websocket: WebSocket, backend: Backend, config: Config, buffer: Buffer) -> None:
        self.websocket, self.backend, self.config, self.buffer = websocket, backend, config, buffer
        self.samples = Samples()
        self._ending: dict[str, Any] | None = None
        """the frame with which the client ended the stream"""
        self._finished = ""
        """the end of what the client shows of earlier utterances"""
        self._said = ""
        """what was told of the open utterance"""
        self._last: dict[str, Any] | None = None
        """told when it is known whether another follows"""

    async def run(self, frames: Frames) -> None:
        if self.config.mode == "offline":
            await self._offline(frames)
            return
        link = await self.backend.open_live(LiveOptions(silence_ms=SILENCE_MS, events=False))
        try:
            await both(self._hear(frames, link), self._tell(link))
        finally:
            await give_up(link)

    # ---- while people speak

    async def _hear(self, frames: Frames, link: LiveLink) -> bool:
        async for frame in frames:
            if isinstance(frame, bytes):
                await feed(link, self.samples.take(frame), self.config.rate)
            elif is_end(data := parse(frame)):
                self._ending = data
                await link.finish()
                return await frames.stays()
        return False

    async def _tell(self, link: LiveLink) -> None:
        async for event in link.events():
            if isinstance(event, Partial):
                await self._online(event.text)
            elif isinstance(event, Final):
                await self._final(event)
        await self._end(self._last or self._message(self._kind("offline"), ""))

    async def _online(self, text: str) -> None:
        """What stands firm and was not yet said: clients put the pieces behind each other."""
        piece = continuation(self._said, text)
        if piece:
            message = self._message(self._kind("online"), piece if self._said else self._behind(piece))
            self._said = text
            await send(self.websocket, message)

    async def _final(self, event: Final) -> None:
        if self.config.mode == "online":
            await self._online(event.text)
            if event.failure is not None:
                await send(self.websocket, self._message("online", "") | {"error": event.failure})
        else:
            await self._sentence(event)
        self._finished = (event.text or self._finished)[-8:]
        self._said = ""

    async def _sentence(self, event: Final) -> None:
        """The last one of all says so: what comes after the end of the audio waits for its successor."""
        message = self._message(self._kind("offline"), self._behind(event.text)) | stamps(event.sentences)
        if event.failure is not None:
            message["error"] = event.failure
        if self._ending is None:
            await send(self.websocket, message)
            return
        waiting, self._last = self._last, message
        if waiting is not None:
            await send(self.websocket, waiting)

    def _behind(self, text: str) -> str:
        """Clients put all texts behind each other, with nothing between them."""
        return join_texts([self._finished, text])[len(self._finished) :]

    # ---- all at once

    async def _offline(self, frames: Frames) -> None:
        async for frame in frames:
            if isinstance(frame, bytes):
                self.buffer.add(self.samples.take(frame))
                if len(self.buffer) > OFFLINE_BYTES:
                    seconds = OFFLINE_BYTES // (2 * self.config.rate)
                    raise RequestError(f"offline mode takes {seconds} seconds at this rate", code="audio_too_long")
            elif is_end(data := parse(frame)):
                self._ending = data
                found = await frames.during(self.backend.transcribe_samples(self.buffer.take(), self.config.rate))
                message = self._message("offline", found.text) | stamps(found.sentences)
                if found.failures:
                    message["error"] = "; ".join(str(f.error) for f in found.failures)
                await self._end(message)
                return

    # ---- messages

    async def _end(self, message: dict[str, Any]) -> None:
        """Newer clients wait for the `is_end` that they have sent."""
        ended = {"is_end": True} if (self._ending or {}).get("is_end") is True else {}
        await send(self.websocket, message | {"is_final": True} | ended)

    def _kind(self, kind: str) -> str:
        return f"2pass-{kind}" if self.config.mode == "2pass" else "online"

    def _message(self, mode: str, text: str) -> dict[str, Any]:
        return {"mode": mode, "text": text, "wav_name": self.config.name, "is_final": False}


def stamps(sentences: Sequence[Sentence]) -> dict[str, Any]:
    """`timestamp` (a string) and `stamp_sents`; nothing where no word has a time."""
    times = [_times(sentence) for sentence in sentences]
    if not any(times):
        return {}
    stamped = [
        {
            "text_seg": " ".join(word.text for word in sentence.words),
            "punc": _mark(sentence.text),
            "start": to_ms(sentence.start),
            "end": to_ms(sentence.end),
            "ts_list": found,
        }
        for sentence, found in zip(sentences, times, strict=True)
    ]
    flat = [pair for found in times for pair in found]
    return {"timestamp": json.dumps(flat, separators=(",", ":")), "stamp_sents": stamped}


def _times(sentence: Sentence) -> list[list[int]]:
    return [[to_ms(word.start), to_ms(word.end)] for word in sentence.words]


def _mark(text: str) -> str:
    last = text.rstrip()[-1:]
    return last if last and unicodedata.category(last).startswith("P") else ""
