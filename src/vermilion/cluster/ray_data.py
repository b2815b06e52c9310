"""A corpus on Ray Data: decoding on CPU tasks, networks on a pool of actors, rows into the same store as on one machine.

Ray does what Ray is for: places work, streams blocks with back-pressure, restarts actors, grows and shrinks the pool.
What it cannot know is which item kills an actor: blocks that fail for good are tried again item by item, and an item
that fails alone is recorded like any other failure.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from vermilion.audio import Recording
from vermilion.cluster.corpus import Corpus, CorpusProgress
from vermilion.cluster.provenance import Provenance
from vermilion.cluster.store import Form, Store
from vermilion.cluster.workers import Done, WorkerOptions, decoded, transcribe
from vermilion.errors import AudioError, ManifestError, MissingDependencyError, ModelError, OptionsError, VermilionError
from vermilion.manifests import Utterance
from vermilion.transcript import Failure, Transcript

if TYPE_CHECKING:
    from vermilion.pipeline import Pipeline

PROTOCOLS = frozenset({"http", "https", "s3", "gs", "gcs", "abfs", "az", "hdfs", "file"})
"""where a manifest's recordings may lie; credentials come from the environment of the workers"""
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
    limits: WorkerOptions = WorkerOptions()
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
    ray = ray_package()
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


def ray_package() -> Any:
    """The ray package with its data module.

    Raises:
        MissingDependencyError: it is not installed.
    """
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
            ray.init(address=options.address, log_to_driver=False)
        else:  # on this machine alone, for nobody else
            ray.init(_node_ip_address="127.0.0.1", **known)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise OptionsError(f"the Ray cluster {options.address or 'of this machine'} cannot be used: {error}") from error
    return True


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
    """Answers for some items: in blocks, then one by one for those whose block was lost, then as failures."""
    left = {item.id: item for item in items}
    for attempt, chunk in ((1, options.chunk), (2, 1)):
        for found in _stream(ray, list(left.values()), build, replace(options, chunk=chunk)):
            item = left.pop(found["id"], None)
            if item is not None:
                yield Done(item, _result(found), attempt, found["seconds"])
        if not left:
            return
    for item in left.values():
        error = ModelError("the actor died at this item, also when it was tried alone")
        yield Done(item, Failure(item.audio, error, "worker"), 2, 0.0)


def _stream(
    ray: Any, items: list[Utterance], build: Callable[[], Pipeline], options: RayOptions
) -> Iterable[dict[str, Any]]:
    context = ray.data.DataContext.get_current()
    context.max_errored_blocks = -1  # a lost block is tried again by us, item by item
    context.enable_progress_bars = False
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
            max_restarts=-1,
            max_task_retries=0,
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
                local = fetched(item, Path(folder))
                recordings = decoded(local, self.limits, Path(folder), "mix")
            except VermilionError as error:
                return {**row, "tracks": b"", "warnings": "[]", "error": json.dumps([type(error).__name__, str(error)])}
        [mix] = recordings
        return {**row, "tracks": mix.samples.tobytes(), "warnings": json.dumps(mix.warnings), "error": ""}


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
    """A pipeline in an actor of the pool."""

    def __init__(self, build: Callable[[], Pipeline], limits: WorkerOptions) -> None:
        """Load the models."""
        self.pipeline, self.limits = build(), limits

    def __call__(self, table: Any) -> dict[str, list[Any]]:
        """Transcribe a block of `Fetch`'s rows."""
        rows = table.to_pylist()
        items = [Utterance(**json.loads(row["item"])) for row in rows]
        ready = [_recording(item, row) for item, row in zip(items, rows, strict=True)]
        answers = [a for a in transcribe(self.pipeline, items, ready.__getitem__) if isinstance(a, tuple)]
        out: dict[str, list[Any]] = {"id": [], "transcript": [], "error": [], "seconds": []}
        for index, result, seconds in answers:
            transcript, error = _texts(result)
            for name, value in zip(out, (items[index].id, transcript, error, seconds), strict=True):
                out[name].append(value)
        return out


def _texts(result: Transcript | Failure) -> tuple[str, str]:
    """A result as it travels: its transcript, or its error."""
    if isinstance(result, Failure):
        return "", json.dumps([type(result.error).__name__, str(result.error), result.stage])
    return json.dumps(result.to_dict()), ""


def _recording(item: Utterance, row: dict[str, Any]) -> list[Recording] | VermilionError:
    import numpy as np

    if row["error"]:
        return _error(*json.loads(row["error"])[:2])
    return [Recording(item.audio, np.frombuffer(row["tracks"], "<i2"), None, json.loads(row["warnings"]))]


def _error(kind: str, message: str) -> VermilionError:
    from vermilion import errors

    known = getattr(errors, kind, ModelError)
    return known(message) if isinstance(known, type) and issubclass(known, VermilionError) else ModelError(message)


def _result(found: dict[str, Any]) -> Transcript | Failure:
    if found["error"]:
        kind, message, stage = json.loads(found["error"])
        return Failure(found["id"], _error(kind, message), stage)
    return Transcript.from_dict(json.loads(found["transcript"]))
