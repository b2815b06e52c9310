"""Very quiet recordings → a level that the networks know."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vermilion.audio.arrays import to_float32
from vermilion.audio.features import SAMPLE_RATE
from vermilion.audio.recording import Recording
from vermilion.errors import AudioError

_FRAME = 160
_BLOCK = 1 << 20
_LOUD_SHARE = 0.005
"""the level is what this share of frames exceeds: clicks do not count"""
_QUIET = 10 ** (-34 / 20)
"""levels below this are raised"""
_NOTHING = 10 ** (-72 / 20)
"""levels below this are the noise of the converter, not speech: 8 steps of 16 bits"""
_CHANGING = 10 ** (10 / 20)
"""speech rises so far above the middle of its frames, at least; steady noise stays within 4 dB"""
_TARGET = 10 ** (-14 / 20)
_MOST = 10 ** (45 / 20)
_IN_MEMORY = 600 * SAMPLE_RATE


def raised(recording: Recording) -> Recording:
    """Raise the level of very quiet speech, and say so in the warnings; steady noise and others come back as they are.

    Raises:
        AudioError: the temporary folder is full.
    """
    level, middle = levels_of(recording.samples)
    if not _NOTHING < level < _QUIET or level < _CHANGING * middle:
        return recording
    gain = min(_MOST, _TARGET / level)
    note = f"it is very quiet ({_decibels(level):.0f} dB): its level was raised by {_decibels(gain):.0f} dB"
    return replace(recording, samples=_scaled(recording.samples, gain), warnings=[*recording.warnings, note])


def levels_of(samples: NDArray[np.float32] | NDArray[np.int16]) -> tuple[float, float]:
    """The peak that one frame of 10 ms in 200 exceeds, and that of the middle one; full scale = 1, 0 for nothing."""
    peaks = [_peaks(block) for block in _blocks(samples)]
    if not peaks:
        return 0.0, 0.0
    found = np.sort(np.concatenate(peaks))
    return float(found[-1 - int(_LOUD_SHARE * len(found))]), float(found[len(found) // 2])


def _blocks(samples: NDArray[np.float32] | NDArray[np.int16]) -> Iterator[NDArray[np.float32]]:
    step = _BLOCK // _FRAME * _FRAME
    for start in range(0, len(samples), step):
        yield to_float32(samples[start : start + step])


def _peaks(block: NDArray[np.float32]) -> NDArray[np.float32]:
    whole = np.pad(block, (0, -len(block) % _FRAME)).reshape(-1, _FRAME)
    peaks: NDArray[np.float32] = np.abs(whole).max(axis=1)
    return peaks


def _scaled(samples: NDArray[np.float32] | NDArray[np.int16], gain: float) -> NDArray[np.float32] | NDArray[np.int16]:
    """All samples times a factor, clipped; a long recording stays in a file."""
    if len(samples) <= _IN_MEMORY:
        louder: NDArray[np.float32] = np.clip(to_float32(samples[:]) * np.float32(gain), -1.0, 1.0)
        return louder
    try:
        with tempfile.TemporaryFile() as file:
            for block in _blocks(samples):
                whole = np.clip(np.rint(block * np.float32(gain * 32768)), -32768, 32767).astype(np.int16)
                file.write(whole.tobytes())
            file.flush()
            return np.memmap(file, dtype=np.int16, mode="r", shape=(len(samples),))
    except OSError as error:
        where = tempfile.gettempdir()
        raise AudioError(f"cannot keep a long recording in {where}: {error}; free some space or set TMPDIR") from error


def _decibels(ratio: float) -> float:
    return 20 * math.log10(ratio)
