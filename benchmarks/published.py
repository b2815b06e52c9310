"""The published recogniser (PyPI package `fireredasr` 0.0.2, first generation: same networks, same search) as a peer.

    pip install --no-deps fireredasr

It is loaded with the weights of a model folder, so that both sides do the same arithmetic.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from vermilion.checkpoints.reader import read_checkpoint


class Published:
    """Encoder and beam search as published, one utterance or batch at a time."""

    def __init__(self, folder: Path) -> None:
        from fireredasr.models.fireredasr_aed import FireRedAsrAed

        checkpoint = read_checkpoint(folder)
        args = argparse.Namespace(**checkpoint.args)
        state = {k: v.clone() for k, v in checkpoint.state.items() if not k.startswith("ctc.")}
        state["decoder.tgt_word_prj.weight"] = state["decoder.tgt_word_emb.weight"]
        self.network = FireRedAsrAed.from_args(args).eval()
        self.network.load_state_dict(state, strict=False, assign=True)  # position tables are its own

    @torch.inference_mode()
    def encode(self, features: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, T, 80) → (N, T', d) and its mask."""
        encoded, _, mask = self.network.encoder(features, lengths)
        return encoded, mask

    @torch.inference_mode()
    def search(self, encoded: torch.Tensor, mask: torch.Tensor, beam: int, steps: int) -> None:
        """Beam search of a fixed number of steps (random weights do not end by themselves)."""
        decoder = self.network.decoder
        decoder.eos_id = -1
        decoder.batch_beam_search(encoded, mask, beam, 1, steps, 1.25, 0.6, 1.0)
