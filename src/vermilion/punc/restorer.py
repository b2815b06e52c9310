"""The punctuation restorer: texts or timed words in, marks and English casing put in, nothing else changed."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from vermilion.checkpoints.layout import whole_number
from vermilion.checkpoints.prepared import load_network
from vermilion.checkpoints.reader import read_checkpoint, read_dictionary, read_settings, require_files
from vermilion.checkpoints.shapes import check_punctuation
from vermilion.nn.punctuation import PunctuationConfig, PunctuationNetwork
from vermilion.punc.limit import choose_labels, text_size
from vermilion.punc.options import PunctuationOptions
from vermilion.punc.rules import punctuate, written_units
from vermilion.punc.tokens import BERT_FOLDER, INPUT_VOCABULARY, Piece, PieceTokenizer
from vermilion.punc.units import (
    Unit,
    closed_by_own_mark,
    find_units,
    joined_by_blank,
    own_mark,
    takes_mark,
    without_marks,
)
from vermilion.punc.windows import group_windows, split_windows
from vermilion.runtime import Runtime
from vermilion.transcript import Sentence, Word

_FILES = ("chinese-lert-base/config.json", "chinese-lert-base/vocab.txt", INPUT_VOCABULARY, "out_dict")


@dataclass(frozen=True)
class _Item:
    """A text on its way through the network."""

    text: str
    view: str
    """the text as the network sees it: blanks for marks"""
    units: list[Unit]
    ids: list[int]
    """input ids of all tokens"""
    last_token: list[int]
    """index of the last token of each unit, −1 if it has none"""


class PunctuationRestorer:
    """FireRedPunc (report, punctuation module): marks for Chinese, English and mixed text."""

    name = "FireRedPunc"

    def __init__(
        self,
        network: PunctuationNetwork,
        tokenizer: PieceTokenizer,
        labels: Sequence[str],
        cls_id: int,
        options: PunctuationOptions | None = None,
    ) -> None:
        """Put a restorer together; `from_pretrained` reads all of this from a folder."""
        self.tokenizer = tokenizer
        self.labels = [label.strip() for label in labels]
        """mark of each label, empty for none"""
        self.options = options or PunctuationOptions()
        self._network = network.eval()
        self._cls_id = cls_id

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        device: str = "cpu",
        precision: str = "float32",
        options: PunctuationOptions | None = None,
    ) -> PunctuationRestorer:
        """Load a FireRedPunc folder.

        Args:
            folder: model folder in the published layout (SPEC section 2).
            device: torch device name.
            precision: "float32", "bfloat16", "float16", "int8" or "auto" (`Runtime.of`).
            options: see `PunctuationOptions`.

        Raises:
            CheckpointError: a file is missing or damaged, or the parts do not fit each other.
            OptionsError: the device or precision is not available.
        """
        runtime = Runtime.of(device, precision)
        path = require_files(folder, _FILES)
        checkpoint = read_checkpoint(path)
        tokenizer = PieceTokenizer.from_folder(path)
        labels = read_dictionary(path / "out_dict", whole_number(checkpoint, "odim"))
        config = PunctuationConfig.from_bert(
            read_settings(path / BERT_FOLDER / "config.json"), whole_number(checkpoint, "odim")
        )
        cls_id = whole_number(checkpoint, "cls_id")
        check_punctuation(path, config, labels, tokenizer.size, cls_id)
        network = load_network(lambda: PunctuationNetwork(config), checkpoint, "", runtime)
        return cls(cast(PunctuationNetwork, network), tokenizer, labels, cls_id, options)

    def restore(self, texts: Sequence[str]) -> list[str]:
        """Put marks and English casing into texts.

        Every character of a text is kept in its place; only marks are inserted, at the ends of words, and letters
        raised. Marks that a text has already stay as they are, and none is added beside them.

        Args:
            texts: any number of texts of any length.

        Returns:
            One text per input, in order.
        """
        items = [self._text_item(text) for text in texts]
        return [punctuate(item.text, item.units, marks) for item, marks in zip(items, self._marks(items), strict=True)]

    def restore_words(self, words: Sequence[Sequence[Word]]) -> list[list[Sentence]]:
        """Put marks into timed words and cut them into sentences.

        Any mark, a comma too, closes a sentence, as published (SPEC section 11.4); so does one that a word brings
        along. Words are used as given, those without text are skipped (the published code then loses a space). Marks
        and casing are those of `restore` on the whole utterance.

        Args:
            words: per utterance the words in order.

        Returns:
            Per utterance its sentences, with the time of their first and last word.
        """
        kept = [[word for word in utterance if word.text.strip()] for utterance in words]
        items = [self._word_item(utterance) for utterance in kept]
        return [
            _sentences(item, marks, utterance)
            for item, marks, utterance in zip(items, self._marks(items), kept, strict=True)
        ]

    def logits(self, sequences: Sequence[Sequence[int]]) -> list[NDArray[np.float32]]:
        """Score the labels of token sequences of any length.

        Args:
            sequences: input ids, without [CLS].

        Returns:
            Per sequence of T tokens a (T, labels) array. A sequence too long for the network is read in windows,
            each with a [CLS] of its own; a token's scores come from the window in which it stands further inside.
        """
        size = self._network.config.max_positions - 1
        overlap = min(self.options.window_overlap, size // 2)
        windows = [w for row, ids in enumerate(sequences) for w in split_windows(row, len(ids), size, overlap)]
        out = [np.zeros((len(ids), len(self.labels)), dtype=np.float32) for ids in sequences]
        for group in group_windows(windows, self.options.batch_tokens):
            scores = self._run([sequences[w.row][w.start : w.end] for w in group])
            for window, rows in zip(group, scores, strict=True):
                keep = slice(window.keep_start - window.start, window.keep_end - window.start)
                out[window.row][window.keep_start : window.keep_end] = rows[keep]
        return out

    @torch.inference_mode()
    def _run(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Score padded rows of at most 511 tokens: (N, T, labels)."""
        longest = max(map(len, rows))
        device = self._network.classifier.weight.device
        padded = [[self._cls_id, *row, *[0] * (longest - len(row))] for row in rows]
        lengths = torch.tensor([1 + len(row) for row in rows], device=device)
        scores = self._network(torch.tensor(padded, device=device), lengths)
        array: NDArray[np.float32] = scores.float().cpu().numpy()
        return array

    def _text_item(self, text: str) -> _Item:
        units, view = find_units(text), without_marks(text)
        pieces = self.tokenizer([view])[0]
        return _Item(text, view, units, [p.id for p in pieces], _last_tokens(units, pieces))

    def _word_item(self, words: Sequence[Word]) -> _Item:
        text, units = _join(words)
        view = without_marks(text)
        pieces = self.tokenizer([view[u.start : u.end] for u in units])  # each word on its own, as published
        ends = np.cumsum([len(p) for p in pieces], dtype=int)
        last = [int(end) - 1 if own else -1 for end, own in zip(ends, pieces, strict=True)]
        return _Item(text, view, units, [p.id for own in pieces for p in own], last)

    def _marks(self, items: Sequence[_Item]) -> Iterator[list[str]]:
        """Choose the mark after each unit of each item, an empty string for none."""
        for item, logits in zip(items, self.logits([item.ids for item in items]), strict=True):
            probabilities = self._unit_probabilities(item, logits)
            sizes = [text_size(item.view[u.start : u.end]) for u in item.units]
            labels = choose_labels(sizes, probabilities, self.options.sentence_max_length)
            yield [
                self.labels[label] if label and takes_mark(item.text, unit) else ""
                for unit, label in zip(item.units, labels, strict=True)
            ]

    def _unit_probabilities(self, item: _Item, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (U, labels); a unit has those of its last token, or certainty where the text itself decides."""
        out = np.zeros((len(item.units), len(self.labels)), dtype=np.float32)
        for i, (unit, token) in enumerate(zip(item.units, item.last_token, strict=True)):
            if own_mark(item.text, unit):
                out[i, 1] = 1.0  # a sentence ends here already; `takes_mark` keeps the label from being shown
            elif token < 0 or not takes_mark(item.text, unit):
                out[i, 0] = 1.0
            else:
                out[i] = softmax(logits[token])
        return out


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn logits (…, labels) into probabilities."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: NDArray[np.float32] = powers / powers.sum(axis=-1, keepdims=True)
    return result


def _last_tokens(units: Sequence[Unit], pieces: Sequence[Piece]) -> list[int]:
    """Index of the last piece that ends in each unit: its label is the one that the model means for the word."""
    last = [-1] * len(units)
    starts = [unit.start for unit in units]
    for index, piece in enumerate(pieces):
        last[bisect_right(starts, piece.end - 1) - 1] = index
    return last


def _join(words: Sequence[Word]) -> tuple[str, list[Unit]]:
    """Join words to a text, a blank between two unless Chinese or Japanese stands on either side."""
    text = ""
    units: list[Unit] = []
    for word in words:
        given = word.text.strip()
        if text and joined_by_blank(text[-1], given[0]):
            text += " "
        units.append(Unit(len(text), len(text) + len(given)))
        text += given
    return text, units


def _sentences(item: _Item, marks: Sequence[str], words: Sequence[Word]) -> list[Sentence]:
    written = written_units(item.text, item.units, marks)
    out: list[Sentence] = []
    first = 0
    for i, unit in enumerate(item.units):
        if marks[i] or closed_by_own_mark(item.text, unit) or i == len(words) - 1:
            text = written[first] + "".join(_gap(item, k) + written[k] for k in range(first + 1, i + 1))
            out.append(Sentence(text, words[first].start, words[i].end, list(words[first : i + 1])))
            first = i + 1
    return out


def _gap(item: _Item, i: int) -> str:
    return item.text[item.units[i - 1].end : item.units[i].start]
