"""What a live session tells: frozen dataclasses with times in seconds on the stream's timeline."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vermilion.transcript import Sentence, Word, to_ms, word_to_dict


@dataclass(frozen=True)
class SpeechStarted:
    """Somebody began to speak; the first event of an utterance."""

    utterance: int
    """number of the utterance, from 1"""
    time: float
    """where it begins, a little before this event could be known"""


@dataclass(frozen=True)
class Partial:
    """Words of an utterance that is still being spoken; each replaces the one before."""

    utterance: int
    time: float
    """end of the audio that was heard for it"""
    text: str
    """words on which successive hypotheses agree: they rarely change"""
    tentative: str = ""
    """what follows in the newest hypothesis; may change at once"""


@dataclass(frozen=True)
class SpeechEnded:
    """The utterance is over; its final text follows."""

    utterance: int
    time: float
    """where it ends"""


@dataclass(frozen=True)
class Final:
    """The finished utterance, by the full pipeline: it replaces all its partials."""

    utterance: int
    start: float
    end: float
    text: str
    sentences: list[Sentence] = field(default_factory=list)
    language: str | None = None
    dialect: str | None = None
    confidence: float = 0.0
    delay: float = 0.0
    """seconds from the arrival of its last speech to this text"""
    failure: str | None = None
    """why there is no text, where something failed"""

    @property
    def words(self) -> list[Word]:
        """All words, with times on the stream's timeline."""
        return [word for sentence in self.sentences for word in sentence.words]


@dataclass(frozen=True)
class EventChanged:
    """Music or singing began or ended."""

    label: str
    """"music" or "singing" """
    active: bool
    time: float


LiveEvent = SpeechStarted | Partial | SpeechEnded | Final | EventChanged


def event_to_dict(event: LiveEvent) -> dict[str, Any]:
    """An event as plain values, `type` first; times in milliseconds."""
    kind = type(event).__name__
    match event:
        case SpeechStarted() | SpeechEnded():
            return {"type": kind, "utterance": event.utterance, "time_ms": to_ms(event.time)}
        case Partial():
            found: dict[str, Any] = {"type": kind, "utterance": event.utterance, "time_ms": to_ms(event.time)}
            return found | {"text": event.text, "tentative": event.tentative}
        case EventChanged():
            return {"type": kind, "label": event.label, "active": event.active, "time_ms": to_ms(event.time)}
        case Final():
            label = f"{event.language} {event.dialect}" if event.dialect else event.language
            found = {"type": kind, "utterance": event.utterance, "text": event.text}
            found |= {"start_ms": to_ms(event.start), "end_ms": to_ms(event.end), "lang": label}
            found |= {"confidence": round(event.confidence, 3), "delay_ms": to_ms(event.delay)}
            found |= {"sentences": [s.to_dict() for s in event.sentences]}
            found |= {"words": [word_to_dict(w) for w in event.words]}
            return found | ({"failure": event.failure} if event.failure is not None else {})
