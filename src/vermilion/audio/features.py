"""Log-Mel filterbank features, Kaldi compatible, one-shot and streaming (SPEC section 1)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vermilion.audio.cmvn import read_cmvn
from vermilion.errors import AudioError, CheckpointError

SAMPLE_RATE = 16000
FRAME_LENGTH = 400
FRAME_SHIFT = 160
NUM_BINS = 80
_FFT_SIZE = 512
_PREEMPHASIS = np.float32(0.97)
_FLOOR = np.float32(1.1920929e-7)
_BLOCK_FRAMES = 400
"""frames that are worked on at a time: their spectra stay in a core's cache"""

Samples = NDArray[np.int16] | NDArray[np.float32] | NDArray[np.float64]
"""(n,) mono at 16 kHz: int16, or float in [-1, 1]"""


def num_frames(num_samples: int) -> int:
    """Number of 25 ms frames, every 10 ms, that lie completely inside so many samples."""
    return 0 if num_samples < FRAME_LENGTH else 1 + (num_samples - FRAME_LENGTH) // FRAME_SHIFT


@cache
def povey_window() -> NDArray[np.float32]:
    """The "povey" window, (400,)."""
    phase = 2 * np.pi * np.arange(FRAME_LENGTH) / (FRAME_LENGTH - 1)
    return ((0.5 - 0.5 * np.cos(phase)) ** 0.85).astype(np.float32)


@cache
def mel_weights() -> NDArray[np.float64]:
    """Triangular filters, equally spaced on the mel scale from 20 to 8000 Hz, (257, 80)."""
    low, high = (1127 * np.log(1 + f / 700) for f in (20.0, 8000.0))
    bins = 1127 * np.log(1 + np.arange(_FFT_SIZE // 2 + 1) * (SAMPLE_RATE / _FFT_SIZE) / 700)
    corners = low + np.arange(NUM_BINS + 2) * ((high - low) / (NUM_BINS + 1))
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    rising = (bins[:, None] - left) / (centre - left)
    falling = (right - bins[:, None]) / (right - centre)
    weights: NDArray[np.float64] = np.maximum(np.minimum(rising, falling), 0.0)
    weights[-1] = 0.0  # the bin at half the sampling rate takes no part
    return weights


@cache
def _sparse_weights() -> tuple[NDArray[np.intp], NDArray[np.float32], NDArray[np.intp]]:
    """The non-zero weights, filter after filter: their bins, their values, where each filter begins.

    Every bin lies in two filters at most, so this is a fortieth of the dense product. Unlike a matrix product it also
    sums each frame in the same order whatever its neighbours are: a frame's value never depends on its block.
    """
    filters, bins = np.nonzero(mel_weights().T)
    values = mel_weights()[bins, filters].astype(np.float32)
    return bins, values, np.searchsorted(filters, np.arange(NUM_BINS))


def _as_int16_scale(samples: Samples) -> NDArray[np.float32]:
    if samples.dtype == np.int16:
        return samples.astype(np.float32)
    return samples.astype(np.float32, copy=False) * np.float32(32768)


def _check(samples: Samples) -> None:
    if samples.ndim != 1 or not (samples.dtype == np.int16 or samples.dtype.kind == "f"):
        raise AudioError(
            f"features need one-dimensional int16 or float samples, not {samples.dtype} of shape {samples.shape}; "
            "load_audio() turns any recording into such samples"
        )


def frames_of(signal: NDArray[np.float32]) -> NDArray[np.float32]:
    """The complete frames of a contiguous signal as a view: (n,) → (T, 400)."""
    step = signal.strides[0]
    return np.ndarray((num_frames(len(signal)), FRAME_LENGTH), np.float32, signal, 0, (FRAME_SHIFT * step, step))


def _log_mel_frames(view: NDArray[np.float32]) -> NDArray[np.float32]:
    """(T, 400) frames in the scale of 16-bit integers → (T, 80)."""
    frames = view - view.mean(axis=1, keepdims=True, dtype=np.float32)
    emphasised = np.empty_like(frames)
    np.multiply(frames[:, :-1], -_PREEMPHASIS, out=emphasised[:, 1:])
    np.multiply(frames[:, 0], -_PREEMPHASIS, out=emphasised[:, 0])
    emphasised += frames
    emphasised *= povey_window()
    spectrum = np.fft.rfft(emphasised, n=_FFT_SIZE)  # (T, 257), complex64 because the input is float32
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    bins, values, starts = _sparse_weights()
    weighted = power[:, bins]
    weighted *= values
    energies: NDArray[np.float32] = np.add.reduceat(weighted, starts, axis=1)
    np.maximum(energies, _FLOOR, out=energies)
    return np.log(energies, out=energies)


class FeatureExtractor:
    """Samples → normalised log-Mel features."""

    def __init__(self, mean: NDArray[np.float64], inverse_std: NDArray[np.float64]) -> None:
        """Keep the statistics, (80,) each."""
        self.mean = np.asarray(mean, dtype=np.float64)
        self.inverse_std = np.asarray(inverse_std, dtype=np.float64)
        if self.mean.shape != (NUM_BINS,) or self.inverse_std.shape != (NUM_BINS,):
            shapes = f"{self.mean.shape} and {self.inverse_std.shape}"
            raise CheckpointError(f"mean and inverse standard deviation need shape ({NUM_BINS},), not {shapes}")

    @classmethod
    def from_cmvn(cls, path: str | Path) -> FeatureExtractor:
        """Read the statistics of a model folder's `cmvn.ark`.

        Raises:
            CheckpointError: the file is missing or is no such matrix.
        """
        return cls(*read_cmvn(path, NUM_BINS))

    def __call__(self, samples: Samples) -> NDArray[np.float32]:
        """Compute normalised features.

        Args:
            samples: (n,) mono at 16 kHz, int16 or float in [-1, 1].

        Returns:
            (T, 80) float32, T = num_frames(n); frame t begins at sample 160·t.

        Raises:
            AudioError: the samples are not one-dimensional int16 or float.
        """
        return self.normalise(self.log_mel(samples))

    def log_mel(self, samples: Samples) -> NDArray[np.float32]:
        """Compute features before normalisation; arguments and result as for a call."""
        _check(samples)
        features = np.empty((num_frames(len(samples)), NUM_BINS), dtype=np.float32)
        for first in range(0, len(features), _BLOCK_FRAMES):
            count = min(_BLOCK_FRAMES, len(features) - first)
            signal = _as_int16_scale(_cut(samples, first, count))
            features[first : first + count] = _log_mel_frames(frames_of(signal))
        return features

    def of_frames(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """Normalised features of frames cut elsewhere (of many streams, say).

        Args:
            frames: (T, 400) float32 in the scale of 16-bit integers.

        Returns:
            (T, 80) float32.
        """
        return self.normalise(_log_mel_frames(frames))

    def iter_blocks(self, samples: Samples, frames: int = 3000) -> Iterator[NDArray[np.float32]]:
        """Yield the normalised features of a long recording, at most so many frames at a time.

        A memory-mapped recording is read piece by piece; the values are those of one call over everything.
        """
        _check(samples)
        total = num_frames(len(samples))
        for first in range(0, total, frames):
            yield self(_cut(samples, first, min(frames, total - first)))

    def normalise(self, log_mel: NDArray[np.float32]) -> NDArray[np.float32]:
        """Subtract the mean and scale to unit variance, in float64; (T, 80) → (T, 80) float32."""
        return ((log_mel - self.mean) * self.inverse_std).astype(np.float32)


def _cut(samples: Samples, first: int, count: int) -> Samples:
    """The samples under frames first … first + count − 1."""
    start = first * FRAME_SHIFT
    return samples[start : start + (count - 1) * FRAME_SHIFT + FRAME_LENGTH]


class StreamingFeatureExtractor:
    """Features of a live signal: any chunk size, the same frames as one call over everything."""

    def __init__(self, extractor: FeatureExtractor) -> None:
        """Wrap an extractor; several streams may share it."""
        self.extractor = extractor
        self._rest = np.zeros(0, dtype=np.float32)  # not yet consumed, in the scale of 16-bit integers

    def accept(self, samples: Samples) -> NDArray[np.float32]:
        """Take the next samples and return the frames that are now complete.

        Args:
            samples: (n,) any number of samples, int16 or float in [-1, 1].

        Returns:
            (k, 80) normalised float32, k ≥ 0.
        """
        frames = self.frames(samples)
        parts = [self.extractor.of_frames(frames[i : i + _BLOCK_FRAMES]) for i in range(0, len(frames), _BLOCK_FRAMES)]
        return parts[0] if len(parts) == 1 else np.concatenate([np.zeros((0, NUM_BINS), np.float32), *parts])

    def frames(self, samples: Samples) -> NDArray[np.float32]:
        """Take the next samples and return the complete frames themselves, (k, 400) in the scale of integers."""
        _check(samples)
        signal = np.concatenate([self._rest, _as_int16_scale(samples)])
        frames = frames_of(signal)
        self._rest = signal[len(frames) * FRAME_SHIFT :].copy()
        return frames

    def reset(self) -> None:
        """Forget buffered samples: the next call begins a new signal."""
        self._rest = np.zeros(0, dtype=np.float32)
