"""Makes a Qwen2-shaped language model safe in float16.

Two places leave float16's range of 65,504: the residual stream, where a few channels grow very large, and the product
of gate and up projection. The stream is kept in float32 here, and the product is scaled down before the last
projection and up behind it; the large matrices stay in float16.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

SAFE = 64.0
"""largest input of the last projection: rows of 19,000 weights of usual size still sum within the range"""


class HalfNorm(nn.Module):
    """A norm that reads the float32 stream and hands float16 to the layers behind it."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """(…, d) float32 → (…, d) float16."""
        result: Tensor = self.norm(x).to(torch.float16)
        return result


class WideGatedMlp(nn.Module):
    """down(act(gate(x)) · up(x)) with the product in float32."""

    def __init__(self, mlp: nn.Module) -> None:
        super().__init__()
        self.mlp = mlp

    def forward(self, x: Tensor) -> Tensor:
        """(…, d) float16 → (…, d) float32."""
        mlp = cast(Any, self.mlp)
        product = mlp.act_fn(mlp.gate_proj(x).float()) * mlp.up_proj(x).float()
        scale = product.abs().amax(-1, keepdim=True).clamp_min(SAFE) / SAFE
        result: Tensor = mlp.down_proj((product / scale).to(torch.float16)).float() * scale
        return result


class HalfRotary(nn.Module):
    """Rotary tables in float16, although the stream that they are made for is float32."""

    def __init__(self, rotary: nn.Module) -> None:
        super().__init__()
        self.rotary = rotary

    def forward(self, *arguments: Any, **named: Any) -> tuple[Tensor, Tensor]:
        """Cosines and sines."""
        cos, sin = self.rotary(*arguments, **named)
        return cos.to(torch.float16), sin.to(torch.float16)


def guard(model: nn.Module) -> None:
    """Change a float16 model in place; its input embeddings must be float32 from now on.

    Args:
        model: `layers` with `input_layernorm`, `post_attention_layernorm` and a gated `mlp`; `norm`, `rotary_emb`.
    """
    network = cast(Any, model)
    for layer in network.layers:
        layer.input_layernorm = HalfNorm(layer.input_layernorm)
        layer.post_attention_layernorm = HalfNorm(layer.post_attention_layernorm)
        layer.mlp = WideGatedMlp(layer.mlp)
    network.norm = HalfNorm(network.norm)
    network.rotary_emb = HalfRotary(network.rotary_emb)
