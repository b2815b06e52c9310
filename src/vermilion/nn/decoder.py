"""Transformer decoder with key/value caches (SPEC section 4; shared by AED and LID)."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from vermilion.nn.conformer import sinusoids
from vermilion.nn.packed import Fusable, linear_of, merged


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of the decoder."""

    vocabulary: int
    d_model: int = 1280
    n_head: int = 20
    n_layers: int = 16
    _: KW_ONLY
    dropout: float = 0.0
    """in training: of what each part adds, of attention weights, of the embedded tokens"""
    checkpointing: bool = False
    """in training: compute the activations of a layer again instead of keeping them"""


@dataclass
class CrossMemory:
    """Keys and values of the encoder output, projected once per utterance and shared by all its queries."""

    keys: list[Tensor]
    """per layer (N, h, T', d_k)"""
    values: list[Tensor]
    bias: Tensor | None
    """(N, 1, 1, T') of 0 and −inf on padded frames; None without padding"""

    def select(self, utterances: Tensor) -> None:
        """Keep some utterances; layer by layer, so that at most one is held twice."""
        for cache in (self.keys, self.values):
            for i, tensor in enumerate(cache):
                cache[i] = tensor[utterances]
        self.bias = self.bias[utterances] if self.bias is not None else None

    def repeated(self, count: int) -> CrossMemory:
        """The memory of a single utterance for `count` texts, without a copy."""
        shape = (count, -1, -1, -1)
        bias = self.bias.expand(shape) if self.bias is not None else None
        return CrossMemory([k.expand(shape) for k in self.keys], [v.expand(shape) for v in self.values], bias)


@dataclass
class DecoderState:
    """Keys and values of all tokens that N utterances were given, in slots that every utterance uses alike.

    Nothing is moved when hypotheses change places or drafts fail: which slots a query sees is said by a mask.
    """

    memory: CrossMemory
    used: int
    """slots filled"""
    keys: list[Tensor]
    """per layer (N, capacity, h, d_k)"""
    values: list[Tensor]

    def select(self, utterances: Tensor) -> None:
        """Keep some utterances."""
        self.memory.select(utterances)
        for cache in (self.keys, self.values):
            for i, tensor in enumerate(cache):
                cache[i] = tensor[utterances]

    def reserve(self, count: int) -> None:
        """Make room for more slots; the room at least doubles."""
        capacity = self.keys[0].shape[1]
        if self.used + count <= capacity:
            return
        extra = max(capacity, self.used + count - capacity)
        for cache in (self.keys, self.values):
            for i, tensor in enumerate(cache):
                cache[i] = F.pad(tensor, (0, 0, 0, 0, 0, extra))


class Attention(Fusable):
    """Multi-head attention with the published biases: none on the keys."""

    def __init__(self, d_model: int, n_head: int, own: bool) -> None:
        """Take the sizes; `own`: queries, keys and values come from the same sequence."""
        super().__init__()
        self.n_head, self.own = n_head, own
        self.w_qs = nn.Linear(d_model, d_model)
        self.w_ks = nn.Linear(d_model, d_model, bias=False)
        self.w_vs = nn.Linear(d_model, d_model)
        self.fc = nn.Linear(d_model, d_model)
        self.w_joint: nn.Module | None = None

    def fuse(self) -> None:
        """One product for all that is made from the same input."""
        self.w_joint = merged([self.w_qs, self.w_ks, self.w_vs] if self.own else [self.w_ks, self.w_vs])
        del self.w_ks, self.w_vs
        if self.own:
            del self.w_qs

    def heads(self, x: Tensor) -> Tensor:
        """(N, L, d) → (N, L, h, d_k)."""
        return x.view(*x.shape[:-1], self.n_head, -1)

    def queries_keys_values(self, x: Tensor) -> list[Tensor]:
        """(N, L, d) → three (N, L, h, d_k)."""
        if self.w_joint is not None:
            return [self.heads(part) for part in self.w_joint(x).chunk(3, dim=-1)]
        return [self.heads(w(x)) for w in (self.w_qs, self.w_ks, self.w_vs)]

    def keys_values(self, x: Tensor) -> list[Tensor]:
        """(N, L, d) → two (N, L, h, d_k)."""
        if self.w_joint is not None:
            return [self.heads(part) for part in self.w_joint(x).chunk(2, dim=-1)]
        return [self.heads(w(x)) for w in (self.w_ks, self.w_vs)]

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        """Queries (N, L, h, d_k), keys and values (N, h, S, d_k) of the cache's type → (N, L, d)."""
        bias = bias.to(k.dtype) if bias is not None else None
        out = F.scaled_dot_product_attention(q.transpose(1, 2).to(k.dtype), k, v, attn_mask=bias)
        result: Tensor = self.fc(out.transpose(1, 2).flatten(2).to(q.dtype))
        return result


class FeedForward(nn.Module):
    """Linear, exact GELU, linear."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.w_1 = nn.Linear(d_model, 4 * d_model)
        self.w_2 = nn.Linear(4 * d_model, d_model)

    def forward(self, x: Tensor) -> Tensor:
        """(…, d) → (…, d)."""
        result: Tensor = self.w_2(F.gelu(self.w_1(x)))
        return result


@lru_cache(maxsize=4)
def _table(rows: int, d_model: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):  # kept: training must be able to use what recognition made
        return sinusoids(0, rows, d_model, step=1).to(device, dtype)


class DecoderLayer(nn.Module):
    """Pre-norm self-attention, cross-attention, feed-forward."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        self.self_attn_norm, self.cross_attn_norm, self.mlp_norm = (nn.LayerNorm(config.d_model) for _ in range(3))
        self.self_attn = Attention(config.d_model, config.n_head, own=True)
        self.cross_attn = Attention(config.d_model, config.n_head, own=False)
        self.mlp = FeedForward(config.d_model)

    def forward(self, x: Tensor, encoded: Tensor, bias: Tensor | None) -> Tensor:
        """Whole sequences at once, for training: x (N, L, d), encoded (N, T', d), bias (N, 1, 1, T') → (N, L, d)."""
        dropped = self.dropout.p if self.training else 0.0
        a = self.self_attn
        q, k, v = (part.transpose(1, 2) for part in a.queries_keys_values(self.self_attn_norm(x)))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropped)
        x = x + self.dropout(a.fc(out.transpose(1, 2).flatten(2)))
        a = self.cross_attn
        q = a.heads(a.w_qs(self.cross_attn_norm(x))).transpose(1, 2)
        k, v = (part.transpose(1, 2) for part in a.keys_values(encoded))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropped)
        x = x + self.dropout(a.fc(out.transpose(1, 2).flatten(2)))
        result: Tensor = x + self.dropout(self.mlp(self.mlp_norm(x)))
        return result


def _padding_bias(encoded: Tensor, lengths: Tensor, dtype: torch.dtype) -> Tensor | None:
    """(N, 1, 1, T') of 0 and −inf on padded frames; None without padding."""
    padded = torch.arange(encoded.shape[1], device=encoded.device)[None] >= lengths[:, None]
    if not bool(padded.any()):
        return None
    bias = torch.zeros(padded.shape, dtype=dtype, device=encoded.device).masked_fill(padded, float("-inf"))
    return bias[:, None, None]


class TransformerDecoder(Fusable):
    """Scores the next token of every hypothesis."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.dropout = nn.Dropout(config.dropout)
        self.tgt_word_emb = nn.Embedding(config.vocabulary, config.d_model)
        self.layer_stack = nn.ModuleList(DecoderLayer(config) for _ in range(config.n_layers))
        self.layer_norm_out = nn.LayerNorm(config.d_model)
        self.output: nn.Module | None = None
        self.cache_dtype: torch.dtype | None = None
        """type of the cached keys and values; None = that of the network"""

    def fuse(self) -> None:
        """Give the scores of the vocabulary a layer of their own (its weight is the embedding)."""
        self.output = linear_of(self.tgt_word_emb.weight.detach(), None)

    @property
    def layers(self) -> list[DecoderLayer]:
        """The layers with their type."""
        return [cast(DecoderLayer, layer) for layer in self.layer_stack]

    def remember(self, encoded: Tensor, lengths: Tensor) -> CrossMemory:
        """Project the encoder output (N, T', d) once for all steps and queries."""
        dtype = self.cache_dtype or encoded.dtype
        keys, values = [], []
        for layer in self.layers:
            k, v = layer.cross_attn.keys_values(encoded)
            keys.append(k.transpose(1, 2).to(dtype, memory_format=torch.contiguous_format, copy=True))
            values.append(v.transpose(1, 2).to(dtype, memory_format=torch.contiguous_format, copy=True))
        return CrossMemory(keys, values, _padding_bias(encoded, lengths, dtype))

    def start(self, memory: CrossMemory, capacity: int = 96) -> DecoderState:
        """Empty slots for the utterances of a memory."""
        n, h, _, d_k = memory.keys[0].shape
        empty = [memory.keys[0].new_zeros(n, capacity, h, d_k) for _ in range(2 * len(memory.keys))]
        return DecoderState(memory, 0, empty[::2], empty[1::2])

    def extend(self, tokens: Tensor, positions: Tensor, visible: Tensor, state: DecoderState) -> Tensor:
        """Give every utterance M more tokens and score what follows each.

        A step of a beam search is B tokens that do not see each other; the check of a draft is M tokens that see
        those before them.

        Args:
            tokens: (N, M) token ids.
            positions: (N, M) place of each token in its sequence.
            visible: (N, M, used + M) bool, the slots that each token sees, itself included.
            state: slots, extended in place by M.

        Returns:
            (N, M, V) logits.
        """
        count = tokens.shape[1]
        state.reserve(count)
        new = slice(state.used, state.used + count)
        state.used += count
        x = self._embed(tokens, positions, state.used)
        bias = torch.zeros(visible.shape, dtype=state.keys[0].dtype, device=x.device)
        bias = bias.masked_fill_(~visible, float("-inf"))[:, None]
        for i, layer in enumerate(self.layers):
            keys, values = state.keys[i], state.values[i]
            q, keys[:, new], values[:, new] = layer.self_attn.queries_keys_values(layer.self_attn_norm(x))
            seen = (keys[:, : state.used].transpose(1, 2), values[:, : state.used].transpose(1, 2))
            x = x + layer.self_attn.attend(q, *seen, bias)
            x = x + self._cross_attention(layer.cross_attn, layer.cross_attn_norm(x), state.memory, i)
            x = x + layer.mlp(layer.mlp_norm(x))
        return self._scores(x)

    def forward(self, tokens: Tensor, memory: CrossMemory) -> Tensor:
        """Score all positions of given sequences at once: (N, L) → (N, L, V)."""
        n, size = tokens.shape
        causal = torch.ones(size, size, dtype=torch.bool, device=tokens.device).tril()
        places = torch.arange(size, device=tokens.device)
        return self.extend(tokens, places.expand(n, -1), causal.expand(n, -1, -1), self.start(memory, size))

    def teach(self, tokens: Tensor, encoded: Tensor, lengths: Tensor) -> Tensor:
        """Score what follows each token of given sequences, with gradients (teacher forcing).

        Args:
            tokens: (N, L) token ids; padding only at the end, where scores carry no meaning.
            encoded: (N, T', d) encoder output.
            lengths: (N,) its valid frames.

        Returns:
            (N, L, V) logits, those of `forward`.
        """
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.dropout(self._embed(tokens, places, tokens.shape[1])).to(encoded.dtype)
        bias = _padding_bias(encoded, lengths, encoded.dtype)
        for layer in self.layers:
            if self.training and self.config.checkpointing:
                x = checkpoint(layer, x, encoded, bias, use_reentrant=False)
            else:
                x = layer(x, encoded, bias)
        return self._scores(x)

    def _embed(self, tokens: Tensor, positions: Tensor, most: int) -> Tensor:
        weight = self.tgt_word_emb.weight
        rows = max(64, 1 << most.bit_length())  # no limit on the length
        table = _table(rows, self.config.d_model, weight.device, weight.dtype)
        embedded: Tensor = self.tgt_word_emb(tokens) * math.sqrt(self.config.d_model) + table[positions]
        return embedded

    def _cross_attention(self, a: Attention, y: Tensor, memory: CrossMemory, i: int) -> Tensor:
        return a.attend(a.heads(a.w_qs(y)), memory.keys[i], memory.values[i], memory.bias)

    def _scores(self, x: Tensor) -> Tensor:
        x = self.layer_norm_out(x)
        if self.output is None:
            return F.linear(x, self.tgt_word_emb.weight)
        scores: Tensor = self.output(x)
        return scores
