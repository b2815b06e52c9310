"""What the protocols of the server see of the engines: protocols and plain values, no torch."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from vermilion.live.events import LiveEvent
from vermilion.live.options import LiveOptions
from vermilion.transcript import Transcript

if TYPE_CHECKING:
    from vermilion.server.rate import Rate

State = dict[str, Any]
"""a finished segment as plain values (`vermilion.assembly.unit_state`)"""


@dataclass(frozen=True)
class Task:
    """A decoded recording to be transcribed."""

    tracks: list[Path]
    """one file of 16 kHz int16 samples per channel, or one for the mix"""
    name: str
    """what the transcript calls the recording"""
    language: str | None = None
    """language of the recording where the client knows it"""
    weight: float = 1.0
    """share of the engine while others wait, relative to theirs"""
    seconds: float = 0.0
    """length of the recording"""
    warnings: list[str] = field(default_factory=list)
    """what the decoder of the recording said"""
    finished: list[State] = field(default_factory=list)
    """segments that an earlier run finished"""
    segmentation: State | None = None
    """what the detectors found in an earlier run"""
    events: bool = True
    """the answer can show speech, singing and music"""


@dataclass(frozen=True)
class Step:
    """Where a task stands."""

    stage: str
    """"vad" or "asr" """
    done: float
    """seconds of speech that are finished; before the segments are known, seconds that the detectors are through"""
    total: float
    """the same in all"""
    segments: list[State] = field(default_factory=list)
    """segments that were finished since the last step"""
    count: int | None = None
    """segments in all; None while the detectors are at work"""
    segmentation: State | None = None
    """what the detectors found, told once"""


class LiveLink(Protocol):
    """One live session: audio in, events out."""

    async def send(self, pcm: bytes, rate: int) -> None:
        """Take mono int16 little-endian samples (a rate per session, the same at every call); waits when far behind."""

    async def cut(self) -> None:
        """End the open utterance here, as if the silence were complete."""

    async def finish(self) -> None:
        """End the stream; the remaining events follow, then the iteration ends."""

    async def close(self) -> None:
        """Give the session up at once; may be called twice and after `finish`."""

    def events(self) -> AsyncIterator[LiveEvent]:
        """Tell what happens until the session is over; raises VermilionError if the engine fails."""


class Backend(Protocol):
    """Engines that answer."""

    async def transcribe(self, task: Task, report: Callable[[Step], Awaitable[None]] | None = None) -> Transcript:
        """Transcribe a recording; cancelling the caller cancels the work."""

    async def call(self, method: str, **values: Any) -> Any:
        """Run a module alone: segments, events, languages, punctuate."""

    async def open_live(self, options: LiveOptions, language: str | None = None) -> LiveLink:
        """Begin a live session; raises Busy when there are too many."""

    async def transcribe_samples(self, pcm: bytes, rate: int, language: str | None = None) -> Transcript:
        """Transcribe mono int16 samples that a client sent as one utterance."""


class Engines(Backend, Protocol):
    """Engines as the application runs and shows them."""

    rate: Rate
    """how fast they are, lately"""
    models: dict[str, str]
    """names of the models, by stage; known after `start`"""
    languages: list[str] | None
    """languages that are recognised; None = any"""
    live_open: int
    """live sessions that are open"""
    deaths: int
    """requests that lost their engine"""

    @property
    def loaded(self) -> int:
        """Engines that have their models in memory."""

    @property
    def available(self) -> bool:
        """Requests can be answered."""

    @property
    def waiting_seconds(self) -> float:
        """Audio that waits or is at work."""

    async def start(self) -> None:
        """Start them; returns when their models are loaded."""

    async def close(self) -> None:
        """End them."""
