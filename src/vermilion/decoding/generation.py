"""Greedy and beam search over a causal language model with the published scoring (SPEC section 12)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from vermilion.decoding.beam import BeamHypothesis
from vermilion.decoding.options import DecodingOptions

LOOP_CHECK = 16
"""steps between two looks for a loop"""
LOOP_WINDOW = 48
"""newest tokens that are looked at"""
LOOP_LONGEST = 12
"""tokens of the longest unit that counts as repeated"""
LOOP_TIMES = 4
"""times that a unit stands in a row in a loop, at least; short units fill half of the window"""


class Continuation(Protocol):
    """A language model behind its prompts; one row per hypothesis."""

    def advance(self, tokens: Tensor) -> Tensor:
        """Read (rows,) new tokens: (rows, V) logits of the next ones."""

    def select(self, rows: Tensor) -> None:
        """Go on with these rows, in this order; a row may be taken several times."""


@dataclass(frozen=True)
class Generated:
    """What was generated for one utterance."""

    hypotheses: list[BeamHypothesis]
    """the best first"""
    looped: bool = False
    """it was stopped because it repeated itself"""


@dataclass(frozen=True)
class _Closed:
    """A hypothesis that ended: its last token is that of `row` after `steps` steps."""

    score: float
    steps: int
    row: int
    finished: bool


@dataclass
class _Utterance:
    limit: int
    closed: list[_Closed] = field(default_factory=list)

    def close(self, hypothesis: _Closed, beams: int) -> None:
        """Keep the best closed hypotheses; of equal ones the earlier."""
        self.closed = sorted([*self.closed, hypothesis], key=lambda h: -h.score)[:beams]


class _History:
    """Tokens of all hypotheses as back-pointers; sequences are read off when an utterance is done."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.steps: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, rows: Tensor, tokens: Tensor, parents: Tensor, chances: Tensor) -> None:
        """Remember one step of the utterances `rows`: three times (n, B)."""
        wide = (v.new_zeros(self.count, v.shape[1]).index_copy_(0, rows, v) for v in (tokens, parents, chances))
        token, parent, chance = wide
        self.steps.append((token, parent, chance))

    def read(self, utterance: int, steps: int, row: int, most: int = 1 << 30) -> tuple[list[int], list[float]]:
        """The newest tokens, `most` at most, of the hypothesis that stands in `row` after so many steps."""
        ids: list[int] = []
        chances: list[float] = []
        part = self.steps[max(0, steps - most) : steps]
        columns = [torch.stack([step[i][utterance] for step in part]).tolist() if part else [] for i in range(3)]
        for token, parent, chance in zip(*(reversed(c) for c in columns), strict=True):
            ids.append(token[row])
            chances.append(chance[row])
            row = parent[row]
        return ids[::-1], chances[::-1]


@torch.inference_mode()
def generate(
    logits: Tensor,
    model: Continuation,
    options: DecodingOptions,
    *,
    end: int,
    limits: Sequence[int],
    stop_loops: bool = True,
) -> list[Generated]:
    """Search the best continuations of a batch of prompts.

    Args:
        logits: (N, V) of the first token of each.
        model: N rows, one per prompt.
        options: beam size, number of results, penalties, fewest tokens.
        end: end token.
        limits: most new tokens of each.
        stop_loops: give an utterance up that repeats itself.

    Returns:
        One entry per prompt. Token probabilities are those of the model, penalties left out.
    """
    count, beams, device = len(limits), 1 if options.search == "greedy" else options.beam_size, logits.device
    utterances = [_Utterance(limit) for limit in limits]
    results: list[Generated | None] = [None] * count
    history = _History(count)
    rows = list(range(count))
    scores = torch.zeros(count, 1, device=device)
    seen = _Seen(options.repetition_penalty, beams)
    step = 0
    while True:
        held = scores.shape[1]  # one hypothesis each at first, then `beams`
        raw = logits.float().log_softmax(-1).view(len(rows), held, -1)
        total = scores[..., None] + seen.adjusted(raw, logits, greedy=beams == 1)
        if step < options.min_tokens:
            total[..., end] = float("-inf")
        vocabulary = total.shape[-1]
        best, flat = total.flatten(1).topk(min(2 * beams, held * vocabulary), dim=1)
        step += 1
        norm = step**options.llm_length_penalty
        places, done = _ranked(best, flat, vocabulary, end, [utterances[i] for i in rows], beams, step, norm)
        chosen = torch.tensor(places, device=device)
        tokens, parents = (flat % vocabulary).gather(1, chosen), (flat // vocabulary).gather(1, chosen)
        scores = best.gather(1, chosen)
        chances = raw.flatten(1).gather(1, flat.gather(1, chosen)).exp()
        index = torch.tensor(rows, device=device)
        history.add(index, tokens, parents, chances)
        ended = any(step >= utterances[i].limit for i in rows)
        look = stop_loops and (step % LOOP_CHECK == 0 or ended)
        looped = _loops(history, rows, step) if look else [False] * len(rows)
        for at, i in enumerate(rows):
            if done[at] or looped[at] or step >= utterances[i].limit:
                if not done[at]:
                    for row, score in enumerate(scores[at].tolist()):
                        utterances[i].close(_Closed(score / norm, step, row, False), beams)
                results[i] = _result(history, i, utterances[i], options.nbest, looped[at] and not done[at])
        kept = [at for at, i in enumerate(rows) if results[i] is None]
        if not kept:
            return [r for r in results if r is not None]
        _reorder(model, parents, kept, held)
        rows = [rows[at] for at in kept]
        stay = torch.tensor(kept, device=device)
        seen.go_on(stay, tokens, parents, vocabulary)
        tokens, scores = tokens[stay], scores[stay]
        logits = model.advance(tokens.flatten())


def _ranked(
    best: Tensor,
    flat: Tensor,
    vocabulary: int,
    end: int,
    utterances: list[_Utterance],
    beams: int,
    step: int,
    norm: float,
) -> tuple[list[list[int]], list[bool]]:
    """Close hypotheses that end among the first ranks; the first others go on.

    Returns:
        Per utterance the ranks that go on, and whether it is done.
    """
    places, done = [], []
    for utterance, scores, candidates in zip(utterances, best.tolist(), flat.tolist(), strict=True):
        others = []
        for rank, (score, candidate) in enumerate(zip(scores, candidates, strict=True)):
            if candidate % vocabulary != end:
                others.append(rank)
            elif rank < beams:
                row = candidate // vocabulary
                utterance.close(_Closed(score / norm, step - 1, row, True), beams)
        full = len(utterance.closed) == beams
        done.append(full and utterance.closed[-1].score >= scores[0] / norm)
        others = others[:beams]
        places.append(others + others[-1:] * (beams - len(others)))  # only a tiny vocabulary has too few
    return places, done


def _reorder(model: Continuation, parents: Tensor, kept: list[int], held: int) -> None:
    """Bring the model's rows into the order of the new hypotheses, unless they stand so already."""
    at = torch.tensor(kept, device=parents.device)
    rows = (at[:, None] * held + parents[at]).flatten()
    if not torch.equal(rows, torch.arange(len(parents) * held, device=rows.device)):
        model.select(rows)


class _Seen:
    """The tokens that each hypothesis holds, for the repetition penalty; nothing is kept where it is 1."""

    def __init__(self, penalty: float, beams: int) -> None:
        self.penalty, self.beams = penalty, beams
        self.mask: Tensor | None = None  # (n, B, V)

    def adjusted(self, log_probabilities: Tensor, logits: Tensor, *, greedy: bool) -> Tensor:
        """Log-probabilities (n, B, V) after the penalty.

        The published greedy search applies it to the logits, the beam search to log-probabilities.
        """
        if self.mask is None:
            return log_probabilities
        values = logits.float().view_as(log_probabilities) if greedy else log_probabilities
        punished = torch.where(values > 0, values / self.penalty, values * self.penalty)
        values = torch.where(self.mask, punished, values)
        return values.log_softmax(-1) if greedy else values

    def go_on(self, at: Tensor, tokens: Tensor, parents: Tensor, vocabulary: int) -> None:
        """Follow the hypotheses of the utterances `at` to their next tokens."""
        if self.penalty == 1.0:
            return
        tokens, parents = tokens[at], parents[at]
        if self.mask is None:
            self.mask = torch.zeros(*tokens.shape, vocabulary, dtype=torch.bool, device=tokens.device)
        else:
            self.mask = self.mask[at].gather(1, parents[..., None].expand(-1, -1, vocabulary))
        self.mask.scatter_(2, tokens[..., None], True)


def _loops(history: _History, rows: list[int], step: int) -> list[bool]:
    return [is_loop(history.read(i, step, 0, LOOP_WINDOW)[0]) for i in rows]


def is_loop(ids: Sequence[int]) -> bool:
    """Tell whether a text ends in a short unit, again and again."""
    for size in range(1, LOOP_LONGEST + 1):
        times = max(LOOP_TIMES, LOOP_WINDOW // 2 // size)
        tail = list(ids[-size * times :])
        if len(tail) == size * times and tail[size:] == tail[:-size]:
            return True
    return False


def without_loop(ids: Sequence[int]) -> list[int]:
    """The text with the unit that it ends in left once."""
    for size in range(1, LOOP_LONGEST + 1):
        unit, cut = list(ids[-size:]), len(ids)
        while cut >= 2 * size and list(ids[cut - 2 * size : cut - size]) == unit:
            cut -= size
        if (len(ids) - cut) // size + 1 >= LOOP_TIMES:
            return list(ids[:cut])
    return list(ids)


def _result(history: _History, index: int, utterance: _Utterance, nbest: int, looped: bool) -> Generated:
    found = []
    for closed in utterance.closed[:nbest]:
        ids, chances = history.read(index, closed.steps, closed.row)
        found.append(BeamHypothesis(ids, chances, closed.score, closed.finished))
    return Generated(found, looped)
