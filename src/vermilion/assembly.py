"""Segments on their way through the pipeline, the isolation of their failures, and their way back into a transcript."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vermilion.errors import ModelError, VermilionError
from vermilion.nonspeech import Shares
from vermilion.transcript import (
    Event,
    EventResult,
    Failure,
    LanguageResult,
    LanguageSpan,
    Recognition,
    Sentence,
    Span,
    VadResult,
    Word,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vermilion.audio import Recording

R = TypeVar("R")


@dataclass
class Unit:
    """One segment on its way through the pipeline."""

    job: Job
    recording: Recording
    span: Span
    language: LanguageResult | None = None
    recognition: Recognition | None = None
    sentences: list[Sentence] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    peak: float | None = None
    """largest amplitude of its samples, once it is recognised"""
    sounds: Shares | None = None
    """what the event detector hears in it, if there is one"""
    restored: bool = False
    """an earlier run finished it"""

    def audio(self) -> tuple[NDArray[Any], int]:
        """Samples of the segment and their rate."""
        return self.recording.slice(self.span.start, self.span.end), 16000

    def fail(self, stage: str, error: VermilionError) -> None:
        """Note a failure on the recording."""
        self.job.failures.append(Failure(self.recording.name, error, stage, self.span))


@dataclass
class Job:
    """One recording (all its channels) on its way through the pipeline."""

    source: str
    utterance_id: str
    recordings: list[Recording]
    duration: float
    language: str | None = None
    """known language of its speech; None = to be identified"""
    detections: list[VadResult] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    units: list[Unit] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    waiting: int = 0
    """segments not yet through"""

    def close(self) -> None:
        """Give the recordings' memory and files back."""
        for recording in self.recordings:
            recording.close()


def as_error(error: Exception) -> VermilionError:
    """Give any exception a type of ours; the original stays as its cause."""
    if isinstance(error, VermilionError):
        return error
    wrapped = ModelError(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
    wrapped.__cause__ = error
    return wrapped


def guarded(work: Callable[[Any], R], audio: Any) -> R:
    """Run a stage on one recording; whatever it raises becomes a typed error."""
    try:
        return work(audio)
    except Exception as error:  # the seam where foreign code of any kind plugs in
        raise as_error(error) from error


def isolated(work: Callable[[list[Unit]], Sequence[R | Failure]], units: list[Unit], stage: str) -> list[R | Failure]:
    """Run a stage on a batch; if it raises, run its items one by one, so that one bad item costs no other.

    Every failure is noted on its unit's recording and stands in the result at its place.
    """
    try:
        results = list(work(units))
        if len(results) != len(units):
            raise ModelError(f"the {stage} module returned {len(results)} results for {len(units)} segments")
    except Exception as error:  # noqa: BLE001 - the seam where foreign code of any kind plugs in
        if len(units) > 1:
            return [r for unit in units for r in isolated(work, [unit], stage)]
        results = [Failure(unit.recording.name, as_error(error), stage, unit.span) for unit in units]
    for unit, result in zip(units, results, strict=True):
        if isinstance(result, Failure):
            unit.fail(stage, result.error)
    return results


@dataclass
class Watch:
    """How far the detectors are with all the channels of a recording."""

    progress: Callable[[float, float], None] | None
    """told the seconds that are through and those in all; what it raises ends the work"""
    total: float
    done: float = 0.0

    def through(self, detector: Any) -> Callable[[Any], Any]:
        """The detector's `detect`, telling how far it is if it can."""
        progress = self.progress
        if progress is None or not getattr(detector, "reports", False):
            return detector.detect  # type: ignore[no-any-return]
        return lambda audio: detector.detect(audio, progress=lambda seconds: progress(self.done + seconds, self.total))

    def add(self, seconds: float) -> None:
        """A detector is through with a channel."""
        self.done += seconds
        if self.progress is not None:
            self.progress(self.done, self.total)


def utterance_id(name: str) -> str:
    """`talks/one.wav` → `one`."""
    return Path(name).stem or name


def whole(recording: Recording, max_seconds: float) -> list[Span]:
    """The whole recording as one segment, cut at quiet points where it is too long for a recogniser."""
    from vermilion.audio import quiet_cuts

    if recording.duration == 0:
        return []
    edges = [0.0, *(cut / 16000 for cut in quiet_cuts(recording.samples, max_seconds)), recording.duration]
    return [Span(a, b) for a, b in pairwise(edges)]


def events_of(result: EventResult) -> list[Event]:
    """Flatten the spans of all events."""
    return [Event(label, s.start, s.end) for label, spans in result.spans.items() for s in spans]


def segmentation_state(job: Job) -> dict[str, Any] | None:
    """What the detectors found in a recording as plain values, before it is worked on; None if something failed."""
    if job.failures:
        return None
    return {
        "segments": [[u.recording.channel, u.span.start, u.span.end] for u in job.units],
        "sounds": [astuple(u.sounds) if u.sounds is not None else None for u in job.units],
        "events": [[e.label, e.start, e.end] for e in job.events],
    }


def restore_segmentation(job: Job, state: dict[str, Any]) -> None:
    """Give a recording what `segmentation_state` kept of it."""
    channels = {recording.channel: recording for recording in job.recordings}
    job.units = [Unit(job, channels[channel], Span(start, end)) for channel, start, end in state["segments"]]
    for unit, shares in zip(job.units, state.get("sounds", ()), strict=False):
        unit.sounds = Shares(*shares) if shares is not None else None
    job.events = [Event(label, start, end) for label, start, end in state["events"]]


def unit_state(unit: Unit) -> dict[str, Any] | None:
    """A finished segment as plain values, so that a later run need not do it again; None if something failed in it."""
    if any(f.span == unit.span and f.source == unit.recording.name for f in unit.job.failures):
        return None
    known = unit.language
    heard = unit.recognition
    return {
        "channel": unit.recording.channel,
        "start": unit.span.start,
        "end": unit.span.end,
        "language": [known.language, known.dialect, known.confidence] if known is not None else None,
        "recognition": [heard.text, heard.confidence, heard.language, heard.model] if heard is not None else None,
        "sentences": [asdict(s) for s in unit.sentences],
        "flags": list(unit.flags),
        "peak": unit.peak,
    }


def restore_units(job: Job, states: Sequence[dict[str, Any]]) -> None:
    """Give segments what `unit_state` kept of them; they need no `advance` any more."""
    kept = {(s["channel"], s["start"], s["end"]): s for s in states}
    for unit in job.units:
        state = kept.get((unit.recording.channel, unit.span.start, unit.span.end))
        if state is None:
            continue
        unit.language, unit.recognition, unit.sentences = _language(state), _recognition(state), _sentences(state)
        unit.flags = list(state["flags"])
        unit.peak = state.get("peak")
        unit.restored = True
        job.waiting -= 1


def state_sentences(state: dict[str, Any]) -> list[Sentence]:
    """The sentences of a segment that `unit_state` kept, on the recording's timeline."""
    span = Span(state["start"], state["end"])
    labels = _Labels(_language(state), _recognition(state), state["channel"], list(state["flags"]))
    return _placed(_sentences(state), span, labels)


def _language(state: dict[str, Any]) -> LanguageResult | None:
    return LanguageResult(*state["language"]) if state["language"] is not None else None


def _recognition(state: dict[str, Any]) -> Recognition | None:
    if state["recognition"] is None:
        return None
    text, confidence, language, model = state["recognition"]
    return Recognition(text, confidence, language=language, model=model)


def _sentences(state: dict[str, Any]) -> list[Sentence]:
    return [Sentence(**{**s, "words": [Word(**w) for w in s["words"]]}) for s in state["sentences"]]


@dataclass(frozen=True)
class _Labels:
    """What all sentences of a segment share."""

    language: LanguageResult | None
    recognition: Recognition | None
    channel: int | None
    flags: list[str]


def placed(unit: Unit) -> list[Sentence]:
    """Move a segment's sentences to the recording's timeline; the outer ones reach the segment's edges."""
    labels = _Labels(unit.language, unit.recognition, unit.recording.channel, unit.flags)
    return _placed(unit.sentences, unit.span, labels)


def _placed(found: list[Sentence], span: Span, labels: _Labels) -> list[Sentence]:
    offset, end = span.start, span.end
    recognition, language = labels.recognition, labels.language
    sentences = [s for s in found if s.text]
    moved = []
    for i, sentence in enumerate(sentences):
        moved.append(
            replace(
                sentence,
                start=offset if i == 0 else min(offset + sentence.start, end),
                end=end if i == len(sentences) - 1 else min(offset + sentence.end, end),
                words=[_shifted(w, offset) for w in sentence.words],
                confidence=recognition.confidence if recognition else 0.0,
                language=language.language if language else (recognition.language if recognition else None),
                dialect=language.dialect if language else None,
                language_confidence=language.confidence if language else 0.0,
                channel=labels.channel,
                flags=list(labels.flags),
            )
        )
    return moved


def _shifted(word: Word, offset: float) -> Word:
    return replace(word, start=round(word.start + offset, 3), end=round(word.end + offset, 3))


def languages_of(units: list[Unit]) -> list[LanguageSpan]:
    """Join neighbouring segments of one language; the confidence is the mean over their durations."""
    spans: list[LanguageSpan] = []
    for unit in units:
        found = unit.language
        if found is None:
            continue
        last = spans[-1] if spans else None
        if last is not None and (last.language, last.dialect) == (found.language, found.dialect):
            weight, more = last.end - last.start, unit.span.duration
            confidence = (last.confidence * weight + found.confidence * more) / max(weight + more, 1e-9)
            spans[-1] = replace(last, confidence=confidence, end=max(last.end, unit.span.end))
        else:
            spans.append(LanguageSpan(found.language, found.dialect, found.confidence, unit.span.start, unit.span.end))
    return spans
