"""Where to cut a recording that is too long for a model: in its quietest moments."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vermilion.audio.features import SAMPLE_RATE
from vermilion.errors import OptionsError

_STEP = SAMPLE_RATE // 100
"""energies are taken every 10 ms"""
_STRETCH = 4
"""steps (40 ms) that a cut should find quiet"""


def quiet_cuts(samples: NDArray[np.int16] | NDArray[np.float32], max_seconds: float) -> list[int]:
    """Choose cut positions so that no piece is longer than a limit.

    Each cut lies in the quietest 40 ms of the later half of what one piece may hold; the last two pieces share what is
    left so that neither is shorter than a quarter of the limit.

    Args:
        samples: (n,) at 16 kHz; a memory map is read a window at a time.
        max_seconds: longest piece, at least 0.1.

    Returns:
        Increasing sample positions inside the recording; empty if it is short enough.

    Raises:
        OptionsError: the limit is under 0.1 seconds.
    """
    if not max_seconds >= 0.1:
        raise OptionsError(f"max_seconds is {max_seconds}; pieces under 0.1 seconds make no sense")
    limit = max_seconds * SAMPLE_RATE
    cuts: list[int] = []
    start = 0
    while (rest := len(samples) - start) > limit:
        low, high = _range(rest, int(limit))
        start += quietest(samples, start, low, high)
        cuts.append(start)
    return cuts


def _range(rest: int, longest: int) -> tuple[int, int]:
    """Where the next cut may lie when `rest` samples, more than `longest`, are left."""
    if rest > 1.75 * longest:
        return longest // 2, longest
    return max(rest - longest, longest // 4), min(longest, rest - longest // 4)  # two pieces, neither of them tiny


def quietest(samples: NDArray[np.int16] | NDArray[np.float32], start: int, low: int, high: int) -> int:
    """Offset from `start`, within [low, high], of the middle of the quietest 40 ms."""
    window = samples[start + low : start + high].astype(np.float32)
    steps = len(window) // _STEP
    if steps < _STRETCH:
        return high
    window -= window.mean()  # a constant offset is not loudness
    energy = np.square(window[: steps * _STEP]).reshape(steps, _STEP).sum(axis=1, dtype=np.float64)
    stretches = np.lib.stride_tricks.sliding_window_view(energy, _STRETCH).sum(axis=1)
    quiet = np.flatnonzero(stretches <= stretches.min() * 1.0001)
    best = int(quiet[-1])  # of equally quiet moments the last: longer pieces give the recogniser more context
    return low + (best + _STRETCH // 2) * _STEP
