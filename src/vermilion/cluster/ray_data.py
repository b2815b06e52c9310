"""A corpus on Ray Data: decoding and networks on a pool of actors each, rows into the store of one machine.

Ray does what Ray is for: places work, streams blocks with back-pressure, restarts actors, grows and shrinks the pools,
does again what a lost node had in hand. This is the driver; what runs on the nodes is `vermilion.cluster.ray_actors`.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vermilion.audio.isolation import DecoderDied
from vermilion.cluster.corpus import Corpus, CorpusProgress
from vermilion.cluster.provenance import Provenance
from vermilion.cluster.ray_actors import Actor, Fetch
from vermilion.cluster.store import Form, Store
from vermilion.cluster.workers import Done, WorkerOptions
from vermilion.errors import (
    ManifestError,
    ModelError,
    OptionsError,
    VermilionError,
    missing,
)
from vermilion.manifests import Utterance
from vermilion.transcript import Failure, Transcript

if TYPE_CHECKING:
    from vermilion.pipeline import Pipeline

LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""0: Ray takes 127.0.0.1 as it is said, instead of the machine's own address"""
VAIN = 3
"""times that Ray may give up without having finished anything"""
DECODERS = 8
"""actors that decode for one with models, at most: a fast GPU wants several"""


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
    actors: tuple[int, int] = (1, 0)
    """Least and most actors with the models; Ray Data chooses by what waits for them. Most 0 = as many as the cluster
    has room for at the start of a round."""
    cpus: float = 1.0
    """Cores that an actor books; no more than the largest node has."""
    gpus: float = 0.0
    """GPUs that an actor books; a fraction lets several share one."""
    chunk: int = 16
    """Recordings of a block: their segments share batches."""
    round: int = 0
    """Items that are handed to Ray at once; 0 = by the number of actors, see `round_of`."""
    limits: WorkerOptions = field(default_factory=WorkerOptions)
    """Limits of decoding, and of the process that has the models."""

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            OptionsError: what it is.
        """
        least, most = self.actors
        if least < 1 or (most and most < least):
            raise OptionsError(
                f"actors must be two numbers, the least 1 or more, the most not below, not {least} {most}"
            )
        if self.gpus < 0 or (self.gpus > 1 and self.gpus != int(self.gpus)):
            raise OptionsError(f"an actor can have a share of one GPU, or whole ones, not {self.gpus:g}")


@dataclass(frozen=True)
class Places:
    """What of a cluster the two pools use."""

    actors: tuple[int, int]
    """least and most with the models"""
    cpus: float
    """cores that each books"""
    decoders: int
    """most actors that decode; the least is one"""
    decoder_cpus: float
    """cores that each books; 0 where actors with models can fill a node, so that neither waits for the other's"""


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
        names, channels = _models(ray, build, options)
        made_by = origin(names)
        settings = {"provenance": made_by.to_dict(), "form": options.form, "redact": options.redact}
        store = Store(Path(folder), options.form, settings, options.rows_per_part)
        try:
            if options.retry_failures:
                store.retry_failures()
            job = Corpus(store, made_by, options.redact, report)
            items = job.items(manifest)
            size = options.round or round_of(_room(ray, options).actors[1], options.chunk)
            while not stopped() and (some := list(islice(items, size))):
                for done in _round(ray, some, _Plan(build, options, channels)):
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
        raise missing("the engine ray is not installed", "ray") from error
    for handler in logging.getLogger("ray.data").handlers:  # its remarks are in its log files; ours are for people
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.ERROR)
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
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise OptionsError(f"the Ray cluster {options.address or 'of this machine'} cannot be used: {error}") from error
    return True


def _knock(address: str) -> None:
    """Ray itself waits for minutes for an address that nobody answers at."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10.0).close()


def room(nodes: Sequence[Mapping[str, float]], options: RayOptions) -> Places:
    """Share a cluster out between decoding and networks.

    Args:
        nodes: resources of each, as Ray names them.
        options: what an actor with models books.

    Raises:
        OptionsError: a Ray of this machine alone has no GPU, and one is asked for.
    """
    if options.gpus and not options.address and not any(node.get("GPU") for node in nodes):
        raise OptionsError(
            "Ray finds no GPU on this machine; leave --device cuda out, or name a cluster with --address"
        )
    cores = [node.get("CPU", 0.0) for node in nodes]
    cpus = min(options.cpus, max(cores, default=options.cpus) or options.cpus)
    fits = [
        int(min(core // cpus if cpus else core, node.get("GPU", 0.0) // options.gpus if options.gpus else core))
        for core, node in zip(cores, nodes, strict=True)
    ]
    least, most = options.actors
    most = most or max(least, sum(fits))
    least = min(least, max(1, sum(fits)))
    spare = sum(cores) - min(most, sum(fits)) * cpus
    apart = all(core - min(fit, most) * cpus >= 1 for core, fit in zip(cores, fits, strict=True))
    decoders = min(int(spare), DECODERS * most) if apart else min(most, int(sum(cores)))
    return Places((least, most), cpus, max(1, decoders), 1.0 if apart else 0.0)


def _room(ray: Any, options: RayOptions) -> Places:
    return room([node["Resources"] for node in ray.nodes() if node["Alive"]], options)


def _models(ray: Any, build: Callable[[], Pipeline], options: RayOptions) -> tuple[dict[str, str], str]:
    """Load the models once where the work is done; their names by stage, and what becomes of channels."""

    def look() -> tuple[dict[str, str], str] | VermilionError:
        try:
            pipeline = build()
        except VermilionError as error:
            return error
        return pipeline.models(), pipeline.options.channels

    found = ray.get(ray.remote(num_cpus=_room(ray, options).cpus, num_gpus=options.gpus)(look).remote())
    if isinstance(found, VermilionError):
        raise found
    return found  # type: ignore[no-any-return]


@dataclass(frozen=True)
class _Plan:
    """How items become rows."""

    build: Callable[[], Pipeline]
    options: RayOptions
    channels: str


def _round(ray: Any, items: list[Utterance], plan: _Plan) -> Iterator[Done]:
    """Answers for some items; where Ray gives up, what is left is begun again, as long as that leads anywhere."""
    left = {item.id: item for item in items}
    vain = 0
    while left:
        before = len(left)
        try:
            for found in _stream(ray, list(left.values()), plan):
                item = left.pop(found["id"], None)
                if item is not None:
                    yield Done(item, _result(found), found["attempts"], found["seconds"])
            break
        except ray.exceptions.RayError as error:
            vain = vain + 1 if len(left) == before else 0
            if vain >= VAIN:
                why = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
                raise ModelError(f"Ray gave up: {why[-1]}; what is finished is kept, start again to go on") from error
    for item in left.values():
        yield Done(item, Failure(item.audio, ModelError("Ray gave no answer for this item"), "worker"), 1, 0.0)


def _stream(ray: Any, items: list[Utterance], plan: _Plan) -> Iterable[dict[str, Any]]:
    ray.data.DataContext.get_current().enable_progress_bars = False
    options, places = plan.options, _room(ray, plan.options)
    chunk = chunk_of(items, options)
    blocks = -(-len(items) // chunk)
    rows = [{"id": item.id, "item": json.dumps(vars(item))} for item in dealt(items, blocks)]
    least, most = places.actors
    return (  # type: ignore[no-any-return]
        ray.data.from_items(rows, override_num_blocks=blocks)
        .map(
            Fetch,
            fn_constructor_args=(options.limits, plan.channels, str(Path.cwd())),
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=places.decoders),
            num_cpus=places.decoder_cpus,
        )
        .map_batches(
            Actor,
            fn_constructor_args=(plan.build, options.limits),
            batch_size=chunk,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(min_size=least, max_size=most),
            num_cpus=places.cpus,
            num_gpus=options.gpus,
        )
        .iter_rows()
    )


def round_of(actors: int, chunk: int) -> int:
    """Items of a round: so many that it matters little when all actors wait for its last, and that fit the memory."""
    return min(1_000_000, max(20_000, 500 * actors * chunk))


def dealt(items: Sequence[Utterance], blocks: int) -> list[Utterance]:
    """Items in such an order that the longest come first, each in another block, and blocks are about equally long.

    A long recording that began last would keep all other actors waiting.
    """
    order = sorted(items, key=lambda item: -(item.duration or 0.0))  # stable: as they came where nothing is known
    if all(item.duration is None for item in items):
        return order
    return [item for first in range(blocks) for item in order[first::blocks]]


def chunk_of(items: Sequence[Utterance], options: RayOptions) -> int:
    """Recordings of a block: as many as are asked for, fewer where they are long."""
    known = [item.duration for item in items if item.duration is not None]
    if not known:
        return options.chunk
    mean = sum(known) / len(known)
    return max(1, min(options.chunk, round(options.limits.chunk_seconds / mean) if mean else options.chunk))


def _error(kind: str, message: str) -> VermilionError:
    from vermilion import errors

    known = DecoderDied if kind == DecoderDied.__name__ else getattr(errors, kind, ModelError)
    return known(message) if isinstance(known, type) and issubclass(known, VermilionError) else ModelError(message)


def _result(found: dict[str, Any]) -> Transcript | Failure:
    if found["error"]:
        kind, message, stage = json.loads(found["error"])
        return Failure(found["id"], _error(kind, message), stage)
    return Transcript.from_dict(json.loads(found["transcript"]))
