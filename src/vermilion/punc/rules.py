"""Puts marks into a text and sets English casing, changing nothing else (the right form of SPEC section 11.6).

The published rules work on lower-cased text with regular expressions and depend on where matches happen to fall
("a，b，c" loses one mark of two, "ok，没问题" gets an ASCII comma without a blank, "He said i" stays). These look at
the two neighbours of each place instead.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from vermilion.punc.units import FINAL_MARKS, Script, Unit, first_script, last_script, own_mark

_ASCII = {"，": ",", "。": ".", "？": "?", "！": "!"}
_FIRST_PERSON = re.compile(r"[\"'“‘(\[]*(i)(['’](?:m|d|ve|ll))?[\"'”’)\],.?!;:，。？！]*")
# Addresses ("www.example.com", "a@b.c", "e.g.") and names with a capital inside ("iPhone") keep their first letter.
_KEEPS_CASE = re.compile(r"[@\\_]|://|[^\W\d]\.[^\W\d]|^\W*[^\W\d_]+[A-Z]")


def punctuate(text: str, units: Sequence[Unit], marks: Sequence[str]) -> str:
    """Insert marks after units and capitalise sentence starts and the English "I".

    Args:
        text: any text; its characters, blanks and marks are all kept.
        units: non-overlapping stretches of the text, in order.
        marks: one per unit: a full-width mark, or an empty string for none.

    Returns:
        The text with marks: ASCII between two words in half-width script, full-width beside Chinese or Japanese.
    """
    out: list[str] = []
    done = 0
    for unit, written in zip(units, written_units(text, units, marks), strict=True):
        out += [text[done : unit.start], written]
        done = unit.end
    return "".join(out) + text[done:]


def written_units(text: str, units: Sequence[Unit], marks: Sequence[str]) -> list[str]:
    """Return each unit cased and with its mark; arguments as in `punctuate`."""
    before, after = _neighbours(text, units)
    out: list[str] = []
    begins = True  # a sentence starts here
    for i, (unit, mark) in enumerate(zip(units, marks, strict=True)):
        word = text[unit.start : unit.end]
        cased = _first_person(word, before[i], after[i])
        out.append((_capitalised(cased) if begins else cased) + _form(mark, word, before[i], after[i]))
        closing = mark or own_mark(text, unit)
        begins = closing in FINAL_MARKS if closing else begins and not any(map(str.isalnum, word))
    return out


def _neighbours(text: str, units: Sequence[Unit]) -> tuple[list[Script], list[Script]]:
    """Script of the nearest unit before and after each unit that has one; "neutral" if there is none."""
    words = [text[u.start : u.end] for u in units]
    before = _carried([last_script(w) for w in words])
    after = _carried([first_script(w) for w in reversed(words)])[::-1]
    return before, after


def _carried(scripts: Sequence[Script]) -> list[Script]:
    out: list[Script] = []
    last: Script = "neutral"
    for own in scripts:
        out.append(last)
        last = own if own != "neutral" else last
    return out


def _form(mark: str, word: str, before: Script, after: Script) -> str:
    own = last_script(word)
    left = own if own != "neutral" else before
    if left != "narrow":
        return mark
    # At the end of a text one word alone does not tell: "她说no。", but "你好，how are you?" and "Tim."
    narrow = after == "narrow" or (after == "neutral" and before != "wide")
    return _ASCII.get(mark, mark) if narrow else mark


def _first_person(word: str, before: Script, after: Script) -> str:
    match = _FIRST_PERSON.fullmatch(word)
    if match is None:
        return word
    english = match.group(2) or "narrow" in (before, after)
    return word[: match.start(1)] + "I" + word[match.end(1) :] if english else word


def _capitalised(word: str) -> str:
    """Raise the first letter if that is one character to one and can be undone."""
    place = next((i for i, c in enumerate(word) if c.isalnum()), -1)
    if place < 0 or _KEEPS_CASE.search(word):
        return word
    letter = word[place]
    capital = letter.title()  # not upper(): "ǆ" → "ǅ", and Georgian has no title case
    if len(capital) != 1 or capital.lower() != letter:
        return word
    return word[:place] + capital + word[place + 1 :]
