"""Many live streams over one streaming model: their frames go through the network together (SPEC section 10.2)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vermilion.audio import FeatureExtractor, StreamingFeatureExtractor
from vermilion.errors import AudioError, OptionsError
from vermilion.nn.dfsmn import Array, Dfsmn
from vermilion.transcript import Span
from vermilion.vad.model import read_model
from vermilion.vad.options import StreamingVadOptions
from vermilion.vad.stream_segmentation import SegmentCollector, StreamSegmenter, VadFrame
from vermilion.vad.streaming import StreamingVoiceActivityDetector


@dataclass
class _Stream:
    """What belongs to one stream beside its row of the network's state."""

    row: int
    input: StreamingFeatureExtractor
    segmenter: StreamSegmenter
    collector: SegmentCollector


class StreamingVadPool:
    """Finds speech in many live signals at once; each is answered as by a detector of its own."""

    def __init__(
        self, network: Dfsmn, features: FeatureExtractor, options: StreamingVadOptions | None = None, name: str = ""
    ) -> None:
        """Take a causal network with one output, as a `StreamingVoiceActivityDetector` does."""
        single = StreamingVoiceActivityDetector(network, features, options, name or "FireRedVAD-stream")
        self.network, self.features, self.options, self.name = network, features, single.options, single.name
        self._streams: dict[int, _Stream] = {}
        self._state = network.start(0)
        self._free: list[int] = []
        self._next = 0

    @classmethod
    def from_pretrained(cls, folder: str | Path, options: StreamingVadOptions | None = None) -> StreamingVadPool:
        """Load a FireRedVAD/Stream-VAD folder.

        Raises:
            CheckpointError: files or weights are missing or do not fit.
        """
        return cls(*read_model(folder), options)

    def __len__(self) -> int:
        """Number of open streams."""
        return len(self._streams)

    def open(self, options: StreamingVadOptions | None = None) -> int:
        """Begin a stream and return its number, which is never used again."""
        if not self._free:
            self._grow()
        row = self._free.pop()
        for memory in self._state:
            memory[row] = 0.0
        self._next += 1
        segmenter = StreamSegmenter(options or self.options)
        self._streams[self._next] = _Stream(
            row, StreamingFeatureExtractor(self.features), segmenter, SegmentCollector()
        )
        return self._next

    def accept(self, chunks: Mapping[int, NDArray[Any]]) -> dict[int, list[VadFrame]]:
        """Take the next samples of some streams.

        Args:
            chunks: by stream number, (n,) any number of 16 kHz samples, int16 or float in [-1, 1].

        Returns:
            By stream number the frames that became complete, possibly none.

        Raises:
            OptionsError: a stream is not open.
            AudioError: a chunk is no one-dimensional array of samples; no stream was touched.
        """
        arrays = {number: _checked(number, chunk) for number, chunk in chunks.items()}
        streams = {number: self._stream(number) for number in arrays}
        groups: dict[int, list[tuple[int, Array]]] = defaultdict(list)
        for number, array in arrays.items():
            frames = streams[number].input.frames(array)
            groups[len(frames)].append((number, frames))
        found: dict[int, list[VadFrame]] = {number: [] for number in arrays}
        for count, group in groups.items():
            if count:
                self._advance(count, group, found)
        return found

    def _advance(self, count: int, group: list[tuple[int, Array]], found: dict[int, list[VadFrame]]) -> None:
        """Run as many new frames of each stream of a group."""
        streams = [self._streams[number] for number, _ in group]
        rows = np.array([stream.row for stream in streams])
        features = self.features.of_frames(np.concatenate([frames for _, frames in group]))
        probabilities, state = self.network.stream(
            features.reshape(len(group), count, -1), [memory[rows] for memory in self._state]
        )
        for memory, new in zip(self._state, state, strict=True):
            memory[rows] = new
        for (number, _), stream, track in zip(group, streams, probabilities[:, :, 0].tolist(), strict=True):
            frames = [stream.segmenter.step(p) for p in track]
            for frame in frames:
                stream.collector.add(frame)
            found[number] = frames

    def segments(self, number: int) -> list[Span]:
        """Segments of a stream so far; one that is still open ends at the last frame."""
        return self._stream(number).collector.spans()

    def close(self, number: int) -> list[Span]:
        """End a stream and return all its segments."""
        stream = self._stream(number)
        del self._streams[number]
        self._free.append(stream.row)
        return stream.collector.spans()

    def _stream(self, number: int) -> _Stream:
        if number not in self._streams:
            raise OptionsError(f"stream {number} is not open")
        return self._streams[number]

    def _grow(self) -> None:
        """Double the rows of the state."""
        old = len(self._state[0])
        size = max(8, 2 * old)
        grown = self.network.start(size)
        for new, memory in zip(grown, self._state, strict=True):
            new[:old] = memory
        self._state = grown
        self._free = list(range(size - 1, old - 1, -1))


def _checked(number: int, chunk: NDArray[Any]) -> NDArray[Any]:
    array = np.asarray(chunk)
    if array.ndim != 1 or not (array.dtype == np.int16 or array.dtype.kind == "f"):
        raise AudioError(
            f"stream {number}: one-dimensional int16 or float samples are expected, "
            f"not {array.dtype} of shape {array.shape}"
        )
    return array
