"""Where a mark may stand in a text: its units, the marks it already has, the script on both sides of a place."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Script = Literal["wide", "narrow", "neutral"]

SENTENCE_MARKS = frozenset("，。？！,.?!")
FINAL_MARKS = frozenset("。？！.?!")
_OTHER_MARKS = frozenset("、；：;:…—～")
_CLOSERS = frozenset("）】》」』”’〉〕］｝〗〙›»)]}%‰℃℉°")
_OPENERS = frozenset("（【《「『“‘〈〔［｛〖〘‹«([{$￥€£")
_QUOTES = frozenset("\"'")
_TRAILING = "".join(_CLOSERS | _QUOTES)
# Han as BERT's tokeniser sees it: every such character is a word of its own.
_HAN = (
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x2FA1F),
)
# Scripts set in full width, which take full-width marks: kana, bopomofo, CJK and full-width forms, and Han.
_WIDE = ((0x2E80, 0x303F), (0x3040, 0x312F), (0x31A0, 0x33FF), (0xFE30, 0xFE4F), (0xFF00, 0xFFEF), *_HAN)


@dataclass(frozen=True)
class Unit:
    """A stretch of text inside which no mark may come: a Chinese character, a word, a number, an address."""

    start: int
    """first character"""
    end: int
    """character after the last one: the place of its mark"""


def find_units(text: str) -> list[Unit]:
    """Cut a text into units; white space belongs to none.

    Units end at white space, around Han characters and around full-width punctuation. Combining signs, invisible
    characters and closing punctuation stay with what they follow, opening punctuation with what follows it.
    """
    units: list[Unit] = []
    start, base = 0, ""
    for place, char in enumerate(text):
        if char.isspace():
            if base:
                units.append(Unit(start, place))
            base = ""
            continue
        if not base:
            start = place
        elif _may_part(base, char):
            units.append(Unit(start, place))
            start = place
        if not base or not _clings(char) or _is_wide_punctuation(char):
            base = char
    if base:
        units.append(Unit(start, len(text)))
    return units


def _may_part(before: str, after: str) -> bool:
    if _clings(after) or before in _OPENERS:
        return False
    return any(_is_han(c) or _is_wide_punctuation(c) for c in (before, after))


@lru_cache(maxsize=65536)
def _clings(char: str) -> bool:
    """True for a character that never begins a unit."""
    if char in _CLOSERS or char in SENTENCE_MARKS or char in _OTHER_MARKS:
        return True
    return unicodedata.category(char) in {"Mn", "Mc", "Me", "Cf", "Cc"}


@lru_cache(maxsize=65536)
def _is_wide_punctuation(char: str) -> bool:
    return unicodedata.category(char)[0] == "P" and unicodedata.east_asian_width(char) in {"W", "F"}


def _is_han(char: str) -> bool:
    return _within(char, _HAN)


def _within(char: str, ranges: tuple[tuple[int, int], ...]) -> bool:
    code = ord(char)
    return any(low <= code <= high for low, high in ranges)


@lru_cache(maxsize=65536)
def script(char: str) -> Script:
    """Tell whether a character calls for full-width marks, for ASCII ones, or leaves that to its neighbours."""
    if _within(char, _WIDE) and char not in SENTENCE_MARKS:  # a mark says nothing about the words around it
        return "wide"
    return "narrow" if char.isalpha() or char.isdecimal() else "neutral"


def first_script(text: str) -> Script:
    """Return the script of the first character that is not neutral."""
    return next((s for s in map(script, text) if s != "neutral"), "neutral")


def last_script(text: str) -> Script:
    """Return the script of the last character that is not neutral."""
    return first_script(text[::-1])


def mark_places(text: str) -> list[int]:
    """Find the sentence marks that a text already has.

    A full-width mark always is one; an ASCII mark only where a word ends (not in "3.14", "example.com", ".5").
    """
    places = []
    ends = True  # whether a word ends before the characters seen so far, from the right
    for place in range(len(text) - 1, -1, -1):
        char = text[place]
        if char in SENTENCE_MARKS:
            ends = ends or not char.isascii()
            if ends:
                places.append(place)
        elif char not in _CLOSERS and char not in _QUOTES:
            ends = char.isspace() or _is_han(char) or _is_wide_punctuation(char)
    return places[::-1]


def without_marks(text: str) -> str:
    """Return the text as the network was trained to see it: a blank in place of every sentence mark."""
    chars = list(text)
    for place in mark_places(text):
        chars[place] = " "
    return "".join(chars)


def own_mark(text: str, unit: Unit) -> str:
    """Return the sentence mark that a unit ends with (closing quotes aside), or an empty string."""
    tail = _strip_closers(text[unit.start : unit.end])
    return tail[-1] if tail and tail[-1] in SENTENCE_MARKS else ""


def _strip_closers(word: str) -> str:
    return word.rstrip(_TRAILING)


def takes_mark(text: str, unit: Unit) -> bool:
    """Tell whether a mark may be put after a unit.

    Not where the text has a mark already (that one is kept, never doubled), not after an opening bracket, and not
    before punctuation that belongs to what stands before it.
    """
    tail = _strip_closers(text[unit.start : unit.end])
    if text[unit.end - 1] in _OPENERS or (tail and (tail[-1] in SENTENCE_MARKS or tail[-1] in _OTHER_MARKS)):
        return False
    following = next(_visible(text, unit.end), "")
    return not (following and (following in SENTENCE_MARKS or following in _OTHER_MARKS or following in _CLOSERS))


def _visible(text: str, place: int) -> Iterator[str]:
    return (text[i] for i in range(place, len(text)) if not text[i].isspace())


def closed_by_own_mark(text: str, unit: Unit) -> bool:
    """Tell whether a mark of the text itself ends a sentence with this unit (the last of "what ?!")."""
    following = next(_visible(text, unit.end), "")
    return bool(own_mark(text, unit)) and not (following and _clings(following))


def joined_by_blank(before: str, after: str) -> bool:
    """Tell whether two words are written with a blank between the last character of one and the first of the next.

    The published code also drops the blank beside symbols ("c++and").
    """
    if "wide" in (script(before), script(after)) or before in _OPENERS or _clings(after):
        return False
    return before.isascii() or before not in SENTENCE_MARKS  # full-width marks bring their own space
