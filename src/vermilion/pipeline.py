"""The pipeline: audio → voice activity → language → recognition → punctuation → transcript (report, section 3).

It knows its modules only by the protocols below; `vermilion.loading` builds it from models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from threading import Event, Lock
from typing import TYPE_CHECKING, Literal, Protocol

from vermilion.assembly import Job, Unit, events_of, guarded, isolated, languages_of, placed, utterance_id, whole
from vermilion.decoding.options import DecodingOptions, LlmOptions
from vermilion.errors import OptionsError, VermilionError
from vermilion.flags import ROUTED, UNSUPPORTED_LANGUAGE
from vermilion.scheduling import ahead, pack, windows
from vermilion.text import join_texts, sentences_of
from vermilion.transcript import (
    EventResult,
    Failure,
    LanguageResult,
    Recognition,
    Sentence,
    Span,
    Transcript,
    VadResult,
    Word,
)

if TYPE_CHECKING:
    from vermilion.audio import AudioInput, Recording


class VoiceDetector(Protocol):
    """Finds speech in a recording."""

    def detect(self, audio: AudioInput, /) -> VadResult:
        """Return segments and frame probabilities."""


class EventDetector(Protocol):
    """Finds speech, singing and music in a recording."""

    def detect(self, audio: AudioInput, /) -> EventResult:
        """Return spans by event."""


class LanguageIdentifier(Protocol):
    """Names the language of each recording of a list."""

    def identify(self, recordings: Sequence[AudioInput], /) -> Sequence[LanguageResult | Failure]:
        """Return one entry per recording, in order."""


class Recognizer(Protocol):
    """Turns each recording of a list into text.

    Optional attributes: `name`; `languages` (codes it covers, None = any); `punctuates` (its text has marks already);
    `uses_language` (its `recognize` takes `languages=`, one code or None per recording).
    """

    def recognize(
        self, recordings: Sequence[AudioInput], options: DecodingOptions, /
    ) -> Sequence[Recognition | Failure]:
        """Return one entry per recording, in order; times count from the recording's beginning."""


class PunctuationRestorer(Protocol):
    """Puts marks and casing into recognised text."""

    def restore(self, texts: Sequence[str], /) -> Sequence[str]:
        """Return the texts with marks."""

    def restore_words(self, items: Sequence[Sequence[Word]], /) -> Sequence[Sequence[Sentence]]:
        """Return the sentences of each list of words."""


@dataclass(frozen=True)
class Progress:
    """A step of the work, for progress bars."""

    source: str
    """name of the recording"""
    stage: Literal["open", "vad", "lid", "asr", "punc", "done", "failed"]
    done: float
    """seconds of the recording that are finished"""
    total: float
    """its duration in seconds (0 while unknown)"""


ProgressCallback = Callable[[Progress], None]


@dataclass(frozen=True)
class PipelineOptions:
    """What the pipeline does; `load` also reads the choice of models from here."""

    recognizer: Literal["auto", "aed", "llm", "whisper"] = "auto"
    """which recogniser `load` builds; auto = FireRedASR2-AED if present, else the starter set's Whisper"""
    vad: bool = True
    """find speech first; off = the whole recording is one segment"""
    events: bool = True
    """label speech, singing and music if an event detector is present"""
    lid: bool = True
    """identify the language of each segment"""
    punctuation: bool = True
    """restore marks and casing"""
    channels: Literal["mix", "separate"] = "mix"
    """mix = one transcript of the mean; separate = each channel transcribed and labelled"""
    stream: str = ""
    """which audio stream of several: its number from 1, its language, or all (each one a channel); empty = the one
    that players take, the next one where that holds no speech"""
    route: Literal["auto", "never"] = "auto"
    """auto = segments in a language that the recogniser does not cover go to the fallback recogniser"""
    route_confidence: float = 0.5
    """least confidence of the identified language for routing"""
    language: str | None = None
    """language of all recordings where the caller knows it (identification is then skipped)"""
    decoding: DecodingOptions = field(default_factory=DecodingOptions)
    """options of the search"""
    llm: LlmOptions = field(default_factory=LlmOptions)
    """how `load` builds FireRedASR2-LLM"""
    device: str = "cpu"
    """torch device that `load` puts the networks on"""
    precision: Literal["auto", "float32", "bfloat16", "float16", "int8"] = "float32"
    """number format that `load` gives the networks (`Runtime.of`)"""
    calibration: bool = True
    """`load` calibrates confidences where `vermilion calibrate` has been run for the recogniser"""
    threads: int = 0
    """threads that `load` sets for networks on a CPU; 0 = the cores that the process may use"""
    batch_seconds: float = 60.0
    """limit of a padded batch in seconds of audio"""
    window_seconds: float = 600.0
    """speech that is collected before batches are formed; bounds the memory"""
    max_seconds: float | None = None
    """refuse longer recordings"""

    def __post_init__(self) -> None:
        if self.channels not in ("mix", "separate"):
            raise OptionsError(f"channels must be 'mix' or 'separate', not {self.channels!r}")
        if self.stream:
            from vermilion.audio.streams import check_stream

            check_stream(self.stream)
        if self.route not in ("auto", "never"):
            raise OptionsError(f"route must be 'auto' or 'never', not {self.route!r}")
        if self.recognizer not in ("auto", "aed", "llm", "whisper"):
            raise OptionsError(f"recognizer must be auto, aed, llm or whisper, not {self.recognizer!r}")
        if self.threads < 0:
            raise OptionsError(f"threads must not be negative, got {self.threads}")
        if self.batch_seconds <= 0 or self.window_seconds <= 0:
            raise OptionsError("batch_seconds and window_seconds must be positive")


class Pipeline:
    """Composes the modules; every module may be None, which switches its stage off."""

    def __init__(
        self,
        detector: VoiceDetector | None,
        identifier: LanguageIdentifier | None,
        recognizer: Recognizer | None,
        restorer: PunctuationRestorer | None,
        options: PipelineOptions | None = None,
        *,
        event_detector: EventDetector | None = None,
        fallback: Recognizer | None = None,
    ) -> None:
        """Take the modules.

        Args:
            detector: finds speech; None = the whole recording is one segment.
            identifier: names languages; None = no languages in the result.
            recognizer: None = only segments, events and languages are found.
            restorer: None = text as the recogniser gives it.
            options: switches and limits.
            event_detector: labels speech, singing and music.
            fallback: recogniser for languages that `recognizer` does not cover.
        """
        self.options = options or PipelineOptions()
        self.detector = detector if self.options.vad else None
        self.identifier = identifier if self.options.lid and self.options.language is None else None
        self.recognizer = recognizer
        self.restorer = restorer if self.options.punctuation else None
        self.event_detector = event_detector if self.options.events else None
        self.fallback = fallback if self.options.route == "auto" else None

    def models(self) -> dict[str, str]:
        """Names of the models that answer, by stage."""
        stages = {
            "vad": self.detector,
            "events": self.event_detector,
            "lid": self.identifier,
            "asr": self.recognizer,
            "fallback": self.fallback,
            "punc": self.restorer,
        }
        return {stage: _name(module) for stage, module in stages.items() if module is not None}

    def transcribe(
        self, source: AudioInput, *, utterance_id: str | None = None, progress: ProgressCallback | None = None
    ) -> Transcript:
        """Transcribe one recording.

        Args:
            source: path, bytes, binary file, (samples, sample rate) or a 16 kHz array.
            utterance_id: id in the result; the file's name without suffix if None.
            progress: called after each step.

        Returns:
            The transcript; segments that failed are listed in `failures`.

        Raises:
            AudioError: the recording cannot be read.
            ModelError: voice activity detection failed.
        """
        result = next(iter(self.transcribe_many([source], progress=progress)))
        if isinstance(result, Failure):
            raise result.error
        return replace(result, utterance_id=utterance_id) if utterance_id is not None else result

    def transcribe_many(
        self, recordings: Iterable[AudioInput], *, progress: ProgressCallback | None = None
    ) -> Iterator[Transcript | Failure]:
        """Transcribe recordings as a stream; segments of several are batched together.

        Args:
            recordings: sources, consumed as needed.
            progress: called after each step.

        Yields:
            One transcript or failure per recording, in their order.
        """
        report = _one_at_a_time(progress) if progress is not None else _ignore
        pending: list[Job | Failure] = []
        stopped = Event()
        segmented = windows(self._units(recordings, pending, report, stopped), self.options.window_seconds)
        try:
            with ahead(segmented) as ready:  # decoding and voice activity of the next window run beside the networks
                for window in ready:
                    self._run([unit for unit in window if unit is not None], report)
                    yield from self._finished(pending, report)
            yield from self._finished(pending, report)
        finally:
            stopped.set()
            for job in pending:
                if isinstance(job, Job):
                    job.close()

    # ---- the same in steps, for schedulers of their own (the server's)

    def segment(self, name: str, recordings: list[Recording], *, language: str | None = None) -> Job:
        """Find the segments of a recording.

        Args:
            name: what the transcript calls it.
            recordings: its channels, or its mix; closed with the job.
            language: of its speech where the caller knows it.

        Returns:
            The recording on its way: run its `units` by `advance`, in any order and mixed with others, then `finish`.

        Raises:
            ModelError: voice activity detection failed.
        """
        from vermilion.audio.level import raised

        duration = max((r.duration for r in recordings), default=0.0)
        job = Job(name, utterance_id(name), recordings, duration, language or self.options.language)
        try:
            job.recordings = recordings = [raised(r) for r in recordings]
            for recording in recordings:
                self._segment(job, recording)
        except VermilionError:
            job.close()
            raise
        job.waiting = len(job.units)
        return job

    def advance(self, units: list[Unit]) -> None:
        """Identify, recognise and punctuate segments; what fails is noted on their jobs."""
        self._run(units, _ignore)

    def finish(self, job: Job) -> Transcript:
        """Give the transcript of a recording whose units are through, and its memory back."""
        job.close()
        return self._transcript(job)

    # ---- front: recordings → segments

    def _units(
        self, recordings: Iterable[AudioInput], pending: list[Job | Failure], report: ProgressCallback, stopped: Event
    ) -> Iterator[tuple[Unit | None, float]]:
        """Open and segment recordings one by one; a recording without segments counts as an empty unit."""
        for source in recordings:
            if stopped.is_set():  # the caller has gone
                return
            job = self._open(source, report)
            pending.append(job)  # complete: the other thread may look at it at once
            if isinstance(job, Failure):
                report(Progress(job.source, "failed", 0.0, 0.0))
                yield None, 1.0
                continue
            for unit in job.units:
                yield unit, unit.span.duration
            if not job.units:
                yield None, 1.0

    def _open(self, source: AudioInput, report: ProgressCallback) -> Job | Failure:
        from vermilion.audio import describe
        from vermilion.audio.streams import others

        job = self._opened(source, self.options.stream, report)
        if isinstance(job, Failure) or job.units or self.options.stream or self.detector is None:
            return job
        for number in others(source):
            other = self._opened(source, str(number), _ignore)
            if isinstance(other, Job) and other.units:
                job.close()
                other.warnings.insert(0, f"its first choice of audio stream holds no speech; {number} was used instead")
                report(Progress(describe(source), "vad", 0.0, other.duration))
                return other
            if isinstance(other, Job):
                other.close()
        return job

    def _opened(self, source: AudioInput, stream: str, report: ProgressCallback) -> Job | Failure:
        from vermilion.audio import describe, open_recordings

        name, options = describe(source), self.options
        try:
            recordings = open_recordings(
                source, channels=options.channels, max_seconds=options.max_seconds, stream=stream
            )
        except VermilionError as error:
            return Failure(name, error, "audio")
        duration = max((r.duration for r in recordings), default=0.0)
        report(Progress(name, "open", 0.0, duration))
        try:
            job = self.segment(name, recordings)
        except VermilionError as error:
            return Failure(name, error, "vad")
        report(Progress(name, "vad", 0.0, duration))
        return job

    def _segment(self, job: Job, recording: Recording) -> None:
        job.warnings.extend(w for w in recording.warnings if w not in job.warnings)
        audio = (recording.samples, 16000)
        if self.detector is None:
            segments = whole(recording, self.options.decoding.max_segment_seconds)
        else:
            detection = guarded(self.detector.detect, audio)
            job.detections.append(detection)
            segments = detection.segments
        job.units.extend(Unit(job, recording, span) for span in segments)
        if self.event_detector is not None:
            try:
                job.events.extend(events_of(guarded(self.event_detector.detect, audio)))
            except VermilionError as error:  # the transcript is worth having without its events
                job.failures.append(Failure(recording.name, error, "events"))

    # ---- middle: segments → languages, words, sentences

    def _run(self, units: list[Unit], report: ProgressCallback) -> None:
        for batch in self._batches(units):
            self._identify(batch)
        if self.recognizer is not None:
            for recognizer, share in self._routes(units):
                for batch in self._batches(share):
                    self._recognize(recognizer, batch)
                    _count(batch, report)
                if not getattr(recognizer, "punctuates", False):
                    self._punctuate([u for u in share if u.sentences])
        for unit in units:
            unit.job.waiting -= 1

    def _batches(self, units: list[Unit]) -> list[list[Unit]]:
        lengths = [u.span.duration for u in units]
        return [[units[i] for i in batch] for batch in pack(lengths, self.options.batch_seconds)]

    def _identify(self, units: list[Unit]) -> None:
        unknown = [unit for unit in units if unit.job.language is None]
        for unit in units:
            if unit.job.language is not None:
                language, _, dialect = unit.job.language.partition(" ")
                unit.language = LanguageResult(language, dialect or None, 1.0)
        if self.identifier is not None and unknown:
            identify = self.identifier.identify
            results = isolated(lambda share: identify([u.audio() for u in share]), unknown, "lid")
            for unit, result in zip(unknown, results, strict=True):
                unit.language = result if isinstance(result, LanguageResult) and result.language else None

    def _routes(self, units: list[Unit]) -> list[tuple[Recognizer, list[Unit]]]:
        """Share the segments between the recogniser and the fallback, by language."""
        if self.recognizer is None:
            return []
        covered = getattr(self.recognizer, "languages", None)
        own: list[Unit] = []
        other: list[Unit] = []
        for unit in units:
            if covered is None or not self._foreign(unit, covered):
                own.append(unit)
            elif self.fallback is not None and _covers(self.fallback, unit):
                unit.flags.append(ROUTED)
                other.append(unit)
            else:
                unit.flags.append(UNSUPPORTED_LANGUAGE)
                own.append(unit)
        routes = [(self.recognizer, own)]
        return [*routes, (self.fallback, other)] if self.fallback is not None and other else routes

    def _foreign(self, unit: Unit, covered: Iterable[str]) -> bool:
        language = unit.language
        if language is None or language.language in covered:
            return False
        return language.confidence >= self.options.route_confidence

    def _recognize(self, recognizer: Recognizer, units: list[Unit]) -> None:
        def work(share: list[Unit]) -> Sequence[Recognition | Failure]:
            recordings = [u.audio() for u in share]
            if getattr(recognizer, "uses_language", False):
                codes = [u.language.language if u.language else None for u in share]
                return recognizer.recognize(recordings, self.options.decoding, languages=codes)  # type: ignore[call-arg]
            return recognizer.recognize(recordings, self.options.decoding)

        for unit, result in zip(units, isolated(work, units, "asr"), strict=True):
            if isinstance(result, Recognition):
                unit.recognition = result
                unit.flags.extend(flag for flag in result.flags if flag not in unit.flags)
                unit.sentences = _plain_sentences(unit, result, getattr(recognizer, "punctuates", False))

    def _punctuate(self, units: list[Unit]) -> None:
        if self.restorer is None:
            return
        restorer = self.restorer

        def by_words(share: list[Unit]) -> Sequence[Sequence[Sentence] | Failure]:
            return restorer.restore_words([u.sentences[0].words for u in share])

        def by_text(share: list[Unit]) -> Sequence[Sequence[Sentence] | Failure]:
            restored = restorer.restore([u.sentences[0].text for u in share])
            return [[replace(u.sentences[0], text=text)] for u, text in zip(share, restored, strict=True)]

        timed = [u for u in units if u.sentences[0].words]
        plain = [u for u in units if not u.sentences[0].words]
        for share, work in ((timed, by_words), (plain, by_text)):
            for unit, result in zip(share, isolated(work, share, "punc"), strict=True):
                if not isinstance(result, Failure):
                    unit.sentences = list(result)

    # ---- back: segments → transcripts

    def _finished(self, pending: list[Job | Failure], report: ProgressCallback) -> Iterator[Transcript | Failure]:
        while pending:
            job = pending[0]
            if isinstance(job, Job) and job.waiting > 0:
                return
            del pending[0]
            if isinstance(job, Failure):
                yield job
                continue
            report(Progress(job.source, "done", job.duration, job.duration))
            yield self.finish(job)

    def _transcript(self, job: Job) -> Transcript:
        units = sorted(job.units, key=lambda u: (u.span.start, u.recording.channel or 0))
        sentences = [s for unit in units for s in placed(unit)]
        if job.recordings and len(job.recordings) > 1:
            sentences.sort(key=lambda s: (s.start, s.channel or 0))
        probabilities = job.detections[0].probabilities if len(job.detections) == 1 else None
        return Transcript(
            source=job.source,
            duration=job.duration,
            text=join_texts([s.text for s in sentences]),
            sentences=sentences,
            segments=self._segments(job, units),
            words=[w for s in sentences for w in s.words],
            events=sorted(job.events, key=lambda e: (e.start, e.end)),
            languages=languages_of(units),
            warnings=job.warnings + self._warnings(job, units),
            failures=job.failures,
            models=self.models(),
            flags=sorted({flag for unit in units for flag in unit.flags}),
            utterance_id=job.utterance_id,
            probabilities=probabilities,
        )

    def _segments(self, job: Job, units: list[Unit]) -> list[Span]:
        if self.detector is None:  # published form: without voice activity detection the whole file is one segment
            return [Span(0.0, job.duration)] if job.duration > 0 else []
        return [u.span for u in units]

    def _warnings(self, job: Job, units: list[Unit]) -> list[str]:
        found = []
        if job.duration == 0:
            found.append("the recording is empty")
        elif self.detector is not None and not units:
            found.append("no speech was found")
        foreign = {u.language.language for u in units if UNSUPPORTED_LANGUAGE in u.flags and u.language}
        if foreign:
            found.append(
                f"{_name(self.recognizer)} does not cover {', '.join(sorted(foreign))}; its text there is unreliable "
                '(pip install "vermilion[starter]" adds a recogniser for other languages)'
            )
        return found


def _one_at_a_time(callback: ProgressCallback) -> ProgressCallback:
    """Segmentation runs ahead in a thread of its own; a callback is never entered twice."""
    lock = Lock()

    def report(step: Progress) -> None:
        with lock:
            callback(step)

    return report


def _ignore(_: Progress) -> None:
    """Progress callback that does nothing."""


def _name(module: object) -> str:
    return str(getattr(module, "name", None) or type(module).__name__)


def _covers(recognizer: Recognizer, unit: Unit) -> bool:
    languages = getattr(recognizer, "languages", None)
    return languages is None or (unit.language is not None and unit.language.language in languages)


def _count(batch: list[Unit], report: ProgressCallback) -> None:
    """Report how far each recording of the batch has come."""
    for job in {id(u.job): u.job for u in batch}.values():
        total = sum(u.span.duration for u in job.units)
        done = sum(u.span.duration for u in job.units if u.recognition is not None)
        report(Progress(job.source, "asr", job.duration * done / total if total else job.duration, job.duration))


def _plain_sentences(unit: Unit, recognition: Recognition, punctuated: bool) -> list[Sentence]:
    """Sentences before punctuation: one per segment, or those of a recogniser that writes marks itself."""
    if not recognition.text.strip():
        return []  # a segment of nothing but silence marks has no sentence
    if punctuated and recognition.words:
        return sentences_of(recognition.words)
    return [Sentence(recognition.text, 0.0, unit.span.duration, list(recognition.words))]
