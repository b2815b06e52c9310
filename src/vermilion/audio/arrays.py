"""Samples that come as arrays or lists: layout, rate, number format."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vermilion.audio.features import SAMPLE_RATE
from vermilion.errors import AudioError

MIN_RATE, MAX_RATE = 1000, 1_000_000
_MAX_CHANNELS = 64
_BLOCK_FRAMES = 1 << 18
_SCALES: dict[Any, tuple[float, float]] = {
    np.dtype(np.int16): (0.0, 1 / 32768),
    np.dtype(np.int32): (0.0, 1 / 2147483648),
    np.dtype(np.uint8): (128.0, 1 / 128),
}
"""offset and factor that map an integer format to [-1, 1)"""


@dataclass(frozen=True)
class ArrayAudio:
    """Checked samples."""

    frames: NDArray[Any]
    """(n, channels), in the number format they were given in"""
    rate: float
    """samples per second"""

    def blocks(self) -> Iterator[tuple[float, NDArray[np.float32]]]:
        """Yield (rate, (k, channels) float32) pieces in order."""
        for start in range(0, len(self.frames), _BLOCK_FRAMES):
            yield self.rate, to_float32(self.frames[start : start + _BLOCK_FRAMES])


def to_float32(samples: NDArray[Any]) -> NDArray[np.float32]:
    """Map int16, int32, uint8 or float samples to float32, integers to [-1, 1); float32 samples are not copied."""
    if samples.dtype.kind == "f":
        return samples.astype(np.float32, copy=False)
    offset, factor = _SCALES[samples.dtype]
    if samples.dtype.itemsize == 4:  # float32 has too few bits for the product
        return (samples * factor).astype(np.float32)
    return (samples.astype(np.float32) - np.float32(offset)) * np.float32(factor)


def read_array(source: Any, name: str) -> ArrayAudio:
    """Check in-memory audio.

    Args:
        source: (samples, sample_rate), or samples alone at 16 kHz; samples are int16, int32, uint8 or float, (n,),
            (n, channels) or, if the first axis is clearly the shorter one, (channels, n).
        name: for messages.

    Raises:
        AudioError: the pair is in the wrong order, or rate, number format or shape are impossible.
    """
    samples, rate = source, SAMPLE_RATE
    if isinstance(source, tuple) and len(source) == 2:
        samples, rate = source
        if _is_number(samples) and not _is_number(rate):
            raise AudioError("the pair is in the wrong order: give (samples, sample_rate), not (sample_rate, samples)")
    if not _is_number(rate) or not math.isfinite(float(rate)) or not MIN_RATE <= float(rate) <= MAX_RATE:
        raise AudioError(f"{rate!r} is no sample rate: give (samples, sample_rate) with {MIN_RATE} to {MAX_RATE} Hz")
    return ArrayAudio(_as_frames(_as_array(samples, name)), float(rate))


def _is_number(value: Any) -> bool:
    if isinstance(value, bool | np.bool_):
        return False
    return isinstance(value, Real) or (isinstance(value, np.ndarray) and value.ndim == 0)


def _as_array(samples: Any, name: str) -> NDArray[Any]:
    if not (isinstance(samples, list | tuple) or hasattr(samples, "__array__")):
        kind = type(samples).__name__
        raise AudioError(
            f"cannot take {kind} for a recording: give a path, the bytes of a file, a binary file object, "
            "samples at 16 kHz or (samples, sample_rate)"
        )
    try:
        array: NDArray[Any] = np.asarray(samples)
    except (ValueError, TypeError, RuntimeError) as error:
        raise AudioError(f"cannot take {name} for samples: {error}") from error
    if array.dtype in _SCALES or array.dtype.kind == "f":
        return array
    if array.size == 0:
        return array.astype(np.float32)
    if array.dtype == np.int64 and isinstance(samples, list | tuple) and np.abs(array).max() <= 32768:
        narrow: NDArray[np.int16] = np.clip(array, -32768, 32767).astype(np.int16)  # a list of plain integers
        return narrow
    hint = (
        "several recordings go to the functions that take many" if array.dtype.kind in "OUS" else "convert them first"
    )
    raise AudioError(f"samples must be int16, int32, uint8 or floats in [-1, 1], not {array.dtype}; {hint}")


def _as_frames(array: NDArray[Any]) -> NDArray[Any]:
    """(n,), (n, channels) or (channels, n) → (n, channels)."""
    if array.ndim == 1:
        return array[:, None]
    if array.ndim != 2:
        raise AudioError(f"samples must be one- or two-dimensional (frames, channels), not of shape {array.shape}")
    if array.shape[0] <= 32 and array.shape[0] < array.shape[1]:
        array = array.T
    if array.shape[1] > _MAX_CHANNELS:
        raise AudioError(f"samples of shape {array.shape} would be {array.shape[1]} channels; give (frames, channels)")
    return array if array.shape[1] else array.reshape(-1, 1)
