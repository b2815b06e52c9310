"""The engine processes as the server sees them: started, asked, watched, restarted, unloaded. No torch here."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import multiprocessing
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from vermilion.errors import VermilionError
from vermilion.live.events import LiveEvent, Partial
from vermilion.live.options import LiveOptions
from vermilion.server.backend import State, Step, Task
from vermilion.server.errors import Busy, RequestError
from vermilion.server.messages import (
    Answer,
    Call,
    Cancel,
    Failed,
    Mark,
    OpenLive,
    Progress,
    Ready,
    Sound,
    Told,
    Transcribe,
)
from vermilion.server.rate import Rate
from vermilion.transcript import Transcript

if TYPE_CHECKING:
    from vermilion.server.uploads import Spool
    from vermilion.server.worker import Models

log = logging.getLogger(__name__)
ATTEMPTS = 3
"""engines that one request may lose before it is held responsible"""
LIVE_LOAD = 60.0
"""a live session counts as so many seconds of waiting audio when an engine is chosen"""
AHEAD_SECONDS = 10.0
"""a live client may be so far ahead of the engine before it has to wait"""
EVENTS_KEPT = 4096


class EngineDied(Exception):
    """The process has ended without an answer."""


def run_engine(connection: Connection, build: Callable[[], Models]) -> None:
    """What runs in the new process: only there are the networks imported."""
    from vermilion.runtime import begin_worker

    begin_worker()
    from vermilion.server.worker import main

    main(connection, build)


class Engine:
    """One engine process; all methods are called from the event loop's thread."""

    def __init__(self, build: Callable[[], Models]) -> None:
        """Start the process."""
        self.ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
        self.ready.add_done_callback(lambda f: f.cancelled() or f.exception())  # nobody need wait for it
        self.load = 0.0
        """seconds of audio that wait here"""
        self.dead = False
        self._inboxes: dict[int, Callable[[object], None]] = {}
        self._loop = asyncio.get_running_loop()
        self._outbox: SimpleQueue[object] = SimpleQueue()
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self.process = context.Process(target=run_engine, args=(theirs, build), daemon=True)
        self.process.start()
        theirs.close()
        for work in (self._read, self._write):
            threading.Thread(target=work, name=work.__name__, daemon=True).start()

    @property
    def idle(self) -> bool:
        """Nothing waits for an answer."""
        return not self._inboxes

    def send(self, message: object) -> None:
        """Tell the engine something."""
        self._outbox.put(message)

    def listen(self, number: int, inbox: Callable[[object], None]) -> None:
        """Hear the messages of one request; `EngineDied` is the last one if the process ends."""
        self._inboxes[number] = inbox
        if self.dead:
            inbox(EngineDied())

    def forget(self, number: int) -> None:
        """Hear no more of a request."""
        self._inboxes.pop(number, None)

    async def stop(self) -> None:
        """End the process."""
        self._outbox.put(None)
        await asyncio.to_thread(self.process.join, 2.0)
        if self.process.is_alive():
            self.process.kill()
            await asyncio.to_thread(self.process.join, 5.0)

    def _write(self) -> None:
        while (message := self._outbox.get()) is not None:
            try:
                self._pipe.send(message)
            except OSError:
                return  # the reader notices too
        self.process.terminate()

    def _read(self) -> None:
        while True:
            try:
                message = self._pipe.recv()
            except (EOFError, OSError):
                break
            self._tell(message)
        self._tell(EngineDied())
        self._outbox.put(None)

    def _tell(self, message: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the server is gone
            self._loop.call_soon_threadsafe(self._take, message)

    def _take(self, message: object) -> None:
        match message:
            case Ready():
                self.ready.set_result(message)
            case Failed(id=0):
                self._fail_start(message.error)
            case EngineDied():
                self.dead = True
                self._fail_start(message)
                for inbox in list(self._inboxes.values()):
                    inbox(message)
            case _:
                number: int = message.id  # type: ignore[attr-defined]
                if number in self._inboxes:
                    self._inboxes[number](message)

    def _fail_start(self, error: Exception) -> None:
        if not self.ready.done():
            self.ready.set_exception(error)


@dataclass
class _Slot:
    """A place for an engine; it may be empty while nothing is to be done."""

    engine: Engine | None = None
    idle_since: float = 0.0
    waiting: int = 0
    """requests that wait for its models"""


class EnginePool:
    """Engines that answer (`Backend`): the least loaded one is asked; one that dies is replaced."""

    def __init__(
        self,
        build: Callable[[], Models],
        spool: Spool,
        *,
        workers: int = 1,
        live_sessions: int = 16,
        keep_alive: float | None = None,
    ) -> None:
        """Take what engines are made of.

        Args:
            build: makes the models; called in every engine process.
            spool: takes samples that clients sent as one utterance.
            workers: engine processes.
            live_sessions: at once, in all.
            keep_alive: seconds without work after which an engine ends; None = never.
        """
        self.build, self.spool, self.keep_alive = build, spool, keep_alive
        self.live_sessions, self.live_open = live_sessions, 0
        self.rate = Rate()
        self.models: dict[str, str] = {}
        self.languages: list[str] | None = None
        self.deaths = 0
        self._slots = [_Slot() for _ in range(workers)]
        self._numbers = itertools.count(1)
        self._suspects = asyncio.Lock()
        self._closed = False
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the engines; returns when all have loaded their models.

        Raises:
            VermilionError: they cannot be loaded.
        """
        engines = [self._started(slot) for slot in self._slots]
        try:
            for engine in engines:
                ready = await engine.ready
                self.models, self.languages = ready.models, ready.languages
        except EngineDied as error:
            await self.close()
            raise RequestError("an engine ended while it loaded the models", status=500) from error
        except VermilionError:
            await self.close()
            raise
        self._keeper = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """End all engines."""
        self._closed = True
        if self._keeper is not None:
            self._keeper.cancel()
        engines = [slot.engine for slot in self._slots if slot.engine is not None]
        await asyncio.gather(*(engine.stop() for engine in engines))

    @property
    def loaded(self) -> int:
        """Engines that have their models in memory."""
        return sum(s.engine is not None and not s.engine.dead and s.engine.ready.done() for s in self._slots)

    @property
    def available(self) -> bool:
        """Requests can be answered, if only after loading."""
        return not self._closed

    @property
    def waiting_seconds(self) -> float:
        """Audio that waits or is at work."""
        return sum(slot.engine.load for slot in self._slots if slot.engine is not None)

    # ---- Backend

    async def transcribe(self, task: Task, report: Callable[[Step], Awaitable[None]] | None = None) -> Transcript:
        """Transcribe a recording; segments that an engine finished before it died are not done again."""
        kept: list[State] = list(task.finished)
        segmentation = task.segmentation

        async def note(step: Step) -> None:
            nonlocal segmentation
            segmentation = step.segmentation or segmentation
            kept.extend(step.segments)
            if report is not None:
                await report(step)

        answer: Transcript = await self._attempts(
            lambda number: Transcribe(
                number, replace(task, finished=list(kept), segmentation=segmentation), keep=report is not None
            ),
            task.seconds,
            note,
        )
        return answer

    async def call(self, method: str, **values: Any) -> Any:
        """Run a module alone."""
        task = values.get("task")
        return await self._attempts(lambda number: Call(number, method, values), task.seconds if task else 0.0, _ignore)

    async def transcribe_samples(self, pcm: bytes, rate: int, language: str | None = None) -> Transcript:
        """Transcribe mono int16 samples that a client sent as one utterance."""
        from vermilion.server.samples import write_16k

        path = self.spool.new()
        try:
            seconds = await asyncio.to_thread(write_16k, pcm, rate, path)
            return await self.transcribe(Task([path], "utterance", language, weight=4.0, seconds=seconds, events=False))
        finally:
            self.spool.remove(path)

    async def open_live(self, options: LiveOptions, language: str | None = None) -> EngineLink:
        """Begin a live session."""
        if self.live_open >= self.live_sessions:
            raise Busy(f"{self.live_sessions} live sessions are open already", retry_after=10)
        self.live_open += 1
        try:
            engine = await self._engine()
            return EngineLink(self, engine, next(self._numbers), OpenLive(0, options, language))
        except BaseException:
            self.live_open -= 1
            raise

    # ---- asking

    async def _attempts(
        self, message: Callable[[int], object], seconds: float, note: Callable[[Step], Awaitable[None]]
    ) -> Any:
        """Ask until an engine answers; who was at work when one died asks again, one at a time, so that the
        request that kills engines is found and the others are not taken for it.
        """
        for attempt in range(ATTEMPTS):
            async with self._suspects if attempt else contextlib.nullcontext():
                try:
                    return await self._ask(message, seconds, note)
                except EngineDied:
                    self.deaths += 1
                    log.error("an engine ended while it had work; attempt %d of %d", attempt + 1, ATTEMPTS)
        raise RequestError("the engine ended several times at this request", status=500, code="engine_failed")

    async def _ask(
        self, message: Callable[[int], object], seconds: float, note: Callable[[Step], Awaitable[None]]
    ) -> Any:
        engine = await self._engine()
        number = next(self._numbers)
        inbox: asyncio.Queue[object] = asyncio.Queue()
        engine.listen(number, inbox.put_nowait)
        engine.load += seconds
        try:
            with self.rate.busy():
                engine.send(message(number))
                return await self._answer(inbox, note)
        except asyncio.CancelledError:
            engine.send(Cancel(number))
            raise
        finally:
            engine.load -= seconds
            engine.forget(number)

    async def _answer(self, inbox: asyncio.Queue[object], note: Callable[[Step], Awaitable[None]]) -> Any:
        done: float | None = None
        while True:
            match await inbox.get():
                case Answer() as answer:
                    return answer.value
                case Progress() as progress:
                    step = progress.step
                    if step.count is not None:
                        self.rate.add(0.0 if done is None else step.done - done)
                        done = step.done
                    await note(step)
                case Failed() as failed:
                    raise failed.error
                case EngineDied() as died:
                    raise died

    async def _engine(self) -> Engine:
        """The least loaded engine, its models loaded."""
        if self._closed:
            raise Busy("the server is stopping", retry_after=10, code="stopping")
        slot = min(self._slots, key=lambda s: s.engine.load if s.engine is not None and not s.engine.dead else 0.0)
        engine = slot.engine
        if engine is None or engine.dead:
            engine = self._started(slot)
        slot.waiting += 1
        try:
            await asyncio.shield(engine.ready)
        finally:
            slot.waiting -= 1
            slot.idle_since = time.monotonic()
        return engine

    def _started(self, slot: _Slot) -> Engine:
        slot.engine, slot.idle_since = Engine(self.build), time.monotonic()
        return slot.engine

    async def _keep(self) -> None:
        """End engines that have had nothing to do for long; start those again that died."""
        while True:
            await asyncio.sleep(min(1.0, (self.keep_alive or 4.0) / 4))
            for slot in self._slots:
                engine = slot.engine
                if engine is None:
                    continue
                if engine.dead:
                    self._revive(slot)
                elif not engine.idle or slot.waiting or not engine.ready.done():
                    slot.idle_since = time.monotonic()
                elif self.keep_alive is not None and time.monotonic() - slot.idle_since >= self.keep_alive:
                    log.info("an engine had nothing to do for %g s and gives its memory back", self.keep_alive)
                    slot.engine = None
                    await engine.stop()

    def _revive(self, slot: _Slot) -> None:
        """At most one start in five seconds: what dies at once must not keep the machine busy."""
        if time.monotonic() - slot.idle_since < 5.0:
            return
        try:
            self._started(slot)
        except OSError:
            log.exception("an engine cannot be started")
            slot.idle_since = time.monotonic()


async def _ignore(_: Step) -> None:
    """Progress of something that has none."""


class EngineLink:
    """A live session in an engine (`LiveLink`)."""

    def __init__(self, pool: EnginePool, engine: Engine, number: int, opening: OpenLive) -> None:
        """Open it there."""
        self.pool, self.engine, self.number = pool, engine, number
        self._events: asyncio.Queue[list[LiveEvent] | Exception | None] = asyncio.Queue()
        self._ahead = 0
        self._heard = asyncio.Event()
        self._open = True
        engine.load += LIVE_LOAD
        engine.listen(number, self._take)
        engine.send(replace(opening, id=number))

    async def send(self, pcm: bytes, rate: int) -> None:
        """Pass samples on; waits while the engine is far behind."""
        while self._open and self._ahead > AHEAD_SECONDS * rate:
            self._heard.clear()
            await self._heard.wait()
        if self._open:
            self._ahead += len(pcm) // 2
            self.engine.send(Sound(self.number, pcm, rate))

    async def cut(self) -> None:
        """End the open utterance."""
        self._mark("cut")

    async def finish(self) -> None:
        """End the stream."""
        self._mark("finish")

    async def close(self) -> None:
        """Give the session up."""
        if self._open:
            self._mark("close")
            self._over()
            self._events.put_nowait(None)

    async def events(self) -> AsyncIterator[LiveEvent]:
        """Tell what happens until the session is over."""
        while (item := await self._events.get()) is not None:
            if isinstance(item, Exception):
                raise item
            for event in item:
                yield event

    def _mark(self, what: str) -> None:
        if self._open:
            self.engine.send(Mark(self.number, what))

    def _take(self, message: object) -> None:
        match message:
            case Told():
                self._ahead -= message.heard
                self._heard.set()
                self._queue(message.events)
                if message.over:
                    self._over()
                    self._events.put_nowait(None)
            case Failed():
                self._over()
                self._events.put_nowait(message.error)
            case EngineDied():
                self._over()
                self._events.put_nowait(
                    RequestError("the engine of this session ended; connect again", status=500, code="engine_failed")
                )

    def _queue(self, events: list[LiveEvent]) -> None:
        """A client that reads slowly loses hypotheses first, and its session at last."""
        if self._events.qsize() > EVENTS_KEPT // 4:
            events = [event for event in events if not isinstance(event, Partial)]
        if self._events.qsize() > EVENTS_KEPT:
            self._mark("close")
            self._over()
            self._events.put_nowait(RequestError("the client reads too slowly", status=408, code="slow_reader"))
        elif events:
            self._events.put_nowait(events)

    def _over(self) -> None:
        if self._open:
            self._open = False
            self._heard.set()
            self.engine.forget(self.number)
            self.engine.load -= LIVE_LOAD
            self.pool.live_open -= 1
