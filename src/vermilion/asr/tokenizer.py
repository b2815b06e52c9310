"""The recogniser's vocabulary: tokens ↔ text (SPEC section 6)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from vermilion.asr.words import WORD_MARK
from vermilion.checkpoints.reader import read_dictionary
from vermilion.errors import CheckpointError

SENTENCEPIECE_FILE = "train_bpe1000.model"
_MARKS = re.compile("[，。？！,.?!]")
_HAN = re.compile("([\u3400-\u4dbf\u4e00-\u9fff])")


class Tokenizer:
    """Vocabulary of single Chinese characters and English SentencePiece pieces."""

    def __init__(self, vocabulary: Sequence[str], sentencepiece_file: Path | None = None) -> None:
        """Take the token list; the SentencePiece file is needed (and read) only to encode text."""
        self.vocabulary = list(vocabulary)
        self._file = sentencepiece_file
        self._ids = {token: i for i, token in enumerate(self.vocabulary)}

    @classmethod
    def from_folder(cls, folder: Path) -> Tokenizer:
        """Read `dict.txt` and note where the SentencePiece model lies."""
        return cls(read_dictionary(folder / "dict.txt"), folder / SENTENCEPIECE_FILE)

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
        for part in _HAN.split(_MARKS.sub(" ", text.upper())):
            if _HAN.fullmatch(part):
                tokens.append(part)
            elif part.strip():
                tokens.extend(self._pieces.encode(part.strip(), out_type=str))
        unknown = self._ids.get("<unk>", 1)
        return tokens, [self._ids.get(t, unknown) for t in tokens]

    def join(self, ids: Sequence[int]) -> str:
        """Join tokens as they are, word marks included."""
        return "".join(self.vocabulary[i] for i in ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Join tokens, word marks turned into blanks, ends stripped."""
        return self.join(ids).replace(WORD_MARK, " ").strip()
