"""Works off the queue of jobs: fairly, resumably, and telling how far it is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from vermilion.assembly import state_sentences
from vermilion.audio.isolation import Decoded, Decoding, decode
from vermilion.errors import VermilionError
from vermilion.server.backend import Backend, State, Step, Task
from vermilion.server.errors import Busy, shape
from vermilion.server.jobs.store import JobRow, JobStore
from vermilion.server.jobs.webhooks import Notifier
from vermilion.server.options import ServerOptions
from vermilion.server.outbound import fetch
from vermilion.server.threads import Threads
from vermilion.server.uploads import Spool

log = logging.getLogger(__name__)
LEASE = 60.0
"""seconds after which another server takes the jobs of one that no longer says it lives"""
LOOK = 2.0
"""seconds between two looks into a queue that others fill too"""
EVENTS_KEPT = 512
AGAIN = 10.0
STORE_THREADS = 4
VAD_SHARE = 0.1
"""share of a job's progress that the detectors have"""
R = TypeVar("R")
Event = tuple[str, dict[str, Any]]
"""name and data"""


class JobRunner:
    """The jobs of this server."""

    def __init__(self, store: JobStore, backend: Backend, options: ServerOptions) -> None:
        """Take the store, the engines and the limits."""
        self.store, self.backend, self.options = store, backend, options
        self.spool = Spool(options.spool, options.limits.spool_bytes)
        self.owner = secrets.token_hex(8)
        self._storing = Threads(STORE_THREADS, "job-store")
        self._decoding = Threads(options.limits.jobs_at_once, "job-decoders")
        self.notifier = Notifier(store, options.webhook_hosts, threads=self._storing)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._listeners: defaultdict[str, set[asyncio.Queue[Event]]] = defaultdict(set)
        self._loops: list[asyncio.Task[None]] = []
        self._wake, self._wake_notifier = asyncio.Event(), asyncio.Event()
        self._stopping = asyncio.Event()

    async def start(self) -> None:
        """Open the store, take up what was left, begin to work.

        Raises:
            OptionsError: the store cannot be opened.
        """
        await self.ask(self._open)
        self._loops = [
            asyncio.create_task(_repeat(0.0, self._dispatch)),
            asyncio.create_task(_repeat(LEASE / 3, self._renew)),
            asyncio.create_task(_repeat(3600.0, self._purge)),
            asyncio.create_task(self.notifier.run(self._wake_notifier)),
        ]

    def _open(self) -> None:
        self.store.open()
        self.options.uploads.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = self.store.requeue(all_running=not self.store.is_shared)
        if found:
            log.info("%d jobs go on that were at work when the server ended", found)
        if not self.store.is_shared:
            self._sweep()

    def _sweep(self) -> None:
        """Uploads whose job was never stored, or is over."""
        needed = self.store.sources()
        for path in self.options.uploads.iterdir():
            if str(path) not in needed:
                path.unlink()

    async def stop(self, grace: float = 2.0) -> None:
        """Put the jobs at work back into the queue; those almost finished get a moment.

        Args:
            grace: seconds.
        """
        self._stopping.set()
        for loop in self._loops[:1]:  # no new jobs
            loop.cancel()
        if self._running:
            await asyncio.wait(self._running.values(), timeout=grace)
        for task in [*self._running.values(), *self._loops]:
            task.cancel()
        await asyncio.gather(*self._running.values(), *self._loops, return_exceptions=True)
        for id in list(self._listeners):
            self._tell(id, ("bye", {}))
        if self._loops:
            await self.ask(self.store.close)
            self._loops = []

    def counts(self) -> dict[str, int]:
        """Jobs by status."""
        return self.store.counts() if self._loops else {}

    # ---- for routes

    async def ask(self, work: Callable[..., R], *values: Any, **named: Any) -> R:
        """Do something with the store, in its threads."""
        return await self._storing.run(work, *values, **named)

    @property
    def is_stopping(self) -> bool:
        """No new jobs are taken."""
        return self._stopping.is_set()

    async def submit(self, row: JobRow) -> JobRow:
        """Store a job; when this returns it will be done, whatever happens to the server.

        Raises:
            Busy: too many wait.
        """
        if self.is_stopping:
            raise Busy("the server is stopping; ask again in a moment", retry_after=10, code="stopping")
        stored = await self.ask(self.store.add, row, self.options.limits.jobs)
        if stored is None:
            raise Busy(f"{self.options.limits.jobs} jobs are waiting already", retry_after=600)
        self._wake.set()
        return stored

    async def remove(self, row: JobRow) -> JobRow:
        """Cancel a job, or forget a finished one."""
        cancelled = await self.ask(self.store.cancel, row.id)
        if cancelled is None:
            await self.ask(self.store.delete, row.id)
            return row
        await self._end(row.id)
        await self.ask(self._drop, cancelled)
        self._over(cancelled)
        return cancelled

    async def events(self, id: str) -> AsyncIterator[Event]:
        """Tell how a job goes on: "progress", "segment", and at last "done".

        Segments are told by the server that works at the job; on others, progress is looked up.
        """
        queue: asyncio.Queue[Event] = asyncio.Queue(EVENTS_KEPT)
        self._listeners[id].add(queue)
        try:
            last: dict[str, Any] | None = None
            told = _Told()
            for name, data in await self._state(id):
                yield name, told.new(data)
                last = data
            while last is not None and last.get("status") not in ("succeeded", "failed", "cancelled"):
                for name, data in await self._news(queue, id, last):
                    if name == "bye":
                        return
                    yield name, told.new(data)
                    last = data if "status" in data else last
        finally:
            self._listeners[id].discard(queue)
            if not self._listeners[id]:
                del self._listeners[id]

    async def _state(self, id: str) -> list[Event]:
        row, position, states = await self.ask(self._look, id)
        if row is None:
            return []
        if row.is_final:
            return [("done", row.public())]
        found: list[Event] = [("segment", _segment(states))] if states else []
        return [*found, ("progress", row.public(position))]

    async def _news(self, queue: asyncio.Queue[Event], id: str, last: dict[str, Any]) -> list[Event]:
        try:
            async with asyncio.timeout(LOOK):
                return [await queue.get()]
        except TimeoutError:
            found = [(name, data) for name, data in await self._state(id) if name != "segment"]
            changed = [event for event in found if event[1] != last]
            return changed if found else [("bye", {})]  # the job was deleted

    def _look(self, id: str) -> tuple[JobRow | None, int | None, list[State]]:
        row = self.store.get(id)
        if row is None:
            return None, None, []
        return row, self.store.position(row), list(self.store.segments(id))

    # ---- work

    async def _dispatch(self) -> None:
        """Take as many jobs as may be at work."""
        self._wake.clear()
        while len(self._running) < self.options.limits.jobs_at_once:
            row = await self.ask(self.store.claim, f"{self.owner}.{secrets.token_hex(8)}", LEASE)
            if row is None:
                break
            await self._end(row.id)  # our own claim lapsed, as it does where the database was away
            self._begin(row)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK):  # not wait_for: in Python 3.11 it can lose a cancellation
                await self._wake.wait()

    def _begin(self, row: JobRow) -> None:
        task = asyncio.create_task(self._run(row), name=row.id)
        self._running[row.id] = task
        self._tell(row.id, ("progress", row.public()))

        def ended(_: asyncio.Task[None]) -> None:
            if self._running.get(row.id) is task:
                del self._running[row.id]
            self._wake.set()

        task.add_done_callback(ended)

    async def _end(self, id: str) -> None:
        task = self._running.get(id)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self, row: JobRow) -> None:
        try:
            result = await self._transcribe(row)
        except asyncio.CancelledError:  # the server stops, or a client cancelled the job: then it is not ours any more
            await self.ask(self.store.release, row.id, row.owner)
            raise
        except Busy:
            await self.ask(self.store.release, row.id, row.owner, AGAIN)
            return
        except Exception as error:  # a job must not end the others
            if not isinstance(error, VermilionError):
                log.exception("job %s failed", row.id)
            body = json.dumps(shape(error).body()["error"])
            await self._finish(row, "failed", None, body)
            return
        await self._finish(row, "succeeded", result, None)

    async def _finish(self, row: JobRow, status: str, result: str | None, error: str | None) -> None:
        done = await self.ask(self.store.finish, row.id, row.owner, status, result, error)
        if done is not None:
            await self.ask(self._drop, done)
            self._over(done)

    async def _transcribe(self, row: JobRow) -> str:
        source = await self._fetched(row)
        decoded = await self._decoded(row, source)
        try:
            kept = await self.ask(self.store.segments, row.id)
            segmentation = await self.ask(self.store.segmentation, row.id)
            await self._keep(row, [], duration=round(decoded.seconds, 3), stage="vad")
            task = Task(
                decoded.tracks,
                row.name,
                row.language,
                seconds=decoded.seconds,
                warnings=list(decoded.warnings),
                finished=list(kept),
                segmentation=segmentation,
            )
            transcript = await self.backend.transcribe(task, lambda step: self._report(row, step))
        finally:
            self.spool.remove(*decoded.tracks)
        if transcript.failures and not transcript.sentences:
            raise transcript.failures[0].error
        return json.dumps(transcript.to_dict(), ensure_ascii=False)

    async def _fetched(self, row: JobRow) -> Path:
        if row.kind != "url":
            return Path(row.source)
        target = self.options.uploads / row.id
        target.unlink(missing_ok=True)  # of an earlier attempt
        limits = self.options.limits
        await fetch(row.source, target, allowed=self.options.fetch_hosts, max_bytes=limits.upload_bytes)
        return target

    async def _decoded(self, row: JobRow, source: Path) -> Decoded:
        limits = self.options.limits
        self.spool.check()
        work = Decoding(
            source,
            self.spool.new(),
            row.name,
            row.channels,
            limits.audio_seconds,
            limits.decode_memory,
            limits.decode_seconds,
        )
        stopped = threading.Event()
        job = asyncio.ensure_future(self._decoding.run(decode, work, stopped))
        try:
            return await asyncio.shield(job)
        except asyncio.CancelledError:
            stopped.set()
            with contextlib.suppress(VermilionError):
                self.spool.remove(*(await job).tracks)
            raise

    async def _report(self, row: JobRow, step: Step) -> None:
        share = step.done / step.total if step.total else 1.0
        values: dict[str, Any] = {"stage": step.stage}
        if step.count is None:
            values["progress"] = VAD_SHARE * min(1.0, share)
        else:
            values |= {"progress": VAD_SHARE + (1 - VAD_SHARE) * min(1.0, share), "segments_total": step.count}
        changed = await self._keep(row, step.segments, segmentation=step.segmentation, **values)
        if step.segments:
            self._tell(row.id, ("segment", _segment(step.segments)))
        self._tell(row.id, ("progress", changed.public()))

    async def _keep(self, row: JobRow, states: list[State], **values: Any) -> JobRow:
        changed = await self.ask(self.store.advance, row.id, row.owner, states, **values)
        if changed is None:  # cancelled, or another server has it: stop without a word
            raise asyncio.CancelledError
        return changed

    def _drop(self, row: JobRow) -> None:
        """Remove the recording of a job that is over; files that a client named by path are not ours."""
        if row.kind != "path":
            (self.options.uploads / row.id).unlink(missing_ok=True)

    # ---- telling

    def _over(self, row: JobRow) -> None:
        self._tell(row.id, ("done", row.public()))
        self._wake_notifier.set()

    def _tell(self, id: str, event: Event) -> None:
        """Who reads slowly misses progress; the last event always has room."""
        for queue in self._listeners.get(id, ()):
            if queue.qsize() >= EVENTS_KEPT - 2 and event[0] not in ("done", "bye"):
                continue
            with contextlib.suppress(asyncio.QueueFull):
                queue.put_nowait(event)

    # ---- now and then

    async def _renew(self) -> None:
        await self.ask(self.store.renew, self.owner, LEASE)
        if await self.ask(self.store.requeue):
            self._wake.set()

    async def _purge(self) -> None:
        before = time.time() - self.options.keep_jobs_days * 86400
        gone = await self.ask(self.store.purge, before)
        if gone:
            log.info("%d old jobs were deleted", len(gone))


async def _repeat(seconds: float, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    while True:
        try:
            await work()
        except Exception:  # the database may be away for a while
            log.exception("the job store does not answer")
            await asyncio.sleep(LOOK)
        await asyncio.sleep(seconds)


class _Told:
    """Sentences are told once, although they may be in the store and on their way at the same time."""

    def __init__(self) -> None:
        self._known: set[tuple[Any, ...]] = set()

    def new(self, data: dict[str, Any]) -> dict[str, Any]:
        if "sentences" not in data:
            return data
        keys = [(s["start_ms"], s["end_ms"], s.get("channel"), s["text"]) for s in data["sentences"]]
        fresh = [s for s, key in zip(data["sentences"], keys, strict=True) if key not in self._known]
        self._known.update(keys)
        return {"sentences": fresh}


def _segment(states: list[State]) -> dict[str, Any]:
    return {"sentences": [s.to_dict() for state in states for s in state_sentences(state)]}
