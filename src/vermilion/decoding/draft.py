"""Greedy search with drafts: the decoder checks a proposed text in one pass and goes on from its first objection.

The result is that of the greedy search token by token; the drafts, here the CTC head's best paths, only decide how
many passes it takes (speculative decoding with exact agreement: Leviathan et al., 2023; Stern et al., 2018).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vermilion.decoding.beam import BeamHypothesis, StepScores, length_norm, step_limits
from vermilion.decoding.options import DecodingOptions

if TYPE_CHECKING:
    from vermilion.nn.decoder import DecoderState, TransformerDecoder

_LONGEST_CHECK = 128
"""tokens checked in one pass; bounds the memory of the scores"""
_LOOK = (1, -1, 2, -2, 3)
"""places around a rejected draft token where the decoder's own is looked for"""


@dataclass
class _Text:
    """The accepted text of one utterance and what its draft still proposes."""

    draft: Sequence[int]
    limit: int
    next: int = 0
    """first draft token that was not checked"""
    ids: list[int] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    score: float = 0.0
    ended: bool = False

    @property
    def proposed(self) -> Sequence[int]:
        return self.draft[self.next : self.next + min(_LONGEST_CHECK, self.limit - len(self.ids)) - 1]

    @property
    def done(self) -> bool:
        return self.ended or len(self.ids) >= self.limit

    def accept(self, predicted: list[int], scores: list[float], eos: int) -> int:
        """Take the decoder's tokens as long as they follow the draft, and the first that does not.

        Args:
            predicted: the decoder's token after the newest one and after each proposed one.
            scores: their log-probabilities.
            eos: end token.

        Returns:
            How many proposed tokens were right.
        """
        proposed = self.proposed
        for place in range(len(proposed) + 1):
            token = predicted[place]
            self.score += scores[place]
            if token == eos:
                self.ended = True
                return place
            self.ids.append(token)
            self.probabilities.append(math.exp(scores[place]))
            if place == len(proposed) or token != proposed[place]:
                self.next = self._continuation(self.next + place, token)
                return place
        return len(proposed)

    def _continuation(self, rejected: int, token: int) -> int:
        """Where the draft goes on after the decoder put `token` in place of the draft's."""
        for offset in _LOOK:
            place = rejected + offset
            if 0 <= place < len(self.draft) and self.draft[place] == token:
                return place + 1
        return rejected + 1


@torch.inference_mode()
def drafted_greedy_search(
    decoder: TransformerDecoder,
    encoded: Tensor,
    lengths: Tensor,
    options: DecodingOptions,
    drafts: Sequence[Sequence[int]],
    *,
    sos: int,
    eos: int,
    forbidden: Collection[int] = (),
    max_steps: Sequence[int] | None = None,
) -> list[list[BeamHypothesis]]:
    """Find the greedy text of each utterance with few passes of the decoder.

    Args:
        decoder: network with caches.
        encoded: (N, T', d) encoder output.
        lengths: (N,) valid encoder frames.
        options: scoring and limits; the beam size is taken as one.
        drafts: proposed tokens per utterance.
        sos: start token.
        eos: end token.
        forbidden: tokens that are never emitted.
        max_steps: limit per utterance, as in `beam_search`.

    Returns:
        Per utterance one hypothesis, as `beam_search` with a beam of one gives it.
    """
    limits = step_limits(lengths, options, max_steps).tolist()
    texts = [_Text(draft, limit) for draft, limit in zip(drafts, limits, strict=True)]
    state = decoder.start(decoder.remember(encoded, lengths))
    score = StepScores(options, eos, forbidden, encoded.device)
    active = list(texts)
    seen = torch.zeros(len(texts), 0, dtype=torch.bool, device=encoded.device)  # slots of accepted tokens
    while active:
        seen = _check(decoder, state, active, seen, score, sos)
        kept = [i for i, text in enumerate(active) if not text.done]
        if len(kept) < len(active):
            rows = torch.tensor(kept, dtype=torch.long, device=encoded.device)
            active, seen = [active[i] for i in kept], seen[rows]
            if active:
                state.select(rows)
    return [[_hypothesis(text, options)] for text in texts]


def _check(
    decoder: TransformerDecoder, state: DecoderState, texts: list[_Text], seen: Tensor, score: StepScores, sos: int
) -> Tensor:
    """One pass over the newest token and the proposed ones of every text; returns the (N, used) slots accepted."""
    device = seen.device
    rows = [[text.ids[-1] if text.ids else sos, *text.proposed] for text in texts]
    width = max(len(row) for row in rows)
    tokens = torch.tensor([row + [sos] * (width - len(row)) for row in rows], device=device)
    first = torch.tensor([len(text.ids) for text in texts], device=device)
    causal = torch.ones(width, width, dtype=torch.bool, device=device).tril()
    visible = torch.cat([seen[:, None].expand(-1, width, -1), causal.expand(len(rows), -1, -1)], dim=-1)
    positions = first[:, None] + torch.arange(width, device=device)
    logits = decoder.extend(tokens, positions, visible, state)
    best = score.adjusted(score.log_probabilities(logits)).max(dim=-1)
    predicted, scores = best.indices.tolist(), best.values.tolist()
    right = [text.accept(p, s, score.eos) for text, p, s in zip(texts, predicted, scores, strict=True)]
    # the newest token and the right proposals stay; the slots of the others are never looked at again
    kept = torch.arange(width, device=device) <= torch.tensor(right, device=device)[:, None]
    most = max(right) + 1
    state.used -= width - most  # what no text accepted is overwritten by the next pass
    return torch.cat([seen, kept[:, :most]], dim=1)


def _hypothesis(text: _Text, options: DecodingOptions) -> BeamHypothesis:
    score = text.score / length_norm(len(text.ids), options.length_penalty)
    return BeamHypothesis(text.ids, text.probabilities, score, text.ended)
