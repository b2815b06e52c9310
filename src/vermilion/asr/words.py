"""From tokens to words (SPEC section 7)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from vermilion.transcript import Token, Word

WORD_MARK = "▁"
SPECIAL = frozenset({"<blank>", "<pad>", "<sos>", "<eos>", "<sil>"})
"""tokens that are never part of a text"""
_LETTERS = re.compile(r"[a-zA-Z']+")


def text_of(tokens: Iterable[str]) -> str:
    """Join token strings to text (SPEC section 6): word marks become blanks, special tokens vanish, lower case."""
    text = "".join(tokens).replace(WORD_MARK, " ").strip()
    return text.replace("<blank>", "").replace("<sil>", "").lower()


def words_of(tokens: Sequence[Token]) -> list[Word]:
    """Group timed tokens into words; Chinese characters stand alone.

    A token that begins with the word mark opens a word, tokens of letters continue it. Special tokens and a word mark
    without letters leave no word (the published code then emits `<sil>` or an empty word).
    """
    groups: list[list[Token]] = []
    open_word = False
    for token in tokens:
        text = token.text.lower()
        if text in SPECIAL:
            open_word = False
        elif text.startswith(WORD_MARK):
            groups.append([token])
            open_word = True
        elif open_word and _LETTERS.fullmatch(text):
            groups[-1].append(token)
        else:
            groups.append([token])
            open_word = False
    return [word for group in groups if (word := _word(group)) is not None]


def _word(group: list[Token]) -> Word | None:
    text = "".join(t.text for t in group).lower().replace(WORD_MARK, "")
    if not text:
        return None
    start, end = group[0].start or 0.0, group[-1].end or 0.0
    confidence = sum(t.probability for t in group) / len(group)
    return Word(text, start, max(start, end), confidence)
