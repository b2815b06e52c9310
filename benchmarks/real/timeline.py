"""Recordings with exact labels: clips on a known timeline, noise and music at a known distance from the speech.

A clip has silences of its own. Where it speaks is found from its energy alone, before anything is mixed in:
frames of 10 ms whose level is within 30 dB of the clip's loud frames (95th percentile), the range that speech has, and
8 dB above its quietest ones; pauses below 0.2 s belong to the speech, bursts below 0.05 s do not, 0.02 s are added on
both sides. What rings on in a room after the last word is thereby no speech once it is 30 dB down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

RATE = 16000
FRAME = 160
BELOW_LOUD = 30.0
ABOVE_QUIET = 8.0
PAUSE, BURST, MARGIN = 0.2, 0.05, 0.02
LEVEL = -26.0
"""dB of a clip's speech relative to full scale"""
ROOM = -75.0
"""dB of the hiss under "clean" recordings: digital silence exists in no room"""

Samples = NDArray[np.float32]
Span = tuple[float, float]


@dataclass
class Take:
    """A recording under construction."""

    samples: Samples
    spans: dict[str, list[Span]] = field(default_factory=dict)
    """what sounds when, in seconds"""
    sources: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return len(self.samples) / RATE


def levels(samples: Samples) -> NDArray[np.float64]:
    """Level of each 10 ms in dB."""
    frames = len(samples) // FRAME
    blocks = samples[: frames * FRAME].astype(np.float64).reshape(frames, FRAME)
    return 10 * np.log10(np.mean(blocks**2, axis=1) + 1e-12)


def active(samples: Samples) -> list[Span]:
    """Where a clean clip sounds, in seconds (rule at the head of this file)."""
    level = levels(samples)
    if not len(level):
        return []
    loud, quiet = np.percentile(level, [95, 3])
    threshold = loud - BELOW_LOUD
    if quiet < loud - 25:  # the clip has pauses, so its quietest frames are its background
        threshold = max(threshold, quiet + ABOVE_QUIET)
    edges = np.flatnonzero(np.diff(np.concatenate(([0], (level > threshold).astype(int), [0]))))
    spans = [(a / 100, b / 100) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    spans = [s for s in joined(spans, PAUSE) if s[1] - s[0] >= BURST]
    end = len(samples) / RATE
    return joined([(max(0.0, a - MARGIN), min(end, b + MARGIN)) for a, b in spans], 0.0)


def joined(spans: Sequence[Span], gap: float) -> list[Span]:
    """Spans in order; those less than `gap` apart, or that overlap, are one."""
    out: list[Span] = []
    for start, end in sorted(spans):
        if out and start - out[-1][1] < gap + 1e-9:
            out[-1] = (out[-1][0], max(out[-1][1], end))
        else:
            out.append((start, end))
    return [(round(a, 4), round(b, 4)) for a, b in out]


def power(samples: Samples, spans: Sequence[Span]) -> float:
    """Mean square within spans."""
    parts = [samples[round(a * RATE) : round(b * RATE)] for a, b in spans]
    inside = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    return float(np.mean(inside.astype(np.float64) ** 2)) if len(inside) else 0.0


def at_level(samples: Samples, spans: Sequence[Span], level: float = LEVEL) -> Samples:
    """The clip with its active part at a level."""
    now = power(samples, spans)
    return (samples * np.sqrt(10 ** (level / 10) / now)).astype(np.float32) if now else samples


def sequence(clips: Sequence[tuple[str, str, Samples]], seconds: float, gaps: Span, rng: np.random.Generator) -> Take:
    """Clips one after the other, with pauses between, as many as fit.

    Args:
        clips: (label, name, samples); speech and singing are labelled where they sound, others as a whole.
        seconds: length of the recording.
        gaps: shortest and longest pause.
        rng: chooses the pauses.
    """
    take = Take(np.zeros(round(seconds * RATE), np.float32))
    at = rng.uniform(*gaps)
    for label, name, clip in clips:
        end = at + len(clip) / RATE
        if end > seconds - 0.2:
            continue
        spans = active(clip)
        first = round(at * RATE)
        take.samples[first : first + len(clip)] += at_level(clip, spans)
        take.spans.setdefault(label, []).extend(
            (round(first / RATE + a, 4), round(first / RATE + b, 4)) for a, b in spans
        )
        take.sources.append(name)
        at = end + rng.uniform(*gaps)
    take.spans = {label: joined(spans, 0.0) for label, spans in take.spans.items()}
    return take


def noise(kind: str, length: int, rng: np.random.Generator) -> Samples:
    """Coloured noise: "white" (flat), "pink" (−3 dB per octave), "brown" (−6 dB per octave), power 1."""
    slope = {"white": 0.0, "pink": 0.5, "brown": 1.0}[kind]
    spectrum = np.fft.rfft(rng.standard_normal(length))
    frequency = np.maximum(np.fft.rfftfreq(length, 1 / RATE), 20.0)
    shaped = np.fft.irfft(spectrum / frequency**slope, length)
    return (shaped / np.sqrt(np.mean(shaped**2))).astype(np.float32)


def looped(pieces: Sequence[Samples], length: int, rng: np.random.Generator) -> Samples:
    """Pieces in any order until the length is reached, each at the same level, joined by 20 ms fades."""
    out = np.zeros(length, np.float32)
    fade = np.linspace(0, 1, 320, dtype=np.float32)
    at = 0
    while at < length:
        piece = np.array(pieces[int(rng.integers(len(pieces)))])
        piece = at_level(piece, [(0.0, len(piece) / RATE)], 0.0)
        if len(piece) > 2 * len(fade):
            piece[: len(fade)] *= fade
            piece[-len(fade) :] *= fade[::-1]
        take = min(len(piece), length - at)
        out[at : at + take] += piece[:take]
        at += max(len(piece) - len(fade), 1)
    return out


def under(take: Take, background: Samples, snr: float, label: str | None = None) -> Take:
    """Put a background under a recording.

    Args:
        take: its speech gives the level; without speech the background gets `LEVEL` itself.
        background: as long as the recording.
        snr: dB between the speech (where it sounds) and the background.
        label: what the background is; it is labelled where it sounds.
    """
    speech = power(take.samples, take.spans.get("speech", [])) or 10 ** (LEVEL / 10)
    whole = [(0.0, take.seconds)]
    scale = np.sqrt(speech / 10 ** (snr / 10) / max(power(background, whole), 1e-20))
    mixed = take.samples + scale * background
    spans = dict(take.spans)
    if label:
        spans[label] = joined([*spans.get(label, []), *active(background)], 0.0)
    return Take(mixed.astype(np.float32), spans, take.sources)


def finished(take: Take, rng: np.random.Generator) -> Take:
    """Add the hiss of a quiet room; scale down what would clip."""
    hiss = 10 ** (ROOM / 20) * rng.standard_normal(len(take.samples)).astype(np.float32)
    samples = take.samples + hiss
    peak = float(np.max(np.abs(samples), initial=0.0))
    return Take((samples / max(1.0, peak / 0.98)).astype(np.float32), take.spans, take.sources)
