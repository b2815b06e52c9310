"""Options of a live session."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vermilion.errors import OptionsError
from vermilion.vad.options import StreamingVadOptions

SILENCE_MS = 500
NEVER = 1 << 30


@dataclass(frozen=True)
class LiveOptions:
    """When an utterance ends, and how often its words are shown."""

    silence_ms: int | None = None
    """silence that ends an utterance; None = that of the preset, 500 without one"""
    max_utterance_s: float = 20.0
    """a longer utterance is cut where it is quietest"""
    vad_mode: int | None = None
    """preset of the voice activity detector, from 0 (keeps most speech) to 3 (strictest, shortest silence)"""
    partials: bool = True
    """show words while they are spoken"""
    partial_interval_ms: int = 300
    """least time between two hypotheses; under load it grows"""
    speculate: bool = True
    """begin the final decode before the silence is complete, and use it if the speaker stays silent"""
    events: bool = True
    """tell when music or singing begins and ends"""
    threshold: float | None = None
    """probability from which a frame is speech; None = that of the preset, 0.5 without one"""
    padding_ms: int | None = None
    """audio before the confirmed speech that belongs to the utterance; None = the detector's own 50"""
    tail_ms: int = 120
    """audio behind the last speech that belongs to the utterance"""

    def __post_init__(self) -> None:
        if self.silence_ms is not None and not 20 <= self.silence_ms <= 10_000:
            raise OptionsError(f"silence_ms must lie between 20 and 10000, not {self.silence_ms}")
        if not 2 <= self.max_utterance_s <= 60:
            raise OptionsError(f"max_utterance_s must lie between 2 and 60, not {self.max_utterance_s:g}")
        if not 50 <= self.partial_interval_ms <= 60_000:
            raise OptionsError(f"partial_interval_ms must lie between 50 and 60000, not {self.partial_interval_ms}")
        if self.padding_ms is not None and not 0 <= self.padding_ms <= 3000:
            raise OptionsError(f"padding_ms must lie between 0 and 3000, not {self.padding_ms}")
        if not 0 <= self.tail_ms <= 1000:
            raise OptionsError(f"tail_ms must lie between 0 and 1000, not {self.tail_ms}")
        _ = self.vad

    @property
    def vad(self) -> StreamingVadOptions:
        """Options of the detector; utterances are cut here, not there."""
        options = StreamingVadOptions(max_speech_frame=NEVER, min_silence_frame=SILENCE_MS // 10)
        if self.vad_mode is not None:
            options = options.with_mode(self.vad_mode)
        if self.threshold is not None:
            options = replace(options, speech_threshold=self.threshold)
        if self.padding_ms is not None:
            options = replace(options, pad_start_frame=self.padding_ms // 10)
        if self.silence_ms is None:
            return options
        return StreamingVadOptions(**{**vars(options), "min_silence_frame": max(2, self.silence_ms // 10)})

    @property
    def tail_frames(self) -> int:
        """`tail_ms` in frames of 10 ms; the silence that ends the utterance is not shorter."""
        return min(self.tail_ms // 10, self.vad.min_silence_frame)

    @property
    def guess_frames(self) -> int:
        """Frames of silence after which the final decode begins; 0 = not before the end."""
        half = max(self.tail_frames, self.vad.min_silence_frame // 2)
        return half if self.speculate and half < self.vad.min_silence_frame else 0
