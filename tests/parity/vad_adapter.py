"""Voice activity detection, as the golden checker calls it."""

from __future__ import annotations

import numpy as np
from lid_adapter import as_source

from vermilion.audio import load_audio
from vermilion.vad import (
    EventDetector,
    EventOptions,
    StreamingVadOptions,
    StreamingVoiceActivityDetector,
    VadOptions,
    VoiceActivityDetector,
)
from vermilion.vad.offline import EVENTS, frame_probabilities
from vermilion.vad.segmentation import cut_frames, runs_of, spans, speech_runs
from vermilion.vad.stream_segmentation import StreamSegmenter


def published_segments(probabilities, options, duration):
    """Our segments with the published cuts.

    Quirks: positions go through seconds and are truncated (0.29 s is frame 28), the last segment gains the tail of its
    window, and the frame of each cut is lost.
    """
    frames = len(probabilities)
    runs = speech_runs(probabilities, options)
    keep = np.zeros(frames, dtype=bool)
    for a, b in runs:
        keep[a:b] = True
    for span in spans(runs, frames, None):
        first, last = int(span.start / 0.01), int(span.end / 0.01)
        for cut in cut_frames(probabilities[first:last], options.max_speech_frame):
            keep[first + cut] = False
    return [[s.start, s.end] for s in spans(runs_of(keep), frames, duration)]


def vad_postprocess(probs, dur, cfg):
    return published_segments(np.asarray(probs, dtype=np.float64), VadOptions(**cfg), dur)


CHUNK_FRAMES = 30000


def by_pieces(network, features, chunk):
    """Quirk: more than chunk_max_frame frames are cut into pieces that are run without context."""
    return np.concatenate([network(features[i : i + chunk]) for i in range(0, len(features), chunk)])


class Detector:
    def __init__(self, detector, chunk):
        self.detector, self.chunk = detector, chunk

    def probabilities(self, samples):
        network, features = self.detector.network, self.detector.features(samples)
        if len(features) <= self.chunk:
            return frame_probabilities(network, self.detector.features, samples)
        return by_pieces(network, features, self.chunk)


class Vad(Detector):
    def detect(self, wav):
        samples = load_audio(as_source(wav))
        duration, p = len(samples) / 16000, self.probabilities(samples)[:, 0]
        found = published_segments(p, self.detector.options, duration)
        return {"dur": round(duration, 3), "timestamps": found}, p


class Events(Detector):
    def detect(self, wav):
        samples = load_audio(as_source(wav))
        duration, p = len(samples) / 16000, self.probabilities(samples)
        options = {e: self.detector.options.segmentation(e) for e in EVENTS}
        found = {e: published_segments(p[:, i], options[e], duration) for i, e in enumerate(EVENTS)}
        return {
            "dur": round(duration, 3),
            "event2timestamps": found,
            "event2ratio": {e: float((p[:, i] >= options[e].speech_threshold).mean()) for i, e in enumerate(EVENTS)},
        }, p


def load_vad(dir, cfg):  # noqa: A002 (the checker's name)
    options = VadOptions(**cfg)
    return Vad(VoiceActivityDetector.from_pretrained(dir, options), options.chunk_max_frame)


def load_mvad(dir, cfg):  # noqa: A002
    options = EventOptions(**cfg)
    return Events(EventDetector.from_pretrained(dir, options), options.chunk_max_frame)


def stream_options(cfg):
    plain = {k: v for k, v in cfg.items() if k not in ("mode", "chunk_max_frame")}
    options = StreamingVadOptions(**plain)
    # quirk: a preset that does not exist changes nothing
    return options.with_mode(cfg["mode"]) if cfg.get("mode") in range(4) else options


def stream_times(frames):
    """Quirk: a frame with both marks counts as a start only."""
    found, start = [], None
    for f in frames:
        if f.is_speech_start:
            start = f.start
        elif f.is_speech_end:
            found.append([start, f.end])
            start = None
    if start is not None:
        found.append([start, (frames[-1].frame_idx - 1) / 100])
    return found


class StreamVad:
    def __init__(self, folder, cfg):
        self.detector = StreamingVoiceActivityDetector.from_pretrained(folder, stream_options(cfg))
        self.chunk = cfg.get("chunk_max_frame", CHUNK_FRAMES)

    def _frames(self, samples):
        features = self.detector.features(samples)
        if len(features) <= self.chunk:
            return self.detector.detect((samples, 16000))[0]
        segmenter = StreamSegmenter(self.detector.options)
        return [segmenter.step(p) for p in by_pieces(self.detector.network, features, self.chunk)[:, 0].tolist()]

    def detect_full(self, wav):
        samples = load_audio(as_source(wav))
        frames = self._frames(samples)
        return frames, {"dur": round(len(samples) / 16000, 3), "timestamps": stream_times(frames)}

    def run_chunks(self, samples, frames_per_call):
        self.detector.reset()
        frames, position = [], 0
        for count in frames_per_call:
            end = (len(frames) + count - 1) * 160 + 400
            new = self.detector.accept(samples[position:end])
            if len(new) != count:
                raise RuntimeError(f"{len(new)} frames for {count}")
            frames += new
            position = end
        return frames, stream_times(frames)


def load_stream_vad(dir, cfg):  # noqa: A002
    return StreamVad(dir, cfg)


def stream_postprocess(probs, cfg):
    segmenter = StreamSegmenter(stream_options(cfg))
    frames = [segmenter.step(p) for p in probs]
    return frames, stream_times(frames)
