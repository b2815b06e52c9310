"""Stretches of recordings, read without decoding what is not needed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vermilion.audio import SAMPLE_RATE
from vermilion.errors import AudioError
from vermilion.manifests import Utterance

_WHOLE_SECONDS = 20.0
"""recordings up to this length are read whole in any case"""


def read_stretch(utterance: Utterance, count: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], int]:
    """Read an utterance, or a stretch of a long one at random.

    Args:
        utterance: line of a manifest.
        count: most samples that are wanted.
        rng: draws the place; drawn from once whether it is needed or not.

    Returns:
        (n,) float32 at 16 kHz, n ≤ count, and the sample of the utterance with which they begin.

    Raises:
        AudioError: the recording cannot be read, or holds no samples.
    """
    place = rng.random()
    length = utterance.duration
    part = None
    if length is not None and length > max(_WHOLE_SECONDS, count / SAMPLE_RATE):
        first = int(place * (round(length * SAMPLE_RATE) - count + 1))
        part = _seek(utterance, first, count)
        if part is not None:
            return part, first
    samples = utterance.load()
    if not len(samples):
        raise AudioError(f"{utterance.audio} holds no samples; take it out of the manifest")
    first = int(place * (max(0, len(samples) - count) + 1))
    return samples[first : first + count], first


def _seek(utterance: Utterance, first: int, count: int) -> NDArray[np.float32] | None:
    """Read samples from a place on; None where the file's format cannot be sought in."""
    import soundfile

    try:
        with soundfile.SoundFile(utterance.audio) as file:
            if file.samplerate != SAMPLE_RATE or not file.seekable():
                return None
            file.seek(round(utterance.offset * SAMPLE_RATE) + first)
            samples = file.read(count, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError, OSError):
        return None  # the usual reader takes it, or says what is wrong
    mono: NDArray[np.float32] = samples.mean(axis=1, dtype=np.float32)
    return mono if len(mono) else None
