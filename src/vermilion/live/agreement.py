"""Which words of changing hypotheses are shown: those on which two in a row agree (local agreement)."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from difflib import SequenceMatcher

from vermilion.scripts import words_of as units_of


def plain(unit: str) -> str:
    """A word without case, marks and blanks."""
    kept = "".join(c for c in unit.casefold() if unicodedata.category(c)[0] in "LNM")
    return kept or unit.strip()


class Agreement:
    """The words of one utterance that are shown, and how often one of them was wrong."""

    def __init__(self) -> None:
        """Nothing shown yet."""
        self.shown: list[str] = []
        self.count = 0
        """words ever shown"""
        self.changed = 0
        """words taken back or replaced later"""
        self._last: list[str] = []

    def add(self, text: str) -> tuple[str, str]:
        """Take the next hypothesis.

        Returns:
            The words shown, and the rest of the hypothesis where it goes on from them.
        """
        units = units_of(text)
        agreed = _common(units, self._last)
        self._last = units
        kept = _common(units[:agreed], self.shown)
        if kept == len(self.shown):
            self.count += agreed - kept
            self.shown = units[:agreed]
        elif agreed > kept:  # two hypotheses in a row contradict what is shown
            self.changed += len(self.shown) - kept
            self.count += agreed - kept
            self.shown = units[:agreed]
        follows = _common(units, self.shown) == len(self.shown)
        return "".join(self.shown).strip(), "".join(units[len(self.shown) :]) if follows else ""

    def finish(self, text: str) -> None:
        """Compare what is shown with the final text."""
        final, shown = [plain(u) for u in units_of(text)], [plain(u) for u in self.shown]
        right = sum(block.size for block in SequenceMatcher(None, shown, final, autojunk=False).get_matching_blocks())
        self.changed += len(shown) - right


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the common beginning, marks and case aside."""
    count = 0
    for a, b in zip(one, other, strict=False):
        if plain(a) != plain(b):
            break
        count += 1
    return count
