"""Where live audio comes from: a microphone, raw samples on a stream, a file at its own pace."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vermilion.errors import AudioError, OptionsError, missing

if TYPE_CHECKING:
    from vermilion.audio import AudioInput

Chunk = tuple[NDArray[Any], int]
"""samples (n,) or (n, channels), and their rate"""
CHUNK_SECONDS = 0.1
QUEUED = 600
"""chunks of a microphone that may wait: a minute"""


def microphone(device: str | None = None) -> Iterator[Chunk]:
    """Chunks of a tenth of a second until the caller stops.

    Args:
        device: number or part of the name of an input; None = the system's choice.

    Raises:
        AudioError: there is no such input, or it fails.
        MissingDependencyError: the package `sounddevice` (or PortAudio) is not installed.
    """
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: the package is there, the PortAudio library is not
        raise missing("the microphone needs PortAudio", "mic", error) from error
    chosen = int(device) if device is not None and device.isdigit() else device
    chunks: queue.Queue[NDArray[Any]] = queue.Queue(QUEUED)

    def heard(data: NDArray[Any], *_: Any) -> None:
        if not chunks.full():  # a minute behind: the machine is far too slow, and old sound is of no use
            chunks.put_nowait(data.copy())

    try:
        rate = int(sounddevice.query_devices(chosen, "input")["default_samplerate"])
        size = int(rate * CHUNK_SECONDS)
        with sounddevice.InputStream(
            device=chosen, channels=1, samplerate=rate, dtype="int16", blocksize=size, callback=heard
        ):
            while True:
                try:
                    yield chunks.get(timeout=CHUNK_SECONDS), rate
                except queue.Empty:
                    yield np.zeros((0, 1), np.int16), rate  # the caller looks for news
    except (sounddevice.PortAudioError, ValueError) as error:
        raise AudioError(f"the microphone cannot be used: {error}") from error


def raw_stream(file: BinaryIO, rate: int = 16000, channels: int = 1) -> Iterator[Chunk]:
    """Signed 16-bit little-endian samples as they arrive, until the end of the file.

    Raises:
        OptionsError: the rate or number of channels is impossible.
    """
    if not 1000 <= rate <= 768_000 or not 1 <= channels <= 64:
        raise OptionsError(f"{channels} channels at {rate} samples per second are not possible")
    width = 2 * channels
    rest = b""
    read = getattr(file, "read1", file.read)
    while data := read(max(width, int(rate * CHUNK_SECONDS) * width)):
        data = rest + data
        whole = len(data) // width * width
        rest = data[whole:]
        yield np.frombuffer(data[:whole], dtype="<i2").reshape(-1, channels), rate


def paced(source: AudioInput, pace: float = 1.0) -> Iterator[Chunk]:
    """A recording in chunks of a tenth of a second, as if it were spoken now.

    Args:
        source: any recording.
        pace: 1 = its own speed, 2 = twice as fast; 0 = as fast as it can be read.

    Raises:
        AudioError: it cannot be read.
        OptionsError: a negative pace.
    """
    from vermilion.audio import iter_blocks

    if not pace >= 0:
        raise OptionsError(f"pace must not be negative, got {pace}")
    size = int(16000 * CHUNK_SECONDS)
    began, done = time.monotonic(), 0
    for block in iter_blocks(source):
        for start in range(0, block.shape[1], size):
            chunk = block[0, start : start + size]
            done += len(chunk)
            if pace:
                time.sleep(max(0.0, began + done / 16000 / pace - time.monotonic()))
            yield chunk, 16000
