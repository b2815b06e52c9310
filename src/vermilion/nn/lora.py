"""Low-rank additions to linear layers (LoRA)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LoraLinear(nn.Module):
    """y = W x + scale · B (A x), with W left as it is."""

    def __init__(self, base: nn.Module, a: Tensor, b: Tensor, scale: float) -> None:
        """Take the layer, A (r, in), B (out, r) and the factor alpha / r."""
        super().__init__()
        self.base = base
        self.a = nn.Parameter(a, requires_grad=False)
        self.b = nn.Parameter(b, requires_grad=False)
        self.scale = scale
        self.dropout = 0.0
        """in training: of what goes into A"""

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) → (…, out)."""
        given = nn.functional.dropout(x, self.dropout, self.training) if self.dropout else x
        result: Tensor = self.base(x) + self.scale * nn.functional.linear(nn.functional.linear(given, self.a), self.b)
        return result


def merged_weight(weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """W + scale · B A, summed in float32 and rounded once to the type of W."""
    with torch.no_grad():
        added = torch.addmm(weight.float(), b.to(weight.device).float(), a.to(weight.device).float(), alpha=scale)
        return added.to(weight.dtype)
