"""What a reader of a transcript should know, whoever recognised it: speech without text, partly covered, very quiet."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from vermilion.flags import LOW_COVERAGE, NO_TEXT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vermilion.assembly import Unit
    from vermilion.transcript import Word

SHORTEST_SPEECH = 1.0
"""seconds; shorter segments without text are breath and the like"""
GAP_SECONDS, GAP_SHARE = 4.0, 1 / 3
"""a stretch of a segment without words that is longer than both (the share is of the segment) is no pause of a speaker:
voice activity ends segments at far shorter ones"""
MISSED_SECONDS, MISSED_SHARE, MISSED_ALWAYS = 2.0, 0.1, 10.0
"""segments without text are worth a warning from so many seconds on that are such a share of the speech, or so many"""
QUIET = 10 ** (-35 / 20)
"""peak below which recognisers begin to lose words (-35 dBFS)"""
_PLACES = 3


def peak_of(samples: NDArray[Any]) -> float:
    """Largest amplitude of samples."""
    return float(max(abs(float(samples.max())), abs(float(samples.min())))) if len(samples) else 0.0


def speech_flags(unit: Unit) -> list[str]:
    """Flags of a recognised segment in which speech was found: what share of it got text."""
    if unit.recognition is None:
        return []
    if not unit.recognition.text.strip():
        return [NO_TEXT] if unit.span.duration >= SHORTEST_SPEECH else []
    gap = longest_gap(unit.recognition.words, unit.span.duration)
    partly = gap > max(GAP_SECONDS, GAP_SHARE * unit.span.duration)
    return [LOW_COVERAGE] if unit.recognition.words and partly else []


def longest_gap(words: Sequence[Word], duration: float) -> float:
    """Seconds of the longest stretch of a segment without words: before, between or after them."""
    longest = end = 0.0
    for word in sorted(words, key=lambda w: w.start):
        longest, end = max(longest, word.start - end), max(end, word.end)
    return max(longest, duration - end)


def transcript_flags(units: Sequence[Unit]) -> set[str]:
    """Flags of all segments; where none got text, that too, however short they are."""
    found = {flag for unit in units for flag in unit.flags}
    heard = _recognised(units)
    return found | {NO_TEXT} if heard and all(_is_empty(unit) for unit in heard) else found


def speech_warnings(units: Sequence[Unit]) -> list[str]:
    """Sentences about speech without text, text that covers a part of its segment, and the level."""
    heard = _recognised(units)
    empty = [unit for unit in heard if _is_empty(unit)]
    found = []
    if empty and len(empty) == len(heard):
        found.append(f"speech was found in {_seconds(empty):.1f} s, but nothing was recognised in it{_level(empty)}")
    elif _worth_a_warning(empty, heard):
        found.append(
            f"nothing was recognised in {_seconds(empty):.1f} of {_seconds(heard):.1f} s of speech, "
            f"{_places(empty)}{_level(empty)}"
        )
    partly = [unit for unit in heard if LOW_COVERAGE in unit.flags]
    if partly:
        found.append(f"the text covers only a part of the speech {_places(partly)}")
    loudest = _loudest(heard)
    if len(empty) < len(heard) and loudest is not None and loudest < QUIET:
        found.append(f"the recording is very quiet{_level(heard)}: words may be missing; raise its level")
    return found


def _recognised(units: Iterable[Unit]) -> list[Unit]:
    return [unit for unit in units if unit.recognition is not None]


def _is_empty(unit: Unit) -> bool:
    return unit.recognition is not None and not unit.recognition.text.strip()


def _worth_a_warning(empty: Sequence[Unit], heard: Sequence[Unit]) -> bool:
    missed = _seconds(empty)
    return missed >= MISSED_ALWAYS or missed >= max(MISSED_SECONDS, MISSED_SHARE * _seconds(heard))


def _seconds(units: Iterable[Unit]) -> float:
    return sum(unit.span.duration for unit in units)


def _loudest(units: Iterable[Unit]) -> float | None:
    return max((unit.peak for unit in units if unit.peak is not None), default=None)


def _level(units: Iterable[Unit]) -> str:
    """` (peak -53 dBFS)`, or nothing where no level is known."""
    peak = _loudest(units)
    if peak is None:
        return ""
    return f" (peak {20 * math.log10(peak):.0f} dBFS)" if peak > 0 else " (no signal)"


def _places(units: Sequence[Unit]) -> str:
    shown = ", ".join(f"{_clock(u.span.start)}–{_clock(u.span.end)}" for u in units[:_PLACES])
    return f"at {shown}" + (f" and {len(units) - _PLACES} more places" if len(units) > _PLACES else "")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
