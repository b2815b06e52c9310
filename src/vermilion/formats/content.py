"""What of a transcript goes into a file: its sentences and words, by channel, with times that can be written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Protocol

from vermilion.errors import FormatError
from vermilion.formats.width import clean
from vermilion.transcript import Sentence, Span, Transcript, Word


class Timed(Protocol):
    """Anything that lasts from one time to another."""

    @property
    def start(self) -> float:
        """Seconds."""
        ...

    @property
    def end(self) -> float:
        """Seconds."""
        ...


class Entry(NamedTuple):
    """A timed text read back from a file."""

    text: str
    start: float
    """seconds"""
    end: float
    """seconds"""


def check_times(transcript: Transcript) -> None:
    """Refuse a transcript whose times cannot be written.

    Raises:
        FormatError: a time is not a finite number; the message names where it stands.
    """
    if not math.isfinite(transcript.duration):
        raise FormatError(f"the duration of {transcript.source!r} is {transcript.duration}: nothing can be written")
    groups: dict[str, Sequence[Timed]] = {
        "segments": transcript.segments,
        "sentences": transcript.sentences,
        "words": transcript.words,
        "events": transcript.events,
        "languages": transcript.languages,
    }
    for name, items in groups.items():
        for i, item in enumerate(items):
            if not (math.isfinite(item.start) and math.isfinite(item.end)):
                raise FormatError(f"{name}[{i}] of {transcript.source!r} lasts from {item.start} to {item.end} s")
    for i, sentence in enumerate(transcript.sentences):
        if not all(math.isfinite(w.start) and math.isfinite(w.end) for w in sentence.words):
            raise FormatError(f"sentences[{i}] of {transcript.source!r} has a word whose time is not a number")


def sentences_of(transcript: Transcript) -> list[Sentence]:
    """Return the sentences that have text, set in one line and with their words, in time order.

    A transcript with text but without sentences counts as one; sentences without words of their own (the published
    JSON has none) get those of the transcript that lie in them.
    """
    found = [replace(s, text=clean(s.text)) for s in transcript.sentences]
    if not transcript.sentences:
        found = [_whole(transcript)]
    found = sorted((s for s in found if s.text), key=lambda s: s.start)
    if transcript.words and not any(s.words for s in found) and not channels_of(found):
        found = [replace(s, words=_inside(s, transcript.words)) for s in found]
    return found


def channels_of(sentences: Iterable[Sentence]) -> list[int]:
    """Return the channels that sentences are labelled with; empty for a mixed-down recording."""
    return sorted({s.channel for s in sentences if s.channel is not None})


def channel_label(channel: int) -> str:
    """People count channels from 1."""
    return f"Ch {channel + 1}"


def words_of(transcript: Transcript) -> list[tuple[int, Word]]:
    """Return (channel counted from 0, word) of all words with text, ordered by channel, then time."""
    labelled = bool(channels_of(transcript.sentences))
    if labelled or not transcript.words:
        words = [(s.channel or 0, w) for s in transcript.sentences for w in s.words]
    else:
        words = [(0, w) for w in transcript.words]
    return sorted(((c, w) for c, w in words if clean(w.text)), key=lambda item: (item[0], item[1].start))


def recording_id(transcript: Transcript) -> str:
    """Return a name without blanks: the utterance id, or the file name without folder and suffix."""
    name = transcript.utterance_id or Path(transcript.source).stem or transcript.source
    return "_".join(clean(name).split()).lstrip(";") or "recording"  # ;; begins a comment in CTM and RTTM


def to_ms(seconds: float) -> int:
    """Round to the nearest millisecond, not before 0."""
    return max(0, round(seconds * 1000))


def _whole(transcript: Transcript) -> Sentence:
    spans: Sequence[Span | Word] = transcript.segments or transcript.words or [Span(0.0, transcript.duration)]
    start, end = min(s.start for s in spans), max(s.end for s in spans)
    return Sentence(clean(transcript.text), start, end, list(transcript.words))


def _inside(sentence: Sentence, words: Sequence[Word]) -> list[Word]:
    return [w for w in words if sentence.start <= (w.start + w.end) / 2 < sentence.end]
