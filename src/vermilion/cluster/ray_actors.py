"""What runs on the nodes of a Ray cluster: actors that fetch and decode, and actors with the models.

An item that crashes a library must not look like a lost node: an actor decodes in processes of its own under limits,
and runs its pipeline in one too (`vermilion.cluster.workers`), which finds the guilty item.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from vermilion.audio import Recording
from vermilion.audio.isolation import DecoderDied, warm
from vermilion.cluster.reading import decoded, recordings
from vermilion.cluster.store import key_of
from vermilion.cluster.workers import ALONE, WorkerOptions, WorkerPool
from vermilion.errors import AudioError, AudioLimitError, VermilionError
from vermilion.manifests import Utterance
from vermilion.transcript import Failure, Transcript

if TYPE_CHECKING:
    from vermilion.pipeline import Pipeline

PROTOCOLS = frozenset({"http", "https", "s3", "gs", "gcs", "abfs", "az", "hdfs", "file"})
"""where a manifest's recordings may lie; credentials come from the environment of the workers"""
LARGEST = 8 << 30
"""bytes of a remote recording"""
LARGEST_ROW = (1 << 31) - 1
"""bytes of the samples of one item: what a value of an Arrow table may take"""


class Fetch:
    """Recordings from wherever they are → 16 kHz samples; what cannot be read says why."""

    def __init__(self, limits: WorkerOptions, channels: str = "mix", base: str = "") -> None:
        """Take the limits, what becomes of channels, and the folder of relative paths.

        Decoders start out of a server that is warm already.
        """
        self.limits, self.channels, self.base = limits, channels, Path(base)
        _forget_script()
        warm()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Add "tracks" (bytes of int16 samples, one channel after the other), "channels", "warnings" and "error"."""
        item = Utterance(**json.loads(row["item"]))
        tracks: list[Recording] = []
        warnings: list[str] = []
        problem, attempts = "", 1
        with tempfile.TemporaryDirectory(prefix="vermilion-ray-") as folder:
            try:
                tracks = self._read(item, Path(folder))
                warnings = tracks[0].warnings
            except VermilionError as error:
                problem = json.dumps([type(error).__name__, str(error)])
                attempts = ALONE if isinstance(error, DecoderDied) else 1
        samples = b"".join(track.samples.tobytes() for track in tracks)
        return {
            **row, "tracks": samples, "channels": len(tracks), "warnings": json.dumps(warnings),
            "error": problem, "attempts": attempts,
        }  # fmt: skip

    def _read(self, item: Utterance, folder: Path) -> list[Recording]:
        local = fetched(replace(item, audio=str(self.base / item.audio)) if "://" not in item.audio else item, folder)
        try:
            tracks = decoded(item, self.limits, folder, self.channels, local)
        except VermilionError as error:  # the manifest's name for it, not ours
            raise type(error)(str(error).replace(local.audio, item.audio)) from error
        except (OSError, MemoryError) as error:
            raise AudioError(f"cannot read {item.audio}: {str(error) or type(error).__name__}") from error
        if sum(track.samples.nbytes for track in tracks) > LARGEST_ROW:
            raise AudioLimitError(f"{item.audio} is too long to travel on Ray with {len(tracks)} channels; cut it")
        return tracks


def _forget_script() -> None:
    """Processes that a worker of Ray starts would import Ray's own script again; they need nothing of it."""
    script = sys.modules["__main__"]
    if Path(getattr(script, "__file__", None) or "").name == "default_worker.py":
        del script.__file__


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
        _forget_script()
        self.folder = tempfile.TemporaryDirectory(prefix="vermilion-ray-")
        self.handed = Handed(self.folder.name)
        self.pool = WorkerPool(build, replace(limits, workers=1), self.handed).__enter__()

    def __call__(self, table: Any) -> dict[str, list[Any]]:
        """Transcribe a block of `Fetch`'s rows."""
        out: dict[str, list[Any]] = {"id": [], "transcript": [], "error": [], "attempts": [], "seconds": []}

        def add(*values: Any) -> None:
            for name, value in zip(out, values, strict=True):
                out[name].append(value)

        ready = []
        for row in table.to_pylist():
            if row["error"]:
                add(row["id"], "", json.dumps([*json.loads(row["error"]), "audio"]), row["attempts"], 0.0)
            else:
                self.handed.put(row)
                ready.append(Utterance(**json.loads(row["item"])))
        for done in self.pool.run(iter(ready)):
            self.handed.drop(done.utterance)
            add(done.utterance.id, *_texts(done.result), done.attempts, done.seconds)
        return out


@dataclass(frozen=True)
class Handed:
    """Hands the samples of `Fetch`'s rows to the process with the pipeline, by files."""

    folder: str

    def put(self, row: Mapping[str, Any]) -> None:
        """Keep the samples of a row."""
        samples = np.frombuffer(row["tracks"], "<i2").reshape(row["channels"], -1)
        np.save(self._place(row["id"], ".npy"), samples)
        self._place(row["id"], ".json").write_text(row["warnings"], encoding="utf-8")

    def drop(self, item: Utterance) -> None:
        """Forget them."""
        for suffix in (".npy", ".json"):
            self._place(item.id, suffix).unlink(missing_ok=True)

    def __call__(self, item: Utterance, limits: WorkerOptions, folder: Path, channels: str) -> list[Recording]:
        """The recordings of an item, as `decoded` gives them."""
        warnings = json.loads(self._place(item.id, ".json").read_text(encoding="utf-8"))
        return recordings(item, list(np.load(self._place(item.id, ".npy"), allow_pickle=False)), warnings)

    def _place(self, name: str, suffix: str) -> Path:
        return Path(self.folder) / f"{key_of(name):016x}{suffix}"


def _texts(result: Transcript | Failure) -> tuple[str, str]:
    """A result as it travels: its transcript, or its error."""
    if isinstance(result, Failure):
        return "", json.dumps([type(result.error).__name__, str(result.error), result.stage])
    return json.dumps(result.to_dict()), ""
