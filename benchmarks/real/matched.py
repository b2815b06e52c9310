"""Voice activity at matched operating points: what is missed, and what music and noise set off, where all systems
raise equally many false alarms in speech's own pauses. A threshold that suits one system says little about another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vermilion.evaluation.significance import wilson

FALSE_ALARMS = 0.05
"""share of the pauses of speech that all systems call speech"""
BINS = 10_000
RESAMPLES = 1000
LEVEL = 0.95


@dataclass(frozen=True)
class Frames:
    """A recording."""

    labels: NDArray[np.bool_]
    """(T,) speech"""
    probabilities: NDArray[np.float32]
    """(T,)"""


@dataclass(frozen=True)
class Share:
    """A share and where it lies with 95 % certainty."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """In percent."""
        return f"{100 * self.value:.2f} ({100 * self.low:.1f}–{100 * self.high:.1f})"


@dataclass(frozen=True)
class Point:
    """A system at its threshold."""

    threshold: float
    """the lowest at which the false alarms are no more than they should be"""
    misses: Share
    """share of the speech"""
    silent: Mapping[str, Share]
    """share of recordings without speech that is called speech, by what sounds there"""


def matched(
    speech: Sequence[Frames],
    silent: Mapping[str, Sequence[Frames]],
    false_alarms: float = FALSE_ALARMS,
    seed: int = 1,
) -> Point:
    """Choose the threshold on recordings with speech, and measure at it.

    Intervals are of a bootstrap over recordings in which the threshold is chosen anew each time: that it was chosen on
    the recordings at hand is part of what is not certain.

    Args:
        speech: recordings with speech and pauses.
        silent: recordings without speech, by what sounds there.
        false_alarms: share of the pauses that may be called speech.
        seed: of the bootstrap.
    """
    rng = np.random.default_rng(seed)
    pauses = np.stack([_reached(f.probabilities[~f.labels]) for f in speech])  # (R, BINS + 1): frames ≥ bin / BINS
    spoken = np.stack([_reached(f.probabilities[f.labels]) for f in speech])
    weights = np.vstack(
        [np.ones(len(speech)), rng.multinomial(len(speech), [1 / len(speech)] * len(speech), RESAMPLES)]
    )
    alarms, hits = weights @ pauses, weights @ spoken  # (1 + RESAMPLES, BINS + 1)
    at = (alarms > false_alarms * alarms[:, :1]).sum(axis=1)  # alarms fall: the first bin that is within the limit
    at = np.minimum(at, BINS)
    rows = np.arange(len(at))
    misses = 1 - hits[rows, at] / np.maximum(hits[:, 0], 1)
    threshold = float(at[0] / BINS)
    return Point(
        threshold, _share(misses, len(speech)), {name: _called(found, at, rng) for name, found in silent.items()}
    )


def _called(recordings: Sequence[Frames], at: NDArray[np.int64], rng: np.random.Generator) -> Share:
    """Share of frames called speech, at each draw's threshold and with recordings drawn likewise."""
    count = len(recordings)
    reached = np.stack([_reached(f.probabilities) for f in recordings])
    totals = _weights(count, len(at) - 1, rng) @ reached
    return _share(totals[np.arange(len(at)), at] / np.maximum(totals[:, 0], 1), count)


def _weights(count: int, draws: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """How often each recording counts: once, and then in each bootstrap sample."""
    return np.vstack([np.ones(count), rng.multinomial(count, [1 / count] * count, draws)])


def _reached(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """(BINS + 1,): how many probabilities reach each threshold; the last stands for above 1."""
    bins = np.clip((probabilities * BINS).astype(np.int64), 0, BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    return np.append(np.cumsum(counts[::-1])[::-1], 0).astype(np.float64)


def _share(draws: NDArray[np.float64], recordings: int) -> Share:
    """The first is of all recordings, the others are draws; where those agree, their number limits what is known."""
    value = float(draws[0])
    if np.ptp(draws) == 0:
        sure = wilson(value, recordings)
        return Share(value, sure.low, sure.high)
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(draws[1:], [tail, 100 - tail])
    return Share(value, float(low), float(high))
