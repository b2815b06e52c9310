"""Singing made out of speech: its vowels held to the notes of a random melody by a plain vocoder.

Real singing is scarce in free packages. This is no imitation of a trained voice: pitch is steady and drawn from a
scale, syllables are long, vibrato is regular, timbre is that of a channel vocoder. A detector that has heard nothing
else knows these traits of singing and no others.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vermilion.audio import SAMPLE_RATE

Array = NDArray[np.float32]

_SIZE = 512
_HOP = 128
_LIFTER = 28
"""cepstral coefficients that describe the vocal tract and not the pitch"""
_LAGS = slice(SAMPLE_RATE // 400, SAMPLE_RATE // 70)
_VOICED = 0.45
"""periodicity of a voiced frame"""
_SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 7, 9))
"""major, minor, pentatonic: semitones"""
_SYLLABLE = 24
"""frames (0.19 s) of fluent speech that become one note"""
_PORTAMENTO = 0.03
"""seconds in which the pitch moves to the next note"""


def sing(samples: Array, rng: np.random.Generator) -> Array:
    """Turn speech into singing.

    Args:
        samples: (n,) float32 at 16 kHz, speech.
        rng: draws key, tempo, melody and vibrato.

    Returns:
        (m,) float32, mostly longer; silence stays silence. Speech below 50 ms comes back as it is.
    """
    if len(samples) < 50 * SAMPLE_RATE // 1000:
        return samples.copy()
    window = np.hanning(_SIZE + 1)[:-1].astype(np.float32)
    frames = _frames(np.pad(samples, _SIZE // 2)) * window
    envelopes = _envelopes(frames)
    source, notes = _score(_voiced(frames), rng)
    pitch = _pitch(notes, rng)
    voice = _excitation(pitch, rng)
    spectra = np.fft.rfft(_frames(np.pad(voice, _SIZE // 2))[: len(source)] * window)
    sung = np.fft.irfft(spectra * envelopes[source[: len(spectra)]]).astype(np.float32)
    return _overlapped(sung * window, window)[_SIZE // 2 : _SIZE // 2 + len(voice)]


def _frames(signal: Array) -> Array:
    """Frames as a view: (n,) → (F, size)."""
    return np.lib.stride_tricks.sliding_window_view(signal, _SIZE)[::_HOP]


def _envelopes(frames: Array) -> Array:
    """Smooth magnitude spectra, (F, size / 2 + 1): the low part of the cepstrum."""
    logs = np.log(np.abs(np.fft.rfft(frames)) + 1e-6)
    cepstrum = np.fft.irfft(logs)
    cepstrum[:, _LIFTER : _SIZE - _LIFTER + 1] = 0
    smooth: Array = np.exp(np.fft.rfft(cepstrum).real).astype(np.float32)
    return smooth


def _voiced(frames: Array) -> NDArray[np.bool_]:
    """Whether each frame is periodic and loud enough; where none is, whether it is loud enough."""
    power = np.square(np.abs(np.fft.rfft(frames, 2 * _SIZE)))
    correlation = np.fft.irfft(power)
    energy = correlation[:, 0]
    loud = energy > 1e-3 * np.quantile(energy, 0.95)
    periodic = correlation[:, _LAGS].max(axis=1) > _VOICED * np.maximum(energy, 1e-12)
    found: NDArray[np.bool_] = loud & periodic
    return found if found.any() else loud


def _score(voiced: NDArray[np.bool_], rng: np.random.Generator) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Write the melody.

    Returns:
        For each frame of the result the frame of the speech that it sounds like, and its pitch in semitones above
        55 Hz (NaN: no pitch).
    """
    scale = _SCALES[int(rng.integers(len(_SCALES)))]
    key = rng.uniform(12, 28)  # 110 to 277 Hz
    beat = rng.uniform(0.25, 0.6) * SAMPLE_RATE / _HOP
    degree = int(rng.integers(len(scale)))
    source: list[NDArray[Any]] = []
    pitch: list[NDArray[np.float64]] = []
    for first, last, is_voiced in _syllables(voiced):
        if not is_voiced:
            source.append(np.arange(first, last))
            pitch.append(np.full(last - first, np.nan))
            continue
        degree = int(np.clip(degree + rng.integers(-2, 3), -3, len(scale) + 3))
        note = key + scale[degree % len(scale)] + 12 * (degree // len(scale))
        length = max(last - first, round(beat * rng.choice([0.5, 1.0, 1.0, 2.0])))
        source.append(_held(first, last, length))
        pitch.append(np.full(length, note))
    return np.concatenate(source).astype(np.intp), np.concatenate(pitch)


def _syllables(voiced: NDArray[np.bool_]) -> Iterator[tuple[int, int, bool]]:
    """Runs of frames of one kind, long voiced ones cut evenly."""
    edges = [0, *(np.flatnonzero(np.diff(voiced.astype(np.int8))) + 1).tolist(), len(voiced)]
    for first, last in pairwise(edges):
        kind = bool(voiced[first])
        parts = max(1, round((last - first) / _SYLLABLE)) if kind else 1
        cuts = np.linspace(first, last, parts + 1).astype(int).tolist()
        yield from ((a, b, kind) for a, b in pairwise(cuts))


def _held(first: int, last: int, length: int) -> NDArray[np.float64]:
    """Frames of a syllable stretched to a length: its ends pass at their speed, its middle is held."""
    count = last - first
    edge = min(count // 3, length // 3)
    middle = np.linspace(first + edge, max(first + edge, last - 1 - edge), length - 2 * edge)
    return np.concatenate([first + np.arange(edge), middle, last - edge + np.arange(edge)])


def _pitch(notes: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Pitch of each sample in Hz, 0 where there is none: notes with glides and vibrato."""
    known = np.flatnonzero(~np.isnan(notes))
    if not len(known):
        return np.zeros(len(notes) * _HOP)
    filled = np.repeat(np.interp(np.arange(len(notes)), known, notes[known]), _HOP)
    glide = round(_PORTAMENTO * SAMPLE_RATE)
    sums = np.cumsum(np.concatenate([np.full(glide, filled[0]), filled]))
    smooth = (sums[glide:] - sums[:-glide]) / glide
    time = np.arange(len(smooth)) / SAMPLE_RATE
    smooth = smooth + rng.uniform(0, 0.5) * np.sin(2 * np.pi * rng.uniform(4.5, 6.5) * time)
    hertz: NDArray[np.float64] = 55.0 * 2 ** (smooth / 12)
    return np.where(np.repeat(np.isnan(notes), _HOP), 0.0, hertz)


def _excitation(pitch: NDArray[np.float64], rng: np.random.Generator) -> Array:
    """Pulses at the pitch, noise where there is none and a little everywhere; (n,) of power 1 / 512 per sample."""
    noise = rng.standard_normal(len(pitch), dtype=np.float32)
    noise *= np.where(pitch > 0, np.float32(0.1), np.float32(1))
    phase = np.cumsum(pitch / SAMPLE_RATE)
    places = np.flatnonzero(np.diff(np.floor(phase)) > 0)
    before = (np.ceil(phase[places]) - phase[places]) / np.maximum(pitch[places + 1] / SAMPLE_RATE, 1e-9)
    share = np.clip(before, 0, 1)  # the pulse lies between two samples
    strength = np.sqrt(SAMPLE_RATE / np.maximum(pitch[places + 1], 1.0))
    np.add.at(noise, places, (strength * (1 - share)).astype(np.float32))
    np.add.at(noise, places + 1, (strength * share).astype(np.float32))
    # so that spectra of its frames have size 1 and the envelopes their own level
    return noise * np.float32(1 / np.sqrt(0.375 * _SIZE))


def _overlapped(frames: Array, window: Array) -> Array:
    """Add frames up where they overlap."""
    count = len(frames)
    out = np.zeros((count - 1) * _HOP + _SIZE, dtype=np.float32)
    weight = np.zeros_like(out)
    squares = window**2
    for i in range(count):
        place = slice(i * _HOP, i * _HOP + _SIZE)
        out[place] += frames[i]
        weight[place] += squares
    out /= np.maximum(weight, np.float32(0.1))
    return out
