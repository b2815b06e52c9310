"""Warnings for readers: where a guard of the recogniser acted, from the flags of segments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from vermilion.flags import MEANINGS, RATE_LIMITED, REPETITION, RETRIED
from vermilion.transcript import Span

GUARDED = (REPETITION, RATE_LIMITED, RETRIED)
"""flags that say that a text is not the recogniser's first answer or not all of it, the gravest first"""
MOST_PLACES = 5
"""places that are named for each flag; a recording of hours may have hundreds"""


class Flagged(Protocol):
    """A segment with its flags."""

    span: Span
    flags: list[str]


def guard_warnings(units: Iterable[Flagged]) -> list[str]:
    """Say where text was cut, retried or is incomplete.

    Args:
        units: segments in order of time, those without text included.

    Returns:
        One sentence for each flag, such as "12.4–18.0 s: a repetition loop was cut out of the text"; a segment is
        named once, under the gravest of its flags.
    """
    places: dict[str, list[Span]] = {flag: [] for flag in GUARDED}
    for unit in units:
        gravest = next((flag for flag in GUARDED if flag in unit.flags), None)
        if gravest is not None:
            places[gravest].append(unit.span)
    return [f"{_named(spans)}: {MEANINGS[flag]}" for flag, spans in places.items() if spans]


def _named(spans: Sequence[Span]) -> str:
    named = ", ".join(f"{s.start:.1f}–{s.end:.1f} s" for s in spans[:MOST_PLACES])
    rest = len(spans) - MOST_PLACES
    return f"{named} and {rest} more" if rest > 0 else named
