"""The newest part of a stream, resampled to 16 kHz mono."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vermilion.errors import AudioError

RATE = 16000


class StreamAudio:
    """Keeps the last seconds of a stream; older samples are forgotten."""

    def __init__(self, seconds: float) -> None:
        """Take how many seconds are kept at least."""
        self._keep = int(seconds * RATE)
        self._data = np.zeros(2 * self._keep, dtype=np.float32)
        self._held = 0
        self.total = 0
        """samples ever taken"""

    def append(self, samples: NDArray[np.float32]) -> None:
        """Take the next samples, not more at once than are kept."""
        if self._held + len(samples) > len(self._data):
            kept = self._data[self._held - self._keep : self._held].copy()
            self._data[: self._keep], self._held = kept, self._keep
        self._data[self._held : self._held + len(samples)] = samples
        self._held += len(samples)
        self.total += len(samples)

    def slice(self, start: int, end: int) -> NDArray[np.float32]:
        """Samples by their number in the stream; those already forgotten are left out."""
        first = self.total - self._held
        return self._data[max(0, start - first) : max(0, end - first)].copy()


class Resampler:
    """Any chunks, rate and number of channels → float32 at 16 kHz, mono."""

    def __init__(self) -> None:
        """The rate is that of the first chunk."""
        self._rate: int | None = None
        self._stream: Any = None

    def __call__(self, samples: NDArray[Any], rate: int) -> NDArray[np.float32]:
        """Take the next samples.

        Args:
            samples: (n,) or (n, channels), int16 or float in [-1, 1].
            rate: samples per second, the same at every call.

        Raises:
            AudioError: not samples, values that are no numbers, or another rate than before.
        """
        mono = _mono(samples)
        if self._rate is None:
            if not 1000 <= rate <= 768_000:
                raise AudioError(f"a sample rate of {rate} is not possible")
            self._rate = rate
        if rate != self._rate:
            raise AudioError(f"the stream began with {self._rate} samples per second and goes on with {rate}")
        if rate == RATE:
            return mono
        if self._stream is None:
            import soxr

            self._stream = soxr.ResampleStream(rate, RATE, 1, dtype="float32")
        found: NDArray[np.float32] = self._stream.resample_chunk(mono)
        return found

    def flush(self) -> NDArray[np.float32]:
        """The stream is over: what is still inside."""
        if self._stream is None:
            return np.zeros(0, dtype=np.float32)
        found: NDArray[np.float32] = self._stream.resample_chunk(np.zeros(0, dtype=np.float32), last=True)
        return found


def _mono(samples: NDArray[Any]) -> NDArray[np.float32]:
    array = np.asarray(samples)
    if array.ndim not in (1, 2) or not (array.dtype == np.int16 or array.dtype.kind == "f"):
        raise AudioError(f"a stream takes int16 or float samples, not {array.dtype} of shape {array.shape}")
    if array.dtype == np.int16:
        array = array.astype(np.float32) / 32768
    if array.ndim == 2:
        array = array.mean(axis=1)
    mono = array.astype(np.float32, copy=False)
    if not np.isfinite(mono).all():
        raise AudioError("a stream holds samples that are no numbers")
    return mono.clip(-1, 1)
