"""Options of the detectors (SPEC section 10; defaults of the published library)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from vermilion.errors import OptionsError


def _check_threshold(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise OptionsError(f"{name} must lie in [0, 1], not {value}")


def _check_frames(smallest: int, **values: int) -> None:
    for name, value in values.items():
        if value < smallest:
            raise OptionsError(f"{name} must be at least {smallest} frames, not {value}")


@dataclass(frozen=True)
class SegmentationOptions:
    """From frame decisions to segments; numbers of frames of 10 ms."""

    smooth_window_size: int = 5
    """frames of the trailing mean"""
    min_speech_frame: int = 20
    """shorter speech is dropped"""
    max_speech_frame: int = 2000
    """longer speech is cut at its least probable frame"""
    min_silence_frame: int = 20
    """shorter pauses stay speech"""
    merge_silence_frame: int = 0
    """gaps shorter than this are filled"""
    extend_speech_frame: int = 0
    """frames added on both sides"""
    min_piece_frame: int = 20
    """cuts leave no piece shorter than this (the published code leaves pieces of any length)"""

    def __post_init__(self) -> None:
        _check_frames(1, min_speech_frame=self.min_speech_frame, max_speech_frame=self.max_speech_frame)
        _check_frames(
            0,
            smooth_window_size=self.smooth_window_size,
            min_silence_frame=self.min_silence_frame,
            merge_silence_frame=self.merge_silence_frame,
            extend_speech_frame=self.extend_speech_frame,
            min_piece_frame=self.min_piece_frame,
        )


@dataclass(frozen=True)
class VadOptions(SegmentationOptions):
    """Options of the offline detector."""

    speech_threshold: float = 0.4
    """smoothed probability from which a frame is speech"""
    chunk_max_frame: int = 30000
    """frames computed at a time; bounds the memory and changes no result"""

    @classmethod
    def preset(cls, name: str) -> VadOptions:
        """Options by name.

        Args:
            name: "default" = what the pipeline uses: no preset gave measurably fewer errors in words, and it cuts the
                fewest segments (benchmarks/real/RESULTS.md); "tight" = fewest wrong frames, for timelines rather than
                recognition: every pause is one; "published" = the defaults of the published library and of this class;
                "cli" = those of the published command line of the whole system.

        Raises:
            OptionsError: no such preset.
        """
        if name not in PRESETS:
            raise OptionsError(f"the presets of voice activity are {', '.join(PRESETS)}, not {name!r}")
        return PRESETS[name]

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_threshold("speech_threshold", self.speech_threshold)
        _check_frames(1, chunk_max_frame=self.chunk_max_frame)


PresetName = Literal["default", "tight", "published", "cli"]
PRESETS = {
    "default": VadOptions(
        speech_threshold=0.5,
        min_speech_frame=8,
        min_silence_frame=10,
        merge_silence_frame=50,
        extend_speech_frame=10,
    ),
    "tight": VadOptions(smooth_window_size=1, speech_threshold=0.5, min_speech_frame=10, min_silence_frame=3),
    "published": VadOptions(),
    "cli": VadOptions(
        speech_threshold=0.2,
        max_speech_frame=1000,
        min_silence_frame=10,
        merge_silence_frame=50,
        extend_speech_frame=10,
    ),
}


@dataclass(frozen=True)
class EventOptions:
    """Options of the event detector."""

    speech_threshold: float = 0.4
    """smoothed probability from which a frame is speech"""
    singing_threshold: float = 0.5
    """the same for singing"""
    music_threshold: float = 0.5
    """the same for music"""
    smooth_window_size: int = 5
    """frames of the trailing mean"""
    min_event_frame: int = 20
    """shorter events are dropped"""
    max_event_frame: int = 2000
    """longer events are cut at their least probable frame"""
    min_silence_frame: int = 20
    """shorter pauses belong to the event"""
    merge_silence_frame: int = 0
    """gaps shorter than this are filled"""
    extend_speech_frame: int = 0
    """frames added on both sides"""
    chunk_max_frame: int = 30000
    """frames computed at a time; changes no result"""
    min_piece_frame: int = 20
    """cuts leave no piece shorter than this"""

    def __post_init__(self) -> None:
        for name in ("speech_threshold", "singing_threshold", "music_threshold"):
            _check_threshold(name, getattr(self, name))
        _check_frames(1, chunk_max_frame=self.chunk_max_frame)
        self.segmentation("speech")

    def segmentation(self, event: Literal["speech", "singing", "music"]) -> VadOptions:
        """The options of one event's segmentation."""
        return VadOptions(
            smooth_window_size=self.smooth_window_size,
            min_speech_frame=self.min_event_frame,
            max_speech_frame=self.max_event_frame,
            min_silence_frame=self.min_silence_frame,
            merge_silence_frame=self.merge_silence_frame,
            extend_speech_frame=self.extend_speech_frame,
            min_piece_frame=self.min_piece_frame,
            speech_threshold=getattr(self, f"{event}_threshold"),
        )


@dataclass(frozen=True)
class StreamingVadOptions:
    """Options of the streaming detector."""

    smooth_window_size: int = 5
    """frames of the trailing mean"""
    speech_threshold: float = 0.5
    """smoothed probability from which a frame is speech"""
    pad_start_frame: int = 5
    """frames that a start is moved back"""
    min_speech_frame: int = 8
    """frames of speech that confirm a start"""
    max_speech_frame: int = 2000
    """longer speech ends and begins anew"""
    min_silence_frame: int = 20
    """frames of silence that confirm an end"""

    def __post_init__(self) -> None:
        _check_threshold("speech_threshold", self.speech_threshold)
        _check_frames(1, min_speech_frame=self.min_speech_frame, max_speech_frame=self.max_speech_frame)
        _check_frames(
            0,
            smooth_window_size=self.smooth_window_size,
            pad_start_frame=self.pad_start_frame,
            min_silence_frame=self.min_silence_frame,
        )

    def with_mode(self, mode: int) -> StreamingVadOptions:
        """A preset, from 0 (keeps most speech) to 3 (strictest).

        Raises:
            OptionsError: no such preset (the published code ignores it in silence).
        """
        presets = ((0.3, 8, 20), (0.5, 10, 15), (0.7, 15, 10), (0.9, 20, 5))
        if mode not in range(len(presets)):
            raise OptionsError(f"mode must be 0, 1, 2 or 3, not {mode!r}")
        threshold, speech, silence = presets[mode]
        return replace(self, speech_threshold=threshold, min_speech_frame=speech, min_silence_frame=silence)
