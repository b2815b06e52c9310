"""Windows over token sequences that are longer than the network reads, and batches of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """A part of one sequence that the network reads at once."""

    row: int
    """which sequence"""
    start: int
    end: int
    keep_start: int
    """first token whose scores are taken from this window"""
    keep_end: int


def split_windows(row: int, length: int, size: int, overlap: int) -> list[Window]:
    """Cover a sequence with windows of at most `size` tokens.

    Args:
        row: index of the sequence, passed through.
        length: its number of tokens.
        size: most tokens per window.
        overlap: least number of tokens that neighbours share, below `size`; with 0 the last window is short.

    Returns:
        The windows in order; their kept parts meet in the middle of each overlap and cover the sequence once.
    """
    if not length:
        return []
    starts = list(range(0, max(length - overlap, 1), size - overlap))
    if overlap and len(starts) > 1:
        starts[-1] = length - size  # a full window: the last tokens get all the context there is
    ends = [min(start + size, length) for start in starts]
    seams = [0, *((end + start) // 2 for end, start in zip(ends, starts[1:], strict=False)), length]
    return [Window(row, s, e, a, b) for s, e, a, b in zip(starts, ends, seams, seams[1:], strict=False)]


def group_windows(windows: Sequence[Window], batch_tokens: int) -> Iterator[list[Window]]:
    """Form batches of windows of similar length, each with at most `batch_tokens` tokens (or one window)."""
    group: list[Window] = []
    for window in sorted(windows, key=lambda w: w.end - w.start, reverse=True):
        longest = group[0].end - group[0].start if group else 0
        if group and longest * (len(group) + 1) > batch_tokens:
            yield group
            group = []
        group.append(window)
    if group:
        yield group
