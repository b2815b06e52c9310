"""Sounds in subtitles: `[music]` and `♪` where something plays or is sung and nobody's words are shown."""

from __future__ import annotations

from collections.abc import Sequence

from vermilion.flags import MUSIC, SINGING
from vermilion.transcript import Event, Sentence, Transcript

NOTE = "♪"
MARKS = {MUSIC: "[music]", SINGING: NOTE}
"""event → what a cue says of it"""
JOINED = 1.0
"""seconds of a pause that does not end a piece of music"""
SHORTEST_MS = 2000
"""shorter sounds between words are not told"""

Stretch = tuple[int, int]


def is_sung(sentence: Sentence) -> bool:
    """Tell whether a sentence was flagged as sung."""
    return SINGING in sentence.flags


def noted(lines: Sequence[str]) -> tuple[str, ...]:
    """Put a note before and behind the lines of a sung cue."""
    return (
        (f"{NOTE} {lines[0]}", *lines[1:-1], f"{lines[-1]} {NOTE}")
        if len(lines) > 1
        else (f"{NOTE} {lines[0]} {NOTE}",)
    )


def sounds(transcript: Transcript, shown: Sequence[Stretch], most_ms: int) -> list[tuple[int, int, str]]:
    """Lay out the sounds of a transcript's events between its cues; singing goes before music.

    Args:
        transcript: with its events.
        shown: (start, end) of the cues with words, in ms.
        most_ms: longest time that a mark stays on.

    Returns:
        (start, end, text) in ms, in time order.
    """
    found: list[tuple[int, int, str]] = []
    taken = list(shown)
    for label in (SINGING, MUSIC):
        free = [s for stretch in _joined(transcript.events, label) for s in _without(stretch, taken)]
        kept = [(a, b) for a, b in free if b - a >= SHORTEST_MS]
        found += [(a, min(b, a + most_ms), MARKS[label]) for a, b in kept]
        taken += kept
    return sorted(found)


def _joined(events: Sequence[Event], label: str) -> list[Stretch]:
    """The stretches of one event in ms; those less than `JOINED` apart are one."""
    out: list[Stretch] = []
    for event in sorted((e for e in events if e.label == label), key=lambda e: e.start):
        start, end = round(1000 * event.start), round(1000 * event.end)
        if out and start - out[-1][1] < 1000 * JOINED:
            out[-1] = (out[-1][0], max(out[-1][1], end))
        else:
            out.append((start, end))
    return out


def _without(stretch: Stretch, taken: Sequence[Stretch]) -> list[Stretch]:
    """What of a stretch lies in none of the others."""
    free, at = [], stretch[0]
    for start, end in sorted(taken):
        if start < stretch[1] and end > at:
            free.append((at, start))
            at = max(at, end)
    return [(a, b) for a, b in [*free, (at, stretch[1])] if b > a]
