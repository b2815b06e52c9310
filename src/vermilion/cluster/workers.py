"""Worker processes of a corpus job: each has a pipeline of its own, and a crash costs the item that caused it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vermilion.audio import SAMPLE_RATE, Recording, iter_blocks
from vermilion.audio.isolation import DecoderDied, Decoding, decode
from vermilion.audio.reading import Channels
from vermilion.errors import AudioError, ManifestError, ModelError, VermilionError
from vermilion.lid.labels import DIALECTS, LANGUAGES
from vermilion.manifests import Utterance
from vermilion.scheduling import windows
from vermilion.transcript import Failure, Transcript

if TYPE_CHECKING:
    from vermilion.assembly import Job
    from vermilion.pipeline import Pipeline

Result = Transcript | Failure
Reader = Callable[[Utterance, "WorkerOptions", Path, str], list[Recording]]
"""item, limits, a folder for files on the way, "mix" or "separate" → its recordings; raises what `decoded` raises"""
ALONE = 2
"""how often an item is tried at most: with others, then alone"""
_POLL = 0.2


@dataclass(frozen=True)
class WorkerOptions:
    """How the processes run."""

    workers: int = 1
    """Processes with a pipeline each."""
    chunk: int = 16
    """Items that a worker takes at once: their segments share batches."""
    patience: float = 1800.0
    """Seconds that a worker may be silent before it is taken for hanging and ended."""
    decode_seconds: float = 600.0
    """Seconds that reading one recording may take."""
    decode_memory: int = 4 << 30
    """Bytes that reading one recording may take."""
    max_seconds: float = 8 * 3600.0
    """Longest recording."""
    memory: int = 0
    """Bytes of address space of a worker; 0 = no limit."""
    gpus: int = 0
    """GPUs that are dealt out to the workers, one each; 0 = every worker sees what this process sees."""
    isolate: bool = True
    """Decode in a process of its own; without, the caller vouches for the files."""


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
        with _deaf():
            process.start()
        theirs.close()
        return _Worker(process, ours)

    def _chunk(self, utterances: Iterator[Utterance]) -> _Work | None:
        items: list[Utterance] = []
        for utterance in utterances:
            items.append(utterance)
            if len(items) >= self.options.chunk:
                break
        return _Work(tuple(items)) if items else None

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
            raise ModelError(f"a worker ended while it loaded its models ({_end_of(worker.process)})") from error
        if isinstance(said, VermilionError):
            raise said
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
    """A process that is started in here never hears Ctrl-C: it is the parent's to handle, who hears it after."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _limit(options)
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
    with tempfile.TemporaryDirectory(prefix="vermilion-corpus-") as folder, suppress(EOFError, OSError):
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


@dataclass(frozen=True)
class Decoder:
    """Reads items one after the other."""

    items: Sequence[Utterance]
    options: WorkerOptions
    folder: Path
    channels: str
    reader: Reader

    def __call__(self, index: int) -> list[Recording] | VermilionError:
        """The recordings of an item, or why there are none."""
        try:
            return self.reader(self.items[index], self.options, self.folder, self.channels)
        except VermilionError as error:
            return error


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
    head, _, dialect = (utterance.language or "").strip().lower().partition(" ")
    code = head.replace("_", "-").partition("-")[0]
    if code not in LANGUAGES:
        return None
    return f"{code} {dialect}" if dialect in DIALECTS else code


def decoded(
    utterance: Utterance, options: WorkerOptions, folder: Path, channels: str, local: Utterance | None = None
) -> list[Recording]:
    """Read a recording in a process of its own under limits, or the stretch that the manifest names.

    Args:
        utterance: the item.
        options: the limits.
        folder: for files on the way; they are gone afterwards.
        channels: "mix" or "separate".
        local: the item with a local file, where its recording had to be fetched.

    Raises:
        AudioError: it cannot be read within the limits.
    """
    if not options.isolate:
        return _read_here(utterance, options, channels)
    source = (local or utterance).source()
    place = Path(source) if isinstance(source, str) else folder / f"part-{os.getpid()}"
    if isinstance(source, bytes):
        place.write_bytes(source)
    work = Decoding(
        place,
        folder / f"item-{os.getpid()}",
        utterance.audio,
        channels,
        options.max_seconds,
        options.decode_memory,
        options.decode_seconds,
    )
    try:
        found = decode(work)
    except DecoderDied:  # once more: the machine may have been short of memory
        found = decode(work)
    tracks = []
    for path in found.tracks:
        tracks.append(np.fromfile(path, dtype="<i2"))
        path.unlink()
    return recordings(utterance, [stretch(samples, utterance) for samples in tracks], found.warnings)


def recordings(utterance: Utterance, tracks: Sequence[NDArray[np.int16]], warnings: Sequence[str]) -> list[Recording]:
    """The recordings of an item: its mix, or its channels with their numbers."""
    numbers = range(len(tracks)) if len(tracks) > 1 else [None]
    return [Recording(utterance.audio, t, n, list(warnings)) for t, n in zip(tracks, numbers, strict=True)]


def _read_here(item: Utterance, limits: WorkerOptions, channels: str) -> list[Recording]:
    """Decode in this process."""
    warnings: list[str] = []
    how: Channels = "separate" if channels == "separate" else "mix"
    blocks: list[NDArray[np.int16]] = []
    began = time.monotonic()
    for block in iter_blocks(item.source(), channels=how, max_seconds=limits.max_seconds, warnings=warnings):
        blocks.append(np.clip(np.rint(block * 32768), -32768, 32767).astype("<i2"))
        if time.monotonic() - began > limits.decode_seconds:
            raise AudioError(f"cannot read {item.audio}: decoding took longer than {limits.decode_seconds:g} seconds")
    tracks = np.concatenate(blocks, axis=1) if blocks else np.zeros((1, 0), np.int16)
    return recordings(item, [stretch(samples, item) for samples in tracks], warnings)


def stretch(samples: NDArray[np.int16], utterance: Utterance) -> NDArray[np.int16]:
    """The part of a recording that its line names.

    Raises:
        AudioError: the recording ends before it.
    """
    first = round(utterance.offset * SAMPLE_RATE)
    if first and first >= len(samples):
        seconds = len(samples) / SAMPLE_RATE
        raise AudioError(f"{utterance.audio} ends at {seconds:.2f} s, before {utterance.offset:.2f} s")
    last = None if utterance.duration is None else first + round(utterance.duration * SAMPLE_RATE)
    return samples[first:last]
