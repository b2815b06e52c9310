"""Recordings → features → batches through a Conformer encoder; shared by recogniser and language identifier."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from vermilion.audio import FeatureExtractor, describe, load_audio, num_frames
from vermilion.checkpoints.reader import Checkpoint, load_strict
from vermilion.errors import CheckpointError, ModelError, OptionsError, VermilionError
from vermilion.scheduling import map_batches
from vermilion.transcript import Failure

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from vermilion.nn.conformer import ConformerEncoder
    from vermilion.nn.decoder import TransformerDecoder

R = TypeVar("R")

PRECISIONS = ("float32", "bfloat16", "float16")


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
    device: torch.device
    dtype: torch.dtype
    batch_frames: int = 8000
    """limit of a padded batch in feature frames"""

    def encode(self, utterances: Sequence[Utterance]) -> tuple[Tensor, Tensor]:
        """Encode a batch: (N, T', d) and (N,) valid lengths."""
        import torch

        rows = [torch.from_numpy(self.features(u.samples)) for u in utterances]
        lengths = torch.tensor([len(r) for r in rows], device=self.device)
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(self.device, self.dtype)
        with torch.inference_mode():
            encoded: tuple[Tensor, Tensor] = self.encoder(padded, lengths)
        return encoded

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
        answers = iter(map_batches(todo, lengths, self.batch_frames, lambda batch: self._attempt(batch, work)))
        return [next(answers) if size > 0 else empty(u) for u, size in zip(utterances, sizes, strict=True)]

    def _attempt(
        self, batch: list[Utterance], work: Callable[[list[Utterance], Tensor, Tensor], Sequence[R]]
    ) -> list[R | ModelError]:
        try:
            return list(work(batch, *self.encode(batch)))
        except (RuntimeError, MemoryError, ArithmeticError, LookupError, ValueError) as error:
            reason = str(error) or type(error).__name__  # torch reports exhausted memory as RuntimeError
        if len(batch) > 1:  # outside the except block: its traceback would keep the failed batch's tensors alive
            return [r for u in batch for r in self._attempt([u], work)]
        return [ModelError(f"the network failed on {batch[0].duration:.1f} s of audio: {reason}")]


def read_utterances(recordings: Sequence[Any], stage: str) -> list[Utterance | Failure]:
    """Decode recordings; one that cannot be read becomes a failure in its place."""
    found: list[Utterance | Failure] = []
    for source in recordings:
        try:
            found.append(Utterance(load_audio(source)))
        except VermilionError as error:
            found.append(Failure(describe(source), error, stage))
    return found


def torch_dtype(precision: str) -> torch.dtype:
    """The number format of a precision name.

    Raises:
        OptionsError: the name is unknown.
    """
    import torch

    if precision not in PRECISIONS:
        raise OptionsError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
    dtype: torch.dtype = getattr(torch, precision)
    return dtype


def torch_device(name: str) -> torch.device:
    """A torch device that exists.

    Raises:
        OptionsError: the name is wrong or the device is not there.
    """
    import torch

    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise OptionsError(f"device {name!r} cannot be used here: {error}") from error
    return device


def load_encoder(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> ConformerEncoder:
    """Build the encoder of an AED, LID or LLM checkpoint.

    Raises:
        CheckpointError: hyper-parameters or weights do not fit.
    """
    import torch

    from vermilion.nn.conformer import ConformerConfig, ConformerEncoder

    sizes = {k: int(checkpoint.arg(k)) for k in ("idim", "d_model", "n_head", "n_layers_enc", "kernel_size")}
    _check_sizes(checkpoint.path, sizes)
    with torch.device("meta"):
        network = ConformerEncoder(ConformerConfig(*sizes.values()))
    load_strict(network, _part(checkpoint, "encoder."), checkpoint.path, ignore=["positional_encoding.pe"], dtype=dtype)
    return network.to(device).eval()


def load_decoder(
    checkpoint: Checkpoint, prefix: str, vocabulary: int, device: torch.device, dtype: torch.dtype
) -> TransformerDecoder:
    """Build the decoder of an AED (`decoder.`) or LID (`lid_decoder.`) checkpoint.

    Raises:
        CheckpointError: hyper-parameters or weights do not fit.
    """
    import torch

    from vermilion.nn.decoder import DecoderConfig, TransformerDecoder

    sizes = [int(checkpoint.arg(k)) for k in ("d_model", "n_head", "n_layers_dec")]
    with torch.device("meta"):
        network = TransformerDecoder(DecoderConfig(vocabulary, *sizes))
    ignore = ["positional_encoding.pe", "tgt_word_prj.weight"]  # a table by formula; the tied embedding again
    load_strict(network, _part(checkpoint, prefix), checkpoint.path, ignore=ignore, dtype=dtype)
    return network.to(device).eval()


def _part(checkpoint: Checkpoint, prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in checkpoint.state.items() if k.startswith(prefix)}


def _check_sizes(path: Path, sizes: dict[str, int]) -> None:
    if min(sizes.values()) < 1 or sizes["d_model"] % sizes["n_head"] or sizes["kernel_size"] % 2 == 0:
        raise CheckpointError(f"{path} has impossible sizes: {sizes}")
