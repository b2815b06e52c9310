"""Cues: sentences divided, set in lines and timed so that people can read them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from vermilion.errors import OptionsError
from vermilion.formats.content import channel_label, channels_of, sentences_of, to_ms
from vermilion.formats.sound_marks import is_sung, noted, sounds
from vermilion.formats.timing import SentenceClock
from vermilion.formats.width import Atom, atoms, display_width, ends_clause, lines_of
from vermilion.transcript import Sentence, Transcript

_NOTES = 4  # columns that the notes around a sung line take
_LEAD = 0.5  # s by which the edge of a cue may stand off from the first or last word: segments include some silence

_TOGETHER = 0.1
"""seconds between the starts of texts that nobody could read one after the other"""


@dataclass(frozen=True)
class SubtitleOptions:
    """How subtitles are laid out. Widths are columns: a Chinese, Japanese or Korean character takes 2."""

    max_line_width: int = 42
    """columns of a line; only a single longer word exceeds it"""
    max_lines: int = 2
    """lines of a cue"""
    max_chars_per_second: float = 20.0
    """reading speed in columns per second (10 Chinese characters): a cue stays on through the silence after it until
    it can be read, or the next one begins"""
    min_duration: float = 0.8
    """seconds that a cue stays on where the next one leaves room"""
    max_duration: float = 7.0
    """seconds"""
    max_gap: float = 1.5
    """a silence between two words longer than this many seconds divides a cue"""
    layout: Literal["cues", "sentences"] = "cues"
    """"cues", or "sentences": one entry per sentence with exactly its times, in one line (the published form)"""
    sound_marks: bool = False
    """tell of sounds: `♪` around what is sung, `[music]` and `♪` where nobody's words are shown for 2 s or longer"""

    def __post_init__(self) -> None:
        if self.layout not in ("cues", "sentences"):
            raise OptionsError(f"layout is {self.layout!r}; use 'cues' or 'sentences'")
        if self.max_line_width < 8 or self.max_lines < 1:
            raise OptionsError("subtitles need max_line_width >= 8 and max_lines >= 1")
        positive = (self.max_chars_per_second, self.max_duration, self.max_gap)
        if not all(math.isfinite(x) and x > 0 for x in positive) or not 0 <= self.min_duration <= self.max_duration:
            raise OptionsError("subtitles need positive finite limits and 0 <= min_duration <= max_duration")


@dataclass(frozen=True)
class Cue:
    """One subtitle."""

    start_ms: int
    end_ms: int
    """after `start_ms`"""
    lines: tuple[str, ...]
    channel: int | None = None
    """set if the recording's channels were transcribed separately"""


@dataclass(frozen=True)
class _Piece:
    """Text of a future cue with the time in which it is said."""

    lines: tuple[str, ...]
    start: float
    end: float


def cues(transcript: Transcript, options: SubtitleOptions | None = None, *, step_ms: int = 1) -> list[Cue]:
    """Lay a transcript out as subtitles.

    A cue never spans two sentences. Cues are ordered and, within a channel, do not overlap.

    Args:
        transcript: what was said.
        options: limits of the layout.
        step_ms: resolution of the times (10 for ASS).

    Returns:
        The cues in time order.
    """
    options = options or SubtitleOptions()
    if options.layout == "sentences":
        found = [_exact(s, step_ms, options) for s in sentences_of(transcript)]
    else:
        found = _laid_out(transcript, options, step_ms)
    if options.sound_marks:
        shown = [(c.start_ms, c.end_ms) for c in found]
        for start, end, text in sounds(transcript, shown, to_ms(options.max_duration)):
            found.append(Cue(-(-start // step_ms) * step_ms, end // step_ms * step_ms, (text,)))
    return sorted(found, key=lambda c: (c.start_ms, c.channel or 0))


def _laid_out(transcript: Transcript, options: SubtitleOptions, step_ms: int) -> list[Cue]:
    """The cues with words, of each channel on its own."""
    sentences = sentences_of(transcript)
    found: list[Cue] = []
    channels: list[int | None] = [*channels_of(sentences)]
    for channel in channels or [None]:
        label = display_width(f"[{channel_label(channel)}] ") if channel is not None else 0
        narrowed = replace(options, max_line_width=max(8, options.max_line_width - label))
        mine = [s for s in sentences if channel is None or s.channel == channel]
        pieces = [piece for s in mine for piece in divide(s, narrowed)]
        found += _settled(pieces, channel, transcript.duration, options, step_ms)
    if channels_of(sentences):
        pieces = [piece for s in sentences if s.channel is None for piece in divide(s, options)]
        found += _settled(pieces, None, transcript.duration, options, step_ms)
    return found


def divide(sentence: Sentence, options: SubtitleOptions) -> list[_Piece]:
    """Divide a sentence into the texts of its cues: at marks and pauses before other places, evenly filled."""
    sung = options.sound_marks and is_sung(sentence)
    if sung:
        options = replace(options, max_line_width=max(8, options.max_line_width - _NOTES))
    parts = atoms(sentence.text, options.max_line_width)
    clock = SentenceClock(sentence.text, sentence.words, sentence.start, max(sentence.start, sentence.end))
    starts = [clock.start_of(p.start) for p in parts]
    ends = [max(clock.end_of(p.end), s) for p, s in zip(parts, starts, strict=True)]
    cuts = _best_cuts(sentence.text, parts, starts, ends, options)
    pieces = []
    for a, b in zip([0, *cuts], cuts, strict=False):
        lines = lines_of(sentence.text, parts[a:b], options.max_line_width)
        first = max(sentence.start, starts[a] - _LEAD) if a == 0 else starts[a]
        last = min(max(sentence.start, sentence.end), ends[b - 1] + _LEAD) if b == len(parts) else ends[b - 1]
        pieces.append(_Piece(noted(lines) if sung else tuple(lines), first, max(first, last)))
    return pieces


def _best_cuts(
    text: str, parts: Sequence[Atom], starts: Sequence[float], ends: Sequence[float], options: SubtitleOptions
) -> list[int]:
    """Indices after the last piece of each cue, of least total cost (a shortest path over the pieces)."""
    n = len(parts)
    cost, origin = [0.0] + [math.inf] * n, [0] * (n + 1)
    for i in range(n):
        for j, width in _reachable(parts, starts, ends, i, options):
            total = cost[i] + _cost(text, parts, starts, ends, i, j, width, options)
            if total < cost[j]:
                cost[j], origin[j] = total, i
    cuts, j = [], n
    while j > 0:
        cuts.append(j)
        j = origin[j]
    return cuts[::-1]


def _reachable(
    parts: Sequence[Atom], starts: Sequence[float], ends: Sequence[float], i: int, options: SubtitleOptions
) -> list[tuple[int, int]]:
    """(index after the last piece, columns used) of every cue that may begin with piece `i`; always at least one."""
    found, lines, used, width = [], 1, 0, 0
    for j in range(i, len(parts)):
        if j > i and used + parts[j].bare > options.max_line_width:
            lines, used = lines + 1, 0
        too_long = ends[j] - starts[i] > options.max_duration
        if j > i and (lines > options.max_lines or too_long or starts[j] - ends[j - 1] > options.max_gap):
            break
        used, width = used + parts[j].full, width + parts[j].full
        found.append((j + 1, width))
    return found


def _cost(
    text: str,
    parts: Sequence[Atom],
    starts: Sequence[float],
    ends: Sequence[float],
    i: int,
    j: int,
    width: int,
    options: SubtitleOptions,
) -> float:
    """Every cue costs 1; a cut in mid-clause up to 0.8, an ill-filled cue up to 0.6, a flash 0.5."""
    fill = min(1.0, width / (options.max_line_width * options.max_lines))
    flash = 0.5 if ends[j - 1] - starts[i] < options.min_duration else 0.0
    return 1.0 + _cut_cost(text, parts, starts, ends, j) + 0.6 * (1 - fill) ** 2 + flash


def _cut_cost(text: str, parts: Sequence[Atom], starts: Sequence[float], ends: Sequence[float], j: int) -> float:
    if j == len(parts) or ends_clause(text[parts[j - 1].start : parts[j - 1].end]):
        return 0.0
    return 0.3 if starts[j] - ends[j - 1] >= 0.25 else 0.8


def _exact(sentence: Sentence, step: int, options: SubtitleOptions) -> Cue:
    start = to_ms(sentence.start) // step * step
    end = -(-to_ms(sentence.end) // step) * step
    lines = (sentence.text,)
    return Cue(
        start,
        max(end, start + step),
        noted(lines) if options.sound_marks and is_sung(sentence) else lines,
        sentence.channel,
    )


def _settled(
    pieces: Sequence[_Piece], channel: int | None, duration: float, options: SubtitleOptions, step: int
) -> list[Cue]:
    """Give the cues of one channel their final times: ordered, apart, long enough to read where there is room."""
    pieces = _apart(sorted(pieces, key=lambda p: p.start))
    starts: list[int] = []
    for piece in pieces:  # in steps; equal or reversed starts are moved apart
        starts.append(max(round(to_ms(piece.start) / step), starts[-1] + 1 if starts else 0))
    found = []
    for i, piece in enumerate(pieces):
        following = starts[i + 1] * step if i + 1 < len(pieces) else None
        end = _end(piece, starts[i] * step, following, duration, options)
        end = max(round(end / step), starts[i] + 1)
        found.append(Cue(starts[i] * step, end * step, piece.lines, channel))
    return found


def _apart(pieces: list[_Piece]) -> list[_Piece]:
    """Texts that begin together share their time by their length: each would be gone at once else."""
    found: list[_Piece] = []
    rest = pieces
    while rest:
        count = next((i for i, p in enumerate(rest) if p.start - rest[0].start >= _TOGETHER), len(rest))
        found += _shared(rest[:count])
        rest = rest[count:]
    return sorted(found, key=lambda p: p.start)


def _shared(group: list[_Piece]) -> list[_Piece]:
    if len(group) == 1:
        return group
    start, end = group[0].start, max(p.end for p in group)
    widths = [1 + sum(map(display_width, p.lines)) for p in group]
    edges = [start + (end - start) * sum(widths[:i]) / sum(widths) for i in range(len(group) + 1)]
    return [replace(p, start=a, end=b) for p, a, b in zip(group, edges, edges[1:], strict=False)]


def _end(piece: _Piece, start: int, following: int | None, duration: float, options: SubtitleOptions) -> int:
    """End of a cue in ms: held until it can be read, but not into the next cue nor past the recording."""
    said = to_ms(piece.end)
    to_read = sum(map(display_width, piece.lines)) / options.max_chars_per_second
    held = start + to_ms(max(options.min_duration, to_read))
    if duration > 0:
        held = min(held, to_ms(duration))
    end = min(max(said, held), start + to_ms(options.max_duration))
    return end if following is None else min(end, following)
