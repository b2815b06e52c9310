"""How sure a figure is: intervals over recordings, and two systems on the same recordings.

Bootstrap as in Bisani & Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation" (2004);
shares of recordings by Wilson's score interval (1927), which says something also where nothing or everything is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vermilion.errors import OptionsError

RESAMPLES = 2000
SEED = 1
LEVEL = 0.95
_CHUNK_ELEMENTS = 4_000_000
"""bounds the memory of the resamples"""


@dataclass(frozen=True)
class Interval:
    """A figure and where it lies with the given certainty."""

    value: float
    low: float
    high: float
    level: float = LEVEL


@dataclass(frozen=True)
class Difference:
    """System A minus system B on the same recordings."""

    value: float
    """difference of the two figures: below 0 = A has the smaller one"""
    low: float
    high: float
    p: float
    """probability of a difference at least so large, either way, if the systems were alike (by random swaps)"""
    better: float
    """share of the bootstrap samples in which A's figure is the smaller one"""
    level: float = LEVEL

    @property
    def significant(self) -> bool:
        """Whether chance alone gives such a difference in less than 1 − level of the cases."""
        return self.p < 1 - self.level


def interval(
    errors: ArrayLike, lengths: ArrayLike, *, share: bool = True,
    level: float = LEVEL, resamples: int = RESAMPLES, seed: int = SEED,
) -> Interval:  # fmt: skip
    """Interval of Σ errors / Σ lengths: Wilson's for shares of recordings, else by bootstrap over recordings.

    Where all recordings have the same rate (nothing is wrong, say), a bootstrap would claim certainty: the interval is
    then Wilson's for as many trials as there are recordings.

    Args:
        errors: (n,) errors per recording (for a share: 1 where wrong).
        lengths: (n,) tokens per recording (for a share: 1).
        share: the figure lies between 0 and 1 unless there are more errors than tokens; False = seconds, say, for which
            there is a bootstrap only.
        level: certainty.
        resamples: bootstrap samples.
        seed: of the draws; the same seed gives the same interval.

    Raises:
        OptionsError: no recordings, or lists of different length.
    """
    top, bottom = _columns(errors, lengths)
    value = float(_rate(top.sum(), bottom.sum()))
    alike = np.ptp(_rate(top, bottom)) == 0
    of_recordings = bool(np.isin(top, (0, 1)).all() and (bottom == 1).all())
    if share and value <= 1 and (alike or of_recordings):
        return wilson(value, len(top), level)
    rates = np.concatenate([_rate(top[rows].sum(1), bottom[rows].sum(1)) for rows in _draws(len(top), resamples, seed)])
    low, high = _bounds(rates, level)
    return Interval(value, low, high, level)


def wilson(share: float, trials: int, level: float = LEVEL) -> Interval:
    """Wilson's score interval.

    Args:
        share: of the trials that came out so, 0 to 1.
        trials: how many, at least 1.
        level: certainty.
    """
    z = NormalDist().inv_cdf(0.5 + level / 2)
    scale = 1 + z * z / trials
    middle = (share + z * z / (2 * trials)) / scale
    half = z / scale * (share * (1 - share) / trials + z * z / (4 * trials * trials)) ** 0.5
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half), level)


def difference(
    errors_a: ArrayLike, errors_b: ArrayLike, lengths: ArrayLike, *,
    level: float = LEVEL, resamples: int = RESAMPLES, seed: int = SEED,
) -> Difference:  # fmt: skip
    """Compare two systems on the same recordings: paired bootstrap and approximate randomisation.

    Args:
        errors_a: (n,) errors of the first system per recording.
        errors_b: (n,) errors of the second system, in the same order.
        lengths: (n,) tokens per recording.
        level: certainty of the interval.
        resamples: samples of each of the two tests.
        seed: of the draws.

    Raises:
        OptionsError: no recordings, or lists of different length.
    """
    a, bottom = _columns(errors_a, lengths)
    b, _ = _columns(errors_b, lengths)
    change = a - b
    drawn = np.concatenate(
        [_rate(change[rows].sum(1), bottom[rows].sum(1)) for rows in _draws(len(a), resamples, seed)]
    )
    low, high = _bounds(drawn, level)
    return Difference(
        float(_rate(change.sum(), bottom.sum())), low, high, _randomised(change, resamples, seed),
        float((drawn < 0).mean()), level,
    )  # fmt: skip


def _randomised(change: NDArray[np.float64], resamples: int, seed: int) -> float:
    """Share of the random swaps of A and B that give at least the observed difference, itself counted in."""
    rng = np.random.default_rng(seed)
    observed, reached, done = abs(change.sum()), 0, 0
    while done < resamples:
        size = min(resamples - done, max(1, _CHUNK_ELEMENTS // len(change)))
        signs = rng.integers(0, 2, (size, len(change)), dtype=np.int8) * 2 - 1
        reached += int((np.abs(signs @ change) >= observed - 1e-9).sum())
        done += size
    return (reached + 1) / (resamples + 1)


def _columns(errors: ArrayLike, lengths: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    top, bottom = np.asarray(errors, dtype=np.float64), np.asarray(lengths, dtype=np.float64)
    if top.ndim != 1 or top.shape != bottom.shape or not len(top):
        raise OptionsError(f"{top.shape} errors stand against {bottom.shape} lengths; both need one per recording")
    return top, bottom


def _draws(count: int, resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Bootstrap samples as row numbers, (some, count) at a time."""
    rng = np.random.default_rng(seed)
    size = max(1, _CHUNK_ELEMENTS // count)
    for first in range(0, resamples, size):
        yield rng.integers(0, count, (min(size, resamples - first), count))


def _rate(errors: NDArray[np.float64], lengths: NDArray[np.float64]) -> NDArray[np.float64]:
    rates: NDArray[np.float64] = errors / np.maximum(lengths, 1)
    return rates


def _bounds(values: NDArray[np.float64], level: float) -> tuple[float, float]:
    tail = 50 * (1 - level)
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)
