"""Music and singing in a live stream: the offline detector on a sliding window, its answers the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vermilion.live.audio import StreamAudio
from vermilion.live.events import EventChanged
from vermilion.vad.offline import EVENTS, EventDetector, frame_probabilities
from vermilion.vad.options import StreamingVadOptions
from vermilion.vad.stream_segmentation import StreamSegmenter

STEP_FRAMES = 100
"""frames that are decided at once"""
MOST_FRAMES = 3000
HOP, WINDOW = 160, 400
SMOOTH = StreamingVadOptions(min_speech_frame=30, min_silence_frame=60, max_speech_frame=1 << 30, smooth_window_size=20)


class SoundTracker:
    """Tells when music and singing begin and end; behind the audio by the detector's look-ahead and a second."""

    labels = ("singing", "music")

    def __init__(self, detector: EventDetector) -> None:
        """Begin a stream."""
        self.detector = detector
        self.before, self.after = detector.network.context
        thresholds = (detector.options.singing_threshold, detector.options.music_threshold)
        self._tracks = [StreamSegmenter(replace(SMOOTH, speech_threshold=t)) for t in thresholds]
        self._done = 0

    @property
    def seconds(self) -> float:
        """Audio that must be kept for it."""
        return (self.before + self.after + STEP_FRAMES) / 100 + 1

    def step(self, audio: StreamAudio, *, last: bool = False) -> list[EventChanged]:
        """Decide the frames that have their whole context; at the end all of them."""
        complete = max(0, 1 + (audio.total - WINDOW) // HOP)
        ready = complete if last else complete - self.after
        if ready - self._done < (1 if last else STEP_FRAMES):
            return []
        first = max(0, self._done - self.before)
        samples = audio.slice(first * HOP, (complete - 1) * HOP + WINDOW)
        found = frame_probabilities(self.detector.network, self.detector.features, samples, MOST_FRAMES)
        rows = found[self._done - first : ready - first]
        events: list[EventChanged] = []
        for label, track in zip(self.labels, self._tracks, strict=True):
            for probability in np.asarray(rows[:, EVENTS.index(label)]).tolist():
                frame = track.step(probability)
                if frame.is_speech_start:
                    events.append(EventChanged(label, True, frame.start))
                elif frame.is_speech_end:
                    events.append(EventChanged(label, False, frame.end))
        self._done = ready
        return sorted(events, key=lambda e: e.time)
