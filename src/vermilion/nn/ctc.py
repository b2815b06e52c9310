"""CTC head on the encoder output (SPEC section 7)."""

from __future__ import annotations

from torch import Tensor, nn


class CtcHead(nn.Module):
    """Linear and log-softmax over the vocabulary; id 0 is the blank."""

    def __init__(self, d_model: int, vocabulary: int) -> None:
        super().__init__()
        self.ctc_lo = nn.Linear(d_model, vocabulary)

    def forward(self, encoded: Tensor) -> Tensor:
        """(N, T', d) → (N, T', V) float32 log-probabilities."""
        logits: Tensor = self.ctc_lo(encoded)
        return logits.float().log_softmax(-1)
