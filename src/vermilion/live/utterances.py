"""From the detector's frames to utterances: where they begin, when they are over."""

from __future__ import annotations

from dataclasses import dataclass

from vermilion.live.options import LiveOptions
from vermilion.vad.stream_segmentation import VadFrame

HOP = 160


@dataclass(frozen=True)
class Began:
    """Speech was confirmed; its first sample."""

    start: int


@dataclass(frozen=True)
class Guess:
    """The speaker may have finished; the sample behind the utterance, if so."""

    end: int


@dataclass(frozen=True)
class Resumed:
    """The guess was wrong: the speaker goes on."""


@dataclass(frozen=True)
class Over:
    """The utterance is over; the sample behind it."""

    end: int


Mark = Began | Guess | Resumed | Over


class UtteranceTracker:
    """Follows one stream's frames.

    An utterance ends with the last frame of speech and `tail_ms`, not with the silence that proved it, so that a
    guess at its end and the end itself are the same sample.
    """

    def __init__(self, options: LiveOptions) -> None:
        """Begin in silence."""
        self.options = options
        self._speaking = False
        self._last_speech = self._frame = 0
        self._guessed = False
        self._cut: int | None = None

    def step(self, frame: VadFrame) -> list[Mark]:
        """Take the next frame."""
        self._frame = frame.frame_idx
        marks: list[Mark] = []
        if frame.is_speech_start and not self._speaking:
            self._speaking = True
            marks.append(Began(max(0, frame.speech_start_frame - 1) * HOP))
        elif self._cut is not None and frame.is_speech and not self._speaking:  # the detector never saw the cut
            self._speaking = True
            marks.append(Began(max(self._cut, (frame.frame_idx - 1) * HOP)))
        if self._speaking or frame.is_speech_end:
            self._cut = None
        if not self._speaking:
            return marks
        if frame.is_speech:
            self._last_speech = frame.frame_idx
            if self._guessed:
                self._guessed = False
                marks.append(Resumed())
        elif not self._guessed and frame.frame_idx - self._last_speech == self.options.guess_frames:
            self._guessed = True
            marks.append(Guess(self._end(frame)))
        if frame.is_speech_end:
            self._speaking = self._guessed = False
            marks.append(Over(self._end(frame)))
        return marks

    def _end(self, frame: VadFrame) -> int:
        return min(self._last_speech + self.options.tail_frames, frame.frame_idx) * HOP

    @property
    def silence(self) -> int:
        """Frames since the last speech."""
        return self._frame - self._last_speech

    def cut(self, total: int) -> int:
        """End the open utterance here; speech that goes on is the next one."""
        self._cut, self._guessed = total, False
        return self.stop(total)

    def stop(self, total: int) -> int:
        """The stream is over: the sample behind the open utterance."""
        self._speaking = False
        return min((self._last_speech + self.options.tail_frames) * HOP, total)
