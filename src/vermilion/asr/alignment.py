"""CTC forced alignment and token times (SPEC section 7)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vermilion.errors import OptionsError

FRAME_SECONDS = 0.04
"""one encoder frame"""
SHIFT_SECONDS = 0.06
"""tokens fire late: all times are moved forward by this (the published comment says 40 ms, its value is 60)"""
BLANK = 0


def forced_align(log_probs: NDArray[np.float32], ids: Sequence[int]) -> NDArray[np.int64] | None:
    """Find the best path of given labels through CTC posteriors (Viterbi over blank-interleaved states).

    All states of a frame are updated at once. Ties prefer staying; a step must be strictly better than both others.

    Args:
        log_probs: (T, V) log-probabilities.
        ids: labels, none of them the blank.

    Returns:
        (T,) label per frame, 0 for blank; None if the labels do not fit into the frames or no path has a probability.

    Raises:
        OptionsError: a label is the blank or outside the vocabulary.
    """
    labels = np.asarray(ids, dtype=np.int64)
    frames, count = len(log_probs), len(labels)
    if count and not 0 < labels.min() <= labels.max() < log_probs.shape[1]:
        raise OptionsError(f"labels to align must lie between 1 and {log_probs.shape[1] - 1}, not {list(ids)[:20]}")
    if count == 0 or frames < count + int((labels[1:] == labels[:-1]).sum()):
        return None
    states = np.zeros(2 * count + 1, dtype=np.int64)
    states[1::2] = labels
    skip = np.zeros(len(states), dtype=bool)  # a blank is skipped only between different labels
    skip[3::2] = labels[1:] != labels[:-1]
    steps, score = _viterbi(log_probs, states, skip)
    if not np.isfinite(score[-2:]).any() or np.isnan(score).any():
        return None
    state = len(states) - 1 if score[-1] > score[-2] else len(states) - 2  # the last label wins a tie
    path = np.empty(frames, dtype=np.int64)
    for t in range(frames - 1, -1, -1):
        path[t] = states[state]
        state -= int(steps[t, state])  # an int8 would not hold the states of more than 63 labels
    return path


def _viterbi(
    log_probs: NDArray[np.float32], states: NDArray[np.int64], skip: NDArray[np.bool_]
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Forward pass: (T, S) steps taken into each state (0, 1 or 2) and the (S,) final scores.

    Emissions are picked frame by frame: of a long text all of them at once, (T, S), would fill the memory.
    """
    frames, count = len(log_probs), len(states)
    impossible = np.float32(-np.inf)
    steps = np.zeros((frames, count), dtype=np.int8)
    score = np.full(count, impossible, dtype=np.float32)
    score[:2] = log_probs[0, states[:2]]
    one, two = np.full(count, impossible, dtype=np.float32), np.full(count, impossible, dtype=np.float32)
    for t in range(1, frames):
        one[1:] = score[:-1]
        two[2:] = np.where(skip[2:], score[:-2], impossible)
        by_one = (one > score) & (one > two)
        by_two = (two > score) & (two > one)
        steps[t] = by_one + 2 * by_two
        score = np.where(by_one, one, np.where(by_two, two, score)) + log_probs[t, states]
    return steps, score


def raw_times(alignment: Sequence[int] | NDArray[np.int64]) -> tuple[list[float], list[float]]:
    """Turn a frame-wise alignment into token times (before the shift).

    A run of one label is one token; it lasts until the next token begins, but much longer ones (a pause follows) are
    cut to 1.5 times the mean, or to their run if that is longer.

    Args:
        alignment: (T,) label per frame, 0 for blank.

    Returns:
        Starts and ends in seconds, one per token.
    """
    path = np.asarray(alignment, dtype=np.int64)
    first = np.flatnonzero((path != BLANK) & (path != np.concatenate(([BLANK], path[:-1]))))
    if len(first) == 0:
        return [], []
    change = np.flatnonzero(np.concatenate((path[1:] != path[:-1], [True])))
    runs = FRAME_SECONDS * (change[np.searchsorted(change, first)] - first + 1)
    starts = FRAME_SECONDS * (first + 1)
    ends = np.append(starts[1:], FRAME_SECONDS * len(path) + 0.025)
    mean = float((ends - starts).mean())
    ends = np.where(ends - starts > 2 * mean, starts + np.maximum(1.5 * mean, runs), ends)
    return starts.tolist(), np.round(ends, 3).tolist()


def shifted_times(starts: Sequence[float], ends: Sequence[float], duration: float) -> tuple[list[float], list[float]]:
    """Move raw times forward and keep them inside the audio.

    The published code also pulls a start back to the end before it: after a pause words then begin in the pause.

    Args:
        starts: raw starts in seconds.
        ends: raw ends in seconds.
        duration: of the audio in seconds.
    """
    first = [round(min(max(0.0, s - SHIFT_SECONDS), duration), 3) for s in starts]
    last = [round(min(max(0.0, e - SHIFT_SECONDS), duration), 3) for e in ends]
    return separated(first, last, duration)


def even_times(count: int, duration: float) -> tuple[list[float], list[float]]:
    """Spread tokens evenly where no alignment is possible."""
    step = duration / count if count else 0.0
    edges = [round(min(i * step, duration), 3) for i in range(count + 1)]
    return separated(edges[:-1], edges[1:], duration)


def separated(starts: list[float], ends: list[float], duration: float) -> tuple[list[float], list[float]]:
    """Pull tokens at the very end of the audio apart by a millisecond each, so that none is empty."""
    first, last = list(starts), list(ends)
    for back, i in enumerate(range(len(first) - 1, -1, -1)):
        if abs(duration - first[i]) < 0.001:
            first[i] = round(max(0.0, duration - (back + 1) * 0.001), 3)
        if back and abs(duration - last[i]) < 0.001:
            last[i] = round(max(0.0, duration - back * 0.001), 3)
    return first, last
