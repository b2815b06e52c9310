"""The results: frozen dataclasses from a single token up to a whole transcript.

All times are seconds on the original recording's timeline. Numpy arrays appear only as frame probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vermilion.errors import VermilionError


def to_ms(seconds: float) -> int:
    """Round seconds to the nearest millisecond (the published code truncates: 2.01 s became 2009 ms)."""
    return round(seconds * 1000)


@dataclass(frozen=True)
class Span:
    """A stretch of time."""

    start: float
    """seconds"""
    end: float
    """seconds, not before `start`"""

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.end - self.start


@dataclass(frozen=True)
class Token:
    """One output unit of a recogniser."""

    id: int
    """index in the recogniser's vocabulary"""
    text: str
    """the vocabulary entry, word mark `▁` included"""
    probability: float
    """probability that the search gave it, in [0, 1]"""
    start: float | None = None
    """seconds, None without timestamps"""
    end: float | None = None
    """seconds, None without timestamps"""


@dataclass(frozen=True)
class Word:
    """A word (or one Chinese character) with its time."""

    text: str
    start: float
    """seconds"""
    end: float
    """seconds"""
    confidence: float | None = None
    """mean probability of its tokens, None if unknown"""


@dataclass(frozen=True)
class Hypothesis:
    """One of the n best readings of an utterance."""

    text: str
    confidence: float
    tokens: list[Token] = field(default_factory=list)


@dataclass(frozen=True)
class Recognition:
    """What a recogniser heard in one recording or segment; times count from its beginning."""

    text: str
    confidence: float
    """arithmetic mean of the token probabilities, 0.0 for an empty text"""
    tokens: list[Token] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)
    alternatives: list[Hypothesis] = field(default_factory=list)
    """the n best hypotheses, the best (this result itself) first"""
    language: str | None = None
    """language that the recogniser itself assumed or found, if it tells"""
    model: str = ""
    """name of the model that answered"""
    flags: list[str] = field(default_factory=list)
    """machine-readable remarks on the text, e.g. "repetition" (`vermilion.flags`)"""
    log_probability: float | None = None
    """mean over the tokens, never calibrated; None = `tokens` tell it, or nothing does"""
    no_speech: float | None = None
    """the recogniser's own probability that nobody speaks, if it tells"""


@dataclass(frozen=True)
class LanguageResult:
    """The language of an utterance (FireRedLID: at most two tokens, language then Chinese dialect group)."""

    language: str
    """code such as "zh"; empty if there was nothing to identify"""
    dialect: str | None
    """dialect group such as "mandarin", or None"""
    confidence: float
    """mean probability of the label tokens, in [0, 1]"""
    alternatives: list[LanguageResult] = field(default_factory=list)
    """further hypotheses, the best first, this one included"""

    @property
    def label(self) -> str:
        """The published form: "en", "zh mandarin"."""
        return f"{self.language} {self.dialect}" if self.dialect else self.language


@dataclass(frozen=True)
class VadResult:
    """Speech segments and the frame probabilities that they came from."""

    segments: list[Span]
    probabilities: NDArray[np.float32]
    """(T,) speech probability per 10 ms frame"""
    duration: float
    """seconds"""


@dataclass(frozen=True)
class EventResult:
    """Speech, singing and music: spans, share of frames, frame probabilities."""

    spans: dict[str, list[Span]]
    ratios: dict[str, float]
    """share of frames whose raw probability reaches the event's threshold"""
    probabilities: NDArray[np.float32]
    """(T, 3) in the order speech, singing, music"""
    duration: float
    """seconds"""


@dataclass(frozen=True)
class Event:
    """A labelled stretch (speech, singing, music) of the recording."""

    label: str
    start: float
    end: float


@dataclass(frozen=True)
class LanguageSpan:
    """A stretch of the recording in one language: neighbouring segments with the same label, joined."""

    language: str
    dialect: str | None
    confidence: float
    start: float
    end: float


@dataclass(frozen=True)
class Sentence:
    """A punctuated sentence."""

    text: str
    start: float
    end: float
    words: list[Word] = field(default_factory=list)
    confidence: float = 0.0
    """the recogniser's confidence for the segment that the sentence belongs to"""
    language: str | None = None
    dialect: str | None = None
    language_confidence: float = 0.0
    channel: int | None = None
    flags: list[str] = field(default_factory=list)
    """machine-readable remarks, e.g. "unsupported-language" (`vermilion.flags`)"""

    def to_dict(self) -> dict[str, Any]:
        """Return the published keys (SPEC section 13) and ours."""
        label = f"{self.language} {self.dialect}" if self.dialect else self.language
        out: dict[str, Any] = {
            "start_ms": to_ms(self.start),
            "end_ms": to_ms(self.end),
            "text": self.text,
            "asr_confidence": round(self.confidence, 3),
            "lang": label,
            "lang_confidence": round(self.language_confidence, 3),
            "words": [word_to_dict(w) for w in self.words],
            "flags": list(self.flags),
        }
        if self.channel is not None:
            out["channel"] = self.channel
        return out

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Sentence:
        """Read what `to_dict` wrote; our own keys may be absent."""
        language, _, dialect = (data.get("lang") or "").partition(" ")
        return cls(
            text=data["text"],
            start=data["start_ms"] / 1000,
            end=data["end_ms"] / 1000,
            words=[word_from_dict(w) for w in data.get("words", [])],
            confidence=data.get("asr_confidence", 0.0),
            language=language or None,
            dialect=dialect or None,
            language_confidence=data.get("lang_confidence", 0.0),
            channel=data.get("channel"),
            flags=list(data.get("flags", [])),
        )


@dataclass(frozen=True)
class Failure:
    """One item that could not be processed; it stands where its result would have stood."""

    source: str
    """name of the file or segment concerned"""
    error: VermilionError
    stage: str = ""
    """"audio", "vad", "lid", "asr" or "punc" """
    span: Span | None = None
    """the segment concerned, None for a whole recording"""

    def __str__(self) -> str:
        if self.span is None and self.source in str(self.error):
            return str(self.error)  # audio errors name their file already
        where = f" at {self.span.start:.2f}–{self.span.end:.2f} s" if self.span else ""
        return f"{self.source}{where}: {self.error}"


def word_to_dict(word: Word) -> dict[str, Any]:
    """Return the published word keys and the confidence where known."""
    out: dict[str, Any] = {"start_ms": to_ms(word.start), "end_ms": to_ms(word.end), "text": word.text}
    if word.confidence is not None:
        out["confidence"] = round(word.confidence, 3)
    return out


def word_from_dict(data: dict[str, Any]) -> Word:
    """Read what `word_to_dict` wrote."""
    return Word(data["text"], data["start_ms"] / 1000, data["end_ms"] / 1000, data.get("confidence"))


@dataclass(frozen=True)
class Transcript:
    """Everything that the pipeline found in one recording."""

    source: str
    """path or name of the recording"""
    duration: float
    """seconds"""
    text: str = ""
    sentences: list[Sentence] = field(default_factory=list)
    segments: list[Span] = field(default_factory=list)
    """speech segments, in time order"""
    words: list[Word] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    languages: list[LanguageSpan] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    """segments that could not be processed; the rest of the transcript is complete"""
    models: dict[str, str] = field(default_factory=dict)
    """which model answered, by stage"""
    flags: list[str] = field(default_factory=list)
    utterance_id: str = ""
    probabilities: NDArray[np.float32] | None = None
    """(T,) speech probability per 10 ms frame, kept for plots; not written to JSON"""

    def save(self, path: str | Path) -> Path:
        """Write the transcript in the format that the file's extension names.

        Args:
            path: target; json, jsonl, txt, srt, vtt, ass, tsv, ctm, rttm or TextGrid.

        Returns:
            The path written.

        Raises:
            FormatError: the extension is not a known format.
        """
        from vermilion.formats import save

        return save(self, path)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready superset of the published result (SPEC section 13)."""
        return {
            "uttid": self.utterance_id,
            "text": self.text,
            "sentences": [s.to_dict() for s in self.sentences],
            "vad_segments_ms": [[to_ms(s.start), to_ms(s.end)] for s in self.segments],
            "dur_s": self.duration,
            "words": [word_to_dict(w) for w in self.words],
            "wav_path": self.source,
            "events": [{"label": e.label, "start_ms": to_ms(e.start), "end_ms": to_ms(e.end)} for e in self.events],
            "languages": [_language_to_dict(s) for s in self.languages],
            "models": dict(self.models),
            "flags": list(self.flags),
            "warnings": list(self.warnings),
            "failures": [_failure_to_dict(f) for f in self.failures],
        }

    def shifted(self, seconds: float) -> Transcript:
        """The same with every time later: a stretch's transcript on the time line of its recording."""

        def later(item: Any) -> Any:
            return replace(item, start=item.start + seconds, end=item.end + seconds)

        return replace(
            self,
            sentences=[replace(later(s), words=[later(w) for w in s.words]) for s in self.sentences],
            segments=[later(s) for s in self.segments],
            words=[later(w) for w in self.words],
            events=[later(e) for e in self.events],
            languages=[later(s) for s in self.languages],
            failures=[f if f.span is None else replace(f, span=later(f.span)) for f in self.failures],
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Transcript:
        """Read what `to_dict` wrote, or a published result.

        Raises:
            FormatError: a required key is missing or has the wrong type.
        """
        from vermilion.errors import FormatError

        try:
            return _transcript_from_dict(data)
        except (KeyError, TypeError, AttributeError) as error:
            raise FormatError(
                f"this is not a Vermilion or FireRedASR2S result: {error!r} is missing or malformed"
            ) from error


def _transcript_from_dict(data: dict[str, Any]) -> Transcript:
    return Transcript(
        source=data.get("wav_path") or "",
        duration=float(data["dur_s"]),
        text=data["text"],
        sentences=[Sentence.from_dict(s) for s in data["sentences"]],
        segments=[Span(a / 1000, b / 1000) for a, b in data.get("vad_segments_ms", [])],
        words=[word_from_dict(w) for w in data.get("words", [])],
        events=[Event(e["label"], e["start_ms"] / 1000, e["end_ms"] / 1000) for e in data.get("events", [])],
        languages=[_language_from_dict(s) for s in data.get("languages", [])],
        warnings=list(data.get("warnings", [])),
        failures=[_failure_from_dict(f) for f in data.get("failures", [])],
        models=dict(data.get("models", {})),
        flags=list(data.get("flags", [])),
        utterance_id=data.get("uttid", ""),
    )


def _language_to_dict(span: LanguageSpan) -> dict[str, Any]:
    return {
        "lang": f"{span.language} {span.dialect}" if span.dialect else span.language,
        "confidence": round(span.confidence, 3),
        "start_ms": to_ms(span.start),
        "end_ms": to_ms(span.end),
    }


def _language_from_dict(data: dict[str, Any]) -> LanguageSpan:
    language, _, dialect = data["lang"].partition(" ")
    start, end = data["start_ms"] / 1000, data["end_ms"] / 1000
    return LanguageSpan(language, dialect or None, data["confidence"], start, end)


def _failure_to_dict(failure: Failure) -> dict[str, Any]:
    return {
        "source": failure.source,
        "stage": failure.stage,
        "error": type(failure.error).__name__,
        "message": str(failure.error),
        "start_ms": to_ms(failure.span.start) if failure.span else None,
        "end_ms": to_ms(failure.span.end) if failure.span else None,
    }


def _failure_from_dict(data: dict[str, Any]) -> Failure:
    from vermilion import errors

    kind = getattr(errors, data["error"], errors.VermilionError)
    span = None if data["start_ms"] is None else Span(data["start_ms"] / 1000, data["end_ms"] / 1000)
    return Failure(data["source"], kind(data["message"]), data["stage"], span)
