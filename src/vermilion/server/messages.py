"""What server and engine processes say to each other, over a pipe of their own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vermilion.live.events import LiveEvent
from vermilion.live.options import LiveOptions
from vermilion.server.backend import Step, Task

# ---- server → engine


@dataclass(frozen=True)
class Transcribe:
    """A recording to be transcribed."""

    id: int
    task: Task
    keep: bool = False
    """tell the finished segments with every step"""


@dataclass(frozen=True)
class Call:
    """A module alone."""

    id: int
    method: str
    values: dict[str, Any]


@dataclass(frozen=True)
class Cancel:
    """Nobody waits for it any more."""

    id: int


@dataclass(frozen=True)
class OpenLive:
    """A live session begins."""

    id: int
    options: LiveOptions
    language: str | None


@dataclass(frozen=True)
class Sound:
    """Samples of a live session: mono int16."""

    id: int
    pcm: bytes
    rate: int


@dataclass(frozen=True)
class Mark:
    """Something else that a live session is told: "cut", "finish" or "close"."""

    id: int
    what: str


# ---- engine → server


@dataclass(frozen=True)
class Ready:
    """The models are loaded."""

    models: dict[str, str]
    languages: list[str] | None
    """languages that are recognised; None = any"""


@dataclass(frozen=True)
class Progress:
    """A task has come so far."""

    id: int
    step: Step


@dataclass(frozen=True)
class Answer:
    """A task or call is finished."""

    id: int
    value: Any


@dataclass(frozen=True)
class Failed:
    """A task, call or live session cannot be served."""

    id: int
    error: Exception


@dataclass(frozen=True)
class Told:
    """Events of a live session."""

    id: int
    events: list[LiveEvent] = field(default_factory=list)
    heard: int = 0
    """samples that were taken in since the last message"""
    over: bool = False
