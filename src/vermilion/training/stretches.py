"""Where sound is in a clip: labels of mixes follow the sound itself, not the silence around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vermilion.audio.features import FRAME_LENGTH, FRAME_SHIFT, SAMPLE_RATE, num_frames
from vermilion.errors import ManifestError, OptionsError
from vermilion.manifests import Utterance

Stretch = tuple[int, int]
"""first sample, sample after the last"""

_QUIET_DB = -75.0
"""nothing below this level is sound"""
_ABOVE_FLOOR_DB = 8.0
_BELOW_PEAK_DB = 12.0
"""in noisy clips the limit lies above the noise, but at least so far below the loudest parts"""
_EMPHASIS = np.float32(0.9)


@dataclass(frozen=True)
class TrimOptions:
    """The rule that finds the sound of clips whose manifest does not say where it is (`segments`)."""

    range_db: float = 35.0
    """What is quieter than the loud parts by so much is silence."""
    gap_seconds: float = 0.2
    """A shorter pause inside a clip counts as sound."""
    shortest_seconds: float = 0.06
    """A shorter burst counts as silence."""
    margin_seconds: float = 0.02
    """Added at both ends: soft beginnings and ends that the rule misses."""

    def __post_init__(self) -> None:
        """Check the domain.

        Raises:
            OptionsError: a value is negative.
        """
        if min(self.range_db, self.gap_seconds, self.shortest_seconds, self.margin_seconds) < 0:
            raise OptionsError("range_db, gap_seconds, shortest_seconds and margin_seconds cannot be negative")


def sounding(samples: NDArray[np.float32], options: TrimOptions = TrimOptions()) -> list[Stretch]:
    """Find the sound of a clip by its level.

    Steps of 10 ms are compared with the clip's own loud parts and its own noise; low frequencies count less.

    Args:
        samples: (n,) float32 at 16 kHz.
        options: see there.

    Returns:
        Stretches in order, apart from each other.
    """
    steps = len(samples) // FRAME_SHIFT
    if not steps:
        return []
    sharp = samples[: steps * FRAME_SHIFT].copy()
    sharp[1:] -= _EMPHASIS * samples[: steps * FRAME_SHIFT - 1]
    power = np.square(sharp.reshape(steps, FRAME_SHIFT)).mean(axis=1, dtype=np.float64)
    level = 10 * np.log10(np.maximum(power, 1e-12))
    peak, floor = float(np.quantile(level, 0.95)), float(np.quantile(level, 0.1))
    limit = max(peak - options.range_db, min(floor + _ABOVE_FLOOR_DB, peak - _BELOW_PEAK_DB), _QUIET_DB)
    active = _runs(level > limit)
    active = _joined(active, options.gap_seconds * SAMPLE_RATE)
    active = [(a, b) for a, b in active if b - a >= options.shortest_seconds * SAMPLE_RATE]
    margin = round(options.margin_seconds * SAMPLE_RATE)
    return _joined([(max(0, a - margin), min(len(samples), b + margin)) for a, b in active], 0)


def _runs(active: NDArray[np.bool_]) -> list[Stretch]:
    """Stretches of steps that are set."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], active, [False]]).astype(np.int8))) * FRAME_SHIFT
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _joined(stretches: Sequence[Stretch], gap: float) -> list[Stretch]:
    """Close gaps up to a length (in samples)."""
    joined: list[Stretch] = []
    for first, last in stretches:
        if joined and first - joined[-1][1] <= gap:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return joined


def given_stretches(utterance: Utterance, count: int) -> list[Stretch] | None:
    """Read the key `segments` of a manifest's line: [[start, end], …] in seconds from the start of its stretch.

    Args:
        utterance: the line.
        count: samples that it has.

    Returns:
        Stretches inside the samples; None where the line has no such key.

    Raises:
        ManifestError: the value is no such list.
    """
    value = utterance.extra.get("segments")
    if value is None:
        return None
    try:
        pairs = [(float(start), float(end)) for start, end in value]
    except (TypeError, ValueError) as error:
        raise ManifestError(f"{utterance.id}: segments must be [[start, end], …] in seconds, not {value!r}") from error
    bounded = [(max(0, round(a * SAMPLE_RATE)), min(count, round(b * SAMPLE_RATE))) for a, b in sorted(pairs)]
    return _joined([(a, b) for a, b in bounded if b > a], 0)


def frame_labels(stretches: Sequence[Stretch], count: int) -> NDArray[np.bool_]:
    """Label feature frames: set where sound fills at least half of the 10 ms in the middle of the 25 ms window.

    Args:
        stretches: where there is sound; they may overlap and reach over the ends.
        count: samples of the signal.

    Returns:
        (T,) bool, T = num_frames(count).
    """
    active = np.zeros(count + 1, dtype=np.int64)
    for first, last in stretches:
        active[1 + max(0, first) : 1 + max(0, min(count, last))] = 1
    filled = np.cumsum(active)  # filled[i]: samples with sound among the first i
    middle = np.arange(num_frames(count)) * FRAME_SHIFT + (FRAME_LENGTH - FRAME_SHIFT) // 2
    labels: NDArray[np.bool_] = filled[middle + FRAME_SHIFT] - filled[middle] >= FRAME_SHIFT / 2
    return labels
