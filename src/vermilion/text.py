"""Rules of written text that several rooms share: what is Chinese, how pieces are joined, where sentences end."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from vermilion.transcript import Sentence, Word

SENTENCE_ENDS = frozenset("。？！.?!…")
_CLOSERS = frozenset("\"'”’）)」』】》")


def is_wide(character: str) -> bool:
    """Tell whether a character is written without blanks around it (Chinese, Japanese; not Korean)."""
    return unicodedata.east_asian_width(character) in "WF" and not "\uac00" <= character <= "\ud7a3"


def needs_blank(left: str, right: str) -> bool:
    """Tell whether a blank belongs between two neighbouring pieces: neither side is Chinese or Japanese."""
    if not left or not right or left[-1].isspace() or right[0].isspace():
        return False
    return not is_wide(left[-1]) and not is_wide(right[0])


def join_texts(texts: Iterable[str]) -> str:
    """Join pieces of text, with a blank where both sides are written with blanks.

    The published code puts one only where . , ! or ? meets a letter: "in the living" + "Please" → "livingPlease".
    """
    joined = ""
    for text in texts:
        joined += (" " if needs_blank(joined, text) else "") + text
    return joined


def ends_sentence(text: str) -> bool:
    """Tell whether a word with its marks closes a sentence."""
    bare = text.rstrip("".join(_CLOSERS))
    return bool(bare) and bare[-1] in SENTENCE_ENDS


def sentences_of(words: Sequence[Word]) -> list[Sentence]:
    """Group words that carry their own marks into sentences."""
    sentences: list[Sentence] = []
    current: list[Word] = []
    for i, word in enumerate(words):
        current.append(word)
        if ends_sentence(word.text) or i == len(words) - 1:
            text = join_texts(w.text for w in current)
            sentences.append(Sentence(text, current[0].start, current[-1].end, current))
            current = []
    return sentences
