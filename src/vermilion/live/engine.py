"""The work of all sessions, in batches: finals first, partial words with what time is left."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vermilion.assembly import as_error
from vermilion.audio import Recording
from vermilion.errors import VermilionError
from vermilion.transcript import Failure, Transcript

if TYPE_CHECKING:
    from vermilion.live.drafts import Drafter
    from vermilion.pipeline import Pipeline

log = logging.getLogger(__name__)
FINAL_SECONDS = 160.0
"""audio of finals that are decoded together"""
DRAFT_SECONDS = 60.0
"""audio of partials that are heard together: a final waits for it at most"""
DRAFT_SHARE = 0.6
"""share of the time that partials may take"""
MEMORY = 0.7
"""weight of the past in the expected cost of a final"""


@dataclass(frozen=True)
class Draft:
    """What was heard of an utterance so far."""

    text: str
    ready: float
    """`time.monotonic` at which it was known"""
    cost: float = 0.0
    """seconds of the networks, as its share of the batch"""


@dataclass(frozen=True)
class Decoded:
    """The transcript of an utterance."""

    result: Transcript | Failure
    ready: float
    """`time.monotonic` at which it was known"""
    cost: float = 0.0
    """seconds of the networks, as its share of the batch"""


@dataclass
class _Final:
    samples: NDArray[np.float32]
    done: Future[Decoded]
    language: str | None = None

    @property
    def seconds(self) -> float:
        return len(self.samples) / 16000


@dataclass
class _Draft:
    samples: NDArray[np.float32]
    tell: Callable[[Draft], None]


class LiveEngine:
    """Runs the networks for any number of sessions.

    Finals are decoded in the order in which they came, several at once. A session has at most one partial waiting: a
    newer one takes its place, so that a slow machine drops partials, never audio and never finals.
    """

    def __init__(self, pipeline: Pipeline, drafter: Drafter | None, *, background: bool = True) -> None:
        """Take the modules.

        Args:
            pipeline: decodes utterances; its own voice activity detection must be off.
            drafter: hears partials; None = there are none.
            background: work in a thread of its own; else `work` must be called.
        """
        self.pipeline, self.drafter, self.background = pipeline, drafter, background
        self._finals: deque[_Final] = deque()
        self._drafts: dict[int, _Draft] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._next_drafts = 0.0
        self.dropped = 0
        """partials that were never heard, because a newer one came"""
        self.busy = 0.0
        """seconds that the networks ran"""
        self.final_cost = 0.0
        """seconds that a final takes, as of late"""
        self._thread: threading.Thread | None = None

    def final(self, samples: NDArray[np.float32], language: str | None = None) -> Future[Decoded]:
        """Ask for the transcript of an utterance, in a known language or none; may be cancelled until it runs."""
        job = _Final(samples, Future(), language)
        with self._changed:
            self._finals.append(job)
            self._wake()
        return job.done

    def draft(self, session: int, samples: NDArray[np.float32], tell: Callable[[Draft], None]) -> None:
        """Ask what an utterance says so far; replaces what the session asked before."""
        with self._changed:
            self.dropped += session in self._drafts
            self._drafts[session] = _Draft(samples, tell)
            self._wake()

    def is_free(self) -> bool:
        """No final is waiting."""
        return not self._finals

    def forget(self, session: int) -> None:
        """The session wants no partial any more."""
        with self._changed:
            self._drafts.pop(session, None)

    def work(self) -> bool:
        """Do one batch; False = there was nothing to do."""
        with self._changed:
            finals = self._take_finals()
            drafts = {} if finals else self._take_drafts()
        if not finals and not drafts:
            return False
        began = time.monotonic()
        if finals:
            self._run_finals(finals)
        else:
            self._run_drafts(list(drafts.values()))
        spent = time.monotonic() - began
        self.busy += spent
        if drafts and self.background:
            self._next_drafts = time.monotonic() + spent * (1 / DRAFT_SHARE - 1)
        return True

    def close(self) -> None:
        """Stop; what waits is given up."""
        with self._changed:
            self._closed = True
            for job in self._finals:
                job.done.cancel()
            self._finals.clear()
            self._drafts.clear()
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _wake(self) -> None:
        if self._closed:
            raise VermilionError("this live transcriber was closed")
        if self.background and self._thread is None:
            self._thread = threading.Thread(target=self._loop, name="vermilion-live", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _loop(self) -> None:
        while not self._closed:
            if not self.work():
                with self._changed:
                    if not self._closed and not self._finals:
                        pause = self._next_drafts - time.monotonic() if self._drafts else None
                        if pause is None or pause > 0:
                            self._changed.wait(pause)

    def _take_finals(self) -> list[_Final]:
        taken: list[_Final] = []
        seconds = 0.0
        while self._finals and (not taken or seconds + self._finals[0].seconds <= FINAL_SECONDS):
            job = self._finals.popleft()
            if job.done.set_running_or_notify_cancel():
                taken.append(job)
                seconds += job.seconds
        return taken

    def _take_drafts(self) -> dict[int, _Draft]:
        if self.background and time.monotonic() < self._next_drafts:
            return {}
        taken: dict[int, _Draft] = {}
        seconds = 0.0
        for session, job in list(self._drafts.items()):
            if taken and seconds + len(job.samples) / 16000 > DRAFT_SECONDS:
                break
            taken[session] = self._drafts.pop(session)
            seconds += len(job.samples) / 16000
        return taken

    def _run_finals(self, jobs: list[_Final]) -> None:
        began = time.monotonic()
        try:
            results = self._transcripts(jobs)
        except Exception as error:  # noqa: BLE001 - the seam where foreign code of any kind plugs in
            if len(jobs) > 1:
                for job in jobs:
                    self._run_finals([job])
                return
            results = [Failure("live", as_error(error), "asr")]
        now, total = time.monotonic(), sum(job.seconds for job in jobs) or 1.0
        newest = (now - began) / len(jobs)
        self.final_cost = MEMORY * self.final_cost + (1 - MEMORY) * newest if self.final_cost else newest
        for job, result in zip(jobs, results, strict=True):
            job.done.set_result(Decoded(result, now, (now - began) * job.seconds / total))

    def _transcripts(self, jobs: list[_Final]) -> list[Transcript | Failure]:
        opened = [
            self.pipeline.segment("live", [Recording("live", job.samples)], language=job.language) for job in jobs
        ]
        self.pipeline.advance([unit for job in opened for unit in job.units])
        return [self.pipeline.finish(job) for job in opened]

    def _run_drafts(self, jobs: list[_Draft]) -> None:
        if self.drafter is None:
            return
        began = time.monotonic()
        try:
            texts = self.drafter.draft([job.samples for job in jobs])
        except Exception:  # noqa: BLE001 - a partial that fails is a partial less; the final will say why
            texts = [""] * len(jobs)
        now, total = time.monotonic(), sum(len(job.samples) for job in jobs) or 1
        for job, text in zip(jobs, texts, strict=True):
            try:
                job.tell(Draft(text, now, (now - began) * len(job.samples) / total))
            except Exception:  # what a session's `notify` raises is its owner's; others must go on
                log.exception("a live session's notify failed")
