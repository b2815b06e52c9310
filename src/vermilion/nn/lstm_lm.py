"""LSTM language model for shallow fusion (SPEC section 5)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

LstmState = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class LstmConfig:
    """Sizes of the language model."""

    vocabulary: int
    width: int
    n_layers: int


class LstmLanguageModel(nn.Module):
    """Scores the next token from the tokens so far; the vocabulary is the recogniser's."""

    def __init__(self, config: LstmConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.lstm = nn.LSTM(config.width, config.width, config.n_layers, batch_first=True)
        self.fc = nn.Linear(config.width, config.vocabulary)

    def forward(self, tokens: Tensor, state: LstmState | None) -> tuple[Tensor, LstmState]:
        """Feed the newest tokens (M,); return float32 log-probabilities (M, V) and the new state."""
        hidden, state = self.lstm(self.embedding(tokens[:, None]), state)
        return self.fc(hidden[:, 0]).float().log_softmax(-1), state
