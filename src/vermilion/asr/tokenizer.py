"""The recogniser's vocabulary: tokens ↔ text (SPEC section 6)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vermilion.asr.words import WORD_MARK
from vermilion.checkpoints.reader import read_dictionary
from vermilion.errors import CheckpointError

SENTENCEPIECE_FILE = "train_bpe1000.model"
_MARKS = re.compile("[，。？！,.?!]")
_HAN = re.compile("([\u3400-\u4dbf\u4e00-\u9fff])")


@dataclass(frozen=True)
class SpelledWord:
    """A word of a given text and the tokens that spell it."""

    text: str
    """as written, with capitals and the marks around it"""
    ids: list[int]
    """at least one; a stretch without tokens of its own is one `<unk>`"""


class Tokenizer:
    """Vocabulary of single Chinese characters and English SentencePiece pieces."""

    def __init__(self, vocabulary: Sequence[str], sentencepiece_file: Path | None = None) -> None:
        """Take the token list; the SentencePiece file is needed (and read) only to encode text."""
        self.vocabulary = list(vocabulary)
        self._file = sentencepiece_file
        self._ids = {token: i for i, token in enumerate(self.vocabulary)}

    @classmethod
    def from_folder(cls, folder: Path, size: int | None = None) -> Tokenizer:
        """Read `dict.txt`, of `size` tokens where that is known, and note where the SentencePiece model lies."""
        return cls(read_dictionary(folder / "dict.txt", size), folder / SENTENCEPIECE_FILE)

    @cached_property
    def _pieces(self) -> Any:
        from sentencepiece import SentencePieceProcessor

        if self._file is None or not self._file.is_file():
            raise CheckpointError(f"{SENTENCEPIECE_FILE} is missing beside dict.txt; it is needed to encode text")
        try:
            return SentencePieceProcessor(model_file=str(self._file))
        except (OSError, RuntimeError) as error:
            raise CheckpointError(f"{self._file} is not a SentencePiece model: {error}") from error

    def encode(self, text: str) -> tuple[list[str], list[int]]:
        """Split text into tokens; marks separate, unknown pieces become `<unk>`.

        Raises:
            CheckpointError: the SentencePiece file is missing or damaged.
        """
        tokens: list[str] = []
        for part, is_character in stretches(text):
            tokens.extend([part] if is_character else self._pieces.encode(part, out_type=str))
        return tokens, [self._ids.get(t, self.unknown) for t in tokens]

    @property
    def unknown(self) -> int:
        """Id of `<unk>`."""
        return self._ids.get("<unk>", 1)

    def spell(self, text: str) -> list[SpelledWord]:
        """Split a written text into words (Chinese: characters) with the tokens of each, for alignment.

        Marks and symbols are not spoken: they get no tokens and stay in the word before them, or after an opening
        bracket or at the beginning in the word behind them, so that no character but white space is lost.

        Raises:
            CheckpointError: the SentencePiece file, which words of letters need, is missing or damaged.
        """
        words: list[SpelledWord] = []
        waiting = ""  # marks that belong to the next word
        for unit in _written_units(text):
            ids = self._spoken_ids(unit)
            if ids:
                words.append(SpelledWord(waiting + unit, ids))
                waiting = ""
            elif words and not waiting and not _opens(unit):
                words[-1] = SpelledWord(words[-1].text + unit, words[-1].ids)
            else:
                waiting += unit
        if words and waiting:
            words[-1] = SpelledWord(words[-1].text + waiting, words[-1].ids)
        return words

    def _spoken_ids(self, unit: str) -> list[int]:
        spoken = "".join(c if _is_spoken(c) else " " for c in unit.replace("’", "'")).strip()
        if not any(c.isalnum() for c in spoken):
            return []
        _, ids = self.encode(spoken)
        # a run of unknown pieces is aligned as one: each needs frames of its own, which the sound may not have
        return [k for i, k in enumerate(ids) if k != self.unknown or i == 0 or ids[i - 1] != k]

    def join(self, ids: Sequence[int]) -> str:
        """Join tokens as they are, word marks included."""
        return "".join(self.vocabulary[i] for i in ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Join tokens, word marks turned into blanks, ends stripped."""
        return self.join(ids).replace(WORD_MARK, " ").strip()


def stretches(text: str) -> Iterator[tuple[str, bool]]:
    """Split a text, in capitals and without marks, into Chinese characters (True) and what stands between them."""
    for part in _HAN.split(_MARKS.sub(" ", text.upper())):
        if _HAN.fullmatch(part):
            yield part, True
        elif part.strip():
            yield part.strip(), False


def _written_units(text: str) -> Iterator[str]:
    """Yield words by white space; Chinese characters one by one, with the marks that follow them."""
    for stretch in text.split():
        unit = ""
        for character in stretch:
            follows_han = bool(unit) and bool(_HAN.match(unit[0]))
            if unit and (_HAN.match(character) or _opens(character) or (follows_han and character.isalnum())):
                yield unit
                unit = ""
            unit += character
        yield unit


def _opens(text: str) -> bool:
    """Tell whether a mark stands before what it belongs to: an opening bracket or quotation mark."""
    return unicodedata.category(text[0]) in ("Ps", "Pi")


def _is_spoken(character: str) -> bool:
    return character == "'" or unicodedata.category(character)[0] in "LMN"
