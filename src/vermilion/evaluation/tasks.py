"""What is evaluated: each task hands recordings to a system behind the pipeline's protocols and notes its answers.

An answer is a dict that JSON can hold, so that it can be kept and scored again without the system.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vermilion.assembly import as_error
from vermilion.decoding.options import DecodingOptions
from vermilion.errors import CheckpointError, ManifestError, MissingDependencyError, OptionsError, VermilionError
from vermilion.evaluation.journal import Answer
from vermilion.evaluation.punctuation import unmarked
from vermilion.manifests import Utterance
from vermilion.transcript import EventResult, Failure, LanguageResult, Recognition, Span, VadResult, Word

if TYPE_CHECKING:
    from vermilion.pipeline import (
        EventDetector,
        LanguageIdentifier,
        Pipeline,
        PunctuationRestorer,
        Recognizer,
        VoiceDetector,
    )

RATE = 16000
Samples = NDArray[np.float32]


class Task(Protocol):
    """One kind of evaluation with its system."""

    kind: str
    """"asr", "vad", "events", "lid", "punc", "timestamps" or "pipeline" """

    @property
    def reads_reference(self) -> bool:
        """Whether the system is given text or language of the line."""

    @property
    def system(self) -> str:
        """Name of the system."""

    def answer(self, utterances: Sequence[Utterance]) -> list[Answer]:
        """Ask the system about some recordings: one answer each, in order; failures are answers too."""


@dataclass
class RecognitionTask:
    """Text of recordings, and words with their times if the options ask for them."""

    recognizer: Recognizer
    options: DecodingOptions = field(default_factory=DecodingOptions)
    known_language: bool = False
    """tell the recogniser the language of the line, if it can use it"""
    kind: str = "asr"

    @property
    def reads_reference(self) -> bool:
        """Whether the language of the line is used."""
        return self.known_language

    @property
    def system(self) -> str:
        """Name of the recogniser."""
        return named(self.recognizer)

    def answer(self, utterances: Sequence[Utterance]) -> list[Answer]:
        """Recognise."""
        return asked(utterances, self._recognize, _recognition)

    def _recognize(self, utterances: Sequence[Utterance], audio: Sequence[Samples]) -> Sequence[Recognition | Failure]:
        if self.known_language and getattr(self.recognizer, "uses_language", False):
            codes = [u.language for u in utterances]
            return self.recognizer.recognize(audio, self.options, languages=codes)  # type: ignore[call-arg]
        return self.recognizer.recognize(audio, self.options)


@dataclass
class AlignmentTask:
    """Times of the words of the known text."""

    aligner: Any
    """has `align(audio, text)`, as FireRedASR2-AED has"""
    kind: str = "timestamps"
    reads_reference: bool = True

    @property
    def system(self) -> str:
        """Name of the aligner."""
        return f"{named(self.aligner)} (known text)"

    def answer(self, utterances: Sequence[Utterance]) -> list[Answer]:
        """Align."""
        return asked(utterances, self._align, lambda words: {"words": [_word(w) for w in words]})

    def _align(self, utterances: Sequence[Utterance], audio: Sequence[Samples]) -> list[list[Word]]:
        return [self.aligner.align(a, _text(u)) for u, a in zip(utterances, audio, strict=True)]


@dataclass
class VoiceActivityTask:
    """Speech segments and frame probabilities."""

    detector: VoiceDetector
    kind: str = "vad"
    reads_reference: bool = False

    @property
    def system(self) -> str:
        """Name of the detector."""
        return named(self.detector)

    def answer(self, utterances: Sequence[Utterance]) -> list[Answer]:
        """Detect."""
        return asked(utterances, lambda _, audio: [self.detector.detect(a) for a in audio], _voice_activity)


@dataclass
class EventTask:
    """Spans and frame probabilities of speech, singing and music."""

    detector: EventDetector
    kind: str = "events"
    reads_reference: bool = False

    @property
    def system(self) -> str:
        """Name of the detector."""
        return named(self.detector)

    def answer(self, utterances: Sequence[Utterance]) -> list[Answer]:
        """Detect."""
        return asked(utterances, lambda _, audio: [self.detector.detect(a) for a in audio], _events)


@dataclass
class LanguageTask:
    """Language of recordings."""

    identifier: LanguageIdentifier
    kind: str = "lid"
    reads_reference: bool = False

    @property
    def system(self) -> str:
        """Name of the identifier."""
        return named(self.identifier)

    def answer(self, utterances: Sequence[Utterance]) -> list[Answer]:
        """Identify."""
        return asked(utterances, lambda _, audio: self.identifier.identify(audio), _language)


@dataclass
class PunctuationTask:
    """Marks of the reference text, which the restorer gets without them; no recording is needed."""

    restorer: PunctuationRestorer
    kind: str = "punc"
    reads_reference: bool = True

    @property
    def system(self) -> str:
        """Name of the restorer."""
        return named(self.restorer)

    def answer(self, utterances: Sequence[Utterance]) -> list[Answer]:
        """Restore."""
        texts = [unmarked(_text(u)) for u in utterances]
        restored, seconds = _timed(lambda: self.restorer.restore(texts))
        if isinstance(restored, VermilionError):
            return [Answer(None, str(restored)) for _ in utterances]
        return [Answer({"text": text}, seconds=seconds / len(texts)) for text in restored]


@dataclass
class PipelineTask:
    """The whole transcript of recordings."""

    pipeline: Pipeline
    kind: str = "pipeline"
    reads_reference: bool = False

    @property
    def system(self) -> str:
        """Names of the modules."""
        return " + ".join(self.pipeline.models().values())

    def answer(self, utterances: Sequence[Utterance]) -> list[Answer]:
        """Transcribe."""
        return asked(utterances, lambda _, audio: list(self.pipeline.transcribe_many(audio)), _transcript)


def asked(
    utterances: Sequence[Utterance],
    work: Callable[[Sequence[Utterance], Sequence[Samples]], Sequence[Any]],
    portable: Callable[[Any], dict[str, Any]],
) -> list[Answer]:
    """Read recordings, hand those that can be read to a system together, and note answers and failures.

    Args:
        utterances: what to ask about.
        work: the system: utterances and their samples → a result or Failure each.
        portable: a result → what the journal keeps.
    """
    answers: dict[int, Answer] = {}
    audio: dict[int, Samples] = {}
    for i, utterance in enumerate(utterances):
        try:
            audio[i] = utterance.load()
        except VermilionError as error:
            answers[i] = Answer(None, str(error))
    lengths = {i: len(samples) / RATE for i, samples in audio.items()}
    total = sum(lengths.values()) or 1.0
    results, seconds = _timed(lambda: work([utterances[i] for i in audio], list(audio.values()))) if audio else ([], 0)
    if isinstance(results, VermilionError):
        if len(audio) > 1:  # one of them may be to blame: the others are asked again, each alone
            return [answer for utterance in utterances for answer in asked([utterance], work, portable)]
        results = [Failure("", results)] * len(audio)
    for i, result in zip(audio, results, strict=True):
        if isinstance(result, Failure):
            answers[i] = Answer(None, str(result.error), lengths[i])
        else:
            answers[i] = Answer(portable(result), "", lengths[i], seconds * lengths[i] / total)
    return [answers[i] for i in range(len(utterances))]


def named(module: object) -> str:
    """The name that a module goes by."""
    return str(getattr(module, "name", None) or type(module).__name__)


def packed(values: NDArray[np.floating]) -> str:
    """Probabilities as text (float32, base 64)."""
    return base64.b64encode(np.ascontiguousarray(values, dtype="<f4").tobytes()).decode("ascii")


def unpacked(text: str) -> NDArray[np.float32]:
    """What `packed` was given."""
    return np.frombuffer(base64.b64decode(text), dtype="<f4").astype(np.float32)


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Result, or the typed error that ended it, and the seconds that it took."""
    start = time.perf_counter()
    try:
        result = work()
    except (CheckpointError, MissingDependencyError, OptionsError):
        raise  # wrong for every recording: the user has to know at once
    except (OSError, RuntimeError, ValueError, VermilionError) as error:
        return as_error(error), 0.0
    return result, time.perf_counter() - start


def _text(utterance: Utterance) -> str:
    if utterance.text is None:
        raise ManifestError(f"{utterance.id} has no text, which this task needs")
    return utterance.text


def _word(word: Word) -> list[Any]:
    sure = None if word.confidence is None else round(float(word.confidence), 5)
    return [word.text, round(word.start, 4), round(word.end, 4), sure]


def _recognition(result: Recognition) -> dict[str, Any]:
    known = {"language": result.language} if result.language else {}
    words = {"words": [_word(w) for w in result.words]} if result.words else {}
    return {"text": result.text, "confidence": round(float(result.confidence), 5)} | known | words


def _pairs(spans: Sequence[Span]) -> list[list[float]]:
    return [[round(s.start, 4), round(s.end, 4)] for s in spans]


def _voice_activity(result: VadResult) -> dict[str, Any]:
    frames = {"frames": packed(result.probabilities)} if len(result.probabilities) else {}
    return {"segments": _pairs(result.segments), "duration": result.duration} | frames


def _events(result: EventResult) -> dict[str, Any]:
    labels = list(result.spans)
    frames = {label: packed(result.probabilities[:, k]) for k, label in enumerate(labels)}
    spans = {label: _pairs(result.spans[label]) for label in labels}
    return {"events": spans, "frames": frames, "duration": result.duration}


def _language(result: LanguageResult) -> dict[str, Any]:
    return {"label": result.label, "confidence": round(float(result.confidence), 5)}


def _transcript(result: Any) -> dict[str, Any]:
    longest: dict[str, float] = {}
    for span in result.languages:
        label = f"{span.language} {span.dialect}" if span.dialect else span.language
        longest[label] = longest.get(label, 0.0) + span.end - span.start
    frames = {"frames": packed(result.probabilities)} if result.probabilities is not None else {}
    return {
        "text": result.text,
        "segments": _pairs(result.segments),
        "duration": result.duration,
        "words": [_word(w) for w in result.words],
        "label": max(longest, key=lambda label: longest[label], default=""),
        "failures": [str(f) for f in result.failures],
    } | frames
