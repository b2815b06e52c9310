"""How wide text is on a screen, where it may be broken, and how it is set in balanced lines."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from vermilion.scripts import is_syllabic, may_cut

CLAUSE_MARKS = frozenset("，。、；：？！,.;:?!…،؛؟।॥")
_MAY_START = frozenset("#@&*/\\¿¡†‡§¶•")  # category Po, yet they stand before their word
_QUOTES = frozenset("\"'")
_SMALL_KANA = frozenset("ぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮヵヶーゝゞ々〻")
_PUNCTUATION_BONUS = 8  # columns of imbalance that a line end after a mark is worth


def clean(text: str) -> str:
    """Set text in one line: runs of blanks, tabs and newlines become one blank, control characters go."""
    spaced = " ".join(text.split())
    return " ".join("".join(c for c in spaced if unicodedata.category(c) != "Cc").split())


@lru_cache(maxsize=16384)
def char_width(character: str) -> int:
    """Return 0 for combining and invisible characters, 2 for East Asian wide and full-width ones, else 1."""
    if unicodedata.category(character) in {"Mn", "Me", "Cf", "Cc"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def display_width(text: str) -> int:
    """Return the columns that a line of text takes in a fixed-width font."""
    return sum(map(char_width, text))


@dataclass(frozen=True)
class Atom:
    """A stretch of text that no line or cue end may divide, with the blank after it."""

    start: int
    """index of its first character"""
    end: int
    """index after its last character, the blank included"""
    full: int
    """width in columns with the blank"""
    bare: int
    """width in columns without it: what counts at the end of a line"""


def atoms(text: str, limit: int) -> list[Atom]:
    """Divide a cleaned text into the pieces that lines are made of.

    Lines may end at blanks and beside Chinese and Japanese characters; never inside a word written with blanks, before
    a closing mark, or after an opening one. A piece of a script without blanks (Thai, Khmer, …) that is wider than
    `limit` columns is cut between its syllables, a longer word of Hangul between its own.
    """
    cuts = [0, *(i for i in range(1, len(text)) if _may_break(text, i)), len(text)]
    pieces: list[Atom] = []
    for a, b in pairwise(cuts):
        if display_width(text[a:b].rstrip()) > limit:
            inner = [i for i in range(a + 1, b) if _may_cut_inside(text, i)]
            edges = _packed(text, [a, *inner, b], limit)
        else:
            edges = [a, b]
        pieces += [_atom(text, c, d) for c, d in pairwise(edges)]
    return pieces


def wrap(text: str, limit: int) -> list[str]:
    """Set a cleaned text in as few lines of at most `limit` columns as possible, balanced.

    Only a single piece that cannot be broken (`atoms`) makes a longer line.
    """
    return lines_of(text, atoms(text, limit), limit)


def lines_of(text: str, pieces: Sequence[Atom], limit: int) -> list[str]:
    """Set consecutive pieces of a text in balanced lines."""
    if not pieces:
        return []
    starts = _greedy(pieces, limit)
    if len(starts) == 2:
        starts = _best_pair(text, pieces, limit) or starts
    elif len(starts) > 2:
        starts = _narrowest(pieces, limit, len(starts))
    ends = [*starts[1:], len(pieces)]
    return [text[pieces[a].start : pieces[b - 1].end].strip() for a, b in zip(starts, ends, strict=True)]


def _atom(text: str, start: int, end: int) -> Atom:
    piece = text[start:end]
    return Atom(start, end, display_width(piece), display_width(piece.rstrip()))


def _greedy(pieces: Sequence[Atom], limit: int) -> list[int]:
    """Index of the first piece of every line, each line filled before the next begins."""
    starts, used = [0], 0
    for i, piece in enumerate(pieces):
        if i > starts[-1] and used + piece.bare > limit:
            starts.append(i)
            used = 0
        used += piece.full
    return starts


def _best_pair(text: str, pieces: Sequence[Atom], limit: int) -> list[int] | None:
    """Two lines of like width, preferably with the first ending at a mark; None if nothing keeps the limit."""
    best: tuple[int, list[int]] | None = None
    total, left = sum(p.full for p in pieces), 0
    for i in range(1, len(pieces)):
        left += pieces[i - 1].full
        last = pieces[i - 1]
        first, second = left - last.full + last.bare, total - left - pieces[-1].full + pieces[-1].bare
        if max(first, second) > limit:
            continue
        bonus = _PUNCTUATION_BONUS if ends_clause(text[last.start : last.end]) else 0
        cost = abs(first - second) - bonus
        if best is None or cost < best[0]:
            best = cost, [0, i]
    return best[1] if best else None


def _narrowest(pieces: Sequence[Atom], limit: int, lines: int) -> list[int]:
    """The narrowest setting that needs no more lines: the widest line is as short as it can be."""
    low, high = 1, limit
    while low < high:
        middle = (low + high) // 2
        if len(_greedy(pieces, middle)) <= lines:
            high = middle
        else:
            low = middle + 1
    return _greedy(pieces, low)


def ends_clause(piece: str) -> bool:
    """Tell whether a piece of text closes a clause: its last character but for quotes and brackets is such a mark."""
    bare = piece.rstrip().rstrip("\"'”’）)」』】》")
    return bool(bare) and bare[-1] in CLAUSE_MARKS


def may_start_line(character: str) -> bool:
    """Tell whether a character may be the first of a line: closing marks, small kana and combining signs may not."""
    if character in _MAY_START or character in _QUOTES:
        return True
    return unicodedata.category(character) not in {"Po", "Pe", "Pf"} and character not in _SMALL_KANA


def _may_end_line(character: str) -> bool:
    return unicodedata.category(character) not in {"Ps", "Pi"} and character not in "¿¡"


def _may_break(text: str, i: int) -> bool:
    left, right = text[i - 1], text[i]
    if right == " " or not may_cut(text, i) or not may_start_line(right):
        return False
    if left == " ":
        return _may_end_line(text[i - 2]) if i >= 2 else True
    if not _may_end_line(left) or left in _QUOTES or right in _QUOTES or left.isdigit():
        return False
    if unicodedata.category(right) == "Pd":  # a dash stays with what it follows
        return False
    return _breaks_beside(left) or _breaks_beside(right)


def _breaks_beside(character: str) -> bool:
    return unicodedata.east_asian_width(character) in "WF" and not _is_hangul(character)


def _is_hangul(character: str) -> bool:
    return 0x1100 <= ord(character) <= 0x11FF or 0xAC00 <= ord(character) <= 0xD7A3


def _may_cut_inside(text: str, i: int) -> bool:
    """Whether a piece that is too long for a line may be cut here: scripts without spaces, and long words of Hangul."""
    pair = text[i - 1 : i + 1]
    cuttable = all(map(is_syllabic, pair)) or all(map(_is_hangul, pair))
    return cuttable and may_start_line(text[i]) and may_cut(text, i)


def _packed(text: str, edges: list[int], limit: int) -> list[int]:
    """Join the pieces between edges again as long as they stay within the limit."""
    kept = [edges[0]]
    for here, following in zip(edges[1:], [*edges[2:], None], strict=True):
        if following is None or display_width(text[kept[-1] : following].rstrip()) > limit:
            kept.append(here)
    return kept
