"""One live stream: audio in, events out."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vermilion.audio import quietest
from vermilion.errors import VermilionError
from vermilion.live.agreement import Agreement
from vermilion.live.audio import RATE, Resampler, StreamAudio
from vermilion.live.engine import Decoded, Draft, LiveEngine
from vermilion.live.events import Final, LiveEvent, Partial, SpeechEnded, SpeechStarted
from vermilion.live.options import LiveOptions
from vermilion.live.report import LiveReport, Timings
from vermilion.live.sounds import SoundTracker
from vermilion.live.utterances import Began, Guess, Over, Resumed, UtteranceTracker
from vermilion.transcript import Failure, Sentence
from vermilion.vad import StreamingVoiceActivityDetector

BLOCK = 1600
"""samples that are looked at together: events are told with this resolution at least"""
MARGIN_SECONDS = 5.0
ARRIVALS = 4096
WORTH = 3.0
"""a decode is begun on a guess if it takes no longer than so many times what the guess may save"""
PAUSE_FRAMES = 8
"""silence in which no partial is begun: it might stand in the final's way"""

Answer = Future[Decoded]


@dataclass
class _Utterance:
    """An utterance on its way."""

    number: int
    start: int
    agreement: Agreement = field(default_factory=Agreement)
    guess: tuple[int, Answer] | None = None
    """sample behind the guessed end, and its decode"""
    end: int = 0
    answer: Answer | None = None
    asked: int = 0
    """samples of the stream when the newest partial was asked for"""
    heard: bool = False
    """a partial was shown"""


class LiveSession:
    """Takes audio of one stream and tells what happens in it; made by `LiveTranscriber.session`."""

    def __init__(
        self,
        number: int,
        engine: LiveEngine,
        detector: StreamingVoiceActivityDetector,
        sounds: SoundTracker | None,
        options: LiveOptions,
        notify: Callable[[], None] | None = None,
        language: str | None = None,
    ) -> None:
        """Take what the transcriber shares, and what belongs to this stream alone.

        Args:
            number: of the session.
            engine: runs the networks.
            detector: of this stream.
            sounds: tells of music and singing.
            options: when utterances end.
            notify: called (by another thread) when `poll` has something to tell.
            language: of the speech, where the caller knows it.
        """
        self.number, self.engine, self.detector, self.sounds = number, engine, detector, sounds
        self.options, self.notify, self.language = options, notify, language
        kept = options.max_utterance_s + MARGIN_SECONDS + (sounds.seconds if sounds is not None else 0.0)
        self._audio = StreamAudio(kept)
        self._resample = Resampler()
        self._tracker = UtteranceTracker(options)
        self._current: _Utterance | None = None
        self._waiting: deque[_Utterance] = deque()  # over, their finals not told yet
        self._count = 0
        self._draft: tuple[int, int, Draft] | None = None  # utterance, samples heard, what
        self._lock = threading.Lock()
        self._arrivals: deque[tuple[int, float]] = deque(maxlen=ARRIVALS)
        self._timings = Timings()
        self._finished = False

    @property
    def seconds(self) -> float:
        """Length of the stream so far."""
        return self._audio.total / RATE

    def accept(self, samples: NDArray[Any], sample_rate: int = RATE) -> list[LiveEvent]:
        """Take the next samples of the stream.

        Args:
            samples: (n,) or (n, channels), any number, int16 or float in [-1, 1].
            sample_rate: samples per second, the same at every call.

        Returns:
            What happened, in order; work that is not finished yet is told by a later call or by `poll`.

        Raises:
            AudioError: not samples, or another rate than before.
            VermilionError: the session is over.
        """
        if self._finished:
            raise VermilionError("this session is finished; begin another one")
        return self._take(self._resample(samples, sample_rate))

    def poll(self) -> list[LiveEvent]:
        """What has become known since, without new audio."""
        events: list[LiveEvent] = []
        self._tell_draft(events)
        self._tell_finals(events, wait=False)
        return events

    def finish(self) -> list[LiveEvent]:
        """End the stream: the open utterance is over; waits for all finals."""
        events = self.stop()
        self._tell_finals(events, wait=True)
        return events

    def stop(self) -> list[LiveEvent]:
        """End the stream without waiting: `poll` tells what remains, until `is_over`."""
        if self._finished:
            return []
        events: list[LiveEvent] = []
        events += self._take(self._resample.flush())
        self._finished = True
        if self.sounds is not None:
            events += self.sounds.step(self._audio, last=True)
        if self._current is not None:
            self._tell_draft(events)
            self._over(self._tracker.stop(self._audio.total), events)
        self.engine.forget(self.number)
        return events

    @property
    def is_over(self) -> bool:
        """The stream has ended and everything was told."""
        return self._finished and not self._waiting

    def cut(self) -> list[LiveEvent]:
        """End the open utterance here, as if the silence that ends it were complete."""
        events: list[LiveEvent] = []
        if self._current is not None and not self._finished:
            self._over(self._tracker.cut(self._audio.total), events)
        return events

    def close(self) -> None:
        """Give the stream up: nothing more is told, what waits is not decoded."""
        self._finished = True
        self.engine.forget(self.number)
        for utterance in [*self._waiting, *([self._current] if self._current is not None else [])]:
            for answer in (utterance.answer, utterance.guess[1] if utterance.guess else None):
                if answer is not None:
                    answer.cancel()
        self._waiting.clear()
        self._current = None

    def report(self) -> LiveReport:
        """Delays and shares so far."""
        return self._timings.report(self.seconds)

    # ---- audio → marks

    def _take(self, samples: NDArray[np.float32]) -> list[LiveEvent]:
        events: list[LiveEvent] = []
        for start in range(0, len(samples), BLOCK):
            block = samples[start : start + BLOCK]
            self._audio.append(block)
            self._arrivals.append((self._audio.total, time.monotonic()))
            for frame in self.detector.accept(block):
                for mark in self._tracker.step(frame):
                    self._follow(mark, events)
            if self.sounds is not None:
                events += self.sounds.step(self._audio)
            self._cut_long(events)
            self._ask_for_partial()
            if not self.engine.background:
                while self.engine.work():
                    pass
            self._tell_draft(events)
            self._tell_finals(events, wait=False)
        return events

    def _follow(self, mark: Began | Guess | Resumed | Over, events: list[LiveEvent]) -> None:
        match mark:
            case Began():
                self._begin(mark.start, events)
            case Guess() if self._current is not None and self._may_guess():
                self._current.guess = (mark.end, self._ask_for_final(self._current.start, mark.end))
            case Resumed() if self._current is not None:
                self._drop_guess(self._current)
            case Over():
                self._over(mark.end, events)

    def _may_guess(self) -> bool:
        """A guess saves what is left of the silence, and wastes a whole decode where the speaker goes on."""
        saved = (self.options.vad.min_silence_frame - self.options.guess_frames) / 100
        return self.engine.is_free() and self.engine.final_cost <= WORTH * saved

    def _begin(self, start: int, events: list[LiveEvent]) -> None:
        self._count += 1
        self._current = _Utterance(self._count, start, asked=start)
        events.append(SpeechStarted(self._count, start / RATE))

    def _over(self, end: int, events: list[LiveEvent]) -> None:
        """The current utterance ends at this sample; its final is on its way, or begins now."""
        utterance = self._current
        if utterance is None:
            return
        self._current = None
        self.engine.forget(self.number)
        utterance.end = max(end, utterance.start)
        guess, utterance.guess = utterance.guess, None
        if guess is not None and guess[0] == utterance.end:
            utterance.answer = guess[1]
            self._timings.guessed += 1
        else:
            if guess is not None:
                guess[1].cancel()
            utterance.answer = self._ask_for_final(utterance.start, utterance.end)
        events.append(SpeechEnded(utterance.number, utterance.end / RATE))
        self._waiting.append(utterance)

    def _cut_long(self, events: list[LiveEvent]) -> None:
        """Cut an utterance that has become too long at its quietest point; the rest goes on as the next one."""
        utterance = self._current
        if utterance is None or self._audio.total - utterance.start <= self.options.max_utterance_s * RATE:
            return
        self._drop_guess(utterance)
        limit = int(self.options.max_utterance_s * RATE)
        samples = self._audio.slice(utterance.start, utterance.start + limit)
        cut = utterance.start + quietest(samples, 0, limit // 2, limit)
        self._over(cut, events)
        self._begin(cut, events)

    def _drop_guess(self, utterance: _Utterance) -> None:
        if utterance.guess is not None:
            utterance.guess[1].cancel()
            utterance.guess = None

    # ---- work for the engine, and its answers

    def _ask_for_final(self, start: int, end: int) -> Answer:
        answer = self.engine.final(self._audio.slice(start, end), self.language)
        if self.notify is not None:
            notify = self.notify
            answer.add_done_callback(lambda _: notify())
        return answer

    def _ask_for_partial(self) -> None:
        utterance = self._current
        if utterance is None or not self.options.partials or self.engine.drafter is None or utterance.guess is not None:
            return
        if self._tracker.silence >= PAUSE_FRAMES:
            self.engine.forget(self.number)
            return
        if self._audio.total - utterance.asked < self.options.partial_interval_ms * RATE // 1000:
            return
        utterance.asked = total = self._audio.total
        number = utterance.number

        def tell(draft: Draft) -> None:
            with self._lock:
                self._draft = (number, total, draft)
                self._timings.cost += draft.cost
            if self.notify is not None:
                self.notify()

        self.engine.draft(self.number, self._audio.slice(utterance.start, total), tell)

    def _tell_draft(self, events: list[LiveEvent]) -> None:
        with self._lock:
            found, self._draft = self._draft, None
        utterance = self._current
        if found is None or utterance is None or found[0] != utterance.number:
            return
        _, total, draft = found
        before = list(utterance.agreement.shown)
        text, tentative = utterance.agreement.add(draft.text)
        if utterance.agreement.shown == before and not tentative:
            return
        self._timings.partials += 1
        self._timings.partial_delays.append(draft.ready - self._arrived(total))
        if text and not utterance.heard:
            utterance.heard = True
            self._timings.first_delays.append(draft.ready - self._arrived(utterance.start))
        events.append(Partial(utterance.number, total / RATE, text, tentative))

    def _tell_finals(self, events: list[LiveEvent], *, wait: bool) -> None:
        """Tell finished utterances in their order."""
        while self._waiting:
            utterance = self._waiting[0]
            answer = utterance.answer
            if answer is None or not (wait or answer.done()):
                return
            if wait and not self.engine.background:
                while not answer.done() and self.engine.work():
                    pass
            self._waiting.popleft()
            if answer.cancelled():
                raise VermilionError("the live transcriber was closed while this session was open")
            events.append(self._final(utterance, answer.result()))

    def _final(self, utterance: _Utterance, decoded: Decoded) -> Final:
        start, end, result = utterance.start / RATE, utterance.end / RATE, decoded.result
        delay = max(0.0, decoded.ready - self._arrived(utterance.end))
        with self._lock:
            self._timings.cost += decoded.cost
        self._timings.utterances += 1
        self._timings.final_delays.append(delay)
        if isinstance(result, Failure):
            self._timings.failures += 1
            return Final(utterance.number, start, end, "", delay=delay, failure=str(result.error))
        failure = "; ".join(str(f.error) for f in result.failures) or None
        self._timings.failures += failure is not None
        utterance.agreement.finish(result.text)
        self._timings.shown += utterance.agreement.count
        self._timings.changed += utterance.agreement.changed
        first = result.languages[0] if result.languages else None
        sentences = [_moved(s, start) for s in result.sentences]
        confidence = sum(s.confidence for s in sentences) / len(sentences) if sentences else 0.0
        language, dialect = (first.language, first.dialect) if first is not None else (None, None)
        return Final(
            utterance.number, start, end, result.text, sentences, language, dialect, confidence, delay, failure
        )

    def _arrived(self, sample: int) -> float:
        """When a sample of the stream came in."""
        for total, moment in self._arrivals:
            if total >= sample:
                return moment
        return time.monotonic()


def _moved(sentence: Sentence, offset: float) -> Sentence:
    words = [replace(w, start=w.start + offset, end=w.end + offset) for w in sentence.words]
    return replace(sentence, start=sentence.start + offset, end=sentence.end + offset, words=words)
