"""Modules alone, in an engine process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from vermilion.assembly import Watch
from vermilion.audio import Recording
from vermilion.errors import OptionsError
from vermilion.pipeline import Pipeline
from vermilion.scheduling import windows
from vermilion.server.errors import RequestError

TEXTS = 16
"""punctuated between two looks at whether somebody waits"""


def present(module: Any, what: str) -> Any:
    """The module; raises RequestError (501) where the server has none."""
    if module is None:
        raise RequestError(f"this server has no {what} model", status=501, code="not_available")
    return module


def called(
    pipeline: Pipeline,
    method: str,
    values: dict[str, Any],
    recordings: list[Recording],
    check: Callable[[], None] = lambda: None,
) -> Any:
    """Answer a call of a module alone.

    Args:
        pipeline: its modules.
        method: segments, events, languages or punctuate.
        values: `texts` of punctuate.
        recordings: the recording of the others.
        check: called again and again; what it raises ends the work.

    Raises:
        RequestError: there is no such module here.
        OptionsError: there is no such method.
    """
    if method == "punctuate":
        return _punctuated(present(pipeline.restorer, "punctuation"), values["texts"], check)
    recording = recordings[0]
    audio = (recording.samples, 16000)
    if method == "segments":
        found = _watched(present(pipeline.detector, "voice activity"), check)(audio)
        return replace(found, probabilities=np.zeros(0, np.float32))
    if method == "events":
        heard = _watched(present(pipeline.event_detector, "event"), check)(audio)
        return replace(heard, probabilities=np.zeros((0, 3), np.float32))
    if method == "languages":
        return _languages(pipeline, recording, check)
    raise OptionsError(f"no such method: {method}")


def _watched(detector: Any, check: Callable[[], None]) -> Callable[[Any], Any]:
    return Watch(lambda _, __: check(), 0.0).through(detector)


def _punctuated(restorer: Any, texts: list[str], check: Callable[[], None]) -> list[str]:
    found: list[str] = []
    for start in range(0, len(texts), TEXTS):
        check()
        found += restorer.restore(texts[start : start + TEXTS])
    return found


def _languages(pipeline: Pipeline, recording: Recording, check: Callable[[], None]) -> Any:
    """The language of every segment, and of the whole: that of most of the speech."""
    identifier = present(pipeline.identifier, "language identification")
    only = Pipeline(pipeline.detector, identifier, None, None, replace(pipeline.options, events=False, language=None))
    job = only.segment(recording.name, [recording], progress=lambda _, __: check())
    try:
        for some in windows(((u, u.span.duration) for u in job.units), pipeline.options.batch_seconds):
            check()
            only.advance(some)
        return [(u.span, u.language) for u in job.units if u.language is not None]
    finally:
        job.close()
