"""External language model as a score processor of the beam search (SPEC section 5)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vermilion.checkpoints.reader import load_strict, read_checkpoint
from vermilion.errors import CheckpointError
from vermilion.nn.lstm_lm import LstmConfig, LstmLanguageModel, LstmState

EOS = 4  # fixed by the published code, whatever the recogniser's end token is
EOS_FACTOR = 3.0


@dataclass
class LanguageModelScorer:
    """Adds a weighted language model score to each step."""

    network: LstmLanguageModel
    weight: float

    def add(
        self, scores: Tensor, newest: Tensor, finished: Tensor, state: LstmState | None
    ) -> tuple[Tensor, LstmState | None]:
        """Add to the (n, B, V) scores of the tokens after `newest` (n, B); finished hypotheses are left alone."""
        extra, state = self.network(newest.flatten(), state)
        extra = extra.view(scores.shape) * (~finished)[..., None]
        extra[..., EOS] *= EOS_FACTOR
        return scores + self.weight * extra, state

    def reorder(self, state: LstmState | None, parents: Tensor) -> LstmState | None:
        """Let each hypothesis continue the state of its parent, (n, B) places within the utterance."""
        first = torch.arange(len(parents), device=parents.device)[:, None] * parents.shape[1]
        return _rows(state, (first + parents).flatten())

    def select(self, state: LstmState | None, utterances: Tensor, beams: int) -> LstmState | None:
        """Keep the hypotheses of some utterances."""
        return _rows(state, (utterances[:, None] * beams + torch.arange(beams, device=utterances.device)).flatten())


def _rows(state: LstmState | None, rows: Tensor) -> LstmState | None:
    return None if state is None else (state[0][:, rows], state[1][:, rows])


def load_language_model(folder: str | Path) -> LstmLanguageModel:
    """Read an external LM folder.

    Raises:
        CheckpointError: not an LSTM language model of the published form.
    """
    checkpoint = read_checkpoint(folder)
    width = checkpoint.arg("embedding_dim")
    if checkpoint.arg("hidden_size") != width or checkpoint.arg("idim") != checkpoint.arg("odim"):
        raise CheckpointError(f"{checkpoint.path}: hidden and embedding size, and idim and odim, must be equal")
    state = dict(checkpoint.state)
    if checkpoint.args.get("tie_weights"):
        state.setdefault("fc.weight", state["embedding.weight"])
    network = LstmLanguageModel(LstmConfig(checkpoint.arg("idim"), width, checkpoint.arg("num_layers")))
    load_strict(network, state, checkpoint.path)
    return network.eval()
