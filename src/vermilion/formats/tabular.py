"""One line per sentence, word or segment: TSV, CTM and RTTM."""

from __future__ import annotations

from collections.abc import Iterator

from vermilion.errors import FormatError
from vermilion.formats.content import (
    Entry,
    channel_label,
    channels_of,
    recording_id,
    sentences_of,
    to_ms,
    words_of,
)
from vermilion.formats.width import clean
from vermilion.transcript import LanguageSpan, Sentence, Span, Transcript


def render_tsv(transcript: Transcript) -> str:
    """Write `start`, `end` (ms) and `text` of every sentence, with a header, as Whisper's tools do.

    Tabs and line ends in a text become blanks; a labelled channel's text begins with `[Ch 1]`.
    """
    rows = ["start\tend\ttext\n"]
    for s in sentences_of(transcript):
        label = f"[{channel_label(s.channel)}] " if s.channel is not None else ""
        rows.append(f"{to_ms(s.start)}\t{max(to_ms(s.end), to_ms(s.start))}\t{label}{s.text}\n")
    return "".join(rows)


def render_ctm(transcript: Transcript) -> str:
    """Write `recording channel start duration word confidence` of every word (NIST's time-marked conversation format).

    Times have 3 decimals. Channels count from 1; blanks inside a word become `_`; an unknown confidence is left out.
    """
    name, rows = recording_id(transcript), []
    for channel, word in words_of(transcript):
        known = word.confidence is not None and word.confidence == word.confidence
        confidence = f" {word.confidence:.3f}" if known else ""
        text = clean(word.text).replace(" ", "_")
        rows.append(f"{name} {channel + 1} {_start_and_duration(word.start, word.end)} {text}{confidence}\n")
    return "".join(rows)


def render_rttm(transcript: Transcript) -> str:
    """Write a `SPEAKER` line per speech segment, named after its language or `speech` (NIST's rich transcription).

    Channels that were transcribed separately have a line per sentence, in their own channel. Singing and music become
    `NON-SPEECH` lines, which scorers of speech pass over.
    """
    name, rows = recording_id(transcript), []
    for channel, span, label in _speech(transcript):
        time = _start_and_duration(span.start, span.end)
        rows.append((span.start, f"SPEAKER {name} {channel} {time} <NA> <NA> {label} <NA> <NA>\n"))
    for event in transcript.events:
        if event.label != "speech" and clean(event.label):
            kind = event.label if event.label in ("music", "noise") else "other"
            time = _start_and_duration(event.start, event.end)
            label = _token(event.label)
            rows.append((event.start, f"NON-SPEECH {name} 1 {time} <NA> {kind} {label} <NA> <NA>\n"))
    return "".join(row for _, row in sorted(rows, key=lambda r: r[0]))


def parse_tsv(text: str) -> list[Entry]:
    """Read what `render_tsv` wrote.

    Raises:
        FormatError: a line does not have two times and a text.
    """
    return [
        Entry(row[2], int(row[0]) / 1000, int(row[1]) / 1000) for row in _fields(text, "\t", 2) if row[0] != "start"
    ]


def parse_ctm(text: str) -> list[Entry]:
    """Read the words of a CTM file.

    Raises:
        FormatError: a line lacks fields.
    """
    return [_entry(row[4], row[2], row[3]) for row in _fields(text, None, 5) if not row[0].startswith(";;")]


def parse_rttm(text: str) -> list[Entry]:
    """Read the speech segments of an RTTM file; the text is the speaker's name.

    Raises:
        FormatError: a line lacks fields.
    """
    return [_entry(row[7], row[3], row[4]) for row in _fields(text, None, 9) if row[0] == "SPEAKER"]


def _speech(transcript: Transcript) -> Iterator[tuple[int, Span, str]]:
    """Yield (channel counted from 1, time, name) of every stretch of speech."""
    labelled = channels_of(transcript.sentences)
    if transcript.segments and not labelled:
        for span in transcript.segments:
            yield 1, span, _language_at(span, transcript.languages)
        return
    for s in sentences_of(transcript):
        yield (s.channel or 0) + 1, Span(s.start, s.end), _name(s)


def _name(item: Sentence | LanguageSpan) -> str:
    parts = [p for p in (item.language, item.dialect) if p]
    return _token("-".join(parts)) if parts else "speech"


def _language_at(span: Span, languages: list[LanguageSpan]) -> str:
    def shared(other: LanguageSpan) -> float:
        return min(span.end, other.end) - max(span.start, other.start)

    best = max(languages, key=shared, default=None)
    return _name(best) if best is not None and shared(best) > 0 else "speech"


def _token(text: str) -> str:
    return "_".join(clean(text).split())


def _start_and_duration(start: float, end: float) -> str:
    first, last = to_ms(start), to_ms(end)
    return f"{first / 1000:.3f} {max(0, last - first) / 1000:.3f}"


def _entry(text: str, start: str, duration: str) -> Entry:
    first = to_ms(float(start))
    return Entry(text, first / 1000, (first + to_ms(float(duration))) / 1000)


def _fields(text: str, separator: str | None, last: int) -> Iterator[list[str]]:
    """Yield the fields of every line; field number `last` takes what remains of it."""
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        if not line.strip():
            continue
        row = line.rstrip("\r").split(separator, last)
        if len(row) < min(last + 1, 5):
            raise FormatError(f"line {number} has {len(row)} fields: {line[:80]!r}")
        yield row
