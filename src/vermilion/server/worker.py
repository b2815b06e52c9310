"""An engine process: the models, batches across requests, live sessions. Talks over a pipe; ends with it."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vermilion.assembly import Job, Unit, as_error, restore_units, segmentation_state, unit_state
from vermilion.audio import Recording
from vermilion.errors import Cancelled, ModelError, VermilionError
from vermilion.live import LiveSession, LiveTranscriber
from vermilion.pipeline import Pipeline, cancel_if
from vermilion.server.backend import Step, Task
from vermilion.server.calls import called, present
from vermilion.server.errors import RequestError
from vermilion.server.fair import FairQueue
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
from vermilion.transcript import Failure, Transcript

if TYPE_CHECKING:
    from vermilion.vad import EventDetector, StreamingVoiceActivityDetector

log = logging.getLogger(__name__)
LONG_SECONDS = 600.0
"""longer recordings are segmented in a thread of their own, so that no short one waits for them"""
SHORT_SECONDS = 60.0
"""the same of recordings that a module alone works on from beginning to end"""
LEAST_BATCH = 15.0
"""seconds of speech of a batch, at least; and at most while people speak live"""
TELL_SECONDS = 0.5
"""between two messages of how far the detectors are"""
BATCH_WORK = 8.0
"""seconds that a batch should take at most: who comes next waits for it"""


@dataclass(frozen=True)
class Models:
    """What an engine process runs."""

    pipeline: Pipeline
    detector: StreamingVoiceActivityDetector | None = None
    """finds utterances in live streams; None = no live sessions"""
    sounds: EventDetector | None = None
    """tells live sessions of music and singing"""


def main(connection: Connection, build: Callable[[], Models]) -> None:
    """Run an engine until the pipe closes.

    Args:
        connection: to the server.
        build: makes the models.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server decides when engines stop
    try:
        models = build()
    except Exception as error:  # noqa: BLE001 - the server shows it to whoever started it
        connection.send(Failed(0, portable(error)))
        return
    Engine(connection, models).run()
    os._exit(0)  # the pipe is closed: nobody waits for what the other threads still do


def portable(error: Exception) -> VermilionError:
    """An error that survives the way through the pipe."""
    known = as_error(error)
    if isinstance(known, RequestError):
        return known
    try:
        return type(known)(str(known))
    except TypeError:
        return ModelError(str(known))


@dataclass
class _Running:
    """A task on its way."""

    job: Job
    keep: bool
    total: float
    done: float


class Engine:
    """Takes messages, runs the networks, answers."""

    def __init__(self, connection: Connection, models: Models) -> None:
        """Take the pipe and the models."""
        self.connection, self.models, self.pipeline = connection, models, models.pipeline
        self._sending = threading.Lock()
        self._changed = threading.Condition()
        self._queue: FairQueue[int, Unit] = FairQueue()
        self._speed = 1.0
        self._running: dict[int, _Running] = {}
        self._gone: dict[int, threading.Event] = {}
        """set when nobody waits for the answer any more"""
        self._short = ThreadPoolExecutor(1, "segments")
        self._long = ThreadPoolExecutor(1, "long-segments")
        self._live = Live(self.models, self._send)

    def run(self) -> None:
        """Serve until the pipe closes."""
        threading.Thread(target=self._batches, name="batches", daemon=True).start()
        self._send(Ready(self.pipeline.models(), languages_covered(self.pipeline)))
        while True:
            try:
                message = self.connection.recv()
            except (EOFError, OSError):
                return  # the server is gone; daemon threads go with us
            self._take(message)

    def _take(self, message: object) -> None:
        match message:
            case Transcribe():
                pool = self._long if message.task.seconds > LONG_SECONDS else self._short
                pool.submit(self._open, message, self._expect(message.id))
            case Call():
                task = message.values.get("task")
                pool = self._long if task is not None and task.seconds > SHORT_SECONDS else self._short
                pool.submit(self._call, message, self._expect(message.id))
            case Cancel():
                self._cancel(message.id)
            case OpenLive() | Sound() | Mark():
                self._live.put(message)

    def _expect(self, number: int) -> threading.Event:
        with self._changed:
            return self._gone.setdefault(number, threading.Event())

    def _send(self, message: object) -> None:
        with self._sending:
            try:
                self.connection.send(message)
            except OSError:
                log.debug("the server has gone")

    # ---- recordings

    def _cancel(self, number: int) -> None:
        with self._changed:
            gone = self._gone.pop(number, None)
            if gone is None:
                return
            gone.set()
            self._queue.remove(number)
            running = self._running.pop(number, None)
        if running is not None:
            running.job.close()

    def _open(self, message: Transcribe, gone: threading.Event) -> None:
        """Segment a recording and queue its segments."""
        number, task = message.id, message.task
        try:
            cancel_if(gone)
            job = self.pipeline.segment(
                task.name,
                _recordings(task),
                language=task.language,
                events=task.events,
                cached=task.segmentation,
                progress=self._watch(number, gone),
            )
            segmentation = segmentation_state(job)
            restore_units(job, task.finished)
        except Cancelled:
            return
        except Exception as error:  # noqa: BLE001 - one bad recording must not stop the thread
            self._fail(number, error)
            return
        total = sum(u.span.duration for u in job.units)
        waiting = [u for u in job.units if not u.restored]
        running = _Running(job, message.keep, total, total - sum(u.span.duration for u in waiting))
        with self._changed:
            if gone.is_set():
                job.close()
                return
            self._running[number] = running
        # before the first batch can tell more
        self._send(Progress(number, Step("vad", running.done, total, count=len(job.units), segmentation=segmentation)))
        with self._changed:
            if not gone.is_set():
                self._queue.add(number, [(u, u.span.duration) for u in waiting], task.weight)
                self._changed.notify_all()
        if not waiting:
            self._finish(number)

    def _watch(self, number: int, gone: threading.Event) -> Callable[[float, float], None]:
        """Tell how far the detectors are, now and then; end them when nobody waits any more."""
        told = -TELL_SECONDS

        def watch(done: float, total: float) -> None:
            nonlocal told
            cancel_if(gone)
            if time.monotonic() - told >= TELL_SECONDS:
                told = time.monotonic()
                self._send(Progress(number, Step("vad", done, total)))

        return watch

    def _batches(self) -> None:
        while True:
            with self._changed:
                while not len(self._queue):
                    self._changed.wait()
                taken = self._queue.take(self._budget())
            began = time.monotonic()
            self._run(taken)
            speech = sum(unit.span.duration for _, unit in taken)
            self._speed = 0.7 * self._speed + 0.3 * speech / max(1e-3, time.monotonic() - began)

    def _budget(self) -> float:
        """Seconds of speech of the next batch: large ones are efficient, small ones let others in sooner."""
        if self._live.is_open():
            return LEAST_BATCH
        return min(self.pipeline.options.batch_seconds, max(LEAST_BATCH, BATCH_WORK * self._speed))

    def _run(self, taken: list[tuple[int, Unit]]) -> None:
        try:
            self.pipeline.advance([unit for _, unit in taken])
        except Exception as error:
            owners = {number for number, _ in taken}
            if len(owners) > 1:
                for owner in owners:
                    self._run([(n, u) for n, u in taken if n == owner])
                return
            log.exception("a batch failed")
            self._fail(owners.pop(), error)
            return
        for number in dict.fromkeys(n for n, _ in taken):
            self._advanced(number, [unit for n, unit in taken if n == number])

    def _advanced(self, number: int, units: Sequence[Unit]) -> None:
        with self._changed:
            running = self._running.get(number)
        if running is None:  # cancelled meanwhile
            return
        running.done += sum(u.span.duration for u in units)
        kept = [state for u in units if running.keep and (state := unit_state(u)) is not None]
        self._send(Progress(number, Step("asr", running.done, running.total, kept, len(running.job.units))))
        if running.job.waiting <= 0:
            self._finish(number)

    def _finish(self, number: int) -> None:
        with self._changed:
            running = self._running.pop(number, None)
            self._gone.pop(number, None)
        if running is None:
            return
        try:
            answer = replace(self.pipeline.finish(running.job), probabilities=None)
        except Exception as error:  # noqa: BLE001 - as above
            self._send(Failed(number, portable(error)))
            return
        self._send(Answer(number, portable_transcript(answer)))

    def _fail(self, number: int, error: Exception) -> None:
        with self._changed:
            self._queue.remove(number)
            running = self._running.pop(number, None)
            self._gone.pop(number, None)
        if running is not None:
            running.job.close()
        self._send(Failed(number, portable(error)))

    # ---- modules alone

    def _call(self, message: Call, gone: threading.Event) -> None:
        try:
            cancel_if(gone)
            task = message.values.get("task")
            recordings = _recordings(task) if task is not None else []
            found = called(self.pipeline, message.method, message.values, recordings, lambda: cancel_if(gone))
            self._send(Answer(message.id, found))
        except Cancelled:
            return
        except Exception as error:  # noqa: BLE001 - as above
            self._send(Failed(message.id, portable(error)))
        finally:
            with self._changed:
                self._gone.pop(message.id, None)


class Live:
    """The live sessions of an engine, in a thread of their own."""

    def __init__(self, models: Models, send: Callable[[object], None]) -> None:
        """Take the models and the way back."""
        self.models, self._send = models, send
        self._inbox: SimpleQueue[object] = SimpleQueue()
        self._sessions: dict[int, LiveSession] = {}
        self._transcriber: LiveTranscriber | None = None
        threading.Thread(target=self._loop, name="live-sessions", daemon=True).start()

    def put(self, message: object) -> None:
        """Take a message of a session."""
        self._inbox.put(message)

    def is_open(self) -> bool:
        """Somebody speaks."""
        return bool(self._sessions)

    def _loop(self) -> None:
        while True:
            message = self._inbox.get()
            number = message if isinstance(message, int) else message.id  # type: ignore[attr-defined]
            try:
                self._handle(number, message)
            except Exception as error:  # noqa: BLE001 - one session must not stop the others
                self._drop(number)
                self._send(Failed(number, portable(error)))

    def _handle(self, number: int, message: object) -> None:
        if isinstance(message, OpenLive):
            self._sessions[number] = self._open(message)
            return
        session = self._sessions.get(number)
        if session is None:
            return
        match message:
            case Sound():
                samples = np.frombuffer(message.pcm, dtype="<i2")
                events = session.accept(samples, message.rate)
                self._send(Told(number, events, len(samples)))
                return
            case Mark(what="close"):
                self._drop(number)
                return
            case Mark(what="cut"):
                events = session.cut()
            case Mark(what="finish"):
                events = session.stop() + session.poll()
            case _:
                events = session.poll()
        over = session.is_over
        if over:
            del self._sessions[number]
        if events or over:
            self._send(Told(number, events, over=over))

    def _open(self, message: OpenLive) -> LiveSession:
        number = message.id
        if self._transcriber is None:
            detector = present(self.models.detector, "streaming voice activity")
            self._transcriber = LiveTranscriber(self.models.pipeline, detector, self.models.sounds)
        return self._transcriber.session(
            message.options, notify=lambda: self._inbox.put(number), language=message.language
        )

    def _drop(self, number: int) -> None:
        session = self._sessions.pop(number, None)
        if session is not None:
            session.close()


def _recordings(task: Task) -> list[Recording]:
    return recordings_of(task, [_samples(path) for path in task.tracks])


def recordings_of(task: Task, tracks: Sequence[NDArray[np.int16]]) -> list[Recording]:
    """The channels of a task, or its mix.

    Args:
        task: names them.
        tracks: (n,) int16 at 16 kHz each.
    """
    several = len(tracks) > 1
    return [
        Recording(task.name, samples, i if several else None, list(task.warnings)) for i, samples in enumerate(tracks)
    ]


def _samples(path: Path) -> NDArray[np.int16]:
    if path.stat().st_size == 0:
        return np.zeros(0, dtype=np.int16)
    return np.memmap(path, dtype=np.int16, mode="r")


def portable_transcript(transcript: Transcript) -> Transcript:
    """A transcript that survives the way between processes."""
    failures = [Failure(f.source, portable(f.error), f.stage, f.span) for f in transcript.failures]
    return replace(transcript, failures=failures)


def languages_covered(pipeline: Pipeline) -> list[str] | None:
    """Codes that are recognised; None = any."""
    found: set[str] = set()
    for recognizer in (pipeline.recognizer, pipeline.fallback):
        if recognizer is None:
            continue
        covered = getattr(recognizer, "languages", None)
        if covered is None:
            return None
        found |= set(covered)
    return sorted(found)
