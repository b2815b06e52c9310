"""Rules of written text that several rooms share: what is Chinese, how pieces are joined, where sentences end."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from vermilion.scripts import is_syllabic
from vermilion.transcript import Sentence, Word

SENTENCE_ENDS = frozenset("。？！.?!…")
_CLOSERS = frozenset("\"'”’）)」』】》")


def is_wide(character: str) -> bool:
    """Tell whether a character is written without spaces around it (Chinese, Japanese; not Korean)."""
    return unicodedata.east_asian_width(character) in "WF" and not "\uac00" <= character <= "\ud7a3"


def needs_blank(left: str, right: str) -> bool:
    """Tell whether a space belongs between two words: not beside Chinese or Japanese, nor between Thai and Thai."""
    return _are_spaced(left, right) and not (is_syllabic(left[-1]) and is_syllabic(right[0]))


def _are_spaced(left: str, right: str) -> bool:
    if not left or not right or left[-1].isspace() or right[0].isspace():
        return False
    return not is_wide(left[-1]) and not is_wide(right[0])


def join_texts(texts: Iterable[str]) -> str:
    """Join sentences, with a space where both sides are written with spaces; Thai and its like have one there too.

    The published code puts one only where . , ! or ? meets a letter: "in the living" + "Please" → "livingPlease".
    """
    joined = ""
    for text in texts:
        joined += (" " if _are_spaced(joined, text) else "") + text
    return joined


def join_words(words: Iterable[str]) -> str:
    """Join words to a sentence, with a space where the scripts of both have one between words."""
    joined = ""
    for word in words:
        joined += (" " if needs_blank(joined, word) else "") + word
    return joined


def ends_sentence(text: str) -> bool:
    """Tell whether a word with its marks closes a sentence."""
    bare = text.rstrip("".join(_CLOSERS))
    return bool(bare) and bare[-1] in SENTENCE_ENDS


def sentences_of(words: Sequence[Word], text: str = "") -> list[Sentence]:
    """Group words that carry their own marks into sentences.

    Args:
        words: in order.
        text: that they are of, where it is known: sentences keep its spaces.
    """
    spans = _spans(words, text)
    sentences: list[Sentence] = []
    first = 0
    for i, word in enumerate(words):
        if ends_sentence(word.text) or i == len(words) - 1:
            own = words[first : i + 1]
            written = text[spans[first][0] : spans[i][1]] if spans else join_words(w.text for w in own)
            sentences.append(Sentence(written, own[0].start, own[-1].end, list(own)))
            first = i + 1
    return sentences


def _spans(words: Sequence[Word], text: str) -> list[tuple[int, int]]:
    """Where each word stands in a text that holds them and nothing else but spaces; empty if it is none such."""
    spans: list[tuple[int, int]] = []
    end = 0
    for word in words:
        start = text.find(word.text, end)
        if start < 0 or text[end:start].strip():
            return []
        end = start + len(word.text)
        spans.append((start, end))
    return spans if not text[end:].strip() else []
