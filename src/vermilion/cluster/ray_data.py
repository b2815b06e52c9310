"""A corpus on Ray Data: decoding on CPU tasks, networks on a pool of actors, rows into the store of one machine.

Ray does what Ray is for: places work, streams blocks with back-pressure, restarts actors, grows and shrinks the pool,
does again what a lost node had in hand. An item that crashes a library must not look like a lost node: in an actor the
pipeline runs in a worker process of its own (`vermilion.cluster.workers`), which finds the guilty item.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import soundfile

from vermilion.audio import SAMPLE_RATE
from vermilion.cluster.corpus import Corpus, CorpusProgress
from vermilion.cluster.provenance import Provenance
from vermilion.cluster.store import Form, Store
from vermilion.cluster.workers import Done, WorkerOptions, WorkerPool, read
from vermilion.errors import AudioError, ManifestError, MissingDependencyError, ModelError, OptionsError, VermilionError
from vermilion.manifests import Utterance
from vermilion.transcript import Failure, Transcript

if TYPE_CHECKING:
    from vermilion.pipeline import Pipeline

PROTOCOLS = frozenset({"http", "https", "s3", "gs", "gcs", "abfs", "az", "hdfs", "file"})
"""where a manifest's recordings may lie; credentials come from the environment of the workers"""
LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""0: Ray takes 127.0.0.1 as it is said, instead of the machine's own address"""
LARGEST = 8 << 30
"""bytes of a remote recording"""


@dataclass(frozen=True)
class RayOptions:
    """What is written, and what of the cluster is used."""

    form: Form = "jsonl"
    """Form of the parts."""
    rows_per_part: int = 1000
    """Rows of a part."""
    redact: bool = False
    """Put hashes in the place of paths."""
    retry_failures: bool = False
    """Try items again that failed in an earlier run."""
    address: str = ""
    """Cluster; empty = one on this machine for this run."""
    actors: tuple[int, int] = (1, 1)
    """Least and most actors with the models."""
    cpus: float = 1.0
    """Cores of an actor."""
    gpus: float = 0.0
    """Share of a GPU of an actor."""
    chunk: int = 16
    """Recordings of a block: their segments share batches."""
    round: int = 20_000
    """Items that are handed to Ray at once."""
    limits: WorkerOptions = field(default_factory=WorkerOptions)
    """Limits of decoding."""


def run_ray(
    manifest: str | Path,
    folder: str | Path,
    build: Callable[[], Pipeline],
    origin: Callable[[dict[str, str]], Provenance],
    options: RayOptions = RayOptions(),
    *,
    report: Callable[[CorpusProgress], None] = lambda _: None,
    stopped: Callable[[], bool] = lambda: False,
) -> CorpusProgress:
    """Transcribe a manifest into a folder on a Ray cluster; the same call goes on after any end.

    Args and results are those of `vermilion.cluster.corpus.run_corpus`; the folder is the driver's.

    Raises:
        MissingDependencyError: Ray is not installed.
        ManifestError, OptionsError, CheckpointError, ModelError: as there.
    """
    ray = ray_package(local=not options.address)
    if not Path(manifest).exists():
        raise ManifestError(f"there is no manifest {manifest}")
    ours = connect(ray, options)
    try:
        made_by = _origin(ray, build, origin, options)
        settings = {"provenance": made_by.to_dict(), "form": options.form, "redact": options.redact}
        store = Store(Path(folder), options.form, settings, options.rows_per_part)
        try:
            if options.retry_failures:
                store.retry_failures()
            job = Corpus(store, made_by, options.redact, report)
            items = job.items(manifest)
            while not stopped() and (some := list(islice(items, options.round))):
                for done in _round(ray, some, build, options):
                    job.take(done)
            if not stopped():
                store.finish()
        finally:
            store.close()
        return job.progress()
    finally:
        if ours:
            ray.shutdown()


def ray_package(local: bool = False) -> Any:
    """The ray package with its data module.

    Args:
        local: for a Ray of this machine alone, which then listens on loopback (Ray reads this when it is imported).

    Raises:
        MissingDependencyError: it is not installed.
    """
    if local:
        os.environ.setdefault(LOOPBACK, "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingDependencyError('the engine ray needs: pip install "vermilion[ray]"') from error
    return ray


def connect(ray: Any, options: RayOptions) -> bool:
    """Join the cluster; whether it is ours to leave.

    Raises:
        OptionsError: it cannot be reached.
    """
    if ray.is_initialized():
        return False
    known = {"include_dashboard": False, "log_to_driver": False, "configure_logging": False}
    try:
        if options.address:
            _knock(options.address)
            ray.init(address=options.address, log_to_driver=False)
        else:  # on this machine alone, for nobody else
            ray.init(_node_ip_address="127.0.0.1", **known)
    except (OSError, RuntimeError, ValueError) as error:
        raise OptionsError(f"the Ray cluster {options.address or 'of this machine'} cannot be used: {error}") from error
    return True


def _knock(address: str) -> None:
    """Ray itself waits for minutes for an address that nobody answers at."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10.0).close()


def _origin(
    ray: Any, build: Callable[[], Pipeline], origin: Callable[[dict[str, str]], Provenance], options: RayOptions
) -> Provenance:
    """Load the models once where the work is done, and say what they are."""

    def names() -> dict[str, str] | VermilionError:
        try:
            return build().models()
        except VermilionError as error:
            return error

    found = ray.get(ray.remote(num_cpus=options.cpus, num_gpus=options.gpus)(names).remote())
    if isinstance(found, VermilionError):
        raise found
    return origin(found)


def _round(ray: Any, items: list[Utterance], build: Callable[[], Pipeline], options: RayOptions) -> Iterator[Done]:
    """Answers for some items."""
    left = {item.id: item for item in items}
    for found in _stream(ray, items, build, options):
        item = left.pop(found["id"], None)
        if item is not None:
            yield Done(item, _result(found), found["attempts"], found["seconds"])
    for item in left.values():
        yield Done(item, Failure(item.audio, ModelError("Ray gave no answer for this item"), "worker"), 1, 0.0)


def _stream(
    ray: Any, items: list[Utterance], build: Callable[[], Pipeline], options: RayOptions
) -> Iterable[dict[str, Any]]:
    ray.data.DataContext.get_current().enable_progress_bars = False
    blocks = -(-len(items) // options.chunk)
    rows = [{"id": item.id, "item": json.dumps(vars(item))} for item in items]
    least, most = options.actors
    return (  # type: ignore[no-any-return]
        ray.data.from_items(rows, override_num_blocks=blocks)
        .map(Fetch(options.limits), num_cpus=1)
        .map_batches(
            Actor,
            fn_constructor_args=(build, options.limits),
            batch_size=options.chunk,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(min_size=least, max_size=most),
            num_cpus=options.cpus,
            num_gpus=options.gpus,
        )
        .iter_rows()
    )


@dataclass(frozen=True)
class Fetch:
    """A recording from wherever it is → 16 kHz samples; what cannot be read says why."""

    limits: WorkerOptions

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Add "tracks" (bytes of int16 samples per channel), "warnings" and "error"."""
        item = Utterance(**json.loads(row["item"]))
        with tempfile.TemporaryDirectory(prefix="vermilion-ray-") as folder:
            try:
                samples, warnings = read(fetched(item, Path(folder)), item.audio, self.limits)
            except VermilionError as error:
                return {**row, "tracks": b"", "warnings": "[]", "error": json.dumps([type(error).__name__, str(error)])}
        return {**row, "tracks": samples.tobytes(), "warnings": json.dumps(warnings), "error": ""}


def fetched(item: Utterance, folder: Path) -> Utterance:
    """The item with a local file for its recording.

    Raises:
        AudioError: the place is not one that recordings may come from, cannot be reached, or holds too much.
    """
    parts = urlsplit(item.audio)
    if "://" not in item.audio:
        return item
    if parts.scheme not in PROTOCOLS:
        known = ", ".join(sorted(PROTOCOLS))
        raise AudioError(f"{_bare(item.audio)}: recordings cannot come by {parts.scheme}; known: {known}")
    import fsspec

    local = folder / ("recording" + Path(parts.path).suffix)
    try:
        with fsspec.open(item.audio, "rb") as source, local.open("wb") as target:
            size = 0
            while block := source.read(1 << 20):
                size += len(block)
                if size > LARGEST:
                    raise AudioError(f"{_bare(item.audio)} is larger than {LARGEST >> 30} GiB")
                target.write(block)
    except (OSError, ValueError, ImportError) as error:
        raise AudioError(f"cannot fetch {_bare(item.audio)}: {type(error).__name__}") from error
    return replace(item, audio=str(local))


def _bare(url: str) -> str:
    """A URL without what may be secret in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"


class Actor:
    """A pipeline in an actor of the pool, or rather in a process that the actor can lose."""

    def __init__(self, build: Callable[[], Pipeline], limits: WorkerOptions) -> None:
        """Load the models."""
        # what comes here is decoded already: it is read back from files of this process
        self.pool = WorkerPool(build, replace(limits, workers=1, isolate=False)).__enter__()

    def __call__(self, table: Any) -> dict[str, list[Any]]:
        """Transcribe a block of `Fetch`'s rows."""
        out: dict[str, list[Any]] = {"id": [], "transcript": [], "error": [], "attempts": [], "seconds": []}

        def add(*values: Any) -> None:
            for name, value in zip(out, values, strict=True):
                out[name].append(value)

        warnings: dict[str, list[str]] = {}
        with tempfile.TemporaryDirectory(prefix="vermilion-ray-") as folder:
            ready = []
            for number, row in enumerate(table.to_pylist()):
                if row["error"]:
                    add(row["id"], "", json.dumps([*json.loads(row["error"]), "audio"]), 1, 0.0)
                    continue
                place = Path(folder) / f"{number}.wav"
                soundfile.write(
                    place, np.frombuffer(row["tracks"], "<i2"), SAMPLE_RATE, subtype="PCM_16", format="RF64"
                )
                warnings[row["id"]] = json.loads(row["warnings"])
                language = json.loads(row["item"])["language"]
                ready.append(Utterance(row["id"], str(place), language=language))
            for done in self.pool.run(iter(ready)):
                said = done.result
                if isinstance(said, Transcript):
                    said = replace(said, warnings=[*warnings[done.utterance.id], *said.warnings])
                add(done.utterance.id, *_texts(said), done.attempts, done.seconds)
        return out


def _texts(result: Transcript | Failure) -> tuple[str, str]:
    """A result as it travels: its transcript, or its error."""
    if isinstance(result, Failure):
        return "", json.dumps([type(result.error).__name__, str(result.error), result.stage])
    return json.dumps(result.to_dict()), ""


def _error(kind: str, message: str) -> VermilionError:
    from vermilion import errors

    known = getattr(errors, kind, ModelError)
    return known(message) if isinstance(known, type) and issubclass(known, VermilionError) else ModelError(message)


def _result(found: dict[str, Any]) -> Transcript | Failure:
    if found["error"]:
        kind, message, stage = json.loads(found["error"])
        return Failure(found["id"], _error(kind, message), stage)
    return Transcript.from_dict(json.loads(found["transcript"]))
