"""Word edges moved to the sound: recognisers know which word, the samples know where it begins and ends.

CTC heads fire in the middle of a sound and their words last until the next one begins; Whisper's words begin in the
pause before them. Where the level of the recording shows a pause, edges that lie in it move to the sound next to it.
Edges between words that follow each other without a pause stay where the recogniser put them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from vermilion.transcript import Word

FRAME = 160
"""samples of a level: 10 ms"""
NEAR = 100
"""frames on both sides in which the loudest part sets what counts as sound"""
BELOW_LOUD, ABOVE_QUIET = 30.0, 8.0
"""dB: speech spans this much below its loud frames, and stands out of the background by this much"""
CONTRAST = 15.0
"""dB between loud and quiet frames below which no pause can be told from speech"""
CLOSURE, BURST = 0.1, 0.03
"""seconds: shorter silences belong to a word (the closure of a "t"), shorter sounds do not count"""
START_REACH, END_REACH = 0.2, 0.5
"""seconds by which an edge moves outwards at most: the sound there may be of a word that was not recognised"""
SHORTEST = 0.03

Run = tuple[float, float]


def fitted(words: Sequence[Word], samples: NDArray[np.float32]) -> list[Word]:
    """Move the edges of words to the sound.

    Args:
        words: in order, with times in seconds.
        samples: (n,) at 16 kHz that the times refer to.

    Returns:
        The words; all are as they were where speech does not stand out of the background.
    """
    runs = sounding(samples)
    if not runs or not words:
        return list(words)
    inner = [_shrunk(word, runs) for word in words]
    starts = [_earlier(word, runs, before) for word, before in zip(inner, [0.0, *(w.end for w in inner)], strict=False)]
    following = [*starts[1:], len(samples) / 16000]
    return [
        replace(word, start=round(start, 3), end=round(_later(word, runs, after), 3))
        for word, start, after in zip(inner, starts, following, strict=True)
    ]


def sounding(samples: NDArray[np.float32]) -> list[Run]:
    """Where something sounds: (start, end) in seconds; nothing where loud and quiet frames hardly differ."""
    power = _power(samples)
    if len(power) < NEAR:
        return []
    level = 10 * np.log10(power + 1e-12)
    loud, quiet = np.percentile(level, [95, 3])
    if loud - quiet < CONTRAST:
        return []
    above = level > np.maximum(_loud_nearby(power) - BELOW_LOUD, quiet + ABOVE_QUIET)
    edges = np.flatnonzero(np.diff(np.concatenate(([0], above.astype(np.int8), [0])))) / 100
    joined: list[Run] = []
    for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if joined and start - joined[-1][1] < CLOSURE - 1e-9:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return [(a, b) for a, b in joined if b - a >= BURST - 1e-9]


def _power(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    count = len(samples) // FRAME
    blocks = np.asarray(samples[: count * FRAME], dtype=np.float64).reshape(count, FRAME)
    power: NDArray[np.float64] = np.mean(blocks**2, axis=1)
    return power


def _loud_nearby(power: NDArray[np.float64]) -> NDArray[np.float64]:
    """Level of the loudest 50 ms within a second: a soft voice after a loud one is no pause."""
    smooth = np.convolve(power, np.full(5, 0.2), "same")
    padded = np.pad(smooth, NEAR, mode="edge")
    level: NDArray[np.float64] = 10 * np.log10(sliding_window_view(padded, 2 * NEAR + 1).max(axis=1) + 1e-12)
    return level


def _shrunk(word: Word, runs: Sequence[Run]) -> Word:
    """Leave the pauses at both ends of a word, and what lies behind them of its neighbours."""
    inside = [(a, b) for a, b in runs if a < word.end and b > word.start]
    if not inside:
        return word
    if len(inside) > 1 and inside[0][0] < word.start and _share(word, inside[0]) < _share(word, inside[1]):
        inside = inside[1:]  # the end of the word before
    if len(inside) > 1 and inside[-1][1] > word.end and _share(word, inside[-1]) < _share(word, inside[-2]):
        inside = inside[:-1]  # the beginning of the next
    start, end = max(word.start, inside[0][0]), min(word.end, inside[-1][1])
    return replace(word, start=start, end=end) if end - start >= SHORTEST else word


def _share(word: Word, run: Run) -> float:
    return min(word.end, run[1]) - max(word.start, run[0])


def _earlier(word: Word, runs: Sequence[Run], before: float) -> float:
    """Begin with the sound that a word begins in, if no other word is in it so far."""
    start = next((a for a, b in runs if a < word.start < b), word.start)
    return start if start >= before - 1e-6 and word.start - start <= START_REACH else word.start


def _later(word: Word, runs: Sequence[Run], after: float) -> float:
    """End with the sound that a word ends in, if the next begins later."""
    end = next((b for a, b in runs if a < word.end < b), word.end)
    return end if end <= after + 1e-6 and end - word.end <= END_REACH else word.end
