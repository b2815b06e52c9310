"""A request with a recording, from its upload to its transcript."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vermilion.audio.isolation import Decoded, Decoding, decode
from vermilion.errors import AudioLimitError
from vermilion.runtime import usable_cores
from vermilion.server.admission import Admission, attended
from vermilion.server.backend import Engines, Step, Task
from vermilion.server.errors import RequestError
from vermilion.server.metrics import Metrics
from vermilion.server.options import ServerOptions
from vermilion.server.threads import Threads
from vermilion.server.uploads import Form, Spool, Upload, receive, too_long
from vermilion.transcript import Transcript

if TYPE_CHECKING:
    from fastapi import Request

log = logging.getLogger(__name__)
SYNC_WEIGHT = 4.0
"""share of the engines of a client that waits, relative to a job"""


@dataclass
class Desk:
    """What routes share."""

    options: ServerOptions
    engines: Engines
    spool: Spool
    admission: Admission
    metrics: Metrics
    decoders: Threads = field(default_factory=lambda: Threads(usable_cores(), "decoders"))

    @contextlib.asynccontextmanager
    async def form(
        self, request: Request, check: Callable[[str, str], None] = lambda _, __: None
    ) -> AsyncIterator[Form]:
        """Admit a request and read its form; `check` gets every field as soon as it is there."""
        limits = self.options.limits
        with self.admission.enter(request.state.peer):
            async with receive(request, self.spool, limits, seconds=limits.request_seconds, check=check) as form:
                yield form

    @contextlib.asynccontextmanager
    async def recording(
        self, form: Form, *, channels: str = "mix", language: str | None = None, events: bool = True
    ) -> AsyncIterator[Task]:
        """Decode a form's file; its samples are removed afterwards."""
        upload = form.files.get("file")
        if upload is None:
            raise RequestError("send the recording in the field `file`", code="missing_file", param="file")
        decoded = await self._decode(upload, channels)
        try:
            with self.admission.audio(decoded.seconds):
                yield Task(
                    decoded.tracks,
                    upload.name,
                    language,
                    SYNC_WEIGHT,
                    decoded.seconds,
                    list(decoded.warnings),
                    events=events,
                )
        finally:
            self.spool.remove(*decoded.tracks)

    async def _decode(self, upload: Upload, channels: str) -> Decoded:
        limits = self.options.limits
        work = Decoding(
            upload.path,
            self.spool.new(),
            upload.name,
            channels,
            limits.request_seconds,
            limits.decode_memory,
            limits.decode_seconds,
        )
        stopped = threading.Event()
        job = asyncio.ensure_future(self.decoders.run(decode, work, stopped))
        try:
            return await asyncio.shield(job)
        except AudioLimitError as error:
            raise too_long(limits.request_seconds) from error
        except asyncio.CancelledError:
            stopped.set()
            await _discard(job, self.spool)
            raise

    async def transcribe(self, task: Task, report: Callable[[Step], Awaitable[None]] | None = None) -> Transcript:
        """Transcribe, and count what was done."""
        with self.metrics.timed(task.seconds):
            transcript = await self.engines.transcribe(task, report)
        if self.options.log_text:
            log.info("%r: %s", task.name, transcript.text)
        return transcript

    async def attended(self, request: Request, work: Any) -> Any:
        """Do the work as long as the client waits."""
        return await attended(request, work, self.options.limits.deadline)


async def _discard(job: asyncio.Future[Decoded], spool: Spool) -> None:
    """A decoder that was stopped may have finished just before."""
    with contextlib.suppress(Exception):
        spool.remove(*(await job).tracks)
