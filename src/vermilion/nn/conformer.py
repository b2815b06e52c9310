"""Conformer encoder with relative positions (SPEC section 3; shared by AED, LID and LLM)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class ConformerConfig:
    """Sizes of the encoder."""

    n_mels: int = 80
    d_model: int = 1280
    n_head: int = 20
    n_layers: int = 16
    kernel_size: int = 33


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
    return sinusoids(frames - 1, 2 * frames - 1, d_model)


class Subsampling(nn.Module):
    """Two strided convolutions: (N, T, 80) → (N, ceil(T/4), d)."""

    def __init__(self, n_mels: int, d_model: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(1, 32, 3, 2), nn.ReLU(), nn.Conv2d(32, 32, 3, 2), nn.ReLU())
        self.out = nn.Linear(32 * (((n_mels - 1) // 2 - 1) // 2), d_model)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, mel) → (N, T', d)."""
        x = self.conv(F.pad(x, (0, 0, 0, 6)).unsqueeze(1))
        result: Tensor = self.out(x.transpose(1, 2).flatten(2))  # channel is the slow index
        return result


class FeedForward(nn.Module):
    """Pre-norm feed-forward block, without its residual."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.LayerNorm(d_model),
            nn.Linear(d_model, 4 * d_model),
            nn.SiLU(),
            nn.Identity(),
            nn.Linear(4 * d_model, d_model),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, d) → (N, T, d)."""
        result: Tensor = self.net(x)
        return result


class RelativeAttention(nn.Module):
    """Self-attention with relative positions; adds its input."""

    def __init__(self, d_model: int, n_head: int) -> None:
        super().__init__()
        self.n_head = n_head
        self.layer_norm_q, self.layer_norm_k, self.layer_norm_v = (nn.LayerNorm(d_model) for _ in range(3))
        self.w_qs, self.w_ks, self.w_vs, self.linear_pos, self.fc = (
            nn.Linear(d_model, d_model, bias=False) for _ in range(5)
        )
        self.pos_bias_u = nn.Parameter(torch.zeros(n_head, d_model // n_head))
        self.pos_bias_v = nn.Parameter(torch.zeros(n_head, d_model // n_head))

    def forward(self, x: Tensor, positions: Tensor, key_bias: Tensor) -> Tensor:
        """x (N, T, d), positions (2T−1, d), key_bias (N, 1, 1, T) of 0 and −inf."""
        n, t, d = x.shape
        shape = (n, t, self.n_head, d // self.n_head)
        q = self.w_qs(self.layer_norm_q(x)).view(shape)
        k = self.w_ks(self.layer_norm_k(x)).view(shape).transpose(1, 2)
        v = self.w_vs(self.layer_norm_v(x)).view(shape).transpose(1, 2)
        p = self.linear_pos(positions).view(1, 2 * t - 1, *shape[2:]).permute(0, 2, 3, 1)  # (1, h, dk, 2T−1)
        by_distance = (q + self.pos_bias_v).transpose(1, 2) @ p  # (N, h, T, 2T−1)
        # score(i, j) uses column T−1−i+j: each row shifted by one, as a strided view without a copy
        s = by_distance.stride()
        shifted = by_distance.as_strided(
            (n, self.n_head, t, t), (s[0], s[1], s[2] - s[3], s[3]), by_distance.storage_offset() + (t - 1) * s[3]
        )
        bias = shifted / math.sqrt(shape[3]) + key_bias
        out = F.scaled_dot_product_attention((q + self.pos_bias_u).transpose(1, 2), k, v, attn_mask=bias)
        result: Tensor = x + self.fc(out.transpose(1, 2).reshape(n, t, d))
        return result


class ConvolutionModule(nn.Module):
    """Pointwise, GLU, depthwise, norm, Swish, pointwise; adds its input."""

    def __init__(self, d_model: int, kernel_size: int) -> None:
        super().__init__()
        self.pre_layer_norm = nn.LayerNorm(d_model)
        self.pointwise_conv1 = nn.Conv1d(d_model, 4 * d_model, 1, bias=False)
        self.depthwise_conv = nn.Conv1d(
            2 * d_model, 2 * d_model, kernel_size, padding=(kernel_size - 1) // 2, groups=2 * d_model, bias=False
        )
        self.batch_norm = nn.LayerNorm(2 * d_model)  # a layer norm in spite of its published name
        self.pointwise_conv2 = nn.Conv1d(2 * d_model, d_model, 1, bias=False)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """x (N, T, d), valid (N, T, 1) of 0 and 1."""
        y = F.linear(self.pre_layer_norm(x) * valid, self.pointwise_conv1.weight[:, :, 0])
        y = self.depthwise_conv(F.glu(y, dim=-1).transpose(1, 2)).transpose(1, 2)
        y = F.linear(F.silu(self.batch_norm(y)), self.pointwise_conv2.weight[:, :, 0])
        result: Tensor = x + y * valid
        return result


class ConformerBlock(nn.Module):
    """Feed-forward, attention, convolution, feed-forward, norm."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        self.ffn1 = FeedForward(config.d_model)
        self.mhsa = RelativeAttention(config.d_model, config.n_head)
        self.conv = ConvolutionModule(config.d_model, config.kernel_size)
        self.ffn2 = FeedForward(config.d_model)
        self.layer_norm = nn.LayerNorm(config.d_model)

    def forward(self, x: Tensor, positions: Tensor, valid: Tensor, key_bias: Tensor) -> Tensor:
        """(N, T, d) → (N, T, d)."""
        x = x + 0.5 * self.ffn1(x)
        x = self.mhsa(x, positions, key_bias)
        x = self.conv(x, valid)
        x = x + 0.5 * self.ffn2(x)
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
        valid = torch.arange(x.shape[1], device=x.device)[None] < lengths[:, None]
        key_bias = torch.zeros(valid.shape, dtype=x.dtype, device=x.device).masked_fill(~valid, float("-inf"))[
            :, None, None
        ]
        positions = _relative_table(x.shape[1], self.config.d_model).to(x)
        mask = valid[:, :, None].to(x.dtype)
        for block in self.layer_stack:
            x = block(x, positions, mask, key_bias)
        return x, lengths
