"""Rescoring: the CTC head proposes texts, the decoder scores all of them in one pass."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vermilion.decoding.beam import BeamHypothesis, StepScores, length_norm
from vermilion.decoding.ctc import prefix_beam_search
from vermilion.decoding.options import DecodingOptions

if TYPE_CHECKING:
    from vermilion.nn.decoder import TransformerDecoder

CTC_WEIGHT = 0.3
"""share of the CTC score beside the decoder's"""
LEAST_PROPOSALS = 8


@torch.inference_mode()
def rescored_search(
    decoder: TransformerDecoder,
    encoded: Tensor,
    lengths: Tensor,
    options: DecodingOptions,
    posteriors: Sequence[NDArray[np.float32]],
    *,
    sos: int,
    eos: int,
    forbidden: Collection[int] = (),
) -> list[list[BeamHypothesis]]:
    """Choose among the CTC head's best texts by the scores of decoder and CTC head together.

    Args:
        decoder: network with caches.
        encoded: (N, T', d) encoder output.
        lengths: (N,) valid encoder frames.
        options: beam size (texts proposed: at least 8), scoring, number of hypotheses.
        posteriors: per utterance (T', V) CTC log-probabilities.
        sos: start token.
        eos: end token.
        forbidden: tokens that are never emitted.

    Returns:
        Per utterance the n best hypotheses, the best first.
    """
    score = StepScores(options, eos, forbidden, encoded.device)
    count = max(LEAST_PROPOSALS, options.beam_size)
    results = []
    for i, posterior in enumerate(posteriors):
        proposals = prefix_beam_search(posterior, count, {*forbidden, eos})
        frames = lengths[i : i + 1]
        memory = decoder.remember(encoded[i : i + 1, : int(frames)], frames).repeated(len(proposals))
        rows = [ids for ids, _ in proposals]
        width = max(len(ids) for ids in rows) + 1
        tokens = torch.tensor([[sos, *ids] + [sos] * (width - 1 - len(ids)) for ids in rows], device=encoded.device)
        step = score.adjusted(score.log_probabilities(decoder(tokens, memory)))
        wanted = torch.tensor([[*ids] + [eos] * (width - len(ids)) for ids in rows], device=encoded.device)
        chances = step.gather(-1, wanted[..., None])[..., 0].tolist()
        found = [_hypothesis(ids, c, row, options) for (ids, c), row in zip(proposals, chances, strict=True)]
        results.append(sorted(found, key=lambda h: -h.score)[: options.nbest])
    return results


def _hypothesis(ids: list[int], ctc: float, scores: list[float], options: DecodingOptions) -> BeamHypothesis:
    total = sum(scores[: len(ids) + 1]) + CTC_WEIGHT * ctc
    probabilities = np.exp(scores[: len(ids)]).tolist()
    return BeamHypothesis(ids, probabilities, total / length_norm(len(ids), options.length_penalty), True)
