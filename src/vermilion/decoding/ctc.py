"""Search in CTC posteriors: the best path, and the best label sequences by prefix beam search."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLANK = 0
_IMPOSSIBLE = float("-inf")


@dataclass(frozen=True)
class CtcPath:
    """A label sequence read off CTC posteriors."""

    ids: list[int]
    """labels without blanks"""
    probabilities: list[float]
    """best posterior of each label within its run of frames"""
    score: float
    """log-probability of the path"""


def greedy_path(log_probs: NDArray[np.float32], forbidden: Collection[int] = ()) -> CtcPath:
    """Take the best label of each frame, merge repeats, drop blanks.

    Args:
        log_probs: (T, V) log-probabilities.
        forbidden: labels that are never emitted; the blank always may be.
    """
    scores = _without(log_probs, forbidden)
    labels, best = scores.argmax(1), scores.max(1)
    ids: list[int] = []
    chances: list[float] = []
    previous = BLANK
    for label, chance in zip(labels.tolist(), np.exp(best).tolist(), strict=True):
        if label != BLANK and label == previous:
            chances[-1] = max(chances[-1], chance)
        elif label != BLANK:
            ids.append(label)
            chances.append(chance)
        previous = label
    return CtcPath(ids, chances, float(best.sum()))


def prefix_beam_search(
    log_probs: NDArray[np.float32], beam_size: int, forbidden: Collection[int] = ()
) -> list[tuple[list[int], float]]:
    """Find the label sequences of the highest total probability over all their paths (Hannun et al., 2014).

    Args:
        log_probs: (T, V) log-probabilities.
        beam_size: sequences kept, and labels looked at, per frame.
        forbidden: labels that are never emitted.

    Returns:
        Up to `beam_size` (labels, log-probability), the best first.
    """
    scores = _without(log_probs, forbidden)
    count = min(beam_size + 1, scores.shape[1])
    labels = np.argpartition(scores, -count, axis=1)[:, -count:]
    chances = np.take_along_axis(scores, labels, axis=1)
    beams: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, _IMPOSSIBLE)}  # ends in a blank, ends in a label
    for frame in range(len(scores)):
        candidates = list(zip(labels[frame].tolist(), chances[frame].tolist(), strict=True))
        beams = _advance(beams, candidates, float(scores[frame, BLANK]), scores[frame], beam_size)
    ranked = sorted(((_add(*ends), prefix) for prefix, ends in beams.items()), key=lambda item: -item[0])
    return [(list(prefix), score) for score, prefix in ranked]


def _advance(
    beams: dict[tuple[int, ...], tuple[float, float]],
    candidates: list[tuple[int, float]],
    blank: float,
    frame: NDArray[np.float32],
    beam_size: int,
) -> dict[tuple[int, ...], tuple[float, float]]:
    """One frame: every sequence stays (by a blank or by its last label again) or grows by a candidate."""
    grown: dict[tuple[int, ...], list[float]] = defaultdict(lambda: [_IMPOSSIBLE, _IMPOSSIBLE])
    for prefix, (after_blank, after_label) in beams.items():
        both = _add(after_blank, after_label)
        stay = grown[prefix]
        stay[0] = _add(stay[0], both + blank)
        if prefix:
            stay[1] = _add(stay[1], after_label + float(frame[prefix[-1]]))
        for label, chance in candidates:
            if label == BLANK:
                continue
            # the same label twice needs a blank between its two runs
            source = after_blank if prefix and prefix[-1] == label else both
            longer = grown[(*prefix, label)]
            longer[1] = _add(longer[1], source + chance)
    best = sorted(grown.items(), key=lambda item: -_add(*item[1]))[:beam_size]
    return {prefix: (ends[0], ends[1]) for prefix, ends in best}


def _add(a: float, b: float) -> float:
    """log(exp(a) + exp(b))."""
    larger, smaller = (a, b) if a > b else (b, a)
    return larger if smaller == _IMPOSSIBLE else larger + float(np.log1p(np.exp(smaller - larger)))


def _without(log_probs: NDArray[np.float32], forbidden: Collection[int]) -> NDArray[np.float32]:
    scores = log_probs.copy()
    scores[:, [i for i in forbidden if i != BLANK]] = _IMPOSSIBLE
    return scores
