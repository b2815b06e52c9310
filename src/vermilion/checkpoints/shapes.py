"""Keys and shapes that our networks ask of a checkpoint, without a weight in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from vermilion.checkpoints.layout import decoder_layout, encoder_layout
from vermilion.checkpoints.reader import Checkpoint
from vermilion.errors import CheckpointError

if TYPE_CHECKING:
    from torch import nn

Shapes = dict[str, tuple[int, ...]]


def encoder_shapes(checkpoint: Checkpoint) -> Shapes:
    """Of the Conformer encoder that the checkpoint's sizes name.

    Raises:
        CheckpointError: its sizes are missing or impossible.
    """
    from vermilion.nn.conformer import ConformerConfig, ConformerEncoder

    sizes = encoder_layout(checkpoint).sizes
    names = ("idim", "d_model", "n_head", "n_layers_enc", "kernel_size")
    return _of("encoder.", lambda: ConformerEncoder(ConformerConfig(*(sizes[name] for name in names))))


def decoder_shapes(checkpoint: Checkpoint, prefix: str) -> Shapes:
    """Of a Transformer decoder, `decoder.` or `lid_decoder.`; errors as `encoder_shapes`."""
    from vermilion.nn.decoder import DecoderConfig, TransformerDecoder

    sizes = decoder_layout(checkpoint, prefix).sizes
    config = DecoderConfig(sizes["vocabulary"], sizes["d_model"], sizes["n_head"], sizes["n_layers_dec"])
    return _of(prefix, lambda: TransformerDecoder(config))


def ctc_shapes(checkpoint: Checkpoint) -> Shapes:
    """Of the CTC head; empty where the checkpoint has none."""
    from vermilion.nn.ctc import CtcHead

    if not any(key.startswith("ctc.") for key in checkpoint.state):
        return {}
    sizes = decoder_layout(checkpoint, "decoder.").sizes
    return _of("ctc.", lambda: CtcHead(sizes["d_model"], sizes["vocabulary"]))


def adapter_shapes(d_model: int, width: int, rate: int) -> Shapes:
    """Of the adapter between encoder and language model."""
    from vermilion.nn.adapter import SpeechAdapter

    return _of("encoder_projector.", lambda: SpeechAdapter(d_model, width, rate))


def language_model_shapes(vocabulary: int, width: int, layers: int) -> Shapes:
    """Of the LSTM language model."""
    from vermilion.nn.lstm_lm import LstmConfig, LstmLanguageModel

    return _of("", lambda: LstmLanguageModel(LstmConfig(vocabulary, width, layers)))


def punctuation_shapes(bert: Mapping[str, Any], labels: int) -> Shapes:
    """Of the punctuation network by the `config.json` of its BERT; errors as `encoder_shapes`."""
    from vermilion.nn.punctuation import PunctuationConfig, PunctuationNetwork

    config = PunctuationConfig.from_bert(bert, labels)
    return _of("", lambda: PunctuationNetwork(config))


def detector_shapes(checkpoint: Checkpoint) -> Shapes:
    """Of a FireRedVAD network; errors as `encoder_shapes`."""
    from vermilion.nn.dfsmn import DfsmnConfig

    sizes = {name: int(checkpoint.arg(name)) for name in DETECTOR_SIZES}
    if min(sizes.values()) < 0 or min(v for k, v in sizes.items() if k not in ("M", "N2", "S2")) < 1:
        raise CheckpointError(f"{checkpoint.path} has impossible sizes: {sizes}")
    return DfsmnConfig(**sizes).keys()


DETECTOR_SIZES = ("idim", "R", "M", "H", "P", "N1", "S1", "N2", "S2", "odim")


def _of(prefix: str, build: Callable[[], nn.Module]) -> Shapes:
    import torch

    with torch.device("meta"):
        network = build()
    return {prefix + key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
