"""An item of a corpus → its recordings, decoded in a process of its own under limits."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vermilion.audio import SAMPLE_RATE, Recording, iter_blocks
from vermilion.audio.isolation import DecoderDied, Decoding, decode
from vermilion.audio.reading import Channels
from vermilion.errors import AudioError, VermilionError
from vermilion.manifests import Utterance

if TYPE_CHECKING:
    from vermilion.cluster.workers import WorkerOptions

Reader = Callable[[Utterance, "WorkerOptions", Path, str], list[Recording]]
"""item, limits, a folder for files on the way, "mix" or "separate" → its recordings; raises what `decoded` raises"""


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
        item = self.items[index]
        try:
            return self.reader(item, self.options, self.folder, self.channels)
        except VermilionError as error:
            return error
        except OSError as error:  # of the folder for samples, or of the system's limits
            return AudioError(f"cannot read {item.audio}: {error.strerror or error}")


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
        _how(utterance, channels),
        options.max_seconds,
        options.decode_memory,
        options.decode_seconds,
        options.stream,
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
    numbers: Sequence[int | None] = range(len(tracks)) if len(tracks) > 1 else [None]
    if utterance.channel is not None:
        if utterance.channel >= len(tracks):
            raise AudioError(f"{utterance.audio} has {len(tracks)} channels; its line asks for {utterance.channel + 1}")
        tracks, numbers = [tracks[utterance.channel]], [utterance.channel]
    return [Recording(utterance.audio, t, n, list(warnings)) for t, n in zip(tracks, numbers, strict=True)]


def _how(utterance: Utterance, channels: str) -> str:
    """A line that names a channel needs them apart."""
    return channels if utterance.channel is None else "separate"


def _read_here(item: Utterance, limits: WorkerOptions, channels: str) -> list[Recording]:
    """Decode in this process."""
    warnings: list[str] = []
    how: Channels = "separate" if _how(item, channels) == "separate" else "mix"
    blocks: list[NDArray[np.int16]] = []
    began = time.monotonic()
    source, longest = item.source(), limits.max_seconds
    for block in iter_blocks(source, channels=how, max_seconds=longest, warnings=warnings, stream=limits.stream):
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
