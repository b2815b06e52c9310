"""The pipeline: audio → voice activity → language → recognition → punctuation → transcript (report, section 3).

It knows its modules only by the protocols below; `vermilion.loading` builds it from models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from threading import Event, Lock
from typing import TYPE_CHECKING, Any, Literal, Protocol

from vermilion.assembly import (
    Job,
    Unit,
    Watch,
    events_of,
    guarded,
    isolated,
    languages_of,
    placed,
    restore_segmentation,
    utterance_id,
    whole,
)
from vermilion.choices import check_choice, check_device
from vermilion.decoding.options import DecodingOptions, LlmOptions
from vermilion.errors import Cancelled, OptionsError, VermilionError, install
from vermilion.flags import NO_SPEECH, ROUTED, UNSUPPORTED_LANGUAGE
from vermilion.guard_remarks import guard_warnings
from vermilion.languages import WHISPER_CODES, known_language, name_of
from vermilion.nonspeech import OnNoise, OnSound, SoundPolicy, shares_of, silence_warning
from vermilion.remarks import peak_of, speech_flags, speech_warnings, transcript_flags
from vermilion.runtime import PRECISIONS
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
from vermilion.word_edges import fitted

if TYPE_CHECKING:
    from vermilion.audio import AudioInput, Recording


class VoiceDetector(Protocol):
    """Finds speech in a recording.

    Optional attribute: `reports` (its `detect` takes `progress=`, called with the seconds that are through).
    """

    def detect(self, audio: AudioInput, /) -> VadResult:
        """Return segments and frame probabilities."""


class EventDetector(Protocol):
    """Finds speech, singing and music in a recording; `reports` as for a `VoiceDetector`."""

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


FALLBACK_HINT = f"a recogniser for it: {install('starter')}"

ProgressCallback = Callable[[Progress], None]


ON_SOUND: tuple[OnSound, ...] = ("keep", "mark", "drop")
ON_NOISE: tuple[OnNoise, ...] = ("keep", "drop")


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
    raise_quiet: bool = True
    """raise the level of very quiet speech before it is looked for, and say so"""
    route: Literal["auto", "never"] = "auto"
    """auto = segments in a language that the recogniser does not cover go to the fallback recogniser"""
    route_confidence: float = 0.5
    """least confidence of the identified language for routing"""
    on_music: OnSound = "mark"
    """segments of music without speech: keep = recognised as if it were speech; mark = text that the recogniser doubts
    is dropped, other text over music is flagged; drop = no words, they are not recognised"""
    on_singing: OnSound = "mark"
    """the same for segments in which people sing rather than speak"""
    on_noise: OnNoise = "drop"
    """text that the recogniser doubts, in other segments that seem to hold no speech: keep, or drop"""
    language: str | None = None
    """language of all recordings where the caller knows it (identification is then skipped): anything that
    `vermilion.languages.canonical` reads, which is what it becomes; None or "auto" = identified"""
    word_edges: Literal["sound", "model"] = "sound"
    """sound = word times that lie in a pause move to the sound beside it; model = as the recogniser gives them"""
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
        check_choice("channels", self.channels, ("mix", "separate"))
        check_choice("route", self.route, ("auto", "never"))
        check_choice("word_edges", self.word_edges, ("sound", "model"))
        check_choice("recognizer", self.recognizer, ("auto", "aed", "llm", "whisper"))
        check_choice("precision", self.precision, PRECISIONS)
        check_device(self.device)
        object.__setattr__(self, "language", known_language(self.language))
        for name, known in (("on_music", ON_SOUND), ("on_singing", ON_SOUND), ("on_noise", ON_NOISE)):
            check_choice(name, getattr(self, name), known)
        if self.stream:
            from vermilion.audio.streams import check_stream

            check_stream(self.stream)
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
        fallback_hint: str = FALLBACK_HINT,
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
            fallback_hint: what would make Whisper that recogniser where it is None; said with a language in need of it.
        """
        self.options = options or PipelineOptions()
        self.detector = detector if self.options.vad else None
        self.identifier = identifier if self.options.lid and self.options.language is None else None
        self.recognizer = recognizer
        self.restorer = restorer if self.options.punctuation else None
        self.event_detector = event_detector if self.options.events else None
        self.fallback = fallback if self.options.route == "auto" else None
        self.fallback_hint = fallback_hint
        self.sounds = SoundPolicy(self.options.on_music, self.options.on_singing, self.options.on_noise)

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

    def segment(
        self,
        name: str,
        recordings: list[Recording],
        *,
        language: str | None = None,
        events: bool = True,
        cached: dict[str, Any] | None = None,
        progress: Callable[[float, float], None] | None = None,
    ) -> Job:
        """Find the segments of a recording.

        Args:
            name: what the transcript calls it.
            recordings: its channels, or its mix; closed with the job.
            language: of its speech where the caller knows it.
            events: label speech, singing and music too, if there is a detector.
            cached: what `segmentation_state` kept of an earlier run; nothing is detected then.
            progress: called with the seconds that are through and those in all, now and then; it may raise
                `Cancelled`, which ends the work.

        Returns:
            The recording on its way: run its `units` by `advance`, in any order and mixed with others, then `finish`.

        Raises:
            ModelError: voice activity detection failed.
            UnsupportedLanguageError: the language is none.
        """
        from vermilion.audio.level import raised

        duration = max((r.duration for r in recordings), default=0.0)
        job = Job(name, utterance_id(name), recordings, duration, known_language(language) or self.options.language)
        stages = (self.detector is not None) + self._detects_events(events)
        watch = Watch(progress, sum(r.duration for r in recordings) * stages)
        try:
            if self.options.raise_quiet:
                job.recordings = recordings = [raised(r) for r in recordings]
            for recording in recordings:
                job.warnings.extend(w for w in recording.warnings if w not in job.warnings)
                if cached is None:
                    self._segment(job, recording, events, watch)
            if cached is not None:
                restore_segmentation(job, cached)
        except (VermilionError, Cancelled):
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
            job = self._open(source, report, stopped)
            pending.append(job)  # complete: the other thread may look at it at once
            if isinstance(job, Failure):
                report(Progress(job.source, "failed", 0.0, 0.0))
                yield None, 1.0
                continue
            for unit in job.units:
                yield unit, unit.span.duration
            if not job.units:
                yield None, 1.0

    def _open(self, source: AudioInput, report: ProgressCallback, stopped: Event) -> Job | Failure:
        from vermilion.audio import describe
        from vermilion.audio.streams import others

        job = self._opened(source, self.options.stream, report, stopped)
        if isinstance(job, Failure) or job.units or self.options.stream or self.detector is None:
            return job
        for number in others(source):
            other = self._opened(source, str(number), _ignore, stopped)
            if isinstance(other, Job) and other.units:
                job.close()
                other.warnings.insert(0, f"its first choice of audio stream holds no speech; {number} was used instead")
                report(Progress(describe(source), "vad", 0.0, other.duration))
                return other
            if isinstance(other, Job):
                other.close()
        return job

    def _opened(self, source: AudioInput, stream: str, report: ProgressCallback, stopped: Event) -> Job | Failure:
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
            job = self.segment(name, recordings, progress=lambda _, __: cancel_if(stopped))
        except VermilionError as error:
            return Failure(name, error, "vad")
        report(Progress(name, "vad", 0.0, duration))
        return job

    def _segment(self, job: Job, recording: Recording, events: bool, watch: Watch) -> None:
        audio = (recording.samples, 16000)
        if self.detector is None:
            segments = whole(recording, self.options.decoding.max_segment_seconds)
        else:
            detection = guarded(watch.through(self.detector), audio)
            job.detections.append(detection)
            segments = detection.segments
            watch.add(recording.duration)
        units = [Unit(job, recording, span) for span in segments]
        job.units.extend(units)
        if self.event_detector is None or not self._detects_events(events):
            return
        try:
            found = guarded(watch.through(self.event_detector), audio)
            watch.add(recording.duration)
        except VermilionError as error:  # the transcript is worth having without its events
            job.failures.append(Failure(recording.name, error, "events"))
            return
        if events:
            job.events.extend(events_of(found))
        for unit in units:
            unit.sounds = shares_of(found, unit.span)

    def _detects_events(self, shown: bool) -> bool:
        """Whether music and singing are looked for: to be shown, or to judge what is no speech."""
        return self.event_detector is not None and (shown or self.sounds.needs_events)

    # ---- middle: segments → languages, words, sentences

    def _run(self, units: list[Unit], report: ProgressCallback) -> None:
        heard = [unit for unit in units if not self._refused(unit)]
        for batch in self._batches(heard):
            self._identify(batch)
        if self.recognizer is not None:
            for recognizer, share in self._routes(heard):
                for batch in self._batches(share):
                    self._recognize(recognizer, batch)
                    _count(batch, report)
                if not getattr(recognizer, "punctuates", False):
                    self._punctuate([u for u in share if u.sentences])
        for unit in units:
            unit.job.waiting -= 1

    def _refused(self, unit: Unit) -> bool:
        """Flag a segment that is to give no words, whatever is sung in it."""
        flags = self.sounds.refused(unit.sounds) if self.recognizer is not None else []
        unit.flags.extend(flags)
        return bool(flags)

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
                codes = [_code(u.language) if u.language else None for u in share]
                return recognizer.recognize(recordings, self.options.decoding, languages=codes)  # type: ignore[call-arg]
            return recognizer.recognize(recordings, self.options.decoding)

        for unit, result in zip(units, isolated(work, units, "asr"), strict=True):
            if isinstance(result, Recognition):
                if result.words and self.options.word_edges == "sound":
                    result = replace(result, words=fitted(result.words, unit.audio()[0]))
                unit.recognition = result
                unit.peak = peak_of(unit.audio()[0])
                unit.flags.extend(flag for flag in result.flags if flag not in unit.flags)
                unit.flags.extend(flag for flag in self.sounds.marks(unit.sounds) if flag not in unit.flags)
                if self.sounds.doubted(result, unit.sounds):
                    _silence(unit)
                    continue
                if self.detector is not None:
                    unit.flags.extend(flag for flag in speech_flags(unit) if flag not in unit.flags)
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
            warnings=job.warnings + self._warnings(job, units) + guard_warnings(units),
            failures=job.failures,
            models=self.models(),
            flags=sorted(transcript_flags(units) if self.detector is not None else {f for u in units for f in u.flags}),
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
        elif self.detector is not None and self.recognizer is not None:
            found += speech_warnings(units)
        found += silence_warning(units)
        foreign = {u.language.language for u in units if UNSUPPORTED_LANGUAGE in u.flags and u.language}
        return [*found, self._uncovered(units, foreign)] if foreign else found

    def _uncovered(self, units: list[Unit], foreign: set[str]) -> str:
        """Who answered in languages that it does not cover, and what would cover them."""
        answered = {u.recognition.model for u in units if UNSUPPORTED_LANGUAGE in u.flags and u.recognition}
        name = " and ".join(sorted(filter(None, answered))) or _name(self.recognizer)
        named = ", ".join(f"{code} ({name_of(code)})" for code in sorted(foreign))
        text = f"{name} does not cover {named}; its text there is unreliable"
        covered = foreign <= WHISPER_CODES | {"iw"}
        return f"{text} ({self.fallback_hint})" if covered and self.fallback is None and self.fallback_hint else text


def _one_at_a_time(callback: ProgressCallback) -> ProgressCallback:
    """Segmentation runs ahead in a thread of its own; a callback is never entered twice."""
    lock = Lock()

    def report(step: Progress) -> None:
        with lock:
            callback(step)

    return report


def cancel_if(stopped: Event) -> None:
    """Raise Cancelled where nobody waits any more."""
    if stopped.is_set():
        raise Cancelled


def _ignore(_: Progress) -> None:
    """Progress callback that does nothing."""


def _name(module: object) -> str:
    return str(getattr(module, "name", None) or type(module).__name__)


def _code(language: LanguageResult) -> str:
    """Tibetan is a dialect group of Chinese to FireRedLID, and a language of its own to recognisers."""
    return "bo" if language.dialect == "bo" else language.language


def _covers(recognizer: Recognizer, unit: Unit) -> bool:
    languages = getattr(recognizer, "languages", None)
    return languages is None or (unit.language is not None and unit.language.language in languages)


def _count(batch: list[Unit], report: ProgressCallback) -> None:
    """Report how far each recording of the batch has come."""
    for job in {id(u.job): u.job for u in batch}.values():
        total = sum(u.span.duration for u in job.units)
        done = sum(u.span.duration for u in job.units if u.recognition is not None or NO_SPEECH in u.flags)
        report(Progress(job.source, "asr", job.duration * done / total if total else job.duration, job.duration))


def _silence(unit: Unit) -> None:
    """Leave a segment without words; a language that nobody speaks and a remark on lost text are none."""
    unit.language = None
    unit.flags = [flag for flag in unit.flags if flag not in (NO_SPEECH, ROUTED, UNSUPPORTED_LANGUAGE)] + [NO_SPEECH]


def _plain_sentences(unit: Unit, recognition: Recognition, punctuated: bool) -> list[Sentence]:
    """Sentences before punctuation: one per segment, or those of a recogniser that writes marks itself."""
    if not recognition.text.strip():
        return []  # a segment of nothing but silence marks has no sentence
    if punctuated and recognition.words:
        return sentences_of(recognition.words, recognition.text)
    return [Sentence(recognition.text, 0.0, unit.span.duration, list(recognition.words))]
