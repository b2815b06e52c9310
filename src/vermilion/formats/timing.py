"""When each character of a punctuated sentence is said, from the times of its words."""

from __future__ import annotations

import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate

from vermilion.formats.width import char_width
from vermilion.transcript import Word

_WINDOW = 24  # characters that a word may be away from where it is expected


class SentenceClock:
    """Maps positions in a sentence's text to seconds.

    The text has marks and capitals that the words lack: letters and digits alone are compared, folded. Text that no
    word covers is spread evenly between its neighbours; without any word, over the whole sentence.
    """

    def __init__(self, text: str, words: Sequence[Word], start: float, end: float) -> None:
        spoken = [sum(1 for _ in _folded(c)) and max(1, char_width(c)) for c in text]
        weights = spoken if any(spoken) else [1] * len(text)
        self._position = [0, *accumulate(weights)]
        self._knots, self._times = [0], [start]
        for first, last, word in _matches(text, words):
            self._add(self._position[first], word.start, end)
            self._add(self._position[last], word.end, end)
        self._knots.append(self._position[-1])
        self._times.append(max(end, self._times[-1]))

    def start_of(self, index: int) -> float:
        """Second at which the character at `index` begins."""
        x = self._position[index]
        i = bisect_right(self._knots, x) - 1
        return self._times[i] if self._knots[i] == x else self._between(i, x)

    def end_of(self, index: int) -> float:
        """Second at which the text before `index` ends."""
        x = self._position[index]
        i = bisect_left(self._knots, x)
        return self._times[i] if self._knots[i] == x else self._between(i - 1, x)

    def _add(self, position: int, time: float, latest: float) -> None:
        self._knots.append(position)
        self._times.append(max(self._times[-1], min(time, latest)))

    def _between(self, i: int, x: int) -> float:
        share = (x - self._knots[i]) / (self._knots[i + 1] - self._knots[i])
        return self._times[i] + share * (self._times[i + 1] - self._times[i])


@lru_cache(maxsize=16384)
def _folded(character: str) -> str:
    """Letters and digits of a character, without case and width; empty for marks and blanks."""
    return "".join(c for c in unicodedata.normalize("NFKC", character).casefold() if c.isalnum())


def _matches(text: str, words: Sequence[Word]) -> Iterator[tuple[int, int, Word]]:
    """Yield (first index, index after the last, word) for the words found in the text, in order."""
    owners = [i for i, c in enumerate(text) for _ in _folded(c)]
    key, cursor = "".join(map(_folded, text)), 0
    for word in words:
        wanted = "".join(map(_folded, word.text))
        at = key.find(wanted, cursor, cursor + len(wanted) + _WINDOW) if wanted else -1
        if at >= 0:
            cursor = at + len(wanted)
            yield owners[at], owners[cursor - 1] + 1, word
