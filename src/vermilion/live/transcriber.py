"""Two-pass live transcription: partial words while people speak, then the full pipeline's text of each utterance."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from vermilion.errors import OptionsError
from vermilion.live.drafts import Drafter, drafter_of
from vermilion.live.engine import LiveEngine
from vermilion.live.options import LiveOptions
from vermilion.live.session import LiveSession
from vermilion.live.sounds import SoundTracker
from vermilion.pipeline import Pipeline, PipelineOptions

if TYPE_CHECKING:
    from vermilion.vad import EventDetector, StreamingVoiceActivityDetector


class LiveTranscriber:
    """One set of models for any number of live sessions."""

    def __init__(
        self,
        pipeline: Pipeline,
        detector: StreamingVoiceActivityDetector,
        event_detector: EventDetector | None = None,
        *,
        drafter: Drafter | None = None,
        background: bool = True,
    ) -> None:
        """Take the modules (`load_live` builds them from models).

        Args:
            pipeline: decodes finished utterances; its voice activity and event detection are not used.
            detector: finds utterances; each session gets a fork of it.
            event_detector: tells of music and singing.
            drafter: hears partial words; by default what suits the pipeline's recogniser best.
            background: run the networks in a thread of their own. Without, `accept` does all work before it returns:
                every partial is heard and the results are the same at every run.

        Raises:
            OptionsError: the pipeline has no recogniser.
        """
        if pipeline.recognizer is None:
            raise OptionsError("live transcription needs a pipeline with a recogniser")
        options = replace(pipeline.options, vad=False, events=False)
        whole = Pipeline(
            None, pipeline.identifier, pipeline.recognizer, pipeline.restorer, options, fallback=pipeline.fallback
        )
        self.pipeline, self.detector, self.event_detector = whole, detector, event_detector
        self.engine = LiveEngine(
            whole, drafter or drafter_of(pipeline.recognizer, pipeline.options.language), background=background
        )
        self._count = 0
        self._lock = threading.Lock()

    def models(self) -> dict[str, str]:
        """Names of the models that answer, by stage."""
        found = {"vad": self.detector.name}
        if self.event_detector is not None:
            found["events"] = self.event_detector.name
        return found | self.pipeline.models()

    def session(
        self,
        options: LiveOptions | None = None,
        *,
        notify: Callable[[], None] | None = None,
        language: str | None = None,
    ) -> LiveSession:
        """Begin a stream.

        Args:
            options: when utterances end, what is told.
            notify: called by another thread when the session's `poll` has something to tell.
            language: of the speech, where the caller knows it; not identified then.
        """
        options = options or LiveOptions()
        with self._lock:
            self._count += 1
            number = self._count
        sounds = SoundTracker(self.event_detector) if options.events and self.event_detector is not None else None
        return LiveSession(number, self.engine, self.detector.fork(options.vad), sounds, options, notify, language)

    def close(self) -> None:
        """Stop; sessions that are open cannot go on."""
        self.engine.close()

    def __enter__(self) -> LiveTranscriber:
        """Use as a context: it is closed at the end."""
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        """Close."""
        self.close()


def load_live(
    name: str | Path | None = None, *, options: PipelineOptions | None = None, background: bool = True
) -> LiveTranscriber:
    """Build a live transcriber.

    Args:
        name: models, as for `vermilion.load`.
        options: of the pipeline that decodes finished utterances.
        background: run the networks in a thread of their own.

    Raises:
        CheckpointError: a model is missing; the message says how to get it.
        MissingDependencyError: an extra is needed.
    """
    from vermilion.loading import Builder, load

    chosen = options or PipelineOptions()
    pipeline = load(name, options=replace(chosen, vad=False, events=False))
    builder = Builder(name, chosen)
    events = builder.event_detector() if chosen.events else None
    return LiveTranscriber(pipeline, builder.stream_detector(), events, background=background)  # type: ignore[arg-type]
