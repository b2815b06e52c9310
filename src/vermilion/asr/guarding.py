"""The guards of FireRedASR2-AED: runaway text is cut, what disagrees with the CTC head is decoded again and flagged."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vermilion.asr.coverage import Coverage, coverage
from vermilion.decoding.ctc import greedy_path
from vermilion.decoding.guards import TYPICAL_PER_SECOND, token_ceiling, within_rate, without_loops
from vermilion.flags import LOW_COVERAGE, RATE_LIMITED, REPETITION, RETRIED

if TYPE_CHECKING:
    from vermilion.decoding.beam import BeamHypothesis

UNLIKELY = -4.0
"""mean log-probability of tokens below which the decoder rejects what the CTC head proposes"""
Rescore = Callable[[], "BeamHypothesis"]


@dataclass(frozen=True)
class Evidence:
    """What a text is held against."""

    seconds: float
    """of audio"""
    posterior: NDArray[np.float32] | None
    """(T', V) CTC log-probabilities; None where the model has no such head"""
    heard: list[int] | None
    """labels of the CTC head's best path"""

    @classmethod
    def of(cls, seconds: float, posterior: NDArray[np.float32] | None, forbidden: Collection[int]) -> Evidence:
        """Read the best path off the posteriors."""
        heard = greedy_path(posterior, forbidden).ids if posterior is not None else None
        return cls(seconds, posterior, heard)


@dataclass(frozen=True)
class Guarded:
    """A text after the guards."""

    hypothesis: BeamHypothesis
    flags: list[str]


@dataclass(frozen=True)
class AedGuard:
    """Judges the best hypothesis of an utterance."""

    vocabulary: Sequence[str]
    silent: Collection[int]
    """labels that are no speech"""

    def __call__(self, found: BeamHypothesis, evidence: Evidence, rescore: Rescore | None) -> Guarded:
        """Cut what nobody can have said; where text and CTC head disagree, take the better of it and a second one.

        Args:
            found: best hypothesis of the search.
            evidence: of its utterance.
            rescore: gives the text that decoder and CTC head choose together; None = there is no second try.
        """
        first = self._cut(found, evidence)
        if evidence.posterior is None:
            return first
        agreement = self._coverage(first, evidence.posterior)
        if agreement.is_healthy and RATE_LIMITED not in first.flags:
            return first
        if rescore is not None:
            second = self._cut(rescore(), evidence)
            other = self._coverage(second, evidence.posterior)
            if agreement.is_invented and _is_unlikely(second.hypothesis):  # neither is a text
                nothing = _picked(second.hypothesis, ())
                return Guarded(nothing, [RETRIED])
            if other.faults < agreement.faults or (RATE_LIMITED in first.flags and other.is_healthy):
                first, agreement = Guarded(second.hypothesis, [RETRIED, *second.flags]), other
        return first if agreement.is_healthy else Guarded(first.hypothesis, [*first.flags, LOW_COVERAGE])

    def _cut(self, found: BeamHypothesis, evidence: Evidence) -> Guarded:
        """Take out loops that were not spoken, and what is beyond the rate of speech."""
        flags = []
        if not found.finished and len(found.ids) >= token_ceiling(evidence.seconds):
            flags.append(RATE_LIMITED)
        plausible = token_ceiling(evidence.seconds, TYPICAL_PER_SECOND)
        kept = without_loops(found.ids, evidence.heard, plausible)
        if len(kept) < len(found.ids):
            found, flags = _picked(found, kept), [*flags, REPETITION]
        fitting = within_rate([self.vocabulary[i] for i in found.ids], evidence.seconds)
        if fitting < len(found.ids):
            found, flags = _picked(found, range(fitting)), [*flags, RATE_LIMITED]
        return Guarded(found, list(dict.fromkeys(flags)))

    def _coverage(self, text: Guarded, posterior: NDArray[np.float32]) -> Coverage:
        spoken = [i for i in text.hypothesis.ids if i not in self.silent]
        return coverage(posterior, spoken, self.silent)


def _is_unlikely(hypothesis: BeamHypothesis) -> bool:
    """Tell whether the decoder itself gives a text next to no chance."""
    chances = [max(p, 1e-9) for p in hypothesis.probabilities]
    return bool(chances) and sum(map(math.log, chances)) / len(chances) < UNLIKELY


def _picked(hypothesis: BeamHypothesis, places: Sequence[int]) -> BeamHypothesis:
    ids, probabilities = hypothesis.ids, hypothesis.probabilities
    return replace(hypothesis, ids=[ids[i] for i in places], probabilities=[probabilities[i] for i in places])
