"""Quick texts for partial words: the CTC head's best path, or a greedy pass of Whisper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vermilion.asr.words import SPECIAL, text_of
from vermilion.decoding.ctc import greedy_path
from vermilion.decoding.options import DecodingOptions
from vermilion.encoding import Utterance
from vermilion.transcript import Recognition

if TYPE_CHECKING:
    from torch import Tensor

    from vermilion.asr.aligner import CtcAligner
    from vermilion.pipeline import Recognizer


class Drafter(Protocol):
    """Writes down what is heard so far, fast."""

    def draft(self, pieces: Sequence[NDArray[np.float32]]) -> list[str]:
        """One text per piece of audio; empty where nothing could be heard or something failed."""


class CtcDrafter:
    """The best path of a CTC head: one pass of the encoder, no decoder."""

    def __init__(self, heads: CtcAligner) -> None:
        """Take encoder, head and vocabulary."""
        self.heads = heads
        vocabulary = heads.tokenizer.vocabulary
        self._forbidden = {i for i, token in enumerate(vocabulary) if token in SPECIAL and token != "<blank>"} - {0}

    def draft(self, pieces: Sequence[NDArray[np.float32]]) -> list[str]:
        """One text per piece, in order."""

        def work(batch: list[Utterance], encoded: Tensor, lengths: Tensor) -> list[str]:
            return [self._text(rows) for rows in self.heads.rows(encoded, lengths)]

        found = self.heads.front.run([Utterance(piece) for piece in pieces], work, lambda _: "")
        return [text if isinstance(text, str) else "" for text in found]

    def _text(self, rows: NDArray[np.float32]) -> str:
        ids = greedy_path(rows, self._forbidden).ids
        return text_of(self.heads.tokenizer.vocabulary[i] for i in ids)


class RecognizerDrafter:
    """Decodes again and again, greedily (Whisper and any other recogniser without a CTC head)."""

    def __init__(self, recognizer: Recognizer, language: str | None = None) -> None:
        """Take the recogniser, and the language of all speech where it is known; else each piece is identified."""
        self.recognizer, self.language = recognizer, language
        self._options = DecodingOptions(beam_size=1, timestamps=False)

    def draft(self, pieces: Sequence[NDArray[np.float32]]) -> list[str]:
        """One text per piece, in order."""
        recordings: Any = [(piece, 16000) for piece in pieces]
        if getattr(self.recognizer, "uses_language", False):
            found = self.recognizer.recognize(recordings, self._options, languages=[self.language] * len(pieces))  # type: ignore[call-arg]
        else:
            found = self.recognizer.recognize(recordings, self._options)
        return [r.text if isinstance(r, Recognition) else "" for r in found]


def drafter_of(recognizer: Recognizer, language: str | None = None) -> Drafter:
    """The fastest way to words that a recogniser has."""
    aligner = getattr(recognizer, "aligner", None)
    return RecognizerDrafter(recognizer, language) if aligner is None else CtcDrafter(aligner)
