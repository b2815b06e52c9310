"""Measures what a machine can do: real workers with real models on real recordings, every stage timed."""

from __future__ import annotations

import copy
import importlib.metadata
import json
import multiprocessing
import platform
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from figures import Figures, Stage

from vermilion.cli.corpus import Build, shared_out
from vermilion.cli.options import Hardware, Llm, Search, Stages
from vermilion.cluster.provenance import Provenance, provenance
from vermilion.cluster.reading import Decoder, decoded
from vermilion.cluster.rows import row
from vermilion.cluster.store import Store
from vermilion.cluster.workers import WorkerOptions, next_chunk, transcribe
from vermilion.manifests import Utterance, read_manifest, write_manifest
from vermilion.pipeline import Pipeline
from vermilion.runtime import usable_cores
from vermilion.transcript import Transcript
from vermilion.vad import VadOptions

MODULES = {
    "detector": "voice activity",
    "event_detector": "events",
    "identifier": "language",
    "recognizer": "recognition",
    "fallback": "recognition",
    "restorer": "punctuation",
}
"""attributes of a pipeline, and what their work is called"""


@dataclass(frozen=True)
class Setting:
    """How the job would be run."""

    models: str
    workers: int = 1
    chunk: int = 16
    precision: str = "float32"
    device: str = "cpu"

    @property
    def threads(self) -> int:
        """Of each worker."""
        return self.build().options.threads

    def build(self) -> Build:
        """What makes the pipeline, as `vermilion transcribe` makes it."""
        hardware = Hardware(device=self.device, precision=self.precision)  # type: ignore[arg-type]
        options = Stages().pipeline_options(Search(), hardware, Llm())
        return shared_out(self.workers, Build(self.models, options, VadOptions.preset("default")))[1]

    def command(self, manifest: Path, folder: Path, *more: str) -> list[str]:
        """The command line that runs it."""
        return [
            sys.executable, "-m", "vermilion", "transcribe", "--manifest", str(manifest), "--output-dir", str(folder),
            "--models", self.models, "--workers", str(self.workers), "--chunk", str(self.chunk),
            "--precision", self.precision, "--device", self.device, "--quiet", *more,
        ]  # fmt: skip


@dataclass
class Ledger:
    """Seconds by stage; stages that run inside others are not counted twice."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    inside: str = ""

    def timed(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, its time written down."""

        def run(*arguments: Any, **named: Any) -> Any:
            if self.inside:
                return work(*arguments, **named)
            self.inside, began = name, time.perf_counter()
            try:
                return work(*arguments, **named)
            finally:
                self.inside = ""
                self.seconds[name] += time.perf_counter() - began

        return run


class Timed:
    """A module of a pipeline whose methods are timed."""

    def __init__(self, module: object, name: str, ledger: Ledger) -> None:
        self._module, self._name, self._ledger = module, name, ledger

    def __getattr__(self, attribute: str) -> Any:
        found = getattr(self._module, attribute)
        return self._ledger.timed(self._name, found) if callable(found) else found


@dataclass(frozen=True)
class Copy:
    """What one of several workers at work at once found."""

    load: float
    """seconds until its models were there"""
    warming: float
    """seconds that the first recording took, a short one: decoders start, networks prepare themselves"""
    wall: float
    """seconds for its recordings"""
    seconds: dict[str, float]
    """by stage"""
    decoding: list[tuple[float, float]]
    """seconds of audio and of decoding of every recording"""
    models: dict[str, str]
    transcripts: list[tuple[Utterance, Transcript]]


def measure(
    manifest: Path,
    setting: Setting,
    engine: str = "local",
    starts: int = 3,
    say: Callable[[str], None] = lambda _: None,
) -> Figures:
    """Figures of this machine with so many workers.

    Args:
        manifest: a sample of the recordings.
        setting: workers, models, precision.
        engine: whose start is timed: "local" or "ray".
        starts: how often it is timed.
        say: told what is measured next.
    """
    items = read_manifest(manifest)
    say(f"{setting.workers} workers at once")
    copies = _together(items, setting, setting.workers)
    alone = copies
    if setting.workers > 1:
        say(f"one of {setting.workers} workers alone")
        alone = _together(items, setting, 1)
    stages = tuple(_stages(copies))
    load = _mean([one.load + one.warming for one in alone])
    say("starting")
    start = _start(setting, engine, starts, items)
    if engine == "local":  # on Ray a recording is a part of it
        start += _mean([one.warming for one in copies])
    rows = copies[0].transcripts  # the other copies have the same
    say("writing rows")
    made_by = provenance(copies[0].models, setting.models, setting.build().options, VadOptions.preset("default"))
    writing, line = _rows(rows, made_by, "jsonl")
    _, column = _rows(rows, made_by, "parquet")
    audio = sum(transcript.duration for _, transcript in rows)
    return Figures(
        name=f"{setting.models}, {setting.precision}, {platform.machine()}, {usable_cores()} cores",
        measured=True,
        workers=setting.workers,
        threads=setting.threads,
        cores=usable_cores(),
        stages=stages,
        alone=_mean([c.wall for c in alone]) / _mean([c.wall for c in copies]),
        start=start,
        load=load,
        row=writing,
        row_bytes=line,
        parquet_bytes=column,
        audio_bytes=_stored(items) / audio,
        mean_seconds=audio / len(rows),
        note=f"{len(items)} recordings; vermilion {importlib.metadata.version('vermilion')}",
    )


# ---- workers


def _together(items: Sequence[Utterance], setting: Setting, count: int) -> list[Copy]:
    """So many workers at once, each through all recordings, each beginning somewhere else."""
    context = multiprocessing.get_context("spawn")
    links, processes = [], []
    for number in range(count):
        ours, theirs = context.Pipe()
        turn = len(items) * number // count
        share = [*items[turn:], *items[:turn]]
        process = context.Process(target=work, args=(theirs, share, setting))
        process.start()
        theirs.close()
        links.append(ours)
        processes.append(process)
    for link in links:
        link.recv()  # its models are there
    for link in links:
        link.send(True)
    found = [link.recv() for link in links]
    for link, process in zip(links, processes, strict=True):
        link.send(True)
        process.join()
    return found


def work(link: Connection, items: Sequence[Utterance], setting: Setting) -> None:
    """A worker: says when it is ready, waits for the others, works, says what it found, keeps the others company."""
    # each decoder would import the script that was started, and this one has more to it than `python -m vermilion`
    vars(sys.modules["__main__"]).pop("__file__", None)
    began = time.perf_counter()
    pipeline = setting.build()()
    load = time.perf_counter() - began
    began = time.perf_counter()
    _worked(pipeline, [_shortest(items)], setting)
    warming = time.perf_counter() - began
    link.send(True)
    link.recv()
    found = _worked(pipeline, items, setting)
    link.send(Copy(load, warming, *found))
    link.recv()


def _worked(pipeline: Pipeline, items: Sequence[Utterance], setting: Setting) -> tuple[Any, ...]:
    ledger, models = Ledger(), pipeline.models()
    pipeline = copy.copy(pipeline)
    for attribute, name in MODULES.items():
        module = getattr(pipeline, attribute)
        if module is not None:
            setattr(pipeline, attribute, Timed(module, name, ledger))
    transcripts: list[tuple[Utterance, Transcript]] = []
    decoding: list[tuple[float, float]] = []
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="vermilion-scale-") as folder:
        waiting = iter(items)
        while share := next_chunk(waiting, WorkerOptions(chunk=setting.chunk)):
            reader = Decoder(share, WorkerOptions(), Path(folder), pipeline.options.channels, decoded)
            spent: dict[int, float] = {}

            def read(index: int, reader: Decoder = reader, spent: dict[int, float] = spent) -> Any:
                asked = time.perf_counter()
                found = ledger.timed("decoding", reader)(index)
                spent[index] = time.perf_counter() - asked
                return found

            for answer in transcribe(pipeline, share, read):
                if isinstance(answer, tuple):
                    index, result, seconds = answer
                    if not isinstance(result, Transcript):
                        raise SystemExit(f"{share[index].audio}: {result.error}")
                    transcripts.append((share[index], result))
                    decoding.append((seconds, spent[index]))
    wall = time.perf_counter() - began
    ledger.seconds["other"] = wall - sum(ledger.seconds.values())
    return wall, dict(ledger.seconds), decoding, models, transcripts


# ---- figures


def _stages(copies: Sequence[Copy]) -> Iterator[Stage]:
    """Decoding has a cost per recording, that of its process; the others are shared out by the second of audio."""
    audio = sum(seconds for one in copies for seconds, _ in one.decoding)
    item, second = line_through([pair for one in copies for pair in one.decoding])
    yield Stage("decoding", second, item)
    for name in dict.fromkeys([*MODULES.values(), "other"]):
        spent = sum(one.seconds.get(name, 0.0) for one in copies)
        if spent:
            yield Stage(name, spent / audio)


def line_through(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Cost per item and per second of audio; neither is negative, and the sum over all points is kept.

    Args:
        points: (seconds of audio, cost) of items.
    """
    x, y = np.asarray(points, dtype=np.float64).T
    slope = float(np.polyfit(x, y, 1)[0]) if np.ptp(x) > 0 else 0.0
    slope = min(max(0.0, slope), float(y.sum() / x.sum()))
    return float(y.mean() - slope * x.mean()), slope


def _start(setting: Setting, engine: str, starts: int, items: Sequence[Utterance]) -> float:
    """Median seconds of the command with nothing to do: interpreter, imports, models, their hashes, the end.

    Ray starts its actors only where there is something: the shortest recording is given to it.
    """
    times = []
    for _ in range(starts):
        with tempfile.TemporaryDirectory(prefix="vermilion-scale-") as folder:
            manifest = Path(folder) / "few.jsonl"
            write_manifest(manifest, [_shortest(items)] if engine == "ray" else [])
            began = time.perf_counter()
            command = setting.command(manifest, Path(folder) / "out", "--engine", engine)
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            times.append(time.perf_counter() - began)
    return float(np.median(times))


def _shortest(items: Sequence[Utterance]) -> Utterance:
    return min(items, key=lambda item: item.duration or 0.0)


def _rows(
    found: Sequence[tuple[Utterance, Transcript]], made_by: Provenance, form: str
) -> tuple[float, tuple[float, float]]:
    """Seconds that writing a row takes, and bytes of a row per recording and per second of audio."""
    with tempfile.TemporaryDirectory(prefix="vermilion-scale-") as folder:
        out = Path(folder) / "out"
        store = Store(out, form, {"provenance": made_by.to_dict()}, len(found))  # type: ignore[arg-type]
        points, began = [], time.perf_counter()
        for number, (utterance, transcript) in enumerate(found):
            line = row(Utterance(f"{utterance.id}-{number}", utterance.audio), transcript, made_by)
            store.add(line)
            points.append((transcript.duration, float(len(json.dumps(line, ensure_ascii=False).encode()))))
        store.finish()
        spent = time.perf_counter() - began
        store.close()
        written = sum(path.stat().st_size for path in (out / "parts").glob(f"*.{form}"))
    per_item, per_second = line_through(points)
    smaller = written / sum(size for _, size in points)
    return spent / len(found), (per_item * smaller, per_second * smaller)


def _stored(items: Sequence[Utterance]) -> int:
    """Bytes of the recordings' files."""
    return sum(Path(name).stat().st_size for name in {item.audio for item in items})


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
