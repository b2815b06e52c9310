"""Error rates of recognised text: alignment, counts by kind, coverage, averages (report, section 4.1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from vermilion.errors import missing
from vermilion.evaluation.normalisation import Normalisation, Unit, tokens

Kind = Literal["equal", "substitute", "delete", "insert"]


@dataclass(frozen=True)
class Step:
    """One pair of an alignment."""

    kind: Kind
    reference: str
    """empty for an insertion"""
    hypothesis: str
    """empty for a deletion"""


@dataclass(frozen=True)
class Counts:
    """Errors of a recording or of a set; counts of several recordings can be added."""

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    length: int = 0
    """tokens of the references"""

    @property
    def errors(self) -> int:
        """All three kinds."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors per reference token; against an empty reference the number of insertions."""
        return self.errors / max(self.length, 1)

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.length + other.length,
        )


@dataclass(frozen=True)
class UtteranceScore:
    """One recording: what was said, what was heard."""

    id: str
    steps: tuple[Step, ...]
    counts: Counts
    missing: bool = False
    """there was no hypothesis: all of the reference counts as deleted"""


@dataclass(frozen=True)
class RecognitionScore:
    """A set of recordings."""

    counts: Counts
    utterances: tuple[UtteranceScore, ...] = field(repr=False)
    missing: int = 0
    """recordings without a hypothesis"""
    wrong: int = 0
    """recordings with at least one error"""

    @property
    def rate(self) -> float:
        """Error rate over all tokens of the set."""
        return self.counts.rate

    @property
    def coverage(self) -> float:
        """Share of the recordings that have a hypothesis (1.0 for an empty set)."""
        return 1 - self.missing / len(self.utterances) if self.utterances else 1.0

    @property
    def sentence_rate(self) -> float:
        """Share of the recordings with an error."""
        return self.wrong / len(self.utterances) if self.utterances else 0.0


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> tuple[Step, ...]:
    """Align two token lists with the fewest edits.

    Raises:
        MissingDependencyError: the extra `evaluation` is not installed.
    """
    try:
        from rapidfuzz.distance import Levenshtein
    except ImportError as error:
        raise missing("error rates need rapidfuzz", "evaluation") from error
    steps: list[Step] = []
    for op in Levenshtein.opcodes(list(reference), list(hypothesis)):
        said, heard = reference[op.src_start : op.src_end], hypothesis[op.dest_start : op.dest_end]
        if op.tag == "equal":
            steps += [Step("equal", a, b) for a, b in zip(said, heard, strict=True)]
        elif op.tag == "replace":
            steps += [Step("substitute", a, b) for a, b in zip(said, heard, strict=True)]
        elif op.tag == "delete":
            steps += [Step("delete", a, "") for a in said]
        else:
            steps += [Step("insert", "", b) for b in heard]
    return tuple(steps)


def count(steps: Iterable[Step]) -> Counts:
    """Count the edits of an alignment by kind."""
    found = {"equal": 0, "substitute": 0, "delete": 0, "insert": 0}
    for step in steps:
        found[step.kind] += 1
    length = found["equal"] + found["substitute"] + found["delete"]
    return Counts(found["substitute"], found["delete"], found["insert"], length)


def score_utterance(
    id: str,
    reference: str,
    hypothesis: str | None,
    normalisation: Normalisation = "report",
    unit: Unit = "mixed",
) -> UtteranceScore:
    """Score one recording.

    Args:
        id: names it.
        reference: what is said.
        hypothesis: what was heard; None = nothing came back, which counts as deletions.
        normalisation: see `tokens`.
        unit: see `tokens`.
    """
    steps = align(tokens(reference, normalisation, unit), tokens(hypothesis or "", normalisation, unit))
    return UtteranceScore(id, steps, count(steps), hypothesis is None)


def score(
    references: Mapping[str, str],
    hypotheses: Mapping[str, str | None],
    normalisation: Normalisation = "report",
    unit: Unit = "mixed",
) -> RecognitionScore:
    """Score a set; every reference counts, hypotheses without a reference do not.

    Args:
        references: text by id.
        hypotheses: text by id; an id that is not there, or None, counts as deletions.
        normalisation: see `tokens`.
        unit: see `tokens`.
    """
    return gathered(
        score_utterance(id, text, hypotheses.get(id), normalisation, unit) for id, text in references.items()
    )


def gathered(utterances: Iterable[UtteranceScore]) -> RecognitionScore:
    """Add scored recordings up to a set."""
    scored = tuple(utterances)
    total = Counts()
    for utterance in scored:
        total += utterance.counts
    wrong = sum(u.counts.errors > 0 for u in scored)
    return RecognitionScore(total, scored, sum(u.missing for u in scored), wrong)


def macro(rates: Sequence[float]) -> float:
    """Mean of the sets' rates, each set with the same weight (how the report averages).

    Raises:
        ValueError: there are no sets.
    """
    if not rates:
        raise ValueError("an average needs at least one set")
    return sum(rates) / len(rates)
