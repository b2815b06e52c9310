"""Guards against runaway text: more tokens than anybody speaks, and repetition loops.

Ceilings come from real speech: English prompts and dialogue reach 9.1 pieces of a 1,000-piece vocabulary per second
of an utterance, fast Mandarin about 8 characters (`python benchmarks/guards.py rates`); both stay far below these.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

PIECES_PER_SECOND = 16.0
"""pieces of words in letters; also the search's own limit, which does not know the script yet"""
CHARACTERS_PER_SECOND = 12.0
"""Chinese characters"""
TYPICAL_PER_SECOND = 8.0
"""tokens of fast speech, by which a repetitive text is judged where there is no CTC head"""
SLACK_TOKENS = 8
"""beyond the rate, since short utterances are cut close"""
LONGEST_UNIT = 16
"""tokens of the longest unit that counts as repeated"""
LOOP_TIMES = 4
"""times that a unit stands in a row in a loop, at least"""
LOOP_TOKENS = 8
"""tokens of a loop, at least: "no no no no" is none"""


_UNIT = re.compile("[\u3400-\u9fff]|[^\\s\u3400-\u9fff]+\\s*|\\s+")


@dataclass(frozen=True)
class Repetition:
    """A unit that stands several times in a row."""

    start: int
    """place of its first token"""
    size: int
    """tokens of the unit"""
    times: int

    @property
    def end(self) -> int:
        """Place behind its last token."""
        return self.start + self.size * self.times


def token_ceiling(seconds: float, per_second: float = PIECES_PER_SECOND) -> int:
    """Most tokens that an utterance of so many seconds can hold."""
    return SLACK_TOKENS + math.ceil(per_second * seconds)


def within_rate(tokens: Sequence[str], seconds: float) -> int:
    """How many of the tokens fit the time: characters and pieces of words count by their own rates.

    Args:
        tokens: vocabulary entries.
        seconds: of audio.

    Returns:
        Number of leading tokens that keep below the ceiling; all of them for any real speech.
    """
    spent = 0.0
    for place, token in enumerate(tokens):
        is_character = any("\u3400" <= c <= "\u9fff" for c in token)
        spent += 1 / (CHARACTERS_PER_SECOND if is_character else PIECES_PER_SECOND)
        if spent > seconds + SLACK_TOKENS / PIECES_PER_SECOND:
            return place
    return len(tokens)


def repetitions(ids: Sequence[int]) -> list[Repetition]:
    """Find the loops of a text, the largest at each place, from its beginning."""
    found = []
    place = 0
    while place < len(ids):
        loop = _loop_at(ids, place)
        if loop is None:
            place += 1
        else:
            found.append(loop)
            place = loop.end
    return found


def _loop_at(ids: Sequence[int], place: int) -> Repetition | None:
    best: Repetition | None = None
    for size in range(1, min(LONGEST_UNIT, (len(ids) - place) // LOOP_TIMES) + 1):
        if size > 1 and best is not None and size % best.size == 0:
            continue  # the same loop in larger units
        times, unit = 1, list(ids[place : place + size])
        while list(ids[place + times * size : place + (times + 1) * size]) == unit:
            times += 1
        loop = Repetition(place, size, times)
        if times >= LOOP_TIMES and size * times >= LOOP_TOKENS and (best is None or loop.end > best.end):
            best = loop
    return best


def supported_times(loop: Repetition, ids: Sequence[int], heard: Sequence[int]) -> int:
    """How often the CTC head hears the unit of a loop, as far as its counts tell; at least once.

    Args:
        loop: in `ids`.
        ids: of the text.
        heard: labels of the CTC head's best path.
    """
    unit = list(ids[loop.start : loop.start + loop.size])
    outside = [*ids[: loop.start], *ids[loop.end :]]
    counts = sorted((heard.count(t) - outside.count(t)) / unit.count(t) for t in set(unit))
    middle = counts[len(counts) // 2]  # a token that the head spells otherwise must not decide
    return min(loop.times, max(1, round(middle)))


def is_honest(loop: Repetition, supported: int) -> bool:
    """Tell whether so many repeats were heard that the text may stay as it is."""
    return supported >= 0.75 * loop.times


def text_without_loops(text: str, seconds: float) -> str:
    """Cut loops out of a text of which only the letters are known, where it holds more than fits the time.

    Args:
        text: words and Chinese characters.
        seconds: of audio.
    """
    units = _UNIT.findall(text)
    numbers: dict[str, int] = {}
    ids = [numbers.setdefault(unit.strip(), len(numbers)) for unit in units]
    kept = without_loops(ids, None, token_ceiling(seconds, TYPICAL_PER_SECOND))
    return "".join(units[i] for i in kept).strip() if len(kept) < len(units) else text


def without_loops(ids: Sequence[int], heard: Sequence[int] | None, plausible: int) -> list[int]:
    """Places of the tokens that stay when loops that were not spoken are cut.

    Args:
        ids: of the text.
        heard: labels of the CTC head's best path; None = no such head: then time alone judges.
        plausible: tokens that real speech of this length holds at most.

    Returns:
        Places in order; all of them where nothing is to be cut.
    """
    kept: list[int] = []
    place = 0
    for loop in repetitions(ids):
        supported = loop.times if len(ids) <= plausible else 1
        if heard is not None:
            supported = supported_times(loop, ids, heard)
        times = loop.times if is_honest(loop, supported) else supported
        kept += range(place, loop.start + times * loop.size)
        place = loop.end
    return [*kept, *range(place, len(ids))]
