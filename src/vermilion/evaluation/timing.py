"""Word times against a reference: distance of starts and ends, words matched by alignment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from vermilion.evaluation.normalisation import tokens
from vermilion.evaluation.recognition import align
from vermilion.transcript import Word

NOWHERE = -1


@dataclass(frozen=True)
class TimingScore:
    """Signed distances in seconds (reported − true) of the edges that could be matched."""

    starts: tuple[float, ...] = field(default=(), repr=False)
    ends: tuple[float, ...] = field(default=(), repr=False)
    words: int = 0
    """words of the references"""

    @property
    def coverage(self) -> float:
        """Share of the reference words whose start was matched."""
        return len(self.starts) / self.words if self.words else 0.0

    def mean(self, edge: str = "starts") -> float | None:
        """Mean distance in seconds; None if nothing was matched."""
        values = getattr(self, edge)
        return float(np.mean(np.abs(values))) if values else None

    def median(self, edge: str = "starts") -> float | None:
        """Median distance in seconds; None if nothing was matched."""
        values = getattr(self, edge)
        return float(np.median(np.abs(values))) if values else None

    def within(self, seconds: float, edge: str = "starts") -> float | None:
        """Share of the matched edges that are no farther off than this; None if nothing was matched."""
        values = getattr(self, edge)
        return float(np.mean(np.abs(values) <= seconds + 1e-9)) if values else None

    def p95(self, edge: str = "starts") -> float | None:
        """95th percentile of the distance in seconds; None if nothing was matched."""
        values = getattr(self, edge)
        return float(np.percentile(np.abs(values), 95)) if values else None

    def bias(self, edge: str = "starts") -> float | None:
        """Mean signed distance in seconds: above 0 = reported too late."""
        values = getattr(self, edge)
        return float(np.mean(values)) if values else None


def score_words(reference: Sequence[Word], hypothesis: Sequence[Word]) -> TimingScore:
    """Score the word times of one recording.

    Words are matched letter by letter, so that a reference of Chinese words scores single characters: a word counts if
    every letter of it was found; its start where its first letter begins a reported word, its end where its last letter
    ends one.

    Args:
        reference: true words with times in seconds.
        hypothesis: reported words.
    """
    said, heard = _letters(reference), _letters(hypothesis)
    at = _matched([c for c, _, _ in said], [c for c, _, _ in heard])
    begins = [k for k, (_, start, _) in enumerate(said) if start is not None]
    starts, ends = [], []
    for first, after in pairwise([*begins, len(said)]):
        if NOWHERE in at[first:after]:
            continue
        starts += _distance(heard[at[first]][1], said[first][1])
        ends += _distance(heard[at[after - 1]][2], said[after - 1][2])
    return TimingScore(tuple(starts), tuple(ends), len(begins))


def _distance(reported: float | None, true: float | None) -> list[float]:
    return [reported - true] if reported is not None and true is not None else []


def _matched(said: Sequence[str], heard: Sequence[str]) -> list[int]:
    """Index of the reported letter that each true one was found as."""
    found: list[int] = []
    j = 0
    for step in align(said, heard):
        if step.kind != "insert":
            found.append(j if step.kind == "equal" else NOWHERE)
        j += step.kind != "delete"
    return found


def score(pairs: Iterable[tuple[Sequence[Word], Sequence[Word]]]) -> TimingScore:
    """Score (reference, hypothesis) words of several recordings together."""
    scores = [score_words(reference, hypothesis) for reference, hypothesis in pairs]
    return TimingScore(
        tuple(v for s in scores for v in s.starts),
        tuple(v for s in scores for v in s.ends),
        sum(s.words for s in scores),
    )


def _letters(words: Sequence[Word]) -> list[tuple[str, float | None, float | None]]:
    """Normalised letters; the first of a word has its start, the last its end. Words without letters vanish."""
    out: list[tuple[str, float | None, float | None]] = []
    for word in words:
        letters = "".join(tokens(word.text))
        last = len(letters) - 1
        out += [(c, word.start if k == 0 else None, word.end if k == last else None) for k, c in enumerate(letters)]
    return out
