"""Keys and shapes that our networks ask of a checkpoint, without a weight in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vermilion.checkpoints.layout import decoder_layout, detector_layout, encoder_layout, whole
from vermilion.checkpoints.reader import Checkpoint
from vermilion.errors import CheckpointError

if TYPE_CHECKING:
    from torch import nn

    from vermilion.nn.punctuation import PunctuationConfig

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


def bert_config(bert: Mapping[str, Any], labels: int) -> PunctuationConfig:
    """Sizes of the punctuation network; errors as `encoder_shapes`."""
    from vermilion.nn.punctuation import PunctuationConfig

    for name, value in bert.items():
        if isinstance(value, int) and not isinstance(value, bool):
            whole(value, f"config.json: {name}")
    return PunctuationConfig.from_bert(bert, labels)


def punctuation_shapes(bert: Mapping[str, Any], labels: int) -> Shapes:
    """Of the punctuation network by the `config.json` of its BERT; errors as `encoder_shapes`."""
    from vermilion.nn.punctuation import PunctuationNetwork

    config = bert_config(bert, labels)
    return _of("", lambda: PunctuationNetwork(config))


def check_punctuation(
    path: Path, config: PunctuationConfig, labels: Sequence[str], vocabulary: int, cls_id: int
) -> None:
    """Hold the parts of a punctuation model against each other.

    Raises:
        CheckpointError: they do not belong together.
    """
    if len(labels) != config.num_labels or len(labels) < 2 or labels[0].strip():
        raise CheckpointError(
            f"{path / 'out_dict'} lists {len(labels)} labels (first: {labels[0]!r}); the network has "
            f"{config.num_labels}, of which the first must be the space"
        )
    if vocabulary > config.vocab_size or not 0 <= cls_id < config.vocab_size:
        raise CheckpointError(
            f"{path}: {vocabulary} vocabulary entries and [CLS] {cls_id} do not fit vocab_size {config.vocab_size}"
        )
    if config.max_positions < 2:
        raise CheckpointError(f"{path}: max_position_embeddings {config.max_positions} leaves no room for a token")


def detector_shapes(checkpoint: Checkpoint) -> Shapes:
    """Of a FireRedVAD network; errors as `encoder_shapes`."""
    from vermilion.nn.dfsmn import DfsmnConfig

    return DfsmnConfig(**detector_layout(checkpoint).sizes).keys()


def qwen_shapes(config: Mapping[str, Any], layers: int) -> Shapes:
    """Of a Qwen2 language model by its `config.json`.

    Args:
        config: content of the file.
        layers: that its weight files hold.

    Raises:
        CheckpointError: a size is missing or impossible.
    """
    width, inner, heads, vocabulary = (
        positive(config, name) for name in ("hidden_size", "intermediate_size", "num_attention_heads", "vocab_size")
    )
    groups = width // heads * positive({"num_key_value_heads": heads, **config}, "num_key_value_heads")
    linear = {"q": (width, width), "k": (groups, width), "v": (groups, width), "o": (width, width)}
    shapes: Shapes = {"model.embed_tokens.weight": (vocabulary, width), "model.norm.weight": (width,)}
    if not config.get("tie_word_embeddings"):
        shapes["lm_head.weight"] = (vocabulary, width)
    for number in range(layers):
        at = f"model.layers.{number}."
        shapes |= {f"{at}self_attn.{name}_proj.weight": shape for name, shape in linear.items()}
        shapes |= {f"{at}self_attn.{name}_proj.bias": linear[name][:1] for name in "qkv"}
        shapes |= {f"{at}mlp.{name}_proj.weight": (inner, width) for name in ("gate", "up")}
        shapes[f"{at}mlp.down_proj.weight"] = (width, inner)
        shapes |= {f"{at}{name}_layernorm.weight": (width,) for name in ("input", "post_attention")}
    return shapes


def positive(config: Mapping[str, Any], name: str) -> int:
    """Return a size out of a `config.json`.

    Raises:
        CheckpointError: it is missing, no whole number, or not positive.
    """
    value = whole(config.get(name), f"config.json: {name}")
    if value < 1:
        raise CheckpointError(f"config.json: {name} is {value}, where a positive whole number is expected")
    return value


def _of(prefix: str, build: Callable[[], nn.Module]) -> Shapes:
    import torch

    with torch.device("meta"):
        network = build()
    return {prefix + key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
