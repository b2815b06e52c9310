"""What an evaluation found: a row per recording, figures per set, curves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vermilion.evaluation.calibration import Reliability, Samples, reliability
from vermilion.evaluation.languages import LanguageScore, Level
from vermilion.evaluation.normalisation import Normalisation, Unit
from vermilion.evaluation.recognition import Step
from vermilion.evaluation.voice_activity import THRESHOLD, RocCurve
from vermilion.manifests import Utterance


@dataclass(frozen=True)
class ScoringOptions:
    """How answers are compared with references; changing it needs no new answers."""

    normalisation: Normalisation = "report"
    """of texts"""
    unit: Unit = "mixed"
    """tokens that errors are counted in"""
    level: Level = "language"
    """what of a language label has to agree"""
    threshold: float = THRESHOLD
    """of the frame figures"""


@dataclass(frozen=True)
class Row:
    """One recording."""

    utterance: Utterance
    errors: float
    """what it adds to the numerator of the compared figure"""
    length: float
    """what it adds to the denominator"""
    failed: str = ""
    """why there is no answer"""
    said: str = ""
    """the reference, for people"""
    heard: str = ""
    """the answer, for people"""
    steps: tuple[Step, ...] = field(default=(), repr=False)
    """alignment of the texts"""


@dataclass(frozen=True)
class SetResult:
    """One test set."""

    name: str
    groups: tuple[str, ...]
    rows: tuple[Row, ...] = field(repr=False)
    figures: Mapping[str, float | None]
    """by name, the headline first"""
    audio_seconds: float
    seconds: float
    """that the system worked"""

    @property
    def failures(self) -> int:
        """Recordings without an answer."""
        return sum(bool(r.failed) for r in self.rows)

    @property
    def speed(self) -> float | None:
        """Seconds of audio per second of work; None where there is no audio."""
        return self.audio_seconds / self.seconds if self.audio_seconds and self.seconds else None


@dataclass(frozen=True)
class Figure:
    """How a figure is shown."""

    name: str
    unit: str = "%"
    """"%" (a share), "s", "" (a count)"""
    smaller_is_better: bool = True


@dataclass(frozen=True)
class Evaluation:
    """A system on a task."""

    kind: str
    system: str
    figures: tuple[Figure, ...]
    """those of the sets, the headline first"""
    compared: Figure
    """Σ errors / Σ lengths of the rows: what intervals and comparisons are about"""
    sets: tuple[SetResult, ...]
    curves: Mapping[str, RocCurve] = field(default_factory=dict, repr=False)
    confusion: LanguageScore | None = field(default=None, repr=False)
    confidences: Mapping[str, Samples] = field(default_factory=dict, repr=False)
    """with what was right about them: of "utterance", "word", "language"; none if the system gives none"""
    remarks: tuple[str, ...] = ()
    """what a reader of the figures should know"""

    @property
    def headline(self) -> Figure:
        """The first figure."""
        return self.figures[0]

    @property
    def reliability(self) -> dict[str, Reliability]:
        """How the confidences compare with what was right."""
        return {name: reliability(s.confidences, s.correct) for name, s in self.confidences.items()}
