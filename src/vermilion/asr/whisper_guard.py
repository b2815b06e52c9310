"""Judges a repetitive text of Whisper by the times of its words: people do say the same thing many times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vermilion.flags import LOW_COVERAGE, REPETITION, RETRIED

REPETITIVE = 2.4
"""ratio by which zlib shrinks the text of a repetition loop (Radford et al., section 4.5)"""
EDGE_SECONDS = 1.5
"""audio before the first and behind the last word that a text may leave out"""
LONGEST_WORD = 2.5
"""seconds; a loop's times pile up in one place and stretch elsewhere"""
SHORTEST_WORD = 0.04
CROWDED_SHARE = 0.25
"""of words that are shorter than `SHORTEST_WORD`, at most"""
WORDS_PER_SECOND = 6.0
LETTERS_PER_SECOND = 40.0
"""fast speech stays below 25; "Nooooo…" of two hundred letters does not"""
COVERED_SHARE = 0.8
"""of the audio that a second try must reach"""


def is_repetitive(segment: Any) -> bool:
    """Tell whether a text looks like a loop by its letters alone."""
    return bool(segment.compression_ratio > REPETITIVE)


def fits_time(segment: Any, seconds: float) -> bool:
    """Tell whether the words of a text lie over the audio as spoken ones do.

    Args:
        segment: of faster-whisper, with word times.
        seconds: of audio.
    """
    words = [w for w in segment.words or [] if w.word.strip()]
    if not words or words[0].start > EDGE_SECONDS or seconds - words[-1].end > EDGE_SECONDS:
        return False
    return is_sayable(segment, seconds) and max(w.end - w.start for w in words) <= LONGEST_WORD


def is_sayable(segment: Any, seconds: float) -> bool:
    """Tell whether somebody could say a text in this time: not too much of it, and few words crowded into no time."""
    words = [w for w in segment.words or [] if w.word.strip()]
    crowded = sum(w.end - w.start < SHORTEST_WORD for w in words)
    if sum(len(w.word.strip()) for w in words) > LETTERS_PER_SECOND * seconds:
        return False
    return 0 < len(words) <= WORDS_PER_SECOND * seconds and crowded <= CROWDED_SHARE * len(words)


def guarded(
    found: list[Any], seconds: float, timed: Callable[[], list[Any]], again: Callable[[], list[Any]]
) -> tuple[list[Any], list[str]]:
    """Keep a text that the audio has time for, else take a second one that cannot repeat itself.

    Args:
        found: segments of the first try.
        seconds: of audio.
        timed: gives the same with word times.
        again: gives the second try, with word times.

    Returns:
        The segments to keep, those without text left out, and their flags.
    """
    first = [s for s in found if s.text.strip()]
    if not any(is_repetitive(s) for s in first):
        return first, []
    judged = timed()
    if all(fits_time(s, seconds) for s in judged):
        return first, []
    second = [s for s in again() if s.text.strip() and not is_repetitive(s)]
    if not second:  # rather a doubtful text than none, where it can have been said
        return (first if all(is_sayable(s, seconds) for s in judged) else []), [REPETITION]
    ends = [w.end for s in second for w in s.words or []]
    reached = max(ends, default=0.0) >= COVERED_SHARE * seconds
    return second, [RETRIED] if reached else [RETRIED, LOW_COVERAGE]
