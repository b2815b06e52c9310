"""Utterances in tar shards, as WebDataset lays them out: `000000042.flac` and `000000042.json` beside each other.

The index that is written beside the shards is an ordinary manifest (`audio_bytes` says where in its shard a recording
lies), so everything that takes manifests takes shards. For media on which seeking is slow, `ShardStream` reads shards
from front to back.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vermilion.audio import SAMPLE_RATE
from vermilion.errors import AudioError, ManifestError, OptionsError
from vermilion.manifests import BYTES, Utterance, read_manifest, write_manifest
from vermilion.training.parallel import Report, in_order
from vermilion.training.tars import Entry, walk

INDEX = "index.jsonl"
_ORDER = 4
"""tells the generator of this order apart from others made of the same seed"""
_BLOCK = 512


@dataclass(frozen=True)
class Packed:
    """What became of a manifest."""

    index: Path
    """manifest of everything that was packed"""
    shards: int
    utterances: int
    seconds: float
    failures: list[tuple[str, str]]
    """id and message of recordings that could not be read; they are in no shard"""


@dataclass(frozen=True)
class _Job:
    """One shard to write."""

    path: Path
    first: int
    """number of its first utterance"""
    utterances: list[Utterance]


def pack(
    utterances: Sequence[Utterance],
    folder: str | Path,
    *,
    per_shard: int = 1000,
    seed: int | None = 0,
    processes: int = 1,
    report: Report | None = None,
) -> Packed:
    """Write utterances into shards, as 16-bit FLAC at 16 kHz, stretches cut out.

    Shards that are there already and hold the same utterances are kept: an interrupted call goes on.

    Args:
        utterances: what to pack; ids differ.
        folder: gets `shard-000000.tar` …, a manifest of each beside it, and `index.jsonl` of all.
        per_shard: utterances of a shard.
        seed: of the order, since streams shuffle over few shards only; None = as they come.
        processes: how many work, a shard each.
        report: progress, in shards.

    Raises:
        OptionsError: a number is out of its domain, or the folder holds more shards than this packing has.
        ManifestError: two utterances have the same id.
    """
    if per_shard < 1:
        raise OptionsError(f"per_shard is {per_shard}; at least 1 is needed")
    _check_ids(utterances)
    order = range(len(utterances)) if seed is None else np.random.default_rng(seed).permutation(len(utterances))
    chosen = [utterances[i] for i in order]
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    jobs = [
        _Job(root / f"shard-{number:06d}.tar", first, chosen[first : first + per_shard])
        for number, first in enumerate(range(0, len(chosen), per_shard))
    ]
    strange = {p.name for p in root.glob("shard-*.tar")} - {job.path.name for job in jobs}
    if strange:
        raise OptionsError(f"{root} holds shards of another packing ({min(strange)}): choose another folder")
    failures: list[tuple[str, str]] = []
    for done, failed in enumerate(in_order(_write, jobs, processes, chunk=1), 1):
        failures += failed
        if report is not None:
            report(done, jobs[done - 1].path.name)
    packed = [u for job in jobs if (lines := _manifest_of(job.path)).stat().st_size for u in read_manifest(lines)]
    write_manifest(root / INDEX, packed)
    return Packed(root / INDEX, len(jobs), len(packed), sum(u.duration or 0.0 for u in packed), failures)


def _check_ids(utterances: Sequence[Utterance]) -> None:
    seen: set[str] = set()
    for utterance in utterances:
        if utterance.id in seen:
            raise ManifestError(f"two utterances have the id {utterance.id}: vermilion data check lists such lines")
        seen.add(utterance.id)


def _manifest_of(shard: Path) -> Path:
    return shard.with_suffix(".jsonl")


def _write(job: _Job) -> list[tuple[str, str]]:
    """Write a shard unless it is there; return the failures."""
    if _is_done(job):
        return []
    failures: list[tuple[str, str]] = []
    lines: list[Utterance] = []
    temporary = job.path.with_suffix(".tar.part")
    with temporary.open("wb") as out, tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number, utterance in enumerate(job.utterances, job.first):
            try:
                samples = utterance.load()
            except AudioError as error:
                failures.append((utterance.id, str(error)))
                continue
            data = encode_flac(samples)
            duration = len(samples) / SAMPLE_RATE
            _add(tar, f"{number:09d}.json", json.dumps(_facts(utterance, duration), ensure_ascii=False).encode())
            _add(tar, f"{number:09d}.flac", data)
            first = out.tell() - -(-len(data) // _BLOCK) * _BLOCK
            extra = {k: v for k, v in utterance.extra.items() if k != BYTES} | {BYTES: [first, len(data)]}
            lines.append(replace(utterance, audio=str(job.path), offset=0.0, duration=duration, extra=extra))
    write_manifest(_manifest_of(job.path), lines)
    temporary.replace(job.path)
    return failures


def _is_done(job: _Job) -> bool:
    """Whether a shard is there with just these utterances; one with failures is tried again."""
    if not job.path.exists() or not _manifest_of(job.path).exists():
        return False
    if not _manifest_of(job.path).stat().st_size:
        return False
    # what is written last is the shard itself: both belong together
    return [u.id for u in read_manifest(_manifest_of(job.path))] == [u.id for u in job.utterances]


def _facts(utterance: Utterance, duration: float) -> dict[str, Any]:
    row = replace(utterance, offset=0.0, duration=duration).to_dict()
    return {key: value for key, value in row.items() if key not in ("audio_filepath", BYTES)}


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def encode_flac(samples: NDArray[np.float32]) -> bytes:
    """Encode (n,) float32 at 16 kHz as 16-bit FLAC; a recording that was 16 bits keeps every bit."""
    import soundfile

    target = io.BytesIO()
    pcm = np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)
    soundfile.write(target, pcm, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return target.getvalue()


class ShardStream:
    """Shards read from front to back in a shuffled order that can be taken up anywhere."""

    def __init__(
        self, shards: Sequence[str | Path], *, seed: int = 0, buffer: int = 1000, rank: int = 0, world: int = 1
    ) -> None:
        """Take the shards.

        Args:
            shards: tar files.
            seed: of the order; shards are shuffled, and so is each run of `buffer` utterances.
            buffer: utterances that are held in memory, still encoded.
            rank: number of this process.
            world: how many processes share the shards; each reads whole ones, so they get different numbers of
                utterances where shards differ.

        Raises:
            OptionsError: a number is out of its domain, or there are fewer shards than processes.
        """
        if buffer < 1 or not 0 <= rank < world or len(shards) < world:
            raise OptionsError(
                f"cannot share {len(shards)} shards out to {world} processes (this is {rank}) in buffers of {buffer}"
            )
        self.shards = [Path(s) for s in shards]
        self.seed, self.buffer, self.rank, self.world = seed, buffer, rank, world

    def epoch(self, number: int, start: int = 0) -> Iterator[Entry]:
        """Yield the utterances of an epoch on this process.

        Args:
            number: of the epoch, which decides the order with the seed.
            start: utterances to leave out: as many as an interrupted run has taken.

        Raises:
            ManifestError: a shard is no tar, or a member is not what belongs there.
        """
        rng = np.random.default_rng([_ORDER, self.seed, number])
        order = rng.permutation(len(self.shards))[self.rank :: self.world]
        block, first = divmod(start, self.buffer)
        entries = _entries([self.shards[i] for i in order], block * self.buffer)
        while held := list(islice(entries, self.buffer)):
            mixed = np.random.default_rng([_ORDER, self.seed, number, block]).permutation(len(held))
            yield from (held[i] for i in mixed[first:])
            block, first = block + 1, 0


def _entries(shards: Sequence[Path], skip: int) -> Iterator[Entry]:
    """Everything in order, without what is skipped: whole shards by their manifests, others by their headers."""
    for shard in shards:
        lines = _manifest_of(shard)
        if skip and lines.exists():
            with lines.open("rb") as file:
                count = sum(1 for line in file if line.strip())
            if count <= skip:
                skip -= count
                continue
        with _opened(shard) as file:
            for entry in walk(file, str(shard), skip):
                if entry is None:
                    skip -= 1
                else:
                    yield entry


def _opened(shard: Path) -> IO[bytes]:
    try:
        return shard.open("rb")
    except OSError as error:
        raise ManifestError(f"cannot read the shard {shard}: {error.strerror or error}") from error


def read_shard(source: str | Path | IO[bytes]) -> Iterator[Entry]:
    """Read one shard from front to back.

    Args:
        source: path, or any binary file object, a pipe or a socket's file too.

    Raises:
        ManifestError: it is no tar, or a member is not what belongs there.
    """
    if isinstance(source, str | Path):
        yield from _entries([Path(source)], 0)
        return
    name = str(getattr(source, "name", "shard"))
    yield from (entry for entry in walk(source, name) if entry is not None)
