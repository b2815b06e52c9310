"""Batched beam search with the published scoring (SPEC section 5)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
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
    """Hypotheses of the utterances still at work: n of N utterances with B hypotheses each, all on the device."""

    def __init__(self, count: int, beams: int, sos: int, device: torch.device) -> None:
        self.count = count
        self.rows = torch.arange(count)  # utterance of each row
        self.tokens = torch.full((count, beams), sos, dtype=torch.long, device=device)  # newest of each hypothesis
        self.scores = torch.full((count, beams), IMPOSSIBLE, device=device)
        self.scores[:, 0] = 0.0
        self.finished = torch.zeros(count, beams, dtype=torch.bool, device=device)
        self.visible = torch.zeros(count, beams, 0, dtype=torch.bool, device=device)  # slots seen by each hypothesis
        self._own = torch.eye(beams, dtype=torch.bool, device=device)
        self._steps: list[tuple[Tensor, Tensor, Tensor]] = []  # per step (N, B): token, parent, probability

    def seen(self) -> Tensor:
        """(n, B, used + B) slots that the newest tokens see: those of their history and their own."""
        self.visible = torch.cat([self.visible, self._own.expand(len(self.rows), -1, -1)], dim=-1)
        return self.visible

    def extend(self, step: Tensor, eos: int) -> Tensor:
        """Keep the best B of the B·B candidates of each utterance.

        Args:
            step: (n, B, V) scores of the next token.
            eos: end token.

        Returns:
            (n, B) the hypothesis that each new one continues.
        """
        beams, vocabulary = step.shape[1:]
        best, ids = step.topk(min(beams, vocabulary), dim=-1)
        width = best.shape[-1]
        stop = torch.full_like(best, IMPOSSIBLE)
        stop[..., 0] = 0.0
        best = torch.where(self.finished[..., None], stop, best)
        ids = ids.masked_fill(self.finished[..., None], eos)
        total = (self.scores[..., None] + best).flatten(1)  # candidate = parent · width + rank
        order = total.sort(dim=1, descending=True, stable=True).indices[:, :beams]  # stable: the lower index wins ties
        parents = order // width
        self.tokens = ids.flatten(1).gather(1, order)
        self.scores = total.gather(1, order)
        self.finished = self.tokens == eos
        self.visible = self.visible.gather(1, parents[..., None].expand(-1, -1, self.visible.shape[-1]))
        self._record(self.tokens, parents, best.flatten(1).gather(1, order).exp())
        return parents

    def _record(self, *values: Tensor) -> None:
        """Remember one step; histories are read off backwards when an utterance is done."""
        index = self.rows.to(self.tokens.device)
        token, parent, probability = (v.new_zeros(self.count, v.shape[1]).index_copy_(0, index, v) for v in values)
        self._steps.append((token, parent, probability))

    def history(self, row: int) -> list[tuple[list[int], list[float]]]:
        """Tokens and probabilities of each hypothesis of a row, ends included."""
        utterance = int(self.rows[row])
        hypotheses: list[tuple[list[int], list[float]]] = []
        columns = [torch.stack([step[i][utterance] for step in self._steps]).tolist() for i in range(3)]
        for hypothesis in range(self.tokens.shape[1]):
            ids, chances, at = [], [], hypothesis
            for token, parent, probability in zip(*(reversed(c) for c in columns), strict=True):
                ids.append(token[at])
                chances.append(probability[at])
                at = parent[at]
            hypotheses.append((ids[::-1], chances[::-1]))
        return hypotheses

    def select(self, keep: Tensor) -> None:
        """Keep some rows."""
        self.rows = self.rows[keep.cpu()]
        self.tokens, self.scores, self.finished = self.tokens[keep], self.scores[keep], self.finished[keep]
        self.visible = self.visible[keep]


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
    limits = step_limits(lengths, options, max_steps)
    results: list[list[BeamHypothesis]] = [[] for _ in limits]
    state = decoder.start(decoder.remember(encoded, lengths))
    beams = _Beams(len(limits), options.beam_size, sos, encoded.device)
    score = StepScores(options, eos, forbidden, encoded.device)
    lm_state = None
    step = 0
    while True:
        done = beams.finished.all(dim=1).cpu() | (limits[beams.rows] <= step)
        for row in done.nonzero().flatten().tolist():
            results[int(beams.rows[row])] = _ranked(beams, row, options, eos)
        if done.all():
            return results
        if done.any():  # what is done leaves the batch
            kept = (~done).nonzero().flatten().to(encoded.device)
            beams.select(kept)
            state.select(kept)
            if lm is not None:
                lm_state = lm.select(lm_state, kept, options.beam_size)
        logits = decoder.extend(beams.tokens, torch.full_like(beams.tokens, step), beams.seen(), state)
        scores = score.log_probabilities(logits)
        if lm is not None:
            scores, lm_state = lm.add(scores, beams.tokens, beams.finished, lm_state)
        parents = beams.extend(score.adjusted(scores), eos)
        if lm is not None:
            lm_state = lm.reorder(lm_state, parents)
        step += 1


def step_limits(lengths: Tensor, options: DecodingOptions, max_steps: Sequence[int] | None = None) -> Tensor:
    """(N,) most new tokens of each utterance."""
    return torch.as_tensor(max_steps if max_steps is not None else [options.max_tokens or n for n in lengths.tolist()])


@dataclass(frozen=True)
class StepScores:
    """Scores of the next token as the search adds them up."""

    options: DecodingOptions
    eos: int
    forbidden: Collection[int]
    device: torch.device

    def log_probabilities(self, logits: Tensor) -> Tensor:
        """(…, V) logits → float32 log-probabilities at the search's temperature."""
        return (logits.float() / self.options.softmax_smoothing).log_softmax(-1)

    def adjusted(self, scores: Tensor) -> Tensor:
        """Apply the factor on the end token and exclude what is never emitted, in place."""
        if self.options.eos_penalty != 1.0:
            scores[..., self.eos] *= self.options.eos_penalty
        scores[..., self._banned] = float("-inf")
        return scores

    @cached_property
    def _banned(self) -> Tensor:
        return torch.tensor(sorted(self.forbidden), dtype=torch.long, device=self.device)


def _ranked(beams: _Beams, row: int, options: DecodingOptions, eos: int) -> list[BeamHypothesis]:
    """The n best hypotheses of one utterance by length-normalised score."""
    found = []
    for (ids, chances), score in zip(beams.history(row), beams.scores[row].tolist(), strict=True):
        kept = [(t, p) for t, p in zip(ids, chances, strict=True) if t != eos]
        norm = length_norm(len(kept), options.length_penalty)
        found.append(BeamHypothesis([t for t, _ in kept], [p for _, p in kept], score / norm, eos in ids))
    return sorted(found, key=lambda h: -h.score)[: options.nbest]


def length_norm(tokens: int, penalty: float) -> float:
    """Divisor of a hypothesis' score; the start token counts."""
    norm: float = ((5 + tokens + 1) / 6) ** penalty
    return norm
