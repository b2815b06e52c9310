"""Batched beam search with the published scoring (SPEC section 5)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vermilion.decoding.options import DecodingOptions
from vermilion.nn.decoder import TransformerDecoder

if TYPE_CHECKING:
    from vermilion.decoding.lm import LanguageModelScorer

IMPOSSIBLE = -1e10


@dataclass(frozen=True)
class BeamHypothesis:
    """One finished token sequence."""

    ids: list[int]
    """tokens without start and end"""
    probabilities: list[float]
    """the search's probability of each token"""
    score: float
    """length-normalised sum of the step scores"""
    finished: bool
    """False if the limit on steps cut it off"""

    @property
    def confidence(self) -> float:
        """Mean token probability; 0.0 where the published code gives NaN, for an empty sequence."""
        return sum(self.probabilities) / len(self.probabilities) if self.probabilities else 0.0


class _Beams:
    """Hypotheses of the utterances still at work: N utterances with B hypotheses each, all on the device."""

    def __init__(self, count: int, beams: int, sos: int, device: torch.device) -> None:
        self.tokens = torch.full((count, beams, 1), sos, dtype=torch.long, device=device)  # (N, B, L)
        self.probabilities = torch.ones(count, beams, 1, device=device)  # (N, B, L)
        self.scores = torch.full((count, beams), IMPOSSIBLE, device=device)
        self.scores[:, 0] = 0.0
        self.finished = torch.zeros(count, beams, dtype=torch.bool, device=device)

    def extend(self, step: Tensor, eos: int) -> Tensor:
        """Keep the best B of the B·B candidates of each utterance.

        Args:
            step: (N, B, V) scores of the next token.
            eos: end token.

        Returns:
            (N·B,) the row that each new hypothesis continues.
        """
        n, beams, vocabulary = step.shape
        best, ids = step.topk(min(beams, vocabulary), dim=-1)
        width = best.shape[-1]
        stop = torch.full_like(best, IMPOSSIBLE)
        stop[..., 0] = 0.0
        best = torch.where(self.finished[..., None], stop, best)
        ids = ids.masked_fill(self.finished[..., None], eos)
        total = (self.scores[..., None] + best).flatten(1)  # candidate = parent · width + rank
        order = total.sort(dim=1, descending=True, stable=True).indices[:, :beams]  # stable: the lower index wins ties
        parents = order // width
        newest = ids.flatten(1).gather(1, order)
        probability = best.flatten(1).gather(1, order).exp()
        self.tokens = torch.cat([_follow(self.tokens, parents), newest[..., None]], dim=-1)
        self.probabilities = torch.cat([_follow(self.probabilities, parents), probability[..., None]], dim=-1)
        self.scores = total.gather(1, order)
        self.finished = newest == eos
        return (torch.arange(n, device=step.device)[:, None] * beams + parents).flatten()

    def select(self, keep: Tensor) -> None:
        """Keep some utterances."""
        self.tokens, self.probabilities = self.tokens[keep], self.probabilities[keep]
        self.scores, self.finished = self.scores[keep], self.finished[keep]


def _follow(history: Tensor, parents: Tensor) -> Tensor:
    """(N, B, L) by (N, B) parents."""
    return history.gather(1, parents[..., None].expand(-1, -1, history.shape[-1]))


@torch.inference_mode()
def beam_search(
    decoder: TransformerDecoder,
    encoded: Tensor,
    lengths: Tensor,
    options: DecodingOptions,
    *,
    sos: int,
    eos: int,
    forbidden: Collection[int] = (),
    lm: LanguageModelScorer | None = None,
    max_steps: Sequence[int] | None = None,
) -> list[list[BeamHypothesis]]:
    """Search the best token sequences of a batch of utterances.

    Args:
        decoder: network with caches.
        encoded: (N, T', d) encoder output.
        lengths: (N,) valid encoder frames.
        options: beam size, scoring, limits.
        sos: start token.
        eos: end token.
        forbidden: tokens that are never emitted (blank, padding, start: the published search can emit them).
        lm: external language model.
        max_steps: limit per utterance; by default `options.max_tokens`, else the utterance's own encoder length
            (the published limit is that of the longest utterance in the batch).

    Returns:
        Per utterance the n best hypotheses, the best first.
    """
    limits = torch.as_tensor(
        max_steps if max_steps is not None else [options.max_tokens or n for n in lengths.tolist()]
    )
    results: list[list[BeamHypothesis]] = [[] for _ in limits]
    rows = torch.arange(len(limits))
    state = decoder.start(decoder.remember(encoded, lengths), options.beam_size)
    beams = _Beams(len(limits), options.beam_size, sos, encoded.device)
    banned = torch.tensor(sorted(forbidden), dtype=torch.long, device=encoded.device)
    lm_state = None
    step = 0
    while True:
        done = beams.finished.all(dim=1).cpu() | (limits[rows] <= step)
        for i in done.nonzero().flatten().tolist():
            results[int(rows[i])] = _ranked(beams, i, options, eos)
        if done.all():
            return results
        if done.any():  # what is done leaves the batch
            rows, kept = rows[~done], (~done).nonzero().flatten().to(encoded.device)
            beams.select(kept)
            state.select(kept)
            if lm is not None:
                lm_state = lm.select(lm_state, kept, options.beam_size)
        newest = beams.tokens[:, :, -1].flatten()
        logits = decoder.step(newest, state).float()
        scores = (logits / options.softmax_smoothing).log_softmax(-1)
        if lm is not None:
            scores, lm_state = lm.add(scores, newest, beams.finished.flatten(), lm_state)
        if options.eos_penalty != 1.0:
            scores[:, eos] *= options.eos_penalty
        scores[:, banned] = float("-inf")
        parents = beams.extend(scores.view(*beams.scores.shape, -1), eos)
        state.reorder(parents)
        if lm is not None:
            lm_state = lm.reorder(lm_state, parents)
        step += 1


def _ranked(beams: _Beams, i: int, options: DecodingOptions, eos: int) -> list[BeamHypothesis]:
    """The n best hypotheses of one utterance by length-normalised score."""
    tokens, probabilities = beams.tokens[i, :, 1:].tolist(), beams.probabilities[i, :, 1:].tolist()
    found = []
    for ids, chances, score in zip(tokens, probabilities, beams.scores[i].tolist(), strict=True):
        kept = [(t, p) for t, p in zip(ids, chances, strict=True) if t != eos]
        length = len(kept) + 1  # the start token counts
        norm = ((5 + length) / 6) ** options.length_penalty
        found.append(BeamHypothesis([t for t, _ in kept], [p for _, p in kept], score / norm, eos in ids))
    return sorted(found, key=lambda h: -h.score)[: options.nbest]
