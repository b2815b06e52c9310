"""Voice activity and audio events: offline, streaming, speech/singing/music."""

from __future__ import annotations

from vermilion.vad.offline import EventDetector, VoiceActivityDetector
from vermilion.vad.options import EventOptions, StreamingVadOptions, VadOptions
from vermilion.vad.pool import StreamingVadPool
from vermilion.vad.stream_segmentation import VadFrame
from vermilion.vad.streaming import StreamingVoiceActivityDetector

__all__ = [
    "EventDetector",
    "EventOptions",
    "StreamingVadOptions",
    "StreamingVadPool",
    "StreamingVoiceActivityDetector",
    "VadFrame",
    "VadOptions",
    "VoiceActivityDetector",
]
