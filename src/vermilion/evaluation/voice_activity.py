"""Voice activity against exact labels: frames of 10 ms (AUC, F1, FAR, MR) and segments (report, section 4.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vermilion.errors import OptionsError, missing
from vermilion.transcript import Span

FRAME_SECONDS = 0.01
THRESHOLD = 0.5
"""of the frame figures"""


@dataclass(frozen=True)
class FrameScore:
    """Decisions per frame, and the area under the curve of all thresholds."""

    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int
    auc: float | None = None
    """area under the ROC curve; None without probabilities, or where the labels are all of one kind"""

    @property
    def frames(self) -> int:
        """All frames."""
        return self.true_positives + self.false_positives + self.true_negatives + self.false_negatives

    @property
    def precision(self) -> float:
        """Share of the frames called speech that are; 0 if none was."""
        return _share(self.true_positives, self.false_positives)

    @property
    def recall(self) -> float:
        """Share of the speech that was found."""
        return _share(self.true_positives, self.false_negatives)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        both = 2 * self.true_positives
        return both / (both + self.false_positives + self.false_negatives) if both else 0.0

    @property
    def false_alarm_rate(self) -> float:
        """FAR = FP / (FP + TN)."""
        return _share(self.false_positives, self.true_negatives)

    @property
    def miss_rate(self) -> float:
        """MR = FN / (FN + TP)."""
        return _share(self.false_negatives, self.true_positives)


@dataclass(frozen=True)
class RocCurve:
    """False alarms against hits over all thresholds."""

    false_alarms: NDArray[np.float64]
    """(K,) rising from 0 to 1"""
    hits: NDArray[np.float64]
    """(K,)"""
    thresholds: NDArray[np.float64]
    """(K,) falling"""


@dataclass(frozen=True)
class SegmentScore:
    """Segments against segments; scores of several recordings can be added."""

    references: int = 0
    """segments that are there"""
    found: int = 0
    """segments that were reported"""
    missed: int = 0
    """references that no reported segment touches"""
    false: int = 0
    """reported segments that touch no reference"""
    splits: int = 0
    """over-segmentation: cuts inside a reference (its reported segments less one)"""
    merges: int = 0
    """under-segmentation: references joined (those that one reported segment touches, less one)"""
    start_errors: tuple[float, ...] = ()
    """seconds, reported − true, of segments that pair one to one"""
    end_errors: tuple[float, ...] = ()
    missed_seconds: float = 0.0
    false_seconds: float = 0.0
    speech_seconds: float = 0.0

    def __add__(self, other: SegmentScore) -> SegmentScore:
        return SegmentScore(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    @property
    def detection_error(self) -> float:
        """Seconds missed and seconds added per second of speech."""
        return (self.missed_seconds + self.false_seconds) / self.speech_seconds if self.speech_seconds else 0.0

    @property
    def start_error(self) -> float | None:
        """Mean distance of the starts in seconds; None if no segments pair."""
        return float(np.mean(np.abs(self.start_errors))) if self.start_errors else None

    @property
    def end_error(self) -> float | None:
        """Mean distance of the ends in seconds; None if no segments pair."""
        return float(np.mean(np.abs(self.end_errors))) if self.end_errors else None


def frame_labels(spans: Sequence[Span], frames: int) -> NDArray[np.bool_]:
    """Spans → one label per frame of 10 ms: true where the middle of the frame lies in a span.

    Args:
        spans: seconds, in any order; they may overlap.
        frames: how many.

    Returns:
        (frames,) labels.
    """
    labels = np.zeros(frames, dtype=np.bool_)
    for span in spans:
        # the frame's middle t·10 ms + 5 ms is in [start, end)
        first, last = (max(0, int(np.ceil(round(100 * time - 0.5, 6)))) for time in (span.start, span.end))
        labels[first:last] = True
    return labels


def frame_score(
    labels: NDArray[np.bool_], probabilities: NDArray[np.floating] | None = None, *,
    decisions: NDArray[np.bool_] | None = None, threshold: float = THRESHOLD,
) -> FrameScore:  # fmt: skip
    """Score frames.

    Args:
        labels: (T,) what is true; several recordings are concatenated.
        probabilities: (T,) of the detector.
        decisions: (T,) of a detector without probabilities, or after its segmentation; else the threshold decides.
        threshold: a probability that reaches it is speech.

    Raises:
        OptionsError: nothing to score, or lengths that differ.
        MissingDependencyError: the extra `evaluation` is not installed.
    """
    if decisions is None:
        if probabilities is None:
            raise OptionsError("frames are scored by probabilities or by decisions; there is neither")
        decisions = probabilities >= threshold
    if len(labels) != len(decisions) or (probabilities is not None and len(labels) != len(probabilities)):
        raise OptionsError(f"{len(labels)} labels stand against {len(decisions)} frames")
    auc = area(labels, probabilities) if probabilities is not None else None
    hit, alarm = int((labels & decisions).sum()), int((~labels & decisions).sum())
    positives = int(labels.sum())
    return FrameScore(hit, alarm, len(labels) - positives - alarm, positives - hit, auc)


def area(labels: NDArray[np.bool_], probabilities: NDArray[np.floating]) -> float | None:
    """Area under the ROC curve; None where the labels are all of one kind."""
    metrics = _scikit_learn()
    if labels.all() or not labels.any():
        return None
    return float(metrics.roc_auc_score(labels, probabilities))


def roc_curve(labels: NDArray[np.bool_], probabilities: NDArray[np.floating]) -> RocCurve | None:
    """The ROC curve; None where the labels are all of one kind."""
    metrics = _scikit_learn()
    if labels.all() or not labels.any():
        return None
    alarms, hits, thresholds = metrics.roc_curve(labels, probabilities)
    return RocCurve(alarms, hits, thresholds)


def event_score(
    labels: Mapping[str, NDArray[np.bool_]], probabilities: Mapping[str, NDArray[np.floating]],
    threshold: float = THRESHOLD,
) -> dict[str, FrameScore]:  # fmt: skip
    """Score events that may sound together (speech, singing, music), each on its own.

    Raises:
        OptionsError: an event has labels and no probabilities, or the other way round.
    """
    if set(labels) != set(probabilities):
        raise OptionsError(f"labels for {sorted(labels)} stand against probabilities for {sorted(probabilities)}")
    return {name: frame_score(labels[name], probabilities[name], threshold=threshold) for name in labels}


def segment_score(references: Sequence[Span], found: Sequence[Span], *, least_overlap: float = 0.0) -> SegmentScore:
    """Compare segments.

    Args:
        references: true segments in seconds, in any order; those that touch or overlap count as one.
        found: reported segments, treated alike.
        least_overlap: two segments touch if they share more than so many seconds.
    """
    true, got = merged(references), merged(found)
    touched = [[j for j, b in enumerate(got) if _overlap(a, b) > least_overlap] for a in true]
    touching = [[i for i, js in enumerate(touched) if j in js] for j in range(len(got))]
    pairs = [(true[i], got[js[0]]) for i, js in enumerate(touched) if len(js) == 1 and len(touching[js[0]]) == 1]
    shared = sum(_overlap(a, b) for a in true for b in got)
    speech, heard = sum(s.duration for s in true), sum(s.duration for s in got)
    return SegmentScore(
        references=len(true),
        found=len(got),
        missed=sum(not js for js in touched),
        false=sum(not js for js in touching),
        splits=sum(max(0, len(js) - 1) for js in touched),
        merges=sum(max(0, len(js) - 1) for js in touching),
        start_errors=tuple(b.start - a.start for a, b in pairs),
        end_errors=tuple(b.end - a.end for a, b in pairs),
        missed_seconds=speech - shared,
        false_seconds=heard - shared,
        speech_seconds=speech,
    )


def merged(spans: Sequence[Span]) -> list[Span]:
    """Spans in order, those that touch or overlap joined; empty ones vanish."""
    out: list[Span] = []
    for span in sorted((s for s in spans if s.end > s.start), key=lambda s: (s.start, s.end)):
        if out and span.start <= out[-1].end:
            out[-1] = Span(out[-1].start, max(out[-1].end, span.end))
        else:
            out.append(span)
    return out


def _overlap(a: Span, b: Span) -> float:
    return max(0.0, min(a.end, b.end) - max(a.start, b.start))


def _share(part: int, rest: int) -> float:
    return part / (part + rest) if part + rest else 0.0


def _scikit_learn() -> Any:
    try:
        from sklearn import metrics
    except ImportError as error:
        raise missing("curves need scikit-learn", "evaluation") from error
    return metrics
