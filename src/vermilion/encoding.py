"""Recordings → features → batches through a Conformer encoder; shared by recogniser and language identifier."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from vermilion.audio import FeatureExtractor, describe, load_audio, num_frames
from vermilion.checkpoints.layout import decoder_layout, encoder_layout, tied_output
from vermilion.checkpoints.prepared import load_network
from vermilion.checkpoints.reader import Checkpoint
from vermilion.errors import ModelError, VermilionError
from vermilion.runtime import Runtime, give_back_memory
from vermilion.scheduling import map_batches, pack
from vermilion.transcript import Failure

if TYPE_CHECKING:
    from torch import Tensor

    from vermilion.nn.conformer import ConformerEncoder
    from vermilion.nn.decoder import TransformerDecoder
    from vermilion.nn.filterbank import LogMel

R = TypeVar("R")

ENCODE_FRAMES = (2000, 64_000)
"""on a CPU (activations should stay in its cache) and on a GPU"""
SEARCH_FRAMES = (6000, 200_000)
"""more utterances share each reading of the decoder's weights; bounded by the memory of keys and values"""

NOT_FINITE = "damaged weights, or values too large for this precision: try float32"


@dataclass(frozen=True)
class Utterance:
    """One recording on its way through the encoder."""

    samples: NDArray[np.float32]
    """(n,) mono 16 kHz"""

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.samples) / 16000


@dataclass
class AcousticFront:
    """Features and encoder of one model."""

    features: FeatureExtractor
    encoder: ConformerEncoder
    runtime: Runtime
    encode_frames: int = 0
    """limit of what is encoded at once in padded feature frames; 0 = what suits the device"""
    search_frames: int = 0
    """limit of what is decoded at once in padded feature frames; 0 = what suits the device"""

    def __post_init__(self) -> None:
        index = 0 if self.runtime.device.type == "cpu" else 1
        self.encode_frames = self.encode_frames or ENCODE_FRAMES[index]
        self.search_frames = self.search_frames or SEARCH_FRAMES[index]

    def encode(self, utterances: Sequence[Utterance]) -> tuple[Tensor, Tensor]:
        """Encode a batch as it is: (N, T', d) and (N,) valid lengths."""
        import torch

        with torch.inference_mode():
            features, lengths = self._features(utterances)
            encoded: tuple[Tensor, Tensor] = self.encoder(features.to(self.runtime.dtype), lengths)
        return encoded

    def _features(self, utterances: Sequence[Utterance]) -> tuple[Tensor, Tensor]:
        """Padded features (N, T, 80) and their lengths on the device; a GPU computes them itself."""
        import torch
        from torch.nn.utils.rnn import pad_sequence

        device = self.runtime.device
        if device.type == "cpu":
            rows = [torch.from_numpy(self.features(u.samples)) for u in utterances]
            return pad_sequence(rows, batch_first=True), torch.tensor([len(r) for r in rows])
        samples = pad_sequence([torch.from_numpy(u.samples) for u in utterances], batch_first=True)
        lengths = torch.tensor([len(u.samples) for u in utterances])
        if device.type == "cuda":
            samples, lengths = samples.pin_memory(), lengths.pin_memory()
        found: tuple[Tensor, Tensor] = self.log_mel(
            samples.to(device, non_blocking=True), lengths.to(device, non_blocking=True)
        )
        return found

    @cached_property
    def log_mel(self) -> LogMel:
        """The feature extractor as a layer on the device."""
        import torch

        from vermilion.audio.features import mel_weights, povey_window
        from vermilion.nn.filterbank import LogMel

        tables = (povey_window(), mel_weights(), self.features.mean, self.features.inverse_std)
        return LogMel(*(torch.from_numpy(t) for t in tables)).to(self.runtime.device)

    def run(
        self,
        utterances: Sequence[Utterance],
        work: Callable[[list[Utterance], Tensor, Tensor], Sequence[R]],
        empty: Callable[[Utterance], R],
    ) -> list[R | ModelError]:
        """Encode utterances in batches and work on each batch.

        Args:
            utterances: any lengths; those without a whole frame do not reach the network.
            work: (batch, encoded, lengths) → one result per utterance.
            empty: result of an utterance without a frame.

        Returns:
            Results in order. A batch that fails is tried again item by item; the item at fault gets a ModelError.
        """
        sizes = [num_frames(len(u.samples)) for u in utterances]
        todo = [u for u, size in zip(utterances, sizes, strict=True) if size > 0]
        lengths = [size for size in sizes if size > 0]
        answers = iter(map_batches(todo, lengths, self.search_frames, lambda batch: self._attempt(batch, work)))
        if sum(lengths) > self.encode_frames:  # after large batches the allocator holds much that nobody uses
            give_back_memory()
        return [next(answers) if size > 0 else empty(u) for u, size in zip(utterances, sizes, strict=True)]

    def encode_all(self, utterances: Sequence[Utterance]) -> tuple[Tensor, Tensor]:
        """Encode any number of utterances, a few at a time; as `encode`."""
        frames = [num_frames(len(u.samples)) for u in utterances]
        batches = pack(frames, self.encode_frames)
        if len(batches) == 1:
            return self.encode(utterances)
        first, valid = self.encode([utterances[i] for i in batches[0]])  # the longest
        joint, lengths = first.new_zeros(len(frames), *first.shape[1:]), valid.new_zeros(len(frames))
        joint[batches[0]], lengths[batches[0]] = first, valid
        for batch in batches[1:]:
            encoded, valid = self.encode([utterances[i] for i in batch])
            joint[batch, : encoded.shape[1]], lengths[batch] = encoded, valid
        return joint, lengths

    def _attempt(
        self, batch: list[Utterance], work: Callable[[list[Utterance], Tensor, Tensor], Sequence[R]]
    ) -> list[R | ModelError]:
        try:
            return list(work(batch, *self.encode_all(batch)))
        except (ModelError, RuntimeError, MemoryError, ArithmeticError, LookupError, ValueError) as error:
            reason = str(error) or type(error).__name__  # torch reports exhausted memory as RuntimeError
        if len(batch) > 1:  # outside the except block: its traceback would keep the failed batch's tensors alive
            return [r for u in batch for r in self._attempt([u], work)]
        return [ModelError(f"the network failed on {batch[0].duration:.1f} s of audio: {reason}")]


def check_finite(encoded: Tensor, lengths: Tensor) -> None:
    """Refuse to search in what is not a number.

    Raises:
        RuntimeError: as torch's own faults, which the front reports for the item concerned.
    """
    if not all(bool(row[:n].isfinite().all()) for row, n in zip(encoded, lengths.tolist(), strict=True)):
        raise RuntimeError(f"the encoder's output is not finite ({NOT_FINITE})")


def read_utterances(recordings: Sequence[Any], stage: str) -> list[Utterance | Failure]:
    """Decode recordings; one that cannot be read becomes a failure in its place."""
    found: list[Utterance | Failure] = []
    for source in recordings:
        try:
            found.append(Utterance(load_audio(source)))
        except VermilionError as error:
            found.append(Failure(describe(source), error, stage))
    return found


def load_encoder(checkpoint: Checkpoint, runtime: Runtime) -> ConformerEncoder:
    """Build the encoder of an AED, LID or LLM checkpoint.

    Raises:
        CheckpointError: hyper-parameters or weights do not fit.
    """
    from vermilion.nn.conformer import ConformerConfig, ConformerEncoder

    sizes = encoder_layout(checkpoint).reported(checkpoint)
    names = ("idim", "d_model", "n_head", "n_layers_enc", "kernel_size")
    config = ConformerConfig(*(sizes[name] for name in names))
    network = load_network(lambda: ConformerEncoder(config), checkpoint, "encoder.", runtime)
    return cast("ConformerEncoder", network)


def load_decoder(checkpoint: Checkpoint, prefix: str, runtime: Runtime) -> TransformerDecoder:
    """Build the decoder of an AED (`decoder.`) or LID (`lid_decoder.`) checkpoint.

    Raises:
        CheckpointError: hyper-parameters or weights do not fit.
    """
    from vermilion.nn.decoder import DecoderConfig, TransformerDecoder

    sizes = decoder_layout(checkpoint, prefix).reported(checkpoint)
    config = DecoderConfig(sizes["vocabulary"], sizes["d_model"], sizes["n_head"], sizes["n_layers_dec"])
    tied = tied_output(checkpoint, prefix)
    network = cast("TransformerDecoder", load_network(lambda: TransformerDecoder(config), tied, prefix, runtime))
    network.cache_dtype = runtime.cache_dtype
    return network
