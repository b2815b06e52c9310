"""A recording at a glance: waveform, probabilities, events, languages and words over time, as a picture or a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vermilion.errors import FormatError
from vermilion.formats.content import Timed, check_times, recording_id, sentences_of
from vermilion.formats.files import write_atomically
from vermilion.transcript import Event, Sentence, Transcript, Word

SAMPLE_RATE = 16000
FRAME_RATE = 100
EVENT_LABELS = ("speech", "singing", "music")


@dataclass(frozen=True)
class TimelineWord:
    """A word and what is known about it."""

    text: str
    start: float
    end: float
    confidence: float | None
    channel: int | None
    language: str


@dataclass(frozen=True)
class Timeline:
    """Everything that a timeline shows, checked and ordered."""

    title: str
    subtitle: str
    duration: float
    """seconds"""
    samples: NDArray[Any] | None
    """(n,) float32 or int16, 16 kHz"""
    curves: dict[str, NDArray[np.float32]]
    """label → (T,) probability per 10 ms frame"""
    events: list[Event]
    """speech segments among them"""
    languages: list[Event]
    """one entry per stretch of a language, its label "zh mandarin" """
    words: list[TimelineWord]
    """empty if the transcript has no word times"""
    sentences: list[Sentence]
    notes: list[str]
    """warnings and failures"""


def plot(
    transcript: Transcript,
    path: str | Path,
    *,
    samples: NDArray[Any] | None = None,
    probabilities: NDArray[np.float32] | None = None,
    title: str | None = None,
    format: str | None = None,
) -> Path:
    """Draw the timeline of a recording.

    Args:
        transcript: what was found.
        path: target; .png and .svg give a picture (long recordings in rows), .html a self-contained page to zoom in.
        samples: (n,) float32 in [-1, 1] or int16, 16 kHz, or (channels, n); without them no waveform is drawn.
        probabilities: (T,) speech, or (T, 3) speech, singing and music probabilities per 10 ms frame; by default those
            that the transcript kept.
        title: heading, by default the recording's name.
        format: "png", "svg" or "html", by default the extension.

    Returns:
        The path written.

    Raises:
        FormatError: the format is not one of these, an array has an impossible shape, or the file cannot be written.
    """
    kind = (format or Path(path).suffix[1:]).lower()
    if kind not in ("png", "svg", "html"):
        raise FormatError(f"a timeline is written as .png, .svg or .html, not {kind or 'without an extension'!r}")
    timeline = prepare(transcript, samples, probabilities, title)
    if kind == "html":
        from vermilion.formats.timeline_html import render_html

        return write_atomically(path, render_html(timeline))
    from vermilion.formats.timeline_png import render_picture

    return write_atomically(path, render_picture(timeline, kind))


def prepare(
    transcript: Transcript,
    samples: NDArray[Any] | None = None,
    probabilities: NDArray[np.float32] | None = None,
    title: str | None = None,
) -> Timeline:
    """Gather what a timeline shows.

    Raises:
        FormatError: an array has an impossible shape, or a time is not a number.
    """
    check_times(transcript)
    sound = None if samples is None else _mono(samples)
    curves = _curves(transcript.probabilities if probabilities is None else probabilities)
    sentences = sentences_of(transcript)
    speech = [Event("speech", s.start, s.end) for s in transcript.segments]
    spans = speech + [e for e in transcript.events if e.label != "speech" or not speech]
    languages = [Event(_label(s.language, s.dialect), s.start, s.end) for s in transcript.languages if s.language]
    if not languages:
        languages = [Event(_label(s.language, s.dialect), s.start, s.end) for s in sentences if s.language]
    return Timeline(
        title=title or recording_id(transcript),
        subtitle=_subtitle(transcript),
        duration=_duration(transcript, sound),
        samples=sound,
        curves=curves,
        events=sorted(spans, key=lambda e: e.start),
        languages=sorted(languages, key=lambda e: e.start),
        words=_words(transcript, sentences),
        sentences=sentences,
        notes=[*transcript.warnings, *map(str, transcript.failures)],
    )


def envelope(samples: NDArray[Any], per_bucket: int) -> NDArray[np.float32]:
    """Return the lowest and highest sample of every `per_bucket` samples, read in blocks (memory maps stay on disk).

    Args:
        samples: (n,) float in [-1, 1] or int16.
        per_bucket: samples per bucket.

    Returns:
        (ceil(n / per_bucket), 2) float32 in [-1, 1]; samples that are not numbers count as 0.
    """
    scale = 1 / 32768 if samples.dtype.kind in "iu" else 1.0
    block = per_bucket * max(1, 4_000_000 // per_bucket)
    parts = [np.zeros((0, 2), np.float32)]
    for at in range(0, len(samples), block):
        piece = np.nan_to_num(np.asarray(samples[at : at + block], np.float32) * scale, posinf=0, neginf=0)
        missing = -len(piece) % per_bucket
        rows = np.pad(piece, (0, missing), mode="edge").reshape(-1, per_bucket)
        parts.append(np.stack([rows.min(1), rows.max(1)], axis=1))
    return np.clip(np.concatenate(parts), -1, 1)


def pooled(curve: NDArray[np.float32], per_bucket: int) -> NDArray[np.float32]:
    """Return the highest value of every `per_bucket` frames, so that short peaks stay visible."""
    missing = -len(curve) % per_bucket
    return np.pad(curve, (0, missing), mode="edge").reshape(-1, per_bucket).max(1) if len(curve) else curve


def clock(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    whole = int(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def _mono(samples: NDArray[Any]) -> NDArray[Any]:
    if samples.ndim == 2:  # (channels, n)
        scale = 1 / 32768 if samples.dtype.kind in "iu" else 1.0
        return np.asarray(samples.mean(0, dtype=np.float32) * np.float32(scale))
    if samples.ndim != 1:
        raise FormatError(f"samples have shape {samples.shape}; give (n,) or (channels, n)")
    return samples


def _curves(probabilities: NDArray[np.float32] | None) -> dict[str, NDArray[np.float32]]:
    if probabilities is None:
        return {}
    table = np.nan_to_num(np.asarray(probabilities, np.float32))
    if table.ndim == 1:
        table = table[:, None]
    if table.ndim != 2 or table.shape[1] not in (1, len(EVENT_LABELS)):
        raise FormatError(f"probabilities have shape {table.shape}; give (T,) or (T, 3)")
    return {label: np.clip(table[:, i], 0, 1) for i, label in enumerate(EVENT_LABELS[: table.shape[1]])}


def _duration(transcript: Transcript, samples: NDArray[Any] | None) -> float:
    spans: list[Timed] = [*transcript.segments, *transcript.sentences, *transcript.events]
    heard = len(samples) / SAMPLE_RATE if samples is not None else 0.0
    return max([transcript.duration, heard, *(s.end for s in spans), 0.1])


def _words(transcript: Transcript, sentences: Sequence[Sentence]) -> list[TimelineWord]:
    placed: list[tuple[Word, int | None, str]] = [
        (w, s.channel, _label(s.language, s.dialect)) for s in sentences for w in s.words
    ]
    if not placed:
        placed = [(w, None, "") for w in transcript.words]
    words = [TimelineWord(w.text, w.start, w.end, w.confidence, channel, label) for w, channel, label in placed]
    return sorted(words, key=lambda w: w.start)


def _label(language: str | None, dialect: str | None) -> str:
    return " ".join(filter(None, (language, dialect)))


def _subtitle(transcript: Transcript) -> str:
    parts = [clock(transcript.duration)]
    parts += [f"{stage}: {name}" for stage, name in transcript.models.items()]
    return "  ·  ".join(parts)
