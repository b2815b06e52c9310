"""Statistics of features over a manifest, for `cmvn.ark` (SPEC section 1)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vermilion.audio import FeatureExtractor
from vermilion.audio.cmvn import write_matrix
from vermilion.audio.features import NUM_BINS
from vermilion.errors import AudioError, TrainingError
from vermilion.manifests import Utterance
from vermilion.training.parallel import Report, in_order


@dataclass(frozen=True)
class Statistics:
    """Sums of features."""

    sums: NDArray[np.float64]
    """(2, 81): sums and the number of frames over sums of squares and 0, as `cmvn.ark` holds them"""
    utterances: int
    """how many were used"""
    failures: list[tuple[str, str]]
    """id and message of recordings that could not be read"""

    @property
    def frames(self) -> int:
        """Number of frames, 100 a second."""
        return int(self.sums[0, -1])

    def write(self, path: str | Path) -> None:
        """Write `cmvn.ark`.

        Raises:
            TrainingError: there was not one frame.
        """
        if not self.frames:
            raise TrainingError("there are no frames to compute statistics from: check the manifest")
        write_matrix(path, self.sums)


def accumulate(utterances: Iterable[Utterance], processes: int = 1, report: Report | None = None) -> Statistics:
    """Add up log-Mel features in float64; the same sums for any number of processes.

    Args:
        utterances: of a manifest; taken as they are needed.
        processes: how many work.
        report: progress.
    """
    total = np.zeros((2, NUM_BINS + 1))
    used, failures = 0, []
    for done, (name, found) in enumerate(in_order(_sums, utterances, processes), 1):
        if isinstance(found, str):
            failures.append((name, found))
        else:
            total += found
            used += 1
        if report is not None:
            report(done, name)
    return Statistics(total, used, failures)


@cache
def _plain() -> FeatureExtractor:
    return FeatureExtractor(np.zeros(NUM_BINS), np.ones(NUM_BINS))


def _sums(utterance: Utterance) -> tuple[str, NDArray[np.float64] | str]:
    """The sums of one utterance, or what is wrong with it."""
    try:
        features = _plain().log_mel(utterance.load()).astype(np.float64)
    except AudioError as error:
        return utterance.id, str(error)
    sums = np.zeros((2, NUM_BINS + 1))
    sums[0, :-1], sums[0, -1] = features.sum(axis=0), len(features)
    sums[1, :-1] = np.square(features).sum(axis=0)
    return utterance.id, sums
