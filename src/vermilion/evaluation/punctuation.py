"""Punctuation: precision, recall and F1 of marks; micro figures over comma, period, question mark (report, 4.4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from vermilion.evaluation.normalisation import is_mark, is_single
from vermilion.evaluation.recognition import align

MARKS: Mapping[str, str] = {"comma": "，,", "period": "。.", "question": "？?", "exclamation": "！!"}
"""name → the characters that stand for it"""
SCORED = ("comma", "period", "question")
"""what the micro figures count"""
_NAMES = {character: name for name, characters in MARKS.items() for character in characters}


@dataclass(frozen=True)
class MarkScore:
    """One mark, or several together; scores can be added."""

    hits: int = 0
    """right mark at the right place"""
    extra: int = 0
    """put where another mark or none belongs"""
    lost: int = 0
    """not put where it belongs"""

    def __add__(self, other: MarkScore) -> MarkScore:
        return MarkScore(self.hits + other.hits, self.extra + other.extra, self.lost + other.lost)

    @property
    def precision(self) -> float:
        """Share of the marks put that are right."""
        return self.hits / (self.hits + self.extra) if self.hits else 0.0

    @property
    def recall(self) -> float:
        """Share of the marks that belong there that were put."""
        return self.hits / (self.hits + self.lost) if self.hits else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return 2 * self.hits / (2 * self.hits + self.extra + self.lost) if self.hits else 0.0


@dataclass(frozen=True)
class PunctuationScore:
    """A set of texts; scores can be added."""

    marks: Mapping[str, MarkScore] = field(default_factory=lambda: {name: MarkScore() for name in MARKS})
    changed: int = 0
    """words (Chinese: characters) that the restorer changed, lost or added: 0 if it only put marks"""

    @property
    def micro(self) -> MarkScore:
        """Comma, period and question mark together."""
        return sum((self.marks[name] for name in SCORED), MarkScore())

    def __add__(self, other: PunctuationScore) -> PunctuationScore:
        marks = {name: self.marks[name] + other.marks[name] for name in MARKS}
        return PunctuationScore(marks, self.changed + other.changed)


def score_text(reference: str, hypothesis: str) -> PunctuationScore:
    """Score the marks of one text; case does not count, full-width and ASCII marks are the same.

    Args:
        reference: the text with its true marks.
        hypothesis: the same words with restored marks; where words differ (recognised text), they are aligned first.
    """
    (words, true), (heard, got) = marked(reference), marked(hypothesis)
    found = {name: [0, 0, 0] for name in MARKS}
    changed = i = j = 0
    for step in align(words, heard):
        wanted = true[i] if step.kind != "insert" else None
        put = got[j] if step.kind != "delete" else None
        i, j = i + (step.kind != "insert"), j + (step.kind != "delete")
        changed += step.kind != "equal"
        if wanted == put:
            if put is not None:
                found[put][0] += 1
            continue
        if put is not None:
            found[put][1] += 1
        if wanted is not None:
            found[wanted][2] += 1
    return PunctuationScore({name: MarkScore(*counts) for name, counts in found.items()}, changed)


def score(pairs: Iterable[tuple[str, str]]) -> PunctuationScore:
    """Score (reference, hypothesis) texts together."""
    return sum((score_text(reference, hypothesis) for reference, hypothesis in pairs), PunctuationScore())


def marked(text: str) -> tuple[list[str], list[str | None]]:
    """Cut a text into words (Chinese: characters) and the mark after each.

    Marks other than the four, quotes and hyphens vanish; of several marks in a row the first of the four counts; a
    comma or a full stop inside a word (3.5, e.g.) is none.

    Returns:
        Upper-case words, and per word the name of its mark or None.
    """
    words: list[str] = []
    marks: list[str | None] = []
    fresh = True  # the next character begins a word
    for i, character in enumerate(text):
        if character.isspace():
            fresh = True
        elif character in _NAMES and not _inside(text, i):
            if marks and marks[-1] is None:
                marks[-1] = _NAMES[character]
            fresh = True
        elif is_mark(character):
            continue
        elif fresh or is_single(character):
            words.append(character.upper())
            marks.append(None)
            fresh = is_single(character)
        else:
            words[-1] += character.upper()
    return words, marks


def unmarked(text: str) -> str:
    """The text as a recogniser would write it: lower case, no marks, no blank beside Chinese."""
    out = ""
    for word in marked(text)[0]:
        apart = out and not is_single(out[-1]) and not is_single(word[0])
        out += (" " if apart else "") + word.lower()
    return out


def _inside(text: str, i: int) -> bool:
    """Whether an ASCII mark at `i` stands between two letters or digits of one word."""
    if text[i] not in ",." or i == 0 or i + 1 == len(text):
        return False
    return all(c.isalnum() and not is_single(c) for c in (text[i - 1], text[i + 1]))
