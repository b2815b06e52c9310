"""Punctuated text → words with the mark that follows each, and words → what a recogniser would have written.

Marks become four: ， 。 ？ ！ Everything else that is no letter, digit or part of a word is taken out, as a recogniser
does not write it (SPEC section 11).
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vermilion.errors import OptionsError, TrainingError
from vermilion.punc.units import find_units, joined_by_blank, script

LABELS = (" ", "，", "。", "？", "！")
"""marks by label; 0 is none"""
NONE, COMMA, PERIOD, QUESTION, EXCLAMATION = range(5)
FINAL = frozenset((PERIOD, QUESTION, EXCLAMATION))

_MARKS = {
    **dict.fromkeys("，、；：,;:—–", COMMA),
    **dict.fromkeys("。.．｡…⋯", PERIOD),
    **dict.fromkeys("？?", QUESTION),
    **dict.fromkeys("！!", EXCLAMATION),
}
"""marks where a word ends; dots that mean an omission end a sentence, a dash parts as a comma does"""
_RANK = (NONE, COMMA, PERIOD, EXCLAMATION, QUESTION)
"""of several marks in a row the last in this order counts: "好。" he said → 。, "what?!" → ？"""
_INSIDE = re.compile(r"(?<=\w)['’](?=\w)|(?<=\d)[.,:](?=\d)|(?<=[a-z])\.(?=[a-z])|(?<=\w)[@_/&+#](?=\w)|[+#%]")
"""what may stay in a word: don't, 3.14, 10:30, example.com, c++, 50%"""
_PIECES = re.compile(rf"(?:\w|{_INSIDE.pattern})+|\s+|.", re.DOTALL)
_ABBREVIATION = re.compile(r"mrs?|ms|dr|prof|st|mt|vs|no|fig|approx|jr|[a-z](?:\.[a-z])+")
"""words whose dot ends no sentence where more follows"""
_FILLERS_WIDE = ("嗯", "啊", "呃", "那个", "就是")
_FILLERS_NARROW = ("uh", "um", "well", "you know")


@dataclass(frozen=True)
class Marked:
    """A word (a Chinese character is one) and the label of the mark after it."""

    word: str
    label: int = NONE


@dataclass(frozen=True)
class NoiseOptions:
    """Errors of a recogniser, put into the words of training."""

    share: float = 0.5
    """Share of the windows that have errors."""
    substitution: float = 0.03
    """Probability that a word of such a window becomes another."""
    deletion: float = 0.01
    """Probability that a word is lost; its mark stays where it was."""
    insertion: float = 0.01
    """Probability that a word is said twice."""
    filler: float = 0.01
    """Probability of a filler (嗯, um) in front of a word."""

    def __post_init__(self) -> None:
        """Check the domain.

        Raises:
            OptionsError: a probability is none.
        """
        for name in ("share", "substitution", "deletion", "insertion", "filler"):
            if not 0 <= getattr(self, name) <= 1:
                raise OptionsError(f"{name} is {getattr(self, name)}; it must lie between 0 and 1")


def read_texts(path: str | Path, on_fault: Callable[[int, TrainingError], None] | None = None) -> Iterator[str]:
    """Read punctuated text line by line: plain text, or JSON lines with the key "text".

    Args:
        path: of the file.
        on_fault: is given the number of each line that is no text, and what is wrong; reading goes on.

    Yields:
        Lines; an empty one parts what does not belong together.

    Raises:
        TrainingError: the file cannot be read, or a line of a .jsonl file has no text.
    """
    file = Path(path)
    try:
        with file.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    text = _text_of(file, number, line)
                except TrainingError as error:
                    if on_fault is None:
                        raise
                    on_fault(number, error)
                else:
                    yield text
    except OSError as error:
        raise TrainingError(f"cannot read the text {file}: {error}") from error


def _text_of(file: Path, number: int, line: str) -> str:
    if any("\udc80" <= c <= "\udcff" for c in line):
        raise TrainingError(f"{file}, line {number} is no UTF-8 text")
    if not line.strip() or file.suffix != ".jsonl":
        return line.strip()
    try:
        found = json.loads(line)
    except json.JSONDecodeError as error:
        raise TrainingError(f"{file}, line {number} is no JSON: {error}") from error
    text = found.get("text") if isinstance(found, dict) else None
    if not isinstance(text, str):
        raise TrainingError(f'{file}, line {number} has no "text"')
    return text.strip()


def marked_words(text: str) -> list[Marked]:
    """Take the marks out of a text.

    Args:
        text: Chinese, English, or mixed, with marks.

    Returns:
        Its words in lower case, each with the mark that followed. Quotes and brackets vanish; a mark inside closing
        quotes belongs to the word before it. "：" before a quotation is a comma.
    """
    found: list[Marked] = []
    for match in _PIECES.finditer(_plain(text)):
        piece = match.group()
        if not any(map(str.isalnum, piece)):
            label = NONE if piece.isspace() else _label(piece, match.string[match.end() : match.end() + 2])
            if found and label:
                last = found[-1]
                if piece == "." and _ABBREVIATION.fullmatch(last.word) and match.string[match.end() :].strip():
                    continue
                found[-1] = Marked(last.word, max(last.label, label, key=_RANK.index))
            continue
        found += [Marked(piece[unit.start : unit.end]) for unit in find_units(piece)]
    return found


def _plain(text: str) -> str:
    """Lower case; full-width letters and digits as ASCII; dots of an omission as one sign."""
    chars = [unicodedata.normalize("NFKC", c) if "０" <= c <= "ｚ" and c.isalnum() else c for c in text]
    return re.sub(r"\.{2,}|…+|。{2,}", "…", "".join(chars)).replace("’", "'").lower()


def _label(piece: str, after: str) -> int:
    """The label of a sign between words."""
    if piece == "-":  # a dash between blanks parts, a hyphen does not
        return COMMA if after[:1].isspace() else NONE
    return _MARKS.get(piece, NONE)


def documents(lines: Iterable[str]) -> list[list[Marked]]:
    """Join lines to stretches of running text.

    A stretch ends at an empty line, and after a line that does not end with a mark (a heading, an entry of a list):
    what stands behind the last mark of such a line is left out.
    """
    found: list[list[Marked]] = [[]]
    for line in lines:
        words = marked_words(line)
        end = next((i + 1 for i in range(len(words) - 1, -1, -1) if words[i].label), 0)
        found[-1] += words[:end]
        if end < len(words) or not words:
            found.append([])
    return [document for document in found if document]


def joined(words: Sequence[Marked]) -> tuple[str, list[int]]:
    """Write words as a recogniser does.

    Returns:
        The text, blanks between words unless Chinese stands on either side, and where each word ends in it.
    """
    text, ends = "", []
    for word in words:
        if text and joined_by_blank(text[-1], word.word[0]):
            text += " "
        text += word.word
        ends.append(len(text))
    return text, ends


def with_errors(
    words: Sequence[Marked], others: Sequence[str], options: NoiseOptions, rng: np.random.Generator
) -> list[Marked]:
    """Make the errors of a recogniser.

    Args:
        words: of a window.
        others: words to put in place of others, the frequent ones more often.
        options: how many errors.
        rng: decides everything.

    Returns:
        Changed words; at least one.
    """
    out: list[Marked] = []
    chances = rng.random((len(words), 4))
    for marked, (substituted, deleted, inserted, filled) in zip(words, chances, strict=True):
        if filled < options.filler:
            fillers = _FILLERS_WIDE if script(marked.word[0]) == "wide" else _FILLERS_NARROW
            out += marked_words(fillers[int(rng.integers(len(fillers)))])
        if deleted < options.deletion and out:
            if marked.label:
                out[-1] = Marked(out[-1].word, max(out[-1].label, marked.label, key=_RANK.index))
            continue
        word = marked.word
        if substituted < options.substitution:
            word = _another(word, others, rng)
        if inserted < options.insertion:
            out.append(Marked(word))
        out.append(Marked(word, marked.label))
    return out


def _another(word: str, others: Sequence[str], rng: np.random.Generator) -> str:
    """Another word of the same script, or the same without a letter."""
    if script(word[0]) != "wide" and len(word) > 3 and rng.random() < 0.5:
        place = int(rng.integers(1, len(word)))
        return word[:place] + word[place + 1 :]
    for _ in range(8):
        other = others[int(rng.integers(len(others)))]
        if script(other[0]) == script(word[0]):
            return other
    return word
