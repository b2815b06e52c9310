"""Samples that clients send as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soxr

from vermilion.errors import AudioError

RATE = 16000


def write_16k(pcm: bytes, rate: int, path: Path) -> float:
    """Resample mono int16 samples and write them to a file.

    Returns:
        Their length in seconds.

    Raises:
        AudioError: the rate is impossible.
    """
    if not 1000 <= rate <= 768_000:
        raise AudioError(f"{rate} samples per second are not audio")
    samples = np.frombuffer(pcm[: len(pcm) // 2 * 2], dtype="<i2")
    resampled = samples if rate == RATE else soxr.resample(samples, rate, RATE)
    with path.open("xb") as file:
        file.write(np.ascontiguousarray(resampled, dtype="<i2").tobytes())
    return len(samples) / rate
