"""Test doubles for every protocol of the pipeline: no weights, no network, predictable answers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vermilion.decoding.options import DecodingOptions
from vermilion.pipeline import Pipeline, PipelineOptions
from vermilion.transcript import EventResult, LanguageResult, Recognition, Sentence, Span, VadResult, Word
from vermilion.vad.options import StreamingVadOptions

Audio = Any
"""anything that `vermilion.audio.load_audio` reads"""


def _samples(audio: Audio) -> NDArray[np.float32]:
    from vermilion.audio import load_audio

    return load_audio(audio)


@dataclass
class FakeDetector:
    """Reports the given spans, clipped to the recording; None = everything louder than `threshold` per second."""

    spans: list[Span] | None = None
    threshold: float = 0.01
    name: str = "fake-vad"

    def detect(self, audio: Audio, /) -> VadResult:
        """Return the configured spans."""
        samples = _samples(audio)
        duration = len(samples) / 16000
        spans = self._by_energy(samples) if self.spans is None else self.spans
        clipped = [Span(s.start, min(s.end, duration)) for s in spans if s.start < duration]
        frames = max(0, 1 + (len(samples) - 400) // 160)
        probabilities = np.zeros(frames, dtype=np.float32)
        for span in clipped:
            probabilities[round(span.start * 100) : round(span.end * 100)] = 1.0
        return VadResult(clipped, probabilities, duration)

    def _by_energy(self, samples: NDArray[np.float32]) -> list[Span]:
        loud = [bool(np.abs(samples[i : i + 16000]).max() > self.threshold) for i in range(0, len(samples), 16000)]
        return [Span(float(i), float(i + 1)) for i, bit in enumerate(loud) if bit]


@dataclass
class SlowDetector(FakeDetector):
    """Takes its time over every second of a recording, and tells how far it is."""

    delay: float = 0.0
    """seconds of work per second"""
    reports = True

    def detect(self, audio: Audio, /, *, progress: Callable[[float], None] | None = None) -> VadResult:
        """Return the spans, after a while."""
        found = super().detect(audio)
        for second in range(int(found.duration)):
            time.sleep(self.delay)
            if progress is not None:
                progress(second + 1.0)
        return found


@dataclass
class FakeEventDetector:
    """Reports the given spans by event."""

    spans: dict[str, list[Span]] = field(default_factory=lambda: {"speech": [], "singing": [], "music": []})
    name: str = "fake-events"

    def detect(self, audio: Audio, /) -> EventResult:
        """Return the configured spans."""
        samples = _samples(audio)
        frames = max(0, 1 + (len(samples) - 400) // 160)
        probabilities = np.zeros((frames, len(self.spans)), dtype=np.float32)
        return EventResult(self.spans, dict.fromkeys(self.spans, 0.0), probabilities, len(samples) / 16000)


@dataclass
class FakeIdentifier:
    """Gives every recording the next label of a list, in turn."""

    labels: Sequence[str] = ("en",)
    confidence: float = 0.9
    name: str = "fake-lid"
    calls: int = 0

    def identify(self, recordings: Sequence[Audio], /) -> list[LanguageResult]:
        """Return one label per recording."""
        results = []
        for _ in recordings:
            language, _, dialect = self.labels[self.calls % len(self.labels)].partition(" ")
            self.calls += 1
            results.append(LanguageResult(language, dialect or None, self.confidence))
        return results


@dataclass
class FakeRecognizer:
    """Says how long each recording is ("heard 1.50"), or what `answer` makes of its samples."""

    answer: Callable[[NDArray[np.float32]], str] | None = None
    name: str = "fake-asr"
    languages: frozenset[str] | None = None
    punctuates: bool = False
    batches: list[int] = field(default_factory=list)
    """sizes of the batches seen"""

    def recognize(self, recordings: Sequence[Audio], options: DecodingOptions | None = None, /) -> list[Recognition]:
        """Return one reading per recording, its words spread evenly."""
        self.batches.append(len(recordings))
        return [self._one(_samples(r), options or DecodingOptions()) for r in recordings]

    def _one(self, samples: NDArray[np.float32], options: DecodingOptions) -> Recognition:
        duration = len(samples) / 16000
        text = self.answer(samples) if self.answer else f"heard {duration:.2f}"
        pieces = text.split()
        step = duration / max(len(pieces), 1)
        words = [Word(p, round(i * step, 3), round((i + 1) * step, 3), 0.8) for i, p in enumerate(pieces)]
        return Recognition(text, 0.8 if text else 0.0, words=words if options.timestamps else [], model=self.name)


@dataclass
class FakeRestorer:
    """Ends every text with a full stop and begins it with a capital."""

    name: str = "fake-punc"

    def restore(self, texts: Sequence[str], /) -> list[str]:
        """Return the texts with a mark."""
        return [text[:1].upper() + text[1:] + "." for text in texts]

    def restore_words(self, items: Sequence[Sequence[Word]], /) -> list[list[Sentence]]:
        """Return one sentence per list of words."""
        plain = [Sentence(" ".join(w.text for w in ws), ws[0].start, ws[-1].end, list(ws)) for ws in items]
        return [[replace(s, text=t)] for s, t in zip(plain, self.restore([s.text for s in plain]), strict=True)]


class FakeStreamDetector:
    """To which loud is speech, frame by frame."""

    name = "fake-stream-vad"

    def __init__(self, options: StreamingVadOptions | None = None) -> None:
        """Take the options of the segmentation."""
        from vermilion.vad.stream_segmentation import StreamSegmenter

        self.options = options or StreamingVadOptions()
        self._segmenter = StreamSegmenter(self.options)
        self._rest = np.zeros(0, np.float32)

    def fork(self, options: StreamingVadOptions | None = None) -> FakeStreamDetector:
        """A detector for another stream."""
        return FakeStreamDetector(options or self.options)

    def accept(self, samples: NDArray[np.float32]) -> list[Any]:
        """Return what is known of the frames that became complete."""
        self._rest = np.concatenate([self._rest, samples])
        count = len(self._rest) // 160
        frames, self._rest = self._rest[: 160 * count].reshape(count, 160), self._rest[160 * count :]
        return [self._segmenter.step(float(np.abs(frame).max() > 0.05)) for frame in frames]


@dataclass(frozen=True)
class FakeModels:
    """Builds an engine of fakes (`vermilion.server`); picklable."""

    delay: float = 0.0
    """seconds of work per second of speech"""
    options: PipelineOptions = field(default_factory=PipelineOptions)
    detect_delay: float = 0.0
    """seconds of voice activity detection per second of audio"""

    def __call__(self) -> Any:
        """Make the modules."""
        from vermilion.server.worker import Models

        pipeline = Pipeline(
            SlowDetector(delay=self.detect_delay),
            FakeIdentifier(),
            SlowRecognizer(delay=self.delay),
            FakeRestorer(),
            self.options,
            event_detector=FakeEventDetector({"speech": [], "singing": [], "music": [Span(0.0, 0.5)]}),
        )
        return Models(pipeline, FakeStreamDetector())  # type: ignore[arg-type]


@dataclass
class SlowRecognizer(FakeRecognizer):
    """Takes its time; says the mean pitch of what it hears, so that no two tones are answered alike."""

    delay: float = 0.0

    def _one(self, samples: NDArray[np.float32], options: DecodingOptions) -> Recognition:
        time.sleep(self.delay * len(samples) / 16000)
        return super()._one(samples, options)

    def __post_init__(self) -> None:
        if self.answer is None:
            self.answer = pitch


def pitch(samples: NDArray[np.float32]) -> str:
    """Name a tone by its frequency: "tone 440 hertz"; at 6666 the process ends, as by a fault in a library."""
    if len(samples) < 160 or not np.abs(samples).max() > 0:
        return "silence"
    spectrum = np.abs(np.fft.rfft(samples))
    hertz = round(int(spectrum.argmax()) * 16000 / len(samples))
    if 6660 <= hertz <= 6672:
        os._exit(1)
    return f"tone {hertz} hertz"
