"""WordPieces with their place in the text (SPEC section 11.2)."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from vermilion.checkpoints.reader import read_dictionary
from vermilion.errors import CheckpointError

UNKNOWN = "[UNK]"
BERT_FOLDER = "chinese-lert-base"
_SURROGATE = re.compile("[\ud800-\udfff]")
INPUT_VOCABULARY = "chinese-bert-wwm-ext_vocab.txt"


@dataclass(frozen=True)
class Piece:
    """One WordPiece of a text."""

    text: str
    """vocabulary entry; "##" marks the continuation of a word"""
    id: int
    """index in the network's input vocabulary"""
    start: int
    """first character of the text that it covers"""
    end: int
    """character after the last one"""


class PieceTokenizer:
    """Cuts texts into WordPieces of one vocabulary and numbers them by another (their orders may differ).

    Every piece keeps its character range, so nothing is ever rebuilt from pieces; the published code replaces
    unknown pieces by guessed characters and loses some.
    """

    def __init__(self, vocabulary: Sequence[str], input_vocabulary: Sequence[str], *, lowercase: bool = True) -> None:
        self._ids = {token: index for index, token in enumerate(input_vocabulary)}
        for name, entries in (("vocab.txt", vocabulary), (INPUT_VOCABULARY, self._ids)):
            if UNKNOWN not in entries:
                raise CheckpointError(f"{name} lacks the entry {UNKNOWN}")
        entries = {token: index for index, token in enumerate(vocabulary)}
        self._tokenizer = Tokenizer(WordPiece(entries, unk_token=UNKNOWN, max_input_chars_per_word=100))
        self._tokenizer.normalizer = BertNormalizer(lowercase=lowercase)  # strips accents when lower-casing
        self._tokenizer.pre_tokenizer = BertPreTokenizer()

    @classmethod
    def from_folder(cls, folder: Path) -> PieceTokenizer:
        """Read both vocabularies of a FireRedPunc folder.

        Raises:
            CheckpointError: a vocabulary is missing, damaged or without [UNK].
        """
        bert = folder / BERT_FOLDER
        try:
            vocabulary = (bert / "vocab.txt").read_text(encoding="utf8").removesuffix("\n").split("\n")
            settings_file = bert / "tokenizer_config.json"
            settings = json.loads(settings_file.read_text(encoding="utf8")) if settings_file.exists() else {}
        except (OSError, ValueError) as error:
            raise CheckpointError(f"cannot read the tokenizer in {bert}: {error}") from error
        lowercase = bool(settings.get("do_lower_case", True)) if isinstance(settings, dict) else True
        return cls(vocabulary, read_dictionary(folder / INPUT_VOCABULARY), lowercase=lowercase)

    @property
    def size(self) -> int:
        """Number of entries of the input vocabulary."""
        return len(self._ids)

    def __call__(self, texts: Sequence[str]) -> list[list[Piece]]:
        """Cut texts into pieces; white space and control characters belong to none."""
        # A lone surrogate is no Unicode text; U+FFFD is as long and is skipped by the normaliser.
        clean = [_SURROGATE.sub("\ufffd", text) for text in texts]
        encodings = self._tokenizer.encode_batch(clean, add_special_tokens=False)
        unknown = self._ids[UNKNOWN]
        return [
            [
                Piece(token, self._ids.get(token, unknown), *span)
                for token, span in zip(e.tokens, e.offsets, strict=True)
            ]
            for e in encodings
        ]
