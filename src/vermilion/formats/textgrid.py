"""Praat's TextGrid (long form): interval tiers without overlaps and without gaps."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from vermilion.errors import FormatError
from vermilion.formats.content import Entry, channels_of, sentences_of, to_ms, words_of
from vermilion.formats.width import clean
from vermilion.transcript import Sentence, Transcript

_SMALLEST = 0.001  # s; Praat refuses a TextGrid without duration
# Praat reads free-standing numbers and quoted strings, whatever stands between them
_VALUE = re.compile(r'"((?:[^"]|"")*)"|(?<![^\s])(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)(?![^\s])')


@dataclass(frozen=True)
class TextGridOptions:
    """What a TextGrid holds."""

    confidence: bool = False
    """add a second line with the confidence to the mark of a sentence, as the published code does"""


@dataclass(frozen=True)
class _Interval:
    start: int
    """ms"""
    end: int
    """ms"""
    text: str


def render_textgrid(transcript: Transcript, options: TextGridOptions | None = None) -> str:
    """Write the tiers "sentence" and, if there are words, "token"; separate channels have tiers of their own.

    Ends are clipped to the recording and to the next start, intervals of no length are left out, gaps are filled with
    empty ones. (The published code ends its run with an error when intervals overlap or are reversed.)
    """
    options = options or TextGridOptions()
    tiers = list(_tiers(transcript, options))
    last = max((interval.end for _, intervals in tiers for interval in intervals), default=0) / 1000
    duration = transcript.duration if transcript.duration >= _SMALLEST else max(last, _SMALLEST)
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0.0", f"xmax = {_number(duration)}"]
    lines += ["tiers? <exists>", f"size = {len(tiers)}", "item []:"]
    for number, (name, intervals) in enumerate(tiers, 1):
        rows = _filled(_apart(intervals), duration)
        lines += [f"    item [{number}]:", '        class = "IntervalTier"', f'        name = "{_quoted(name)}"']
        lines += ["        xmin = 0.0", f"        xmax = {_number(duration)}", f"        intervals: size = {len(rows)}"]
        for i, (start, end, text) in enumerate(rows, 1):
            lines += [f"        intervals [{i}]:", f"            xmin = {_number(start)}"]
            lines += [f"            xmax = {_number(end)}", f'            text = "{_quoted(text)}"']
    return "\n".join(lines) + "\n"


def parse_textgrid(text: str) -> dict[str, list[Entry]]:
    """Read the interval tiers of a TextGrid, long or short form: tier name → intervals that have text.

    Raises:
        FormatError: the file does not follow the format.
    """
    found = _VALUE.finditer(text.removeprefix("\ufeff"))
    values = [m[1].replace('""', '"') if m[1] is not None else float(m[2]) for m in found]
    if values[:2] != ["ooTextFile", "TextGrid"]:
        raise FormatError('this is not a TextGrid: it does not begin with "ooTextFile" and "TextGrid"')
    try:
        return _tiers_of(values)
    except (IndexError, ValueError, TypeError) as error:
        raise FormatError(f"this TextGrid is incomplete or malformed: {error}") from error


def _tiers(transcript: Transcript, options: TextGridOptions) -> Iterable[tuple[str, list[_Interval]]]:
    sentences, words = sentences_of(transcript), words_of(transcript)
    channels: list[int | None] = [*channels_of(sentences)]
    for channel in channels or [None]:
        suffix = f" ch{channel + 1}" if channel is not None else ""
        marks = [s for s in sentences if channel is None or (s.channel or 0) == channel]
        yield f"sentence{suffix}", [_Interval(to_ms(s.start), to_ms(s.end), _mark(s, options)) for s in marks]
        spoken = [w for c, w in words if channel is None or c == channel]
        if spoken:
            yield f"token{suffix}", [_Interval(to_ms(w.start), to_ms(w.end), clean(w.text)) for w in spoken]


def _mark(sentence: Sentence, options: TextGridOptions) -> str:
    return f"{sentence.text}\n{round(sentence.confidence, 3)}" if options.confidence else sentence.text


def _apart(intervals: Sequence[_Interval]) -> list[_Interval]:
    """Clip overlaps: an interval ends where the next begins; those with the same start share the time."""
    ordered = sorted((i for i in intervals if i.end > i.start), key=lambda i: (i.start, i.end))
    groups = [list(group) for _, group in groupby(ordered, key=lambda i: i.start)]
    apart: list[_Interval] = []
    for n, group in enumerate(groups):
        latest = group[-1].end if n + 1 == len(groups) else min(group[-1].end, groups[n + 1][0].start)
        first, ends = group[0].start, [i.end for i in group]
        if len(set(ends)) < len(ends) or (len(ends) > 1 and ends[-2] >= latest):
            ends = [first + (latest - first) * (k + 1) // len(group) for k in range(len(group))]
        ends[-1] = min(ends[-1], latest)
        starts = [first, *ends[:-1]]
        apart += [_Interval(a, b, i.text) for a, b, i in zip(starts, ends, group, strict=True) if b > a]
    return apart


def _filled(intervals: Sequence[_Interval], duration: float) -> list[tuple[float, float, str]]:
    """Rows (start s, end s, text) that cover 0 … duration without gaps."""
    rows: list[tuple[float, float, str]] = []
    reached = 0.0
    for interval in intervals:
        start, end = interval.start / 1000, min(interval.end / 1000, duration)
        if end <= start:
            continue
        if start > reached:
            rows.append((reached, start, ""))
        rows.append((start, end, interval.text))
        reached = end
    if reached < duration:
        rows.append((reached, duration, ""))
    return rows


def _number(seconds: float) -> str:
    return repr(float(seconds))


def _quoted(text: str) -> str:
    return text.replace('"', '""')


def _tiers_of(values: list[str | float]) -> dict[str, list[Entry]]:
    tiers: dict[str, list[Entry]] = {}
    at = 5  # after the two strings, xmin, xmax and the number of tiers
    for _ in range(int(values[4])):
        kind, name, count = values[at], str(values[at + 1]), int(values[at + 4])
        at += 5
        size = 3 if kind == "IntervalTier" else 2
        rows = [values[at + size * i : at + size * (i + 1)] for i in range(count)]
        at += size * count
        if size == 3:
            tiers[name] = [Entry(str(text), float(start), float(end)) for start, end, text in rows if text]
    return tiers
