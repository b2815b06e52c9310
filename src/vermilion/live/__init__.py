"""Live transcription: words while people speak, finished sentences when they pause."""

from vermilion.live.events import (
    EventChanged,
    Final,
    LiveEvent,
    Partial,
    SpeechEnded,
    SpeechStarted,
    event_to_dict,
)
from vermilion.live.options import LiveOptions
from vermilion.live.report import Delay, LiveReport
from vermilion.live.session import LiveSession
from vermilion.live.transcriber import LiveTranscriber, load_live

__all__ = [
    "Delay",
    "EventChanged",
    "Final",
    "LiveEvent",
    "LiveOptions",
    "LiveReport",
    "LiveSession",
    "LiveTranscriber",
    "Partial",
    "SpeechEnded",
    "SpeechStarted",
    "event_to_dict",
    "load_live",
]
