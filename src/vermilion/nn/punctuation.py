"""The punctuation network: a post-norm BERT encoder and one linear classifier per token (SPEC section 11.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vermilion.errors import CheckpointError
from vermilion.nn.packed import ExactLinear, Fusable, merged

_EXACT_GELU = "gelu"


@dataclass(frozen=True)
class PunctuationConfig:
    """Sizes of the network, as `chinese-lert-base/config.json` and the checkpoint's `args` give them."""

    vocab_size: int
    """entries of the input vocabulary"""
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    """width of the feed-forward layers"""
    max_positions: int
    """longest sequence, [CLS] included"""
    num_labels: int
    """none and the marks"""
    type_vocab_size: int = 2
    """entries of the segment table, of which only the first is used"""
    layer_norm_eps: float = 1e-12
    dropout: float = 0.0
    """share of everything that a layer adds, and of attention, that is dropped in training"""

    @classmethod
    def from_bert(cls, config: Mapping[str, Any], num_labels: int) -> PunctuationConfig:
        """Read the sizes out of a Hugging Face BERT configuration.

        Args:
            config: content of `config.json`.
            num_labels: number of classes (`odim` of the checkpoint).

        Raises:
            CheckpointError: a size is missing or impossible, or the architecture is not plain BERT.
        """
        _require_plain_bert(config)
        sizes = {field: _positive(config, key) for field, key in _BERT_KEYS.items()}
        if sizes["hidden_size"] % sizes["num_heads"]:
            width, heads = sizes["hidden_size"], sizes["num_heads"]
            raise CheckpointError(f"config.json: hidden_size {width} is no multiple of num_attention_heads {heads}")
        return cls(**sizes, num_labels=num_labels, layer_norm_eps=float(config.get("layer_norm_eps", 1e-12)))


_BERT_KEYS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "max_positions": "max_position_embeddings",
    "type_vocab_size": "type_vocab_size",
}


def _require_plain_bert(config: Mapping[str, Any]) -> None:
    expected = {"hidden_act": _EXACT_GELU, "position_embedding_type": "absolute", "model_type": "bert"}
    for key, value in expected.items():
        if config.get(key, value) != value:
            raise CheckpointError(f"config.json: {key} is {config[key]!r}; only {value!r} is supported")


def _positive(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CheckpointError(f"config.json: {key} is {value!r} where a positive whole number is expected")
    return value


class BertEmbeddings(nn.Module):
    """Word + position + segment embedding, then layer norm."""

    def __init__(self, config: PunctuationConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_positions, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = config.dropout

    def forward(self, ids: Tensor) -> Tensor:
        """Embed ids (N, L) as (N, L, H)."""
        positions = self.position_embeddings.weight[: ids.shape[1]]  # (L, H)
        segment = self.token_type_embeddings.weight[0]  # all tokens are of the first segment
        out: Tensor = self.LayerNorm(self.word_embeddings(ids) + segment + positions)
        return F.dropout(out, self.dropout, self.training)


class SelfAttention(Fusable):
    """Query, key and value projections and scaled dot-product attention."""

    def __init__(self, config: PunctuationConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.num_heads, self.dropout = config.num_heads, config.dropout
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.joint: nn.Module | None = None

    def fuse(self) -> None:
        """One product for query, key and value."""
        self.joint = merged([self.query, self.key, self.value])
        del self.query, self.key, self.value

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Mix x (N, L, H) over its tokens; mask (N, 1, 1, L) is True for real ones."""
        rows, length, width = x.shape
        split = (rows, length, self.num_heads, width // self.num_heads)
        if self.joint is not None:
            parts = self.joint(x).chunk(3, dim=-1)
        else:
            parts = (self.query(x), self.key(x), self.value(x))
        query, key, value = (part.view(split).transpose(1, 2) for part in parts)
        dropped = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, mask, dropped)  # (N, heads, L, H / heads)
        return mixed.transpose(1, 2).reshape(rows, length, width)


class ResidualOutput(nn.Module):
    """Linear, residual, layer norm: the end of both halves of a layer."""

    def __init__(self, size: int, config: PunctuationConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = config.dropout

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """Map x (N, L, size) to (N, L, H)."""
        out: Tensor = self.LayerNorm(residual + F.dropout(self.dense(x), self.dropout, self.training))
        return out


class BertLayer(nn.Module):
    """Self-attention and feed-forward, each followed by residual and layer norm (post-norm)."""

    def __init__(self, config: PunctuationConfig) -> None:
        super().__init__()
        # A container, because a published key is "attention.self": the name is taken inside a method.
        parts = {"self": SelfAttention(config), "output": ResidualOutput(config.hidden_size, config)}
        self.attention = nn.ModuleDict(parts)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(config.hidden_size, config.intermediate_size)})
        self.output = ResidualOutput(config.intermediate_size, config)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Transform x (N, L, H); mask (N, 1, 1, L) is True for real tokens, None if there is no padding."""
        x = self.attention["output"](self.attention["self"](x, mask), x)
        out: Tensor = self.output(F.gelu(self.intermediate["dense"](x)), x)
        return out


class BertEncoder(nn.Module):
    """The stack of layers."""

    def __init__(self, config: PunctuationConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(BertLayer(config) for _ in range(config.num_layers))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Run x (N, L, H) through all layers."""
        for layer in self.layer:
            x = layer(x, mask)
        return x


class PunctuationNetwork(nn.Module):
    """BERT encoder and classifier; parameter names are the published ones."""

    def __init__(self, config: PunctuationConfig) -> None:
        super().__init__()
        self.config = config
        self.bert = nn.ModuleDict({"embeddings": BertEmbeddings(config), "encoder": BertEncoder(config)})
        self.classifier = ExactLinear(config.hidden_size, config.num_labels)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Score the labels of every token.

        Args:
            ids: (N, L) int64, [CLS] first, padded with any valid id; L at most `max_positions`.
            lengths: (N,) int64, tokens per row, [CLS] included.

        Returns:
            (N, L − 1, num_labels) logits of the tokens after [CLS]; rows are meaningless beyond their length.
        """
        length = ids.shape[1]
        x = self.bert["embeddings"](ids)
        mask = None
        if bool((lengths < length).any()):
            mask = (torch.arange(length, device=ids.device) < lengths[:, None])[:, None, None, :]  # (N, 1, 1, L)
        logits: Tensor = self.classifier(self.bert["encoder"](x, mask)[:, 1:])
        return logits
