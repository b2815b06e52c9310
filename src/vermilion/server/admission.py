"""Who may come in: bounded numbers, honest `Retry-After`, deadlines, and the end of work for clients that left."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from vermilion.server.errors import Busy, RequestError
from vermilion.server.options import Limits

if TYPE_CHECKING:
    from fastapi import Request

    from vermilion.live.options import LiveOptions
    from vermilion.server.backend import Backend, LiveLink, Step, Task
    from vermilion.transcript import Transcript

R = TypeVar("R")
LONGEST_WAIT = 600.0


class Admission:
    """Counts the requests that wait for their answers."""

    def __init__(self, limits: Limits, rate: Callable[[], float]) -> None:
        """Take the limits, and what tells how many seconds of audio the engines finish per second."""
        self.limits, self.rate = limits, rate
        self.draining = False
        self.refused: Counter[str] = Counter()
        self.seconds = 0.0
        """audio of the requests inside"""
        self.held = 0
        """bytes of audio that sockets hold"""
        self._clients: Counter[str] = Counter()
        self._sockets: Counter[str] = Counter()

    @property
    def inside(self) -> int:
        """Requests at work or waiting."""
        return self._clients.total()

    def expected_wait(self) -> float:
        """Seconds until about half of what waits is finished."""
        return min(LONGEST_WAIT, max(1.0, self.seconds / self.rate() / 2))

    @contextlib.contextmanager
    def enter(self, client: str) -> Iterator[None]:
        """Be one of the requests inside.

        Raises:
            Busy: 503 too many of all, 429 too many of this client.
        """
        if self.draining:
            raise self._busy("the server is stopping; ask again in a moment", code="stopping")
        if self.inside >= self.limits.requests:
            raise self._busy(f"{self.inside} requests are being served already")
        if self._clients[client] >= self.limits.per_client:
            raise self._busy(
                f"{self.limits.per_client} of your requests are being served already", 429, "rate_limit_exceeded"
            )
        self._clients[client] += 1
        try:
            yield
        finally:
            self._clients[client] -= 1
            if not self._clients[client]:
                del self._clients[client]

    @contextlib.contextmanager
    def socket(self, client: str) -> Iterator[None]:
        """Be one of the open sockets.

        Raises:
            Busy: 503 too many of all, 429 too many of this client.
        """
        if self.draining:
            raise self._busy("the server is stopping; connect again in a moment", code="stopping")
        if self._sockets.total() >= self.limits.sockets:
            raise self._busy(f"{self.limits.sockets} sockets are open already")
        if self._sockets[client] >= self.limits.per_client:
            raise self._busy(f"{self.limits.per_client} of your sockets are open already", 429, "rate_limit_exceeded")
        self._sockets[client] += 1
        try:
            yield
        finally:
            self._sockets[client] -= 1
            if not self._sockets[client]:
                del self._sockets[client]

    def hold(self, size: int) -> None:
        """Count bytes of audio that a socket holds in memory; negative ones are given back.

        Raises:
            Busy: all sockets together would hold too much.
        """
        if size > 0 and self.held + size > self.limits.socket_bytes:
            raise self._busy("sockets hold too much audio already; commit it, or come back in a moment")
        self.held += size

    @contextlib.contextmanager
    def audio(self, seconds: float) -> Iterator[None]:
        """Add a recording to what waits.

        Raises:
            Busy: too much waits already; a single recording is let in however long it is.
        """
        if self.seconds and self.seconds + seconds > self.limits.backlog_seconds:
            raise self._busy(f"{self.seconds:.0f} seconds of audio are waiting already")
        self.seconds += seconds
        try:
            yield
        finally:
            self.seconds -= seconds

    def _busy(self, message: str, status: int = 503, code: str = "overloaded") -> Busy:
        self.refused[code] += 1
        return Busy(message, retry_after=self.expected_wait(), status=status, code=code)


class Buffer:
    """Audio of one socket, counted among that of all."""

    def __init__(self, admission: Admission | None = None) -> None:
        """Begin empty; without admission nothing is counted."""
        self._admission, self._data = admission, bytearray()

    def __len__(self) -> int:
        return len(self._data)

    def add(self, data: bytes) -> None:
        """Take more; raises Busy where all sockets hold too much."""
        if self._admission is not None:
            self._admission.hold(len(data))
        self._data += data

    def take(self) -> bytes:
        """Everything in it; it is empty then."""
        data = bytes(self._data)
        self.clear()
        return data

    def clear(self) -> None:
        """Forget what is in it."""
        if self._admission is not None:
            self._admission.hold(-len(self._data))
        self._data.clear()


@dataclass
class Admitted:
    """Engines that sockets ask (`Backend`): what they send as one utterance waits among the other requests."""

    engines: Backend
    admission: Admission

    async def transcribe(self, task: Task, report: Callable[[Step], Awaitable[None]] | None = None) -> Transcript:
        """As the engines."""
        return await self.engines.transcribe(task, report)

    async def call(self, method: str, **values: Any) -> Any:
        """As the engines."""
        return await self.engines.call(method, **values)

    async def open_live(self, options: LiveOptions, language: str | None = None) -> LiveLink:
        """As the engines."""
        return await self.engines.open_live(options, language)

    async def transcribe_samples(self, pcm: bytes, rate: int, language: str | None = None) -> Transcript:
        """As the engines; raises Busy where too much waits already."""
        with self.admission.audio(len(pcm) / 2 / rate):
            return await self.engines.transcribe_samples(pcm, rate, language)


class ClientLeft(Exception):
    """Nobody waits for the answer any more."""


async def attended(request: Request, work: Coroutine[Any, Any, R], deadline: float) -> R:
    """Do the work for as long as the client waits, and no longer than the deadline.

    The body must have been read: the next thing that the client can say is that it has gone.

    Raises:
        RequestError: 503 when the deadline has passed.
        ClientLeft: the client has gone.
    """
    job = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((job, gone), timeout=deadline, return_when=asyncio.FIRST_COMPLETED)
        if job.done():
            return job.result()
        if gone.done():
            raise ClientLeft
        raise RequestError(
            f"the answer would take longer than {deadline:g} seconds; send the recording as a job (POST /v1/jobs)",
            status=503,
            code="deadline_exceeded",
        )
    finally:
        for task in (job, gone):
            task.cancel()
        await asyncio.gather(job, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
