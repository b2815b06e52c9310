"""Worker processes of a corpus job: each has a pipeline of its own, and a crash costs the item that caused it."""

from __future__ import annotations

import multiprocessing
import os
import secrets
import shutil
import signal
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import TYPE_CHECKING

from vermilion.audio import Recording
from vermilion.audio.isolation import DecoderDied
from vermilion.cluster.reading import Decoder, Reader, decoded
from vermilion.errors import AudioError, ManifestError, ModelError, VermilionError
from vermilion.languages import fireredlid_label
from vermilion.manifests import Utterance
from vermilion.runtime import begin_worker
from vermilion.scheduling import windows
from vermilion.transcript import Failure, Transcript

if TYPE_CHECKING:
    from vermilion.assembly import Job
    from vermilion.pipeline import Pipeline

Result = Transcript | Failure
ALONE = 2
"""how often an item is tried at most: with others, then alone"""
_STARTS = 3
"""how often a worker may end while it loads its models, where others could load theirs"""
_POLL = 0.2
_PARENTS = (signal.SIGINT, signal.SIGTERM)
"""signals that a terminal or a batch system sends to all processes of a job; here the parent handles them"""
_SAMPLES = "vermilion-corpus-"
"""what the folders of workers for decoded recordings are called; the rest is the name of their process"""


@dataclass(frozen=True)
class WorkerOptions:
    """How the processes run."""

    workers: int = 1
    """Processes with a pipeline each."""
    chunk: int = 16
    """Items that a worker takes at once: their segments share batches."""
    chunk_seconds: float = 600.0
    """Seconds of audio with which a chunk is full in any case, where the manifest says how long items are."""
    patience: float = 1800.0
    """Seconds that a worker may be silent before it is taken for hanging and ended."""
    decode_seconds: float = 600.0
    """Seconds that reading one recording may take."""
    decode_memory: int = 4 << 30
    """Bytes that reading one recording may take."""
    max_seconds: float = 8 * 3600.0
    """Longest recording."""
    stream: str = ""
    """Which audio stream of several, as for `iter_blocks`."""
    memory: int = 0
    """Bytes of address space of a worker; 0 = no limit."""
    gpus: int = 0
    """GPUs that are dealt out to the workers, one each; 0 = every worker sees what this process sees."""
    isolate: bool = True
    """Decode in a process of its own; without, the caller vouches for the files."""


def next_chunk(utterances: Iterator[Utterance], options: WorkerOptions) -> tuple[Utterance, ...]:
    """The items that a worker takes next; none where all are taken."""
    items: list[Utterance] = []
    seconds = 0.0
    for utterance in utterances:
        items.append(utterance)
        seconds += utterance.duration or 0.0
        if len(items) >= options.chunk or seconds >= options.chunk_seconds:
            break
    return tuple(items)


@dataclass(frozen=True)
class Done:
    """The answer for one item."""

    utterance: Utterance
    result: Result
    attempts: int
    seconds: float
    """of audio"""


@dataclass(frozen=True)
class _Work:
    items: tuple[Utterance, ...]
    attempt: int = 1


@dataclass
class _Worker:
    """A process, and what it has in hand."""

    process: SpawnProcess
    connection: Connection
    ready: bool = False
    work: _Work | None = None
    left: dict[int, Utterance] = field(default_factory=dict)
    heard: float = field(default_factory=time.monotonic)


class WorkerPool:
    """Runs items in processes; results come as they are ready, in any order."""

    def __init__(self, build: Callable[[], Pipeline], options: WorkerOptions, reader: Reader | None = None) -> None:
        """Take what the processes are made of.

        Args:
            build: makes a pipeline inside a worker; it is pickled.
            options: how they run.
            reader: of recordings, inside a worker (it is pickled); None = `decoded`.
        """
        self.build, self.options, self.reader = build, options, reader
        self.models: dict[str, str] = {}
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []
        self._starts = 0
        """how often in turn a worker ended while it loaded its models"""
        self._token = secrets.token_hex(8)
        """in the names of the workers' folders: one that is killed cannot clear up"""

    def __enter__(self) -> WorkerPool:
        """Start the workers; returns when the first has its models.

        Raises:
            VermilionError: what building a pipeline raised.
        """
        self._workers = [self._start(number) for number in range(self.options.workers)]
        try:
            while not any(worker.ready for worker in self._workers):
                for worker in self._heard():
                    self._greet(worker)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End the workers."""
        self.close()

    def close(self) -> None:
        """End the workers at once; what they have in hand is dropped."""
        for worker in self._workers:
            worker.connection.close()
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
        self._workers = []
        self._clear()

    def _clear(self, number: str = "*") -> None:
        """Remove what killed workers have left of decoded recordings."""
        for folder in Path(tempfile.gettempdir()).glob(f"{_SAMPLES}{self._token}-{number}-*"):
            shutil.rmtree(folder, ignore_errors=True)

    def run(self, utterances: Iterator[Utterance], stopped: Callable[[], bool] = lambda: False) -> Iterator[Done]:
        """Transcribe items; at most a chunk per worker is read ahead.

        Args:
            utterances: read as workers become free.
            stopped: when true, no more items are begun; what is in hand is finished.

        Yields:
            An answer for every item that was read.

        Raises:
            VermilionError: no worker can be started any more.
        """
        suspects: deque[_Work] = deque()
        over = False
        while True:
            for worker in self._workers:
                if worker.ready and worker.work is None:
                    work = suspects.popleft() if suspects else None
                    if work is None and not over and not stopped():
                        work = self._chunk(utterances)
                        over = work is None
                    if work is not None:
                        self._give(worker, work)
            if not suspects and all(worker.work is None for worker in self._workers) and (over or stopped()):
                return
            for worker in self._heard():
                yield from self._listen(worker, suspects)
            yield from self._hanging(suspects)

    # ---- one worker

    def _start(self, number: int) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=main, args=(theirs, self.build, self.options, number, self.reader))
        process.name = f"{_SAMPLES}{self._token}-{number}-"
        with _deaf():
            process.start()
        theirs.close()
        return _Worker(process, ours)

    def _chunk(self, utterances: Iterator[Utterance]) -> _Work | None:
        items = next_chunk(utterances, self.options)
        return _Work(items) if items else None

    def _give(self, worker: _Worker, work: _Work) -> None:
        worker.work, worker.left, worker.heard = work, dict(enumerate(work.items)), time.monotonic()
        with suppress(OSError):  # it has died: its end is heard next
            worker.connection.send(work.items)

    def _heard(self) -> list[_Worker]:
        """Workers that have said something, or died."""
        ready = wait([w.connection for w in self._workers], timeout=_POLL)
        return [w for w in self._workers if w.connection in ready]

    def _greet(self, worker: _Worker) -> None:
        """Hear whether a new worker has its models."""
        try:
            said = worker.connection.recv()
        except (EOFError, OSError) as error:
            worker.process.join()
            if self.models and self._starts < _STARTS:  # others live: the machine may have been short of memory
                self._starts += 1
                worker.connection.close()
                self._workers[self._workers.index(worker)] = self._start(self._workers.index(worker))
                return
            raise ModelError(f"a worker ended while it loaded its models ({_end_of(worker.process)})") from error
        if isinstance(said, VermilionError):
            raise said
        self._starts = 0
        self.models, worker.ready, worker.heard = said, True, time.monotonic()

    def _listen(self, worker: _Worker, suspects: deque[_Work]) -> Iterator[Done]:
        if not worker.ready:
            self._greet(worker)
            return
        try:
            said = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join()
            yield from self._lost(worker, f"the worker died ({_end_of(worker.process)})", suspects)
            return
        worker.heard = time.monotonic()
        if said is None:  # the chunk is through
            worker.work = None
        elif isinstance(said, tuple):
            index, result, seconds = said
            attempt = worker.work.attempt if worker.work else 1
            if isinstance(result, Failure) and isinstance(result.error, DecoderDied):
                attempt = ALONE
            yield Done(worker.left.pop(index), result, attempt, seconds)

    def _hanging(self, suspects: deque[_Work]) -> Iterator[Done]:
        for worker in list(self._workers):
            if worker.work is not None and time.monotonic() - worker.heard > self.options.patience:
                worker.process.kill()
                worker.process.join()
                what = f"the worker said nothing for {self.options.patience:g} s and was ended"
                yield from self._lost(worker, what, suspects)

    def _lost(self, worker: _Worker, what: str, suspects: deque[_Work]) -> Iterator[Done]:
        """A worker has gone: what it had in hand is tried again item by item; an item that is alone is guilty."""
        worker.connection.close()
        number = self._workers.index(worker)
        self._clear(str(number))
        self._workers[number] = self._start(number)
        attempt = worker.work.attempt if worker.work else 1
        if attempt >= ALONE:
            for utterance in worker.left.values():
                error = ModelError(f"{what} at this item, also when it was tried alone")
                yield Done(utterance, Failure(utterance.audio, error, "worker"), attempt, 0.0)
        else:
            suspects.extend(_Work((utterance,), attempt + 1) for utterance in worker.left.values())


@contextmanager
def _deaf() -> Iterator[None]:
    """A process that is started in here hears neither Ctrl-C nor SIGTERM: the parent handles them, after it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # else it is started along, and lets the signals in again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _PARENTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_of(process: SpawnProcess) -> str:
    code = process.exitcode
    if code is not None and code < 0:
        with suppress(ValueError):
            return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"


# ---- inside a worker


def main(
    connection: Connection,
    build: Callable[[], Pipeline],
    options: WorkerOptions,
    number: int = 0,
    reader: Reader | None = None,
) -> None:
    """Build the pipeline, then answer chunks until the other end closes."""
    for number_of_signal in _PARENTS:
        signal.signal(number_of_signal, signal.SIG_IGN)
    _limit(options)
    begin_worker()
    own_gpu(options.gpus, number)
    try:
        pipeline = build()
    except VermilionError as error:
        connection.send(error)
        return
    except MemoryError:
        connection.send(ModelError("the models cannot be loaded: they need more memory than a worker may take"))
        return
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        connection.send(ModelError(f"the models cannot be loaded: {error}"))
        return
    connection.send(pipeline.models())
    with (
        tempfile.TemporaryDirectory(prefix=multiprocessing.current_process().name) as folder,
        suppress(EOFError, OSError),
    ):
        while (items := connection.recv()) is not None:
            read = Decoder(items, options, Path(folder), pipeline.options.channels, reader or decoded)
            for answer in transcribe(pipeline, items, read):
                connection.send(answer)
            connection.send(None)


def _limit(options: WorkerOptions) -> None:
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if options.memory:
            resource.setrlimit(resource.RLIMIT_AS, (options.memory, options.memory))


def own_gpu(gpus: int, number: int) -> None:
    """Let this process see one GPU of several, before it uses any."""
    if gpus > 1:
        visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        names = visible or [str(i) for i in range(gpus)]
        os.environ["CUDA_VISIBLE_DEVICES"] = names[number % len(names)]


def transcribe(
    pipeline: Pipeline, items: Sequence[Utterance], read: Callable[[int], list[Recording] | VermilionError]
) -> Iterator[tuple[int, Result, float] | float]:
    """Transcribe items together.

    Args:
        pipeline: of this process.
        items: whose segments share batches.
        read: number of an item → its recordings, or why it has none.

    Yields:
        (index, result, seconds of audio) of every item, in any order; times in between are signs of life.
    """
    jobs: dict[int, Job] = {}
    try:
        for index, utterance in enumerate(items):
            try:
                found = read(index)
                if isinstance(found, VermilionError):
                    raise found
                jobs[index] = pipeline.segment(utterance.audio, found, language=spoken(utterance))
            except VermilionError as error:
                stage = "audio" if isinstance(error, AudioError | ManifestError) else "vad"
                yield index, Failure(utterance.audio, error, stage), 0.0
            yield time.time()
            if (
                sum(unit.span.duration for job in jobs.values() for unit in job.units)
                >= pipeline.options.window_seconds
            ):
                yield from _through(pipeline, jobs, items)
        yield from _through(pipeline, jobs, items)
    finally:
        for job in jobs.values():
            job.close()


def _through(
    pipeline: Pipeline, jobs: dict[int, Job], items: Sequence[Utterance]
) -> Iterator[tuple[int, Result, float] | float]:
    """Take jobs through the networks, window by window, and give their memory back."""
    units = ((unit, unit.span.duration) for job in jobs.values() for unit in job.units)
    for window in windows(units, pipeline.options.window_seconds):
        pipeline.advance(window)
        yield time.time()
    while jobs:
        index = next(iter(jobs))
        done = pipeline.finish(jobs.pop(index))
        yield index, replace(done, utterance_id=items[index].id), done.duration


def spoken(utterance: Utterance) -> str | None:
    """The language that a manifest names, where it is a code that we know: it is not identified then."""
    return fireredlid_label(utterance.language)
