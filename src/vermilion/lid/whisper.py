"""Whisper as a language identifier (Radford et al. 2022): the probabilities of its language tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from vermilion.asr.whisper import WhisperRecognizer, detect, is_silent, label_code
from vermilion.errors import VermilionError
from vermilion.transcript import Failure, LanguageResult

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

    from vermilion.audio import AudioInput

ALTERNATIVES = 5
"""hypotheses kept"""


class WhisperLanguageIdentifier:
    """Names the language of a recording, in FireRedLID's codes; it knows no Chinese dialect groups."""

    def __init__(self, model: WhisperModel | WhisperRecognizer, name: str | None = None) -> None:
        """Take a loaded model, or the recogniser to share one with."""
        shared = isinstance(model, WhisperRecognizer)
        self.model = cast("WhisperRecognizer", model).model if shared else cast("WhisperModel", model)
        self.name = name or (cast("WhisperRecognizer", model).name if shared else "Whisper-base")

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path | None = None,
        device: str = "cpu",
        precision: str = "auto",
        threads: int | None = None,
    ) -> WhisperLanguageIdentifier:
        """Load a model; the arguments and errors are those of `WhisperRecognizer.from_pretrained`."""
        return cls(WhisperRecognizer.from_pretrained(folder, device, precision, threads))

    def identify(self, recordings: Sequence[AudioInput], /) -> list[LanguageResult | Failure]:
        """Name the language of each recording, heard in its first 30 s.

        Returns:
            One entry per recording, in order; an empty language where there is nothing to hear.
        """
        from vermilion.audio import describe

        results: list[LanguageResult | Failure] = []
        for source in recordings:
            try:
                results.append(self._one(source))
            except VermilionError as error:
                results.append(Failure(describe(source), error, "lid"))
        return results

    def _one(self, source: AudioInput) -> LanguageResult:
        from vermilion.audio import load_audio

        samples = load_audio(source)
        if is_silent(samples):
            return LanguageResult("", None, 0.0)
        found = [LanguageResult(label_code(c), None, p) for c, p in detect(self.model, samples)[:ALTERNATIVES]]
        return LanguageResult(found[0].language, None, found[0].confidence, found)
