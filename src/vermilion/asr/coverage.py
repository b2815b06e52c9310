"""Holds a text against what the CTC head hears: inventions, and stretches of speech that got no text."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vermilion.asr.alignment import BLANK, forced_align

CONFIDENT = 0.5
"""posterior from which a label of the CTC head counts as heard"""
SUPPORT = 0.02
"""posterior within its own run below which a token of the text was not heard at all"""
LOST_LABELS = 5
"""heard labels in a row that the text lacks, at least, for speech to count as lost"""
INVENTED_TOKENS = 4
"""unheard tokens, at least, for a text to count as invented"""
INVENTED_SHARE = 0.5
"""of all tokens"""
REACH = 3
"""frames of 40 ms by which a label may lie beside the token that covers it"""


@dataclass(frozen=True)
class Coverage:
    """How text and CTC head agree."""

    tokens: int
    """of the text"""
    unsupported: int
    """tokens that the head does not hear where they must stand"""
    heard: int
    """labels that the head is sure of"""
    lost: int
    """the longest row of them beside which the text has nothing"""

    @property
    def is_invented(self) -> bool:
        """Whether most of the text was not heard, or nothing of a text in which the head hears nothing at all."""
        if self.heard == 0 and self.unsupported == self.tokens > 0:
            return True
        return self.unsupported >= INVENTED_TOKENS and self.unsupported >= INVENTED_SHARE * self.tokens

    @property
    def is_incomplete(self) -> bool:
        """Whether a stretch of speech has no text."""
        return self.lost >= LOST_LABELS

    @property
    def is_healthy(self) -> bool:
        """Whether neither."""
        return not self.is_invented and not self.is_incomplete

    @property
    def faults(self) -> int:
        """Labels and tokens that disagree; fewer is better."""
        return self.unsupported + self.lost


def coverage(log_probs: NDArray[np.float32], ids: Sequence[int], silent: Collection[int] = ()) -> Coverage:
    """Compare a text with CTC posteriors.

    Args:
        log_probs: (T', V) log-probabilities.
        ids: tokens of the text, without special ones.
        silent: labels that are no speech (`<sil>` and the like).
    """
    runs = _heard_runs(log_probs, silent)
    path = forced_align(log_probs, list(ids)) if ids else np.zeros(len(log_probs), dtype=np.int64)
    if path is None:  # more tokens than frames: nothing can be placed
        return Coverage(len(ids), len(ids), len(runs), 0)
    unsupported = sum(p < SUPPORT for p in _supports(log_probs, path))
    return Coverage(len(ids), unsupported, len(runs), _longest_lost(runs, path))


def _heard_runs(log_probs: NDArray[np.float32], silent: Collection[int]) -> list[tuple[int, int]]:
    """(first frame, frame behind the last) of each run of a label that the head is sure of."""
    labels, chances = log_probs.argmax(1), np.exp(log_probs.max(1))
    edges = np.flatnonzero(np.diff(labels)) + 1
    runs = []
    for part in np.split(np.arange(len(labels)), edges):
        label = int(labels[part[0]]) if len(part) else BLANK
        if label != BLANK and label not in silent and chances[part].max() >= CONFIDENT:
            runs.append((int(part[0]), int(part[-1]) + 1))
    return runs


def _supports(log_probs: NDArray[np.float32], path: NDArray[np.int64]) -> list[float]:
    """Best posterior of each token of the aligned path within its run and the frames beside it."""
    found = []
    edges = np.flatnonzero(np.diff(path)) + 1
    for part in np.split(np.arange(len(path)), edges):
        label = int(path[part[0]]) if len(part) else BLANK
        if label != BLANK:
            around = slice(max(0, int(part[0]) - REACH), int(part[-1]) + 1 + REACH)
            found.append(float(np.exp(log_probs[around, label].max())))
    return found


def _longest_lost(runs: Sequence[tuple[int, int]], path: NDArray[np.int64]) -> int:
    """Longest row of heard runs near which the path has no token."""
    spoken = np.flatnonzero(path != BLANK)
    longest = current = 0
    for first, end in runs:
        covered = bool(len(spoken)) and bool(((spoken >= first - REACH) & (spoken < end + REACH)).any())
        current = 0 if covered else current + 1
        longest = max(longest, current)
    return longest
