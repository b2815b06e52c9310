"""From frame probabilities to speech starts and ends, live (SPEC section 10.2)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum, auto

from vermilion.transcript import Span
from vermilion.vad.options import StreamingVadOptions


@dataclass(frozen=True)
class VadFrame:
    """What one 10 ms frame says; frame numbers count from 1, −1 means not set."""

    frame_idx: int
    is_speech: bool
    """decision after smoothing and threshold"""
    raw_prob: float
    smoothed_prob: float
    is_speech_start: bool = False
    """a segment was confirmed at this frame"""
    is_speech_end: bool = False
    """a segment ended at this frame"""
    speech_start_frame: int = -1
    speech_end_frame: int = -1

    @property
    def start(self) -> float:
        """Seconds at which the confirmed segment began."""
        return max(0.0, (self.speech_start_frame - 1) / 100)

    @property
    def end(self) -> float:
        """Seconds at which the segment ended."""
        return max(0.0, (self.speech_end_frame - 1) / 100)


class _State(Enum):
    SILENCE = auto()
    POSSIBLE_SPEECH = auto()
    SPEECH = auto()
    POSSIBLE_SILENCE = auto()


class StreamSegmenter:
    """State machine over the frames of one stream."""

    def __init__(self, options: StreamingVadOptions) -> None:
        """Begin in silence."""
        self.options = options
        self._pad = max(1, options.smooth_window_size, options.pad_start_frame)
        self._window: deque[float] = deque(maxlen=max(1, options.smooth_window_size))
        self._sum = 0.0
        self._state = _State.SILENCE
        self._frame = 0
        self._speech = 0
        self._silence = 0
        self._last_start = -1
        self._last_end = -1
        self._hit_max = False

    def step(self, probability: float) -> VadFrame:
        """Take the probability of the next frame."""
        self._frame += 1
        smoothed = self._smooth(probability)
        bit = smoothed >= self.options.speech_threshold
        started = self._resume()
        begun, ended = self._advance(bit)
        start_frame = -1
        if started or begun:
            start_frame = self._last_start
        end_frame = -1
        if ended:
            end_frame = self._frame
            start_frame = ended
        return VadFrame(
            self._frame, bit, round(probability, 3), round(smoothed, 3), started or begun, bool(ended), start_frame,
            end_frame,
        )  # fmt: skip

    def _smooth(self, probability: float) -> float:
        if self.options.smooth_window_size <= 1:
            return probability
        if len(self._window) == self._window.maxlen:
            self._sum -= self._window[0]
        self._window.append(probability)
        self._sum += probability
        return self._sum / len(self._window)

    def _resume(self) -> bool:
        """Speech that was cut at its maximum goes on as a new segment."""
        if not self._hit_max:
            return False
        self._hit_max = False
        self._last_start = self._frame
        return True

    def _advance(self, bit: bool) -> tuple[bool, int]:
        """One step of the state machine: (a start was confirmed, start frame of a segment that ended or 0)."""
        if self._state is _State.SILENCE:
            self._speech = self._speech + 1 if bit else 0
            if bit:
                self._state = _State.POSSIBLE_SPEECH
            return False, 0
        if self._state is _State.POSSIBLE_SPEECH:
            return self._possible_speech(bit), 0
        self._speech += 1
        if bit:
            self._state, self._silence = _State.SPEECH, 0
            return False, self._cut() if self._speech >= self.options.max_speech_frame else 0
        self._silence += 1
        if self._state is _State.SPEECH:
            self._state = _State.POSSIBLE_SILENCE
            return False, 0
        return False, self._close() if self._silence >= self.options.min_silence_frame else 0

    def _possible_speech(self, bit: bool) -> bool:
        if not bit:
            self._state, self._silence, self._speech = _State.SILENCE, 1, 0
            return False
        self._speech += 1
        if self._speech < self.options.min_speech_frame:
            return False
        self._state, self._silence = _State.SPEECH, 0
        self._last_start = max(1, self._frame - self._speech + 1 - self._pad, self._last_end + 1)
        return True

    def _cut(self) -> int:
        self._hit_max = True
        return self._end()

    def _close(self) -> int:
        self._state = _State.SILENCE
        return self._end()

    def _end(self) -> int:
        start, self._last_start, self._last_end, self._speech = self._last_start, -1, self._frame, 0
        return start


class SegmentCollector:
    """Turns the marks of frames into spans; a frame may both begin and end a segment."""

    def __init__(self) -> None:
        """No segment yet."""
        self.closed: list[Span] = []
        self._open: float | None = None
        self._last = 0

    def add(self, frame: VadFrame) -> None:
        """Take the next frame."""
        self._last = frame.frame_idx
        if frame.is_speech_start:
            self._open = frame.start
        if frame.is_speech_end:
            self._finish(frame.end if self._open is None else max(frame.end, self._open + 0.01))

    def spans(self) -> list[Span]:
        """All segments; one that is still open ends at the last frame."""
        if self._open is None:
            return list(self.closed)
        return [*self.closed, Span(self._open, max(self._open, (self._last - 1) / 100))]

    def _finish(self, end: float) -> None:
        if self._open is not None:
            self.closed.append(Span(self._open, end))
        self._open = None
