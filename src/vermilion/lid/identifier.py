"""FireRedLID: language, then Chinese dialect group, by a two-token decode (SPEC section 8)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vermilion.audio import FeatureExtractor, describe
from vermilion.checkpoints.layout import decoder_layout
from vermilion.checkpoints.reader import read_checkpoint, read_dictionary, require_files
from vermilion.decoding.options import DecodingOptions
from vermilion.encoding import (
    NOT_FINITE,
    AcousticFront,
    Utterance,
    check_finite,
    load_decoder,
    load_encoder,
    read_utterances,
)
from vermilion.errors import CheckpointError, ModelError
from vermilion.lid.labels import DIALECTS, OTHER
from vermilion.runtime import Runtime
from vermilion.transcript import Failure, LanguageResult

if TYPE_CHECKING:
    from torch import Tensor

    from vermilion.audio import AudioInput
    from vermilion.nn.decoder import TransformerDecoder

BEAMS = 3
LABEL_TOKENS = 2
MAX_SECONDS = 60.0
"""a language shows itself long before this; attention memory grows with the square of the length"""
SPECIAL = ("<blank>", "<pad>", "<sos>")


class LanguageIdentifier:
    """Names the language of recordings."""

    def __init__(
        self,
        front: AcousticFront,
        decoder: TransformerDecoder,
        labels: Sequence[str],
        sos: int,
        eos: int,
        pad: int | None = None,
    ) -> None:
        """Take the networks and the label set (`from_pretrained` reads both from a folder)."""
        self.front = front
        self.decoder = decoder
        self.labels = list(labels)
        self.sos, self.eos = sos, eos
        self.name = "FireRedLID"
        special = {i for i, label in enumerate(labels) if label in SPECIAL} | {sos, sos if pad is None else pad}
        self._forbidden = sorted(special - {eos})

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: str = "cpu", precision: str = "float32") -> LanguageIdentifier:
        """Load a FireRedLID folder (model.pth.tar, cmvn.ark, dict.txt).

        Args:
            folder: model folder in the published layout.
            device: torch device.
            precision: "float32", "bfloat16", "float16", "int8" or "auto" (`Runtime.of`).

        Raises:
            CheckpointError: files or weights are missing or do not fit.
            OptionsError: the device or precision is not available.
        """
        path = require_files(folder, ["cmvn.ark", "dict.txt"])
        runtime = Runtime.of(device, precision)
        checkpoint = read_checkpoint(path)
        labels = read_dictionary(path / "dict.txt", decoder_layout(checkpoint, "lid_decoder.").sizes["vocabulary"])
        special = tuple(int(checkpoint.arg(name)) for name in ("sos_id", "eos_id", "pad_id"))
        if not all(0 <= i < len(labels) for i in special):
            raise CheckpointError(f"{path}: start, end and padding have ids {special}, dict.txt {len(labels)} labels")
        extractor = FeatureExtractor.from_cmvn(path / "cmvn.ark")
        front = AcousticFront(extractor, load_encoder(checkpoint, runtime), runtime)
        front.search_frames = front.encode_frames  # two steps: sharing them is not worth the memory of many texts
        decoder = load_decoder(checkpoint, "lid_decoder.", runtime)
        return cls(front, decoder, labels, *special)

    @property
    def languages(self) -> list[str]:
        """Language codes that this checkpoint knows, in the order of its dictionary."""
        return [x for x in self.labels if not x.startswith("<") and x not in DIALECTS and x != OTHER]

    @property
    def dialects(self) -> list[str]:
        """Chinese dialect groups that this checkpoint knows."""
        return [x for x in self.labels if x in DIALECTS]

    def identify(self, recordings: Sequence[AudioInput], /, nbest: int = 1) -> list[LanguageResult | Failure]:
        """Name the language of each recording.

        Args:
            recordings: sources; of each the first 60 s are heard.
            nbest: hypotheses in `alternatives`, 1 to 3.

        Returns:
            One entry per recording, in order; an empty language where there is no whole 25 ms of audio.
        """
        options = DecodingOptions(beam_size=BEAMS, nbest=nbest, max_tokens=LABEL_TOKENS)
        read = read_utterances(recordings, "lid")
        heard = [Utterance(u.samples[: int(MAX_SECONDS * 16000)]) for u in read if isinstance(u, Utterance)]

        def work(batch: list[Utterance], encoded: Tensor, lengths: Tensor) -> list[LanguageResult]:
            return self._decode(encoded, lengths, options)

        answers = iter(self.front.run(heard, work, lambda _: LanguageResult("", None, 0.0)))
        results: list[LanguageResult | Failure] = []
        for source, item in zip(recordings, read, strict=True):
            answer: Any = item if isinstance(item, Failure) else next(answers)
            results.append(Failure(describe(source), answer, "lid") if isinstance(answer, ModelError) else answer)
        return results

    def _decode(self, encoded: Tensor, lengths: Tensor, options: DecodingOptions) -> list[LanguageResult]:
        from vermilion.decoding.beam import beam_search

        check_finite(encoded, lengths)
        # the limit of two tokens also holds for a recording of a single encoder frame
        steps = [LABEL_TOKENS] * len(lengths)
        found = beam_search(
            self.decoder, encoded, lengths, options, sos=self.sos, eos=self.eos, forbidden=self._forbidden,
            max_steps=steps,
        )  # fmt: skip
        if not all(math.isfinite(h.confidence) for hypotheses in found for h in hypotheses):
            raise RuntimeError(f"the decoder's scores are not finite ({NOT_FINITE})")
        results = []
        for hypotheses in found:
            ranked = [self._result(h.ids, h.confidence) for h in hypotheses]
            best = ranked[0]
            results.append(LanguageResult(best.language, best.dialect, best.confidence, ranked))
        return results

    def _result(self, ids: list[int], confidence: float) -> LanguageResult:
        labels = [self.labels[i] for i in ids]
        language = labels[0] if labels else ""
        return LanguageResult(language, " ".join(labels[1:]) or None, confidence)
