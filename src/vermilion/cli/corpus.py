"""`vermilion transcribe --manifest`: a corpus, by worker processes or on Ray."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vermilion import loading
from vermilion.cli.console import FAILED, INTERRUPTED, OK, Terminal
from vermilion.cli.options import Corpus
from vermilion.cli.progress import clock
from vermilion.errors import OptionsError, VermilionError
from vermilion.pipeline import Pipeline, PipelineOptions
from vermilion.vad import VadOptions

if TYPE_CHECKING:
    from vermilion.cluster.corpus import CorpusProgress
    from vermilion.cluster.provenance import Provenance
    from vermilion.cluster.store import Form
    from vermilion.cluster.workers import WorkerOptions

FORMS = ("jsonl", "parquet")


@dataclass(frozen=True)
class Build:
    """Loads the pipeline inside a worker."""

    models: str
    options: PipelineOptions
    vad: VadOptions
    punctuation_max_length: int = -1

    def __call__(self) -> Pipeline:
        """Load it."""
        return loading.load(
            self.models, options=self.options, vad=self.vad, punctuation_max_length=self.punctuation_max_length
        )


def run(terminal: Terminal, corpus: Corpus, build: Build, folder: Path | None, form: str, json: bool) -> int:
    """Run a corpus job.

    Returns:
        The exit code.
    """
    from vermilion.cluster.corpus import CorpusOptions, run_corpus
    from vermilion.cluster.provenance import provenance
    from vermilion.cluster.workers import WorkerOptions

    if corpus.manifest is None or folder is None:
        raise OptionsError("--manifest needs --output-dir for the rows")
    if form not in FORMS:
        raise OptionsError(f"rows of a corpus can be {' or '.join(FORMS)}, not {form}")
    chosen: Form = "parquet" if form == "parquet" else "jsonl"
    if chosen == "parquet":
        from vermilion.cluster.tables import arrow

        arrow()  # say now that it is missing, not after a thousand rows

    def origin(names: dict[str, str]) -> Provenance:
        terminal.answered(names)
        return provenance(names, build.models, build.options, build.vad, build.punctuation_max_length)

    limits = WorkerOptions(
        chunk=corpus.chunk,
        patience=corpus.patience,
        max_seconds=build.options.max_seconds or WorkerOptions.max_seconds,
        memory=memory_of(corpus, build),
        stream=build.options.stream,
    )
    if corpus.engine == "ray":
        return _on_ray(terminal, corpus, build, origin, folder, chosen, limits, json)
    workers, build = shared_out(corpus.workers, build)
    options = CorpusOptions(
        chosen,
        corpus.rows_per_part,
        corpus.redact_paths,
        corpus.retry_failures,
        replace(limits, workers=workers, gpus=gpus_to_share(build)),
    )
    with stop_asked(terminal) as stop, meter(terminal, corpus.manifest) as report:
        found = run_corpus(corpus.manifest, folder, build, origin, options, report=report, stopped=stop.is_set)
    return ended(terminal, found, folder, json, stop.is_set())


def _on_ray(
    terminal: Terminal,
    corpus: Corpus,
    build: Build,
    origin: Callable[[dict[str, str]], Provenance],
    folder: Path,
    form: Form,
    limits: WorkerOptions,
    json: bool,
) -> int:
    from vermilion.cluster.ray_data import RayOptions, run_ray

    if corpus.manifest is None:
        raise OptionsError("the engine ray needs --manifest")
    on_gpu, threads = build.options.device.startswith("cuda"), build.options.threads
    if corpus.gpu_share <= 0:
        raise OptionsError(f"gpu-share is {corpus.gpu_share:g}; it must be more than 0")
    if Path(build.models).exists():  # actors work elsewhere
        build = replace(build, models=str(Path(build.models).absolute()))
    # the actors of a cluster do not divide this machine's cores among them
    _, build = shared_out(0 if corpus.address or on_gpu else corpus.workers, build)
    options = RayOptions(
        form,
        corpus.rows_per_part,
        corpus.redact_paths,
        corpus.retry_failures,
        corpus.address,
        (1, corpus.workers),
        cpus=float(threads or 1 if on_gpu else build.options.threads),
        gpus=corpus.gpu_share if on_gpu else 0.0,
        chunk=corpus.chunk,
        limits=limits,
    )
    with stop_asked(terminal) as stop, meter(terminal, corpus.manifest) as report:
        found = run_ray(corpus.manifest, folder, build, origin, options, report=report, stopped=stop.is_set)
    return ended(terminal, found, folder, json, stop.is_set())


def memory_of(corpus: Corpus, build: Build) -> int:
    """Bytes of a worker.

    Raises:
        OptionsError: it cannot be limited so.
    """
    if corpus.worker_memory < 0:
        raise OptionsError(f"worker-memory is {corpus.worker_memory:g}; it cannot be negative")
    if corpus.worker_memory and build.options.device != "cpu":
        raise OptionsError("worker-memory limits workers on a CPU; drivers of GPUs reserve any amount of addresses")
    return int(corpus.worker_memory * 1e9)


def shared_out(workers: int, build: Build) -> tuple[int, Build]:
    """How many workers, and the threads of each."""
    from vermilion.runtime import default_threads

    if workers < 0:
        raise OptionsError(f"workers is {workers}; it cannot be negative")
    if not workers:
        workers = max(1, gpus_to_share(build))
    threads = build.options.threads or default_threads(workers)
    return workers, replace(build, options=replace(build.options, threads=threads))


def gpus_to_share(build: Build) -> int:
    """GPUs that are dealt out to workers; 0 where the command names one, or a model spreads over several."""
    llm = build.options.llm
    if build.options.device != "cuda" or llm.device_map or llm.gpus > 1:
        return 0
    import torch

    return torch.cuda.device_count()


@contextmanager
def stop_asked(terminal: Terminal) -> Iterator[threading.Event]:
    """Set by the first Ctrl-C or SIGTERM: what is in hand is finished. A second Ctrl-C ends at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def handle(number: int, _: Any) -> None:
        if event.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        event.set()
        terminal.say("finishing what is in hand (Ctrl-C again ends at once; nothing is lost)")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def meter(terminal: Terminal, manifest: Path) -> Iterator[Any]:
    """Says how far the job is, in hours of audio; the manifest is counted beside the work."""
    if terminal.quiet:
        yield lambda _: None
        return
    size = Size()
    threading.Thread(target=size.count, args=(manifest,), daemon=True, name="count").start()
    if not terminal.err.is_terminal:
        yield Lines(terminal, size)
        return
    from rich.progress import Progress as Bar
    from rich.progress import SpinnerColumn, TextColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False))
    with Bar(*columns, console=terminal.err, transient=True, redirect_stdout=False, redirect_stderr=False) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda step: bar.update(task, description=described(step, size))


@dataclass
class Size:
    """How large a manifest is, once it is counted."""

    items: int = 0
    seconds: float | None = None

    def count(self, manifest: Path) -> None:
        """Count it; what is wrong with it is said by who reads it."""
        from vermilion.cluster.corpus import count

        with suppress(VermilionError):
            self.items, self.seconds = count(manifest)


@dataclass
class Lines:
    """Progress for a log: a line now and then."""

    terminal: Terminal
    size: Size
    every: float = 60.0
    """seconds"""
    said: float = field(default_factory=time.monotonic)

    def __call__(self, step: CorpusProgress) -> None:
        """Say where the job stands, if it is time."""
        if time.monotonic() - self.said >= self.every:
            self.said = time.monotonic()
            self.terminal.say(described(step, self.size))


def described(step: CorpusProgress, size: Size | None = None) -> str:
    """Where a job stands, for people."""
    items = f"{step.done}/{size.items}" if size and size.items else f"{step.done}"
    text = f"{items} recordings · {step.seconds / 3600:.2f} h of audio in {clock(step.elapsed)}"
    if size and size.seconds:
        text += f" (all: {size.seconds / 3600:.2f} h)"
    if step.seconds:
        text += f" · {step.speed:.1f}× real time"
    left = step.remaining(size.items) if size and size.items else None
    if left is not None:
        text += f" · {clock(left)} left"
    return text + (f" · {step.failed} failed" if step.failed else "")


def ended(terminal: Terminal, found: CorpusProgress, folder: Path, json: bool, stopped: bool) -> int:
    """Say how the job ended.

    Returns:
        The exit code.
    """
    if json:
        terminal.json({**asdict(found), "speed": found.speed, "output_dir": str(folder)})
    if found.skipped:
        terminal.say(f"{found.skipped} were done already")
    terminal.say(described(found))
    if found.partial:
        terminal.fail(f"{found.partial} recordings have segments that failed: `failures` in their rows says why")
    if found.failed:
        terminal.fail(f"{found.failed} items failed: {folder / 'failures.jsonl'} says why (--retry-failures)")
    if stopped:
        return INTERRUPTED
    return FAILED if found.failed or found.partial else OK
