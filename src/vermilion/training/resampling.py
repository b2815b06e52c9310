"""Recordings of any kind → 16 kHz mono FLAC, in parallel, taken up where it stopped."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vermilion.audio import SAMPLE_RATE
from vermilion.errors import AudioError, ManifestError
from vermilion.manifests import BYTES, Utterance
from vermilion.training.parallel import in_order
from vermilion.training.shards import encode_flac

_STRANGE = re.compile(r"[^\w.-]")
_LONGEST_NAME = 60
"""characters; of four bytes at most, with the hash they still make a name"""


@dataclass(frozen=True)
class Resampled:
    """One utterance: what became of it."""

    utterance: Utterance
    """the new file and its duration; the old one where it failed"""
    failure: str = ""
    """what was wrong"""
    kept: bool = False
    """the file was there already"""


def resample(utterances: Sequence[Utterance], folder: str | Path, processes: int = 1) -> Iterator[Resampled]:
    """Write each utterance (stretches cut out) as `folder/ID.flac`.

    Files that are there and newer than their recording are kept, so an interrupted call goes on.

    Args:
        utterances: with different ids.
        folder: is made.
        processes: how many work.

    Yields:
        What became of each, in order. Of two with the same id, or ids that differ in upper and lower case only, the
        second has failed.
    """
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    yield from in_order(_resample, _jobs(utterances, root), processes)


_Job = tuple[Utterance, Path, str]
"""what to write, where to, and why that cannot be"""


def _jobs(utterances: Sequence[Utterance], root: Path) -> Iterator[_Job]:
    taken: dict[str, str] = {}
    for utterance in utterances:
        path = root / f"{file_name(utterance.id)}.flac"
        other = taken.get(path.name.casefold())
        taken.setdefault(path.name.casefold(), utterance.id)
        twice = f"utterances {other} and {utterance.id} would both become {path.name}: change an id"
        yield utterance, path, "" if other is None else twice


def file_name(name: str) -> str:
    """A file's name for an id: itself, or with a hash where it has characters (or a length) that files should not."""
    plain = _STRANGE.sub("_", name)[:_LONGEST_NAME].lstrip(".-")
    if plain and plain == name:
        return name
    return f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def _resample(job: _Job) -> Resampled:
    utterance, path, wrong = job
    if wrong:
        return Resampled(utterance, wrong)
    try:
        if _is_current(utterance, path):
            return Resampled(_moved(utterance, path, _duration(path)), kept=True)
        samples = utterance.load()
        if not len(samples):
            return Resampled(utterance, f"{utterance.audio} holds no samples")
        temporary = path.with_name(path.name + ".part")
        temporary.write_bytes(encode_flac(samples))
        temporary.replace(path)
    except (AudioError, ManifestError, OSError) as error:
        return Resampled(utterance, str(error))
    return Resampled(_moved(utterance, path, len(samples) / SAMPLE_RATE))


def _is_current(utterance: Utterance, path: Path) -> bool:
    return path.exists() and path.stat().st_mtime >= Path(utterance.audio).stat().st_mtime


def _duration(path: Path) -> float:
    import soundfile

    try:
        return float(soundfile.info(path).duration)
    except soundfile.SoundFileError as error:
        raise AudioError(f"{path} is there, but damaged ({error}): delete it") from error


def _moved(utterance: Utterance, path: Path, duration: float) -> Utterance:
    extra = {k: v for k, v in utterance.extra.items() if k != BYTES}
    return replace(utterance, audio=str(path), offset=0.0, duration=duration, extra=extra)
