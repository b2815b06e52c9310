"""What the WebSocket protocols share: bounded frames, whole samples, two tasks per session."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fastapi import WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse

from vermilion.server.admission import Admission
from vermilion.server.backend import LiveLink
from vermilion.server.errors import Busy, RequestError, shape

R = TypeVar("R")
GOING_AWAY, POLICY, TOO_BIG, INTERNAL, TRY_LATER = 1001, 1008, 1009, 1011, 1013
SEND_SECONDS = 60.0
"""a client that takes nothing for so long is given up"""
CLOSE_SECONDS = 10.0
STALL_SECONDS = 120.0
"""an engine that takes no audio for so long is given up"""
PIECE_SECONDS = 0.5
"""audio that is passed on at once: a long frame of one client must not stop the others"""


@dataclass(frozen=True)
class SocketLimits:
    """What one socket may do."""

    binary_bytes: int = 1 << 20
    """largest frame of samples"""
    text_bytes: int = 16 << 20
    """largest frame of text"""
    idle_seconds: float = 120.0
    """without a frame for so long, the socket is closed"""
    session_seconds: float = 4 * 3600.0
    """longest session"""


class Closing(Exception):
    """The socket has to be closed."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


async def admitted(websocket: WebSocket, admission: Admission, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Serve a socket if there is room for it; else the client gets an HTTP error in its place."""
    state = websocket.scope["state"]
    try:
        with admission.socket(state["peer"]):
            await work()
    except Busy as error:  # of `socket`: sockets tell their own errors
        found = shape(error)
        await websocket.send_denial_response(JSONResponse(found.body(), found.status, found.headers()))


class TooBig(Closing):
    """A frame is larger than it may be; those after it could still be read."""

    def __init__(self) -> None:
        super().__init__(TOO_BIG, "the frame is too large")


class Frames:
    """What a client sends, a frame at a time; while an answer is in the making, one frame may be read ahead.

    At any time there is one reader.
    """

    def __init__(self, websocket: WebSocket, limits: SocketLimits, busy: Callable[[], bool] = lambda: False) -> None:
        """Take the socket.

        Args:
            websocket: accepted.
            limits: of the frames and of the time.
            busy: the client waits for something and may be silent meanwhile.
        """
        self._websocket, self._limits, self._busy = websocket, limits, busy
        self._end = asyncio.get_running_loop().time() + limits.session_seconds
        self._ahead: asyncio.Task[str | bytes | None] | None = None

    def __aiter__(self) -> Frames:
        """Frames until the client leaves."""
        return self

    async def __anext__(self) -> str | bytes:
        """The next frame.

        Raises:
            TooBig: it is too large.
            Closing: none comes any more.
            StopAsyncIteration: the client has left.
        """
        while not await self._wait(self._reading(), self._limits.idle_seconds):
            if not self._busy():
                raise Closing(GOING_AWAY, "nothing was sent for too long")
        frame = self._reading().result()
        if frame is None:
            raise StopAsyncIteration
        self._ahead = None
        if len(frame) > (self._limits.text_bytes if isinstance(frame, str) else self._limits.binary_bytes):
            raise TooBig
        return frame

    async def stays(self) -> bool:
        """Wait until the client leaves (False) or says something more (True), which is kept for the next reader."""
        while not await self._wait(self._reading(), None):
            pass
        return self._reading().result() is not None

    async def during(self, work: Coroutine[Any, Any, R]) -> R:
        """Do some work that the client waits for.

        Raises:
            WebSocketDisconnect: the client has left; the work was given up.
        """
        job = asyncio.ensure_future(work)
        staying = asyncio.ensure_future(self.stays())
        try:
            await asyncio.wait((job, staying), return_when=asyncio.FIRST_COMPLETED)
            if not job.done() and not staying.result():
                raise WebSocketDisconnect(GOING_AWAY)
            return await job
        finally:
            await cancel(job, staying)

    async def close(self) -> None:
        """Stop reading."""
        if self._ahead is not None:
            await cancel(self._ahead)

    def _reading(self) -> asyncio.Task[str | bytes | None]:
        if self._ahead is None:
            self._ahead = asyncio.ensure_future(_frame(self._websocket))
        return self._ahead

    async def _wait(self, task: asyncio.Task[Any], seconds: float | None) -> bool:
        """Wait for the frame, as long as the session lasts."""
        left = self._end - asyncio.get_running_loop().time()
        await asyncio.wait((task,), timeout=max(0.0, left if seconds is None else min(left, seconds)))
        if asyncio.get_running_loop().time() >= self._end:
            raise Closing(GOING_AWAY, "the session is too long")
        return task.done()


async def _frame(websocket: WebSocket) -> str | bytes | None:
    try:
        message = await websocket.receive()
    except (RuntimeError, OSError):  # it was closed from this side
        return None
    if message["type"] == "websocket.disconnect":
        return None
    text: str | None = message.get("text")
    return text if text is not None else (message.get("bytes") or b"")


@dataclass
class Samples:
    """Bytes in pieces of any length → whole samples."""

    width: int = 2
    """bytes of a sample, of all channels"""
    _rest: bytes = field(default=b"", repr=False)

    def take(self, data: bytes) -> bytes:
        """Further bytes; what makes no sample yet is kept."""
        data = self._rest + data if self._rest else data
        whole = len(data) // self.width * self.width
        self._rest = data[whole:]
        return data[:whole]


async def feed(link: LiveLink, pcm: bytes, rate: int) -> None:
    """Pass samples on in small pieces, waiting for the engine where it is behind.

    Raises:
        Closing: it does not take them.
    """
    step = max(1, int(rate * PIECE_SECONDS)) * 2
    try:
        for start in range(0, len(pcm), step):
            async with asyncio.timeout(STALL_SECONDS):
                await link.send(pcm[start : start + step], rate)
    except TimeoutError as error:
        raise Closing(TRY_LATER, "the engine is too far behind") from error


def parse(text: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        RequestError: it is none.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError("this is not JSON", code="invalid_json") from error
    if not isinstance(found, dict):
        raise RequestError("send a JSON object", code="invalid_json")
    return found


async def both(hear: Coroutine[Any, Any, bool], tell: Coroutine[Any, Any, None]) -> None:
    """Hear and tell at the same time.

    Args:
        hear: reads what the client sends; False when the client has left: then nothing more is told.
        tell: ends when the session is over: then nothing more is heard.
    """
    hearing, telling = asyncio.ensure_future(hear), asyncio.ensure_future(tell)
    try:
        await asyncio.wait((hearing, telling), return_when=asyncio.FIRST_COMPLETED)
        if telling.done() or hearing.result():
            await telling
    finally:
        await cancel(hearing, telling)


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    """End tasks and wait until they have ended; what they raise is of no interest any more."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def send(websocket: WebSocket, message: dict[str, Any]) -> None:
    """Send a JSON object; waits while the client is slow.

    Raises:
        WebSocketDisconnect: the client has gone, or takes nothing any more.
    """
    try:
        async with asyncio.timeout(SEND_SECONDS):
            await websocket.send_text(json.dumps(message, ensure_ascii=False).encode("utf-8", "replace").decode())
    except (RuntimeError, TimeoutError) as error:  # RuntimeError: the socket is closed already
        raise WebSocketDisconnect(GOING_AWAY) from error


async def close(websocket: WebSocket, code: int = 1000, reason: str = "") -> None:
    """Close a socket that may be closed already."""
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await websocket.close(code, reason.encode("utf-8", "replace")[:120].decode("utf-8", "ignore"))
    except (RuntimeError, TimeoutError, WebSocketDisconnect):
        return


def closing_code(error: Exception) -> int:
    """What the end of a socket says about an error."""
    if isinstance(error, Busy):
        return TRY_LATER
    return POLICY if shape(error).status < 500 else INTERNAL


async def give_up(*links: LiveLink | None) -> None:
    """Close sessions."""
    for link in links:
        if link is not None:
            await link.close()
