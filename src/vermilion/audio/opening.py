"""Opening recordings whole, by channel, or spooled: long ones in a temporary file that vanishes with them."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vermilion.audio.arrays import read_array, to_float32
from vermilion.audio.features import SAMPLE_RATE
from vermilion.audio.reading import Channels, check_samples, iter_blocks
from vermilion.audio.recording import Recording
from vermilion.audio.source import AudioInput, describe, is_file
from vermilion.errors import AudioError, AudioLimitError

SPOOL_SECONDS = 600.0
"""longer recordings go to a temporary file, 16 bits a sample (115 MB an hour)"""
_CHECK_SAMPLES = 1 << 20


def load_audio(source: AudioInput, *, max_seconds: float | None = None) -> NDArray[np.float32]:
    """Read a recording as one array.

    Args:
        source: path, bytes, binary file object, samples at 16 kHz, (samples, sample_rate) or a `Recording`.
        max_seconds: longest recording allowed.

    Returns:
        (n,) float32 mono at 16 kHz in [-1, 1]; all channels averaged.

    Raises:
        AudioError: missing, empty, no audio, nothing decodable, or impossible samples.
        AudioLimitError: longer than `max_seconds`.
    """
    ready = _ready(source, max_seconds)
    if ready is not None:
        return to_float32(ready.samples)
    pieces = list(iter_blocks(source, max_seconds=max_seconds))
    return np.concatenate(pieces, axis=1)[0] if pieces else np.zeros(0, dtype=np.float32)


def load_channels(source: AudioInput, *, max_seconds: float | None = None) -> NDArray[np.float32]:
    """Read all channels of a recording.

    Returns:
        (channels, n) float32 at 16 kHz in [-1, 1].

    Raises:
        AudioError: as for `load_audio`.
        AudioLimitError: longer than `max_seconds`.
    """
    pieces = list(iter_blocks(source, channels="separate", max_seconds=max_seconds))
    return np.concatenate(pieces, axis=1) if pieces else np.zeros((1, 0), dtype=np.float32)


def open_recordings(
    source: AudioInput, *, channels: Channels = "mix", max_seconds: float | None = None, stream: str = ""
) -> list[Recording]:
    """Open a recording for work that needs random access in bounded memory.

    Args:
        source: as for `load_audio`; 16 kHz mono arrays and recordings are used as they are, without a copy.
        channels: "mix" for one recording, "separate" for one per channel (no channel number if there is only one).
        max_seconds: longest recording allowed.
        stream: which audio stream of several, as for `iter_blocks`.

    Returns:
        At least one recording; those over ten minutes lie in a temporary file until closed or forgotten.

    Raises:
        AudioError: as for `load_audio`, or the temporary folder is full.
        AudioLimitError: longer than `max_seconds`.
    """
    ready = _ready(source, max_seconds)
    if ready is not None:
        return [ready]
    warnings: list[str] = []
    stores: list[_Store] = []
    try:
        blocks = iter_blocks(source, channels=channels, max_seconds=max_seconds, warnings=warnings, stream=stream)
        for block in blocks:
            stores = stores or [_Store() for _ in block]
            for store, samples in zip(stores, block, strict=True):
                store.append(samples)
        tracks = [store.finish() for store in stores] or [np.zeros(0, dtype=np.float32)]
    finally:
        for store in stores:
            store.close()
    name = describe(source)
    return [Recording(name, t, i if len(tracks) > 1 else None, list(warnings)) for i, t in enumerate(tracks)]


def _ready(source: Any, max_seconds: float | None) -> Recording | None:
    """A recording or 16 kHz mono array that needs no work (as a new object: closing it leaves the source alone)."""
    if isinstance(source, Recording):
        recording = replace(source)
    elif is_file(source):
        return None
    else:
        audio = read_array(source, describe(source))
        if audio.rate != SAMPLE_RATE or audio.frames.shape[1] != 1 or audio.frames.dtype not in (np.int16, np.float32):
            return None
        recording = Recording(describe(source), audio.frames[:, 0])
    if recording.samples.dtype == np.float32 and _peak(recording) > 1.0:
        return None  # to be clipped
    if max_seconds is not None and recording.duration > max_seconds:
        raise AudioLimitError(
            f"{recording.name} is {recording.duration:.1f} seconds long; the limit is {max_seconds:g}"
        )
    return recording


def _peak(recording: Recording) -> float:
    """Check float samples piece by piece (they may be a memory map) and return the largest magnitude."""
    starts = range(0, len(recording.samples), _CHECK_SAMPLES)
    pieces = (to_float32(recording.samples[s : s + _CHECK_SAMPLES]) for s in starts)
    return max((check_samples(p, recording.name, lambda _: None) for p in pieces), default=0.0)


class _Store:
    """Collects the samples of one channel, in memory up to ten minutes, then in a file."""

    def __init__(self) -> None:
        """Begin empty."""
        self.pieces: list[NDArray[np.float32]] = []
        self.count = 0
        self.file: IO[bytes] | None = None

    def append(self, samples: NDArray[np.float32]) -> None:
        """Add (n,) samples."""
        self.count += len(samples)
        self.pieces.append(samples)
        if self.file is not None or self.count > SPOOL_SECONDS * SAMPLE_RATE:
            self._spill()

    def _spill(self) -> None:
        """Write what is in memory; a file without a name, so that nothing stays behind whatever happens."""
        try:
            if self.file is None:
                self.file = tempfile.TemporaryFile()  # noqa: SIM115 (close() is called in any case)
            for piece in self.pieces:
                self.file.write(_to_int16(piece).tobytes())
        except OSError as error:
            raise AudioError(
                f"cannot keep a long recording in {tempfile.gettempdir()}: {error}; free some space or set TMPDIR"
            ) from error
        self.pieces = []

    def finish(self) -> NDArray[np.float32] | NDArray[np.int16]:
        """Return all samples, (n,)."""
        if self.file is None:
            return np.concatenate(self.pieces) if self.pieces else np.zeros(0, dtype=np.float32)
        self.file.flush()
        return np.memmap(self.file, dtype=np.int16, mode="r", shape=(self.count,))

    def close(self) -> None:
        """Close the file; a map of it stays usable until it is forgotten."""
        if self.file is not None:
            self.file.close()


def _to_int16(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    """Round to 16 bits: the inverse of reading 16-bit files."""
    return np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)
