"""Transformer decoder with key/value caches (SPEC section 4; shared by AED and LID)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vermilion.nn.conformer import sinusoids


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of the decoder."""

    vocabulary: int
    d_model: int = 1280
    n_head: int = 20
    n_layers: int = 16


@dataclass
class CrossMemory:
    """Keys and values of the encoder output, projected once per utterance and shared by its beams."""

    keys: list[Tensor]
    """per layer (N, h, T', d_k)"""
    values: list[Tensor]
    bias: Tensor
    """(N, 1, 1, T') of 0 and −inf on padded frames"""

    def select(self, utterances: Tensor) -> CrossMemory:
        """Keep some utterances."""
        return CrossMemory(
            [k[utterances] for k in self.keys], [v[utterances] for v in self.values], self.bias[utterances]
        )


@dataclass
class DecoderState:
    """Caches of the self-attention for N utterances with B hypotheses each."""

    memory: CrossMemory
    beams: int
    length: int
    """positions filled"""
    keys: list[Tensor]
    """per layer (N·B, h, capacity, d_k)"""
    values: list[Tensor]

    def reorder(self, parents: Tensor) -> None:
        """Let each hypothesis continue its parent; (N·B,) row indices."""
        if torch.equal(parents, torch.arange(len(parents), device=parents.device)):
            return
        for cache in (self.keys, self.values):
            for tensor in cache:
                tensor[:, :, : self.length] = tensor[parents, :, : self.length]

    def select(self, utterances: Tensor) -> None:
        """Keep some utterances."""
        rows = (utterances[:, None] * self.beams + torch.arange(self.beams, device=utterances.device)).flatten()
        self.memory = self.memory.select(utterances)
        self.keys = [k[rows] for k in self.keys]
        self.values = [v[rows] for v in self.values]

    def reserve(self) -> None:
        """Double the caches when they are full."""
        if self.length < self.keys[0].shape[2]:
            return
        self.keys = [F.pad(k, (0, 0, 0, k.shape[2])) for k in self.keys]
        self.values = [F.pad(v, (0, 0, 0, v.shape[2])) for v in self.values]


class Attention(nn.Module):
    """Multi-head attention with the published biases: none on the keys."""

    def __init__(self, d_model: int, n_head: int) -> None:
        super().__init__()
        self.n_head = n_head
        self.w_qs = nn.Linear(d_model, d_model)
        self.w_ks = nn.Linear(d_model, d_model, bias=False)
        self.w_vs = nn.Linear(d_model, d_model)
        self.fc = nn.Linear(d_model, d_model)

    def heads(self, x: Tensor) -> Tensor:
        """(N, L, d) → (N, h, L, d_k)."""
        return x.view(*x.shape[:-1], self.n_head, -1).transpose(1, 2)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        """(N, h, L, d_k) → (N, L, d)."""
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        result: Tensor = self.fc(out.transpose(1, 2).flatten(2))
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
def _table(rows: int, d_model: int) -> Tensor:
    return sinusoids(0, rows, d_model, step=1)


def positions(first: int, count: int, d_model: int) -> Tensor:
    """Absolute sinusoids s(first) … s(first + count − 1); the table grows in powers of two, without a limit."""
    rows = max(64, 1 << (first + count - 1).bit_length())
    return _table(rows, d_model)[first : first + count]


class DecoderLayer(nn.Module):
    """Pre-norm self-attention, cross-attention, feed-forward."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.self_attn_norm, self.cross_attn_norm, self.mlp_norm = (nn.LayerNorm(config.d_model) for _ in range(3))
        self.self_attn = Attention(config.d_model, config.n_head)
        self.cross_attn = Attention(config.d_model, config.n_head)
        self.mlp = FeedForward(config.d_model)


class TransformerDecoder(nn.Module):
    """Scores the next token of every hypothesis."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.tgt_word_emb = nn.Embedding(config.vocabulary, config.d_model)
        self.layer_stack = nn.ModuleList(DecoderLayer(config) for _ in range(config.n_layers))
        self.layer_norm_out = nn.LayerNorm(config.d_model)

    @property
    def layers(self) -> list[DecoderLayer]:
        """The layers with their type."""
        return [cast(DecoderLayer, layer) for layer in self.layer_stack]

    def remember(self, encoded: Tensor, lengths: Tensor) -> CrossMemory:
        """Project the encoder output (N, T', d) once for all steps and beams."""
        layers = [layer.cross_attn for layer in self.layers]
        padded = torch.arange(encoded.shape[1], device=encoded.device)[None] >= lengths[:, None]
        bias = torch.zeros(padded.shape, dtype=encoded.dtype, device=encoded.device).masked_fill(padded, float("-inf"))
        keys = [a.heads(a.w_ks(encoded)) for a in layers]
        return CrossMemory(keys, [a.heads(a.w_vs(encoded)) for a in layers], bias[:, None, None])

    def start(self, memory: CrossMemory, beams: int, capacity: int = 32) -> DecoderState:
        """Empty caches for N utterances with `beams` hypotheses each."""
        n, h, _, d_k = memory.keys[0].shape
        empty = [memory.keys[0].new_zeros(n * beams, h, capacity, d_k) for _ in range(2 * len(memory.keys))]
        return DecoderState(memory, beams, 0, empty[::2], empty[1::2])

    def step(self, tokens: Tensor, state: DecoderState) -> Tensor:
        """Score the token after the newest one.

        Args:
            tokens: (N·B,) newest token of each hypothesis.
            state: caches, extended in place.

        Returns:
            (N·B, V) logits.
        """
        state.reserve()
        x = self._embed(tokens[:, None], state.length)
        for i, layer in enumerate(self.layers):
            x = x + self._self_attention(layer.self_attn, layer.self_attn_norm(x), state, i)
            x = x + self._cross_attention(layer.cross_attn, layer.cross_attn_norm(x), state, i)
            x = x + layer.mlp(layer.mlp_norm(x))
        state.length += 1
        return F.linear(self.layer_norm_out(x[:, 0]), self.tgt_word_emb.weight)

    def forward(self, tokens: Tensor, memory: CrossMemory) -> Tensor:
        """Score all positions of given sequences at once: (N, L) → (N, L, V)."""
        x = self._embed(tokens, 0)
        size = tokens.shape[1]
        causal = torch.full((size, size), float("-inf"), device=x.device, dtype=x.dtype).triu(1)
        for i, layer in enumerate(self.layers):
            y, a = layer.self_attn_norm(x), layer.self_attn
            x = x + a.attend(a.heads(a.w_qs(y)), a.heads(a.w_ks(y)), a.heads(a.w_vs(y)), causal)
            c = layer.cross_attn
            q = c.heads(c.w_qs(layer.cross_attn_norm(x)))
            x = x + c.attend(q, memory.keys[i], memory.values[i], memory.bias)
            x = x + layer.mlp(layer.mlp_norm(x))
        return F.linear(self.layer_norm_out(x), self.tgt_word_emb.weight)

    def _embed(self, tokens: Tensor, first: int) -> Tensor:
        table = positions(first, tokens.shape[1], self.config.d_model).to(self.tgt_word_emb.weight)
        embedded: Tensor = self.tgt_word_emb(tokens) * math.sqrt(self.config.d_model) + table
        return embedded

    def _self_attention(self, a: Attention, y: Tensor, state: DecoderState, i: int) -> Tensor:
        end = state.length + 1
        state.keys[i][:, :, state.length] = a.heads(a.w_ks(y))[:, :, 0]
        state.values[i][:, :, state.length] = a.heads(a.w_vs(y))[:, :, 0]
        return a.attend(a.heads(a.w_qs(y)), state.keys[i][:, :, :end], state.values[i][:, :, :end], None)

    def _cross_attention(self, a: Attention, y: Tensor, state: DecoderState, i: int) -> Tensor:
        beams = y.view(-1, state.beams, y.shape[-1])  # the beams of an utterance are queries of one attention
        memory = state.memory
        return a.attend(a.heads(a.w_qs(beams)), memory.keys[i], memory.values[i], memory.bias).reshape(y.shape)
