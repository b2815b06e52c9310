"""Conformer encoder with relative positions (SPEC section 3; shared by AED, LID and LLM)."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from vermilion.nn.packed import ExactLinear, Fusable, Pointwise, merged


@dataclass(frozen=True)
class ConformerConfig:
    """Sizes of the encoder."""

    n_mels: int = 80
    d_model: int = 1280
    n_head: int = 20
    n_layers: int = 16
    kernel_size: int = 33
    _: KW_ONLY
    dropout: float = 0.0
    """in training: of what each part adds, of attention weights, inside feed-forward"""
    checkpointing: bool = False
    """in training: compute the activations of a block again instead of keeping them"""


def sinusoids(first: int, count: int, d_model: int, step: int = -1) -> Tensor:
    """Sinusoids s(p) for p = first, first + step, … : (count, d_model) float32, sine and cosine interleaved."""
    position = first + step * torch.arange(count, dtype=torch.float32)[:, None]
    omega = torch.exp(torch.arange(0, d_model, 2, dtype=torch.float32) * -(math.log(10000.0) / d_model))
    table = torch.zeros(count, d_model)
    table[:, 0::2] = torch.sin(position * omega)
    table[:, 1::2] = torch.cos(position * omega)
    return table


@lru_cache(maxsize=16)
def _relative_table(frames: int, d_model: int) -> Tensor:
    """Row r holds s(frames − 1 − r): from the most positive distance to the most negative; no limit on length."""
    with torch.inference_mode(False):  # kept: training must be able to use what recognition made
        return sinusoids(frames - 1, 2 * frames - 1, d_model)


KEPT_POSITIONS = 512
"""projected position tables up to this many frames (20 s) are kept, in sizes of powers of two"""


def _table_size(frames: int) -> int:
    return frames if frames > KEPT_POSITIONS else max(32, 1 << (frames - 1).bit_length())


class Subsampling(nn.Module):
    """Two strided convolutions: (N, T, 80) → (N, ceil(T/4), d)."""

    def __init__(self, n_mels: int, d_model: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(1, 32, 3, 2), nn.ReLU(), nn.Conv2d(32, 32, 3, 2), nn.ReLU())
        self.out = ExactLinear(32 * (((n_mels - 1) // 2 - 1) // 2), d_model)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, mel) → (N, T', d)."""
        x = self.conv(F.pad(x, (0, 0, 0, 6)).unsqueeze(1))
        result: Tensor = self.out(x.transpose(1, 2).flatten(2))  # channel is the slow index
        return result


class FeedForward(nn.Module):
    """Pre-norm feed-forward block, without its residual."""

    def __init__(self, d_model: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.LayerNorm(d_model),
            nn.Linear(d_model, 4 * d_model),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Linear(4 * d_model, d_model),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, d) → (N, T, d)."""
        result: Tensor = self.net(x)
        return result


class RelativeAttention(Fusable):
    """Self-attention with relative positions; adds its input."""

    def __init__(self, d_model: int, n_head: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.n_head = n_head
        self.dropout = nn.Dropout(dropout)
        self.layer_norm_q, self.layer_norm_k, self.layer_norm_v = (nn.LayerNorm(d_model) for _ in range(3))
        self.w_qs, self.w_ks, self.w_vs, self.linear_pos, self.fc = (
            nn.Linear(d_model, d_model, bias=False) for _ in range(5)
        )
        self.pos_bias_u = nn.Parameter(torch.zeros(n_head, d_model // n_head))
        self.pos_bias_v = nn.Parameter(torch.zeros(n_head, d_model // n_head))
        self.w_qkv: nn.Module | None = None
        self._projected: Tensor | None = None

    def fuse(self) -> None:
        """One product for query, key and value: they differ only in the scale and shift of the same norm."""
        norms = (self.layer_norm_q, self.layer_norm_k, self.layer_norm_v)
        self.w_qkv = merged((self.w_qs, self.w_ks, self.w_vs), norms)
        del self.layer_norm_q, self.layer_norm_k, self.layer_norm_v, self.w_qs, self.w_ks, self.w_vs

    def forward(self, x: Tensor, positions: Tensor, key_bias: Tensor | None) -> Tensor:
        """x (N, T, d), positions (2P−1, d) with P ≥ T, key_bias (N, 1, 1, T) of 0 and −inf or None without padding."""
        n, t, d = x.shape
        q, k, v = (part.view(n, t, self.n_head, d // self.n_head) for part in self._queries_keys_values(x))
        p = self._distances(positions, t)  # (h, d_k, 2T−1)
        by_distance = ((q + self.pos_bias_v) / math.sqrt(d // self.n_head)).transpose(1, 2) @ p  # (N, h, T, 2T−1)
        # score(i, j) uses column T−1−i+j: each row shifted by one, as a strided view without a copy
        s = by_distance.stride()
        bias = by_distance.as_strided(
            (n, self.n_head, t, t), (s[0], s[1], s[2] - s[3], s[3]), by_distance.storage_offset() + (t - 1) * s[3]
        )
        if key_bias is not None:
            bias = bias.add_(key_bias) if not self.training else bias + key_bias
        heads = ((q + self.pos_bias_u).transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        dropped = self.dropout.p if self.training else 0.0
        out = F.scaled_dot_product_attention(*heads, attn_mask=bias, dropout_p=dropped)
        result: Tensor = x + self.dropout(self.fc(out.transpose(1, 2).reshape(n, t, d)))
        return result

    def _queries_keys_values(self, x: Tensor) -> tuple[Tensor, ...]:
        if self.w_qkv is not None:
            joint: Tensor = self.w_qkv(F.layer_norm(x, x.shape[-1:]))
            return joint.chunk(3, dim=-1)
        return self.w_qs(self.layer_norm_q(x)), self.w_ks(self.layer_norm_k(x)), self.w_vs(self.layer_norm_v(x))

    def _distances(self, positions: Tensor, t: int) -> Tensor:
        """Projected positions of the 2T−1 distances of T frames: the middle of any longer table."""
        rows = len(positions)
        p = self._projected
        if p is None or p.shape[-1] != rows or p.dtype != positions.dtype or p.device != positions.device:
            p = self.linear_pos(positions).view(rows, self.n_head, -1).permute(1, 2, 0)
            keep = self.w_qkv is not None and rows < 2 * KEPT_POSITIONS
            self._projected = p.contiguous() if keep else None
        middle = rows // 2
        return p[..., middle - t + 1 : middle + t]


class ConvolutionModule(nn.Module):
    """Pointwise, GLU, depthwise, norm, Swish, pointwise; adds its input."""

    def __init__(self, d_model: int, kernel_size: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.pre_layer_norm = nn.LayerNorm(d_model)
        self.pointwise_conv1 = Pointwise(d_model, 4 * d_model)
        self.depthwise_conv = nn.Conv1d(
            2 * d_model, 2 * d_model, kernel_size, padding=(kernel_size - 1) // 2, groups=2 * d_model, bias=False
        )
        self.batch_norm = nn.LayerNorm(2 * d_model)  # a layer norm in spite of its published name
        self.pointwise_conv2 = Pointwise(2 * d_model, d_model)

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """x (N, T, d), valid (N, T, 1) of 0 and 1 or None without padding."""
        y = self.pre_layer_norm(x)
        y = F.glu(self.pointwise_conv1(y if valid is None else y * valid), dim=-1)
        y = F.silu(self.batch_norm(self._depthwise(y)))
        y = self.dropout(self.pointwise_conv2(y))
        result: Tensor = x + (y if valid is None else y * valid)
        return result

    def _depthwise(self, y: Tensor) -> Tensor:
        """(N, T, C) → (N, T, C); as a flat image with the channels last, which is 20 times faster on a CPU."""
        conv = self.depthwise_conv
        image = y.transpose(1, 2).unsqueeze(2)  # (N, C, 1, T)
        out = F.conv2d(image, conv.weight.unsqueeze(2), padding=(0, conv.kernel_size[0] // 2), groups=conv.groups)
        return out.squeeze(2).transpose(1, 2)


class ConformerBlock(nn.Module):
    """Feed-forward, attention, convolution, feed-forward, norm."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        self.ffn1 = FeedForward(config.d_model, config.dropout)
        self.mhsa = RelativeAttention(config.d_model, config.n_head, config.dropout)
        self.conv = ConvolutionModule(config.d_model, config.kernel_size, config.dropout)
        self.ffn2 = FeedForward(config.d_model, config.dropout)
        self.layer_norm = nn.LayerNorm(config.d_model)

    def forward(self, x: Tensor, positions: Tensor, valid: Tensor | None, key_bias: Tensor | None) -> Tensor:
        """(N, T, d) → (N, T, d)."""
        x = torch.add(x, self.ffn1(x), alpha=0.5)
        x = self.mhsa(x, positions, key_bias)
        x = self.conv(x, valid)
        x = torch.add(x, self.ffn2(x), alpha=0.5)
        result: Tensor = self.layer_norm(x)
        return result


class ConformerEncoder(nn.Module):
    """Features → encoder frames of 40 ms."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        self.config = config
        self.input_preprocessor = Subsampling(config.n_mels, config.d_model)
        self.layer_stack = nn.ModuleList(ConformerBlock(config) for _ in range(config.n_layers))

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encode a padded batch.

        Args:
            features: (N, T, 80) float, padded with zeros.
            lengths: (N,) valid frames.

        Returns:
            (N, T', d) and (N,) valid lengths ceil(length / 4); frames past a length carry no meaning.
        """
        x = self.input_preprocessor(features)
        lengths = (lengths + 3) // 4
        frames = x.shape[1]
        mask, key_bias = None, None
        if bool((lengths < frames).any()):
            valid = torch.arange(frames, device=x.device)[None] < lengths[:, None]
            mask = valid[:, :, None].to(x.dtype)
            key_bias = torch.zeros(valid.shape, dtype=x.dtype, device=x.device).masked_fill(~valid, float("-inf"))
            key_bias = key_bias[:, None, None]
        positions = _relative_table(_table_size(frames), self.config.d_model).to(x)
        for block in self.layer_stack:
            if self.training and self.config.checkpointing:
                x = checkpoint(block, x, positions, mask, key_bias, use_reentrant=False)
            else:
                x = block(x, positions, mask, key_bias)
        return x, lengths
