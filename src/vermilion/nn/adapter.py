"""The adapter between encoder and language model (SPEC section 12)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SpeechAdapter(nn.Module):
    """Joins neighbouring encoder frames and brings them to the width of the language model."""

    def __init__(self, d_model: int, width: int, rate: int = 2) -> None:
        """Build the two layers.

        Args:
            d_model: width of the encoder.
            width: of the language model.
            rate: encoder frames that become one vector.
        """
        super().__init__()
        self.rate = rate
        self.linear1 = nn.Linear(d_model * rate, width)
        self.linear2 = nn.Linear(width, width)

    def forward(self, encoded: Tensor) -> Tensor:
        """(N, T', d) → (N, T' // rate, width); frames that fill no vector are dropped."""
        count, frames, width = encoded.shape
        vectors = frames // self.rate
        joined = encoded[:, : vectors * self.rate].reshape(count, vectors, self.rate * width)
        result: Tensor = self.linear2(torch.relu(self.linear1(joined)))
        return result
