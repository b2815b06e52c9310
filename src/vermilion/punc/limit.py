"""Choice of labels, with and without a limit on the length of a sentence (SPEC section 11.5)."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_HALF_WIDTH = re.compile(r"[a-zA-Z0-9']")


def text_size(text: str) -> float:
    """Length of a text as the limit counts it: ASCII letters, digits and ' are ½, all else but white space 1."""
    return sum(0.5 if _HALF_WIDTH.match(c) else 1.0 for c in text if not c.isspace())


def choose_labels(sizes: Sequence[float], probabilities: NDArray[np.float32], max_length: float) -> list[int]:
    """Choose a label per unit so that, where the units allow it, no sentence is longer than the limit.

    The limit concerns one item alone and takes effect only if the most probable labels break it. (The published
    code applies it to all items of a call as soon as one of them has more tokens than the limit.)

    Args:
        sizes: length of each unit, see `text_size`.
        probabilities: (U, labels) of each unit; label 0 is "no mark".
        max_length: longest sentence; 0 or less means no limit.

    Returns:
        U labels.
    """
    best = [int(label) for label in probabilities.argmax(axis=1)] if len(sizes) else []
    if max_length <= 0 or _longest(sizes, best) <= max_length:
        return best
    return limited_labels(sizes, probabilities, max_length)


def _longest(sizes: Sequence[float], labels: Sequence[int]) -> float:
    longest = total = 0.0
    for size, label in zip(sizes, labels, strict=True):
        total += size
        longest = max(longest, total)
        if label:
            total = 0.0
    return longest


def limited_labels(sizes: Sequence[float], probabilities: NDArray[np.float32], max_length: float) -> list[int]:
    """Choose labels with the limit in force: a sentence ends where a mark is likely, at the latest at the limit.

    Args and result as in `choose_labels`. The published code also forces a mark on the last unit; here it keeps
    "no mark" where that is more likely, because nothing is cut there.
    """
    labels = [0] * len(sizes)
    start = 0
    while start < len(sizes):
        end = _sentence_end(sizes, probabilities, max_length, start)
        if end < len(sizes) - 1 or probabilities[end, 0] <= 0.5:
            labels[end] = 1 + int(probabilities[end, 1:].argmax())
        start = end + 1
    return labels


def _sentence_end(sizes: Sequence[float], probabilities: NDArray[np.float32], max_length: float, start: int) -> int:
    """Return the last unit of the sentence that begins at `start`."""
    total, best, candidate = 0.0, 0.0, -1
    for place in range(start, len(sizes)):
        if total + sizes[place] > max_length and candidate >= 0:
            return candidate
        none = float(probabilities[place, 0])
        some = 1.0 - none
        if some >= best:
            best, candidate = some, place  # of equals the later one
        total += sizes[place]
        if some >= none:
            return candidate
    return len(sizes) - 1
