"""FireRedASR2-AED: Conformer encoder, Transformer decoder, CTC head for times (SPEC sections 3 to 7)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vermilion.asr.alignment import even_times, forced_align, raw_times, shifted_times
from vermilion.asr.long_form import GRID, joined, pieces_of
from vermilion.asr.tokenizer import Tokenizer
from vermilion.asr.words import SPECIAL, text_of, words_of
from vermilion.audio import FeatureExtractor, describe, load_audio
from vermilion.checkpoints.reader import Checkpoint, load_strict, read_checkpoint, require_files
from vermilion.decoding.options import DecodingOptions
from vermilion.encoding import (
    AcousticFront,
    Utterance,
    load_decoder,
    load_encoder,
    read_utterances,
    torch_device,
    torch_dtype,
)
from vermilion.errors import AudioError, CheckpointError, ModelError, OptionsError
from vermilion.transcript import Failure, Hypothesis, Recognition, Token, Word

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from vermilion.audio import AudioInput
    from vermilion.decoding.beam import BeamHypothesis
    from vermilion.nn.ctc import CtcHead
    from vermilion.nn.decoder import TransformerDecoder
    from vermilion.nn.lstm_lm import LstmLanguageModel

LANGUAGES = frozenset({"zh", "en"})
"""languages that FireRedASR2 was trained for; zh with all its dialect groups"""
NEVER_EMITTED = ("<blank>", "<pad>", "<sos>")
"""the published search can emit these; a pad then hides itself from all later steps"""


class AedRecognizer:
    """Turns speech into text with word times and confidences."""

    punctuates = False

    def __init__(
        self,
        front: AcousticFront,
        decoder: TransformerDecoder,
        ctc: CtcHead | None,
        tokenizer: Tokenizer,
        special: tuple[int, int, int],
        lm: LstmLanguageModel | None = None,
    ) -> None:
        """Take the networks (`from_pretrained` reads them from a folder).

        Args:
            front: features and encoder.
            decoder: decoder over the vocabulary.
            ctc: head for times; None = tokens are spread evenly.
            tokenizer: the vocabulary.
            special: ids of start, end and padding.
            lm: external language model.
        """
        self.front, self.decoder, self.ctc, self.tokenizer, self.lm = front, decoder, ctc, tokenizer, lm
        self.sos, self.eos, self.pad = special
        self.name = "FireRedASR2-AED"
        self.languages = LANGUAGES
        vocabulary = tokenizer.vocabulary
        self._forbidden = {i for i, t in enumerate(vocabulary) if t in NEVER_EMITTED} | {0, self.pad, self.sos}
        self._silent = {i for i, t in enumerate(vocabulary) if t in SPECIAL}

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, device: str = "cpu", precision: str = "float32", lm_dir: str | Path | None = None
    ) -> AedRecognizer:
        """Load a FireRedASR2-AED folder (model.pth.tar, cmvn.ark, dict.txt, train_bpe1000.model).

        Args:
            folder: model folder in the published layout.
            device: torch device.
            precision: "float32", "bfloat16" or "float16"; scores are float32 always.
            lm_dir: folder of an external language model.

        Raises:
            CheckpointError: files or weights are missing or do not fit.
            OptionsError: the device or precision is not available.
        """
        path = require_files(folder, ["cmvn.ark", "dict.txt"])
        place, dtype = torch_device(device), torch_dtype(precision)
        checkpoint = read_checkpoint(path)
        tokenizer = Tokenizer.from_folder(path)
        if len(tokenizer.vocabulary) != checkpoint.arg("odim"):
            lines = len(tokenizer.vocabulary)
            raise CheckpointError(f"{path}: dict.txt has {lines} tokens, the model {checkpoint.arg('odim')}")
        front = AcousticFront(
            FeatureExtractor.from_cmvn(path / "cmvn.ark"), load_encoder(checkpoint, place, dtype), place, dtype
        )
        decoder = load_decoder(checkpoint, "decoder.", len(tokenizer.vocabulary), place, dtype)
        special = (checkpoint.arg("sos_id"), checkpoint.arg("eos_id"), checkpoint.arg("pad_id"))
        ctc = _load_ctc(checkpoint, place, dtype)
        return cls(front, decoder, ctc, tokenizer, special, _load_lm(lm_dir, place, len(tokenizer.vocabulary)))

    def recognize(
        self, recordings: Sequence[AudioInput], options: DecodingOptions | None = None, /
    ) -> list[Recognition | Failure]:
        """Recognise recordings; batches are formed inside and change no result.

        Args:
            recordings: sources of any length; those above `options.max_segment_seconds` are cut at quiet points.
            options: search and times.

        Returns:
            One entry per recording, in order; a bad recording is a Failure in its place.

        Raises:
            OptionsError: a language model weight is given but no language model is loaded.
        """
        options = options or DecodingOptions()
        if options.lm_weight > 0 and self.lm is None:
            raise OptionsError("lm_weight needs a language model: pass lm_dir to from_pretrained")
        read = read_utterances(recordings, "asr")
        pieces = [pieces_of(u.samples, options.max_segment_seconds) if isinstance(u, Utterance) else [] for u in read]

        def work(batch: list[Utterance], encoded: Tensor, lengths: Tensor) -> list[Recognition]:
            return self._decode(batch, encoded, lengths, options)

        flat = [Utterance(samples) for cut in pieces for _, samples in cut]
        answers = iter(self.front.run(flat, work, lambda _: Recognition("", 0.0, model=self.name)))
        results: list[Recognition | Failure] = []
        for source, item, cut in zip(recordings, read, pieces, strict=True):
            if isinstance(item, Failure):
                results.append(item)
                continue
            parts = [(start / 16000, next(answers)) for start, _ in cut]
            results.append(_joined_or_failed(parts, source))
        return results

    def align(self, audio: AudioInput, text: str) -> list[Word]:
        """Find the times of a known text.

        Args:
            audio: a recording of any length.
            text: what is said in it, with or without marks and capitals.

        Returns:
            The words (Chinese: characters) of the text as it is written, with times and CTC confidences.

        Raises:
            AudioError: the recording is too short for the text.
            OptionsError: the text has no word, or the model has no CTC head.
        """
        units, owners, ids = self._units(text)
        if not ids:
            raise OptionsError("the text to align has no word that the model can spell")
        samples = load_audio(audio)
        log_probs = self.ctc_log_probs(samples)
        path = forced_align(log_probs, ids)
        if path is None:
            raise AudioError(
                f"{describe(audio)} ({len(samples) / 16000:.2f} s) is too short for a text of {len(ids)} tokens"
            )
        starts, ends = shifted_times(*raw_times(path), len(samples) / 16000)
        chances = _run_probabilities(log_probs, path)
        words = []
        for number, unit in enumerate(units):
            own = [i for i, owner in enumerate(owners) if owner == number]
            confidence = float(np.mean([chances[i] for i in own]))
            words.append(Word(unit, starts[own[0]], max(starts[own[0]], ends[own[-1]]), confidence))
        return words

    def ctc_log_probs(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """CTC posteriors of a recording: (T', V) log-probabilities, 40 ms per row; long audio goes in pieces.

        Raises:
            OptionsError: the model has no CTC head.
        """
        import torch

        if self.ctc is None:
            raise OptionsError(f"{self.name} was loaded from a checkpoint without a CTC head, which alignment needs")
        ctc, rows = self.ctc, []
        for _, piece in pieces_of(samples, 60.0):
            if len(piece) < 400:
                continue
            with torch.inference_mode():
                encoded, lengths = self.front.encode([Utterance(piece)])
                rows.append(ctc(encoded)[0, : int(lengths[0])].cpu().numpy())
            if len(piece) % GRID == 0 and len(rows[-1]) != len(piece) // GRID:
                raise ModelError("encoder frames do not line up with the audio")
        if not rows:
            return np.zeros((0, len(self.tokenizer.vocabulary)), dtype=np.float32)
        stacked: NDArray[np.float32] = np.concatenate(rows)
        return stacked

    def _decode(
        self, batch: list[Utterance], encoded: Tensor, lengths: Tensor, options: DecodingOptions
    ) -> list[Recognition]:
        from vermilion.decoding.beam import beam_search
        from vermilion.decoding.lm import LanguageModelScorer

        lm = LanguageModelScorer(self.lm, options.lm_weight) if self.lm is not None and options.lm_weight > 0 else None
        found = beam_search(
            self.decoder, encoded, lengths, options, sos=self.sos, eos=self.eos, forbidden=self._forbidden, lm=lm
        )
        posteriors = self._posteriors(encoded, lengths) if options.timestamps else [None] * len(batch)
        return [
            self._recognition(hypotheses, utterance.duration, posterior, options.timestamps)
            for hypotheses, utterance, posterior in zip(found, batch, posteriors, strict=True)
        ]

    def _posteriors(self, encoded: Tensor, lengths: Tensor) -> list[NDArray[np.float32] | None]:
        import torch

        if self.ctc is None:
            return [None] * len(lengths)
        with torch.inference_mode():
            rows = self.ctc(encoded).cpu().numpy()
        return [row[:n] for row, n in zip(rows, lengths.tolist(), strict=True)]

    def _recognition(
        self, found: list[BeamHypothesis], duration: float, posterior: NDArray[np.float32] | None, timestamps: bool
    ) -> Recognition:
        best = found[0]
        tokens = self._tokens(best)
        if timestamps:
            tokens = timed(tokens, posterior, duration)
        shown = [t for t in tokens if t.id not in self._silent]
        alternatives = [Hypothesis(self._text(h), h.confidence, self._tokens(h)) for h in found]
        alternatives[0] = Hypothesis(alternatives[0].text, best.confidence, shown)
        return Recognition(
            text=self._text(best),
            confidence=best.confidence,
            tokens=shown,
            words=words_of(tokens) if timestamps else [],
            alternatives=alternatives,
            model=self.name,
        )

    def _tokens(self, hypothesis: BeamHypothesis) -> list[Token]:
        pairs = zip(hypothesis.ids, hypothesis.probabilities, strict=True)
        return [Token(i, self.tokenizer.vocabulary[i], p) for i, p in pairs]

    def _text(self, hypothesis: BeamHypothesis) -> str:
        return text_of(self.tokenizer.vocabulary[i] for i in hypothesis.ids)

    def _units(self, text: str) -> tuple[list[str], list[int], list[int]]:
        """Split a text into the words as written, and say which word each token spells."""
        units: list[str] = []
        owners: list[int] = []
        ids: list[int] = []
        for piece in _written_units(text):
            found = self.tokenizer.encode(piece)[1]
            if found:
                owners += [len(units)] * len(found)
                ids += found
                units.append(piece)
            elif units:
                units[-1] += piece  # a lone mark belongs to the word before it
        return units, owners, ids


def timed(tokens: list[Token], posterior: NDArray[np.float32] | None, duration: float) -> list[Token]:
    """Give tokens their times: aligned on CTC posteriors, else spread evenly.

    Args:
        tokens: of one hypothesis, silence marks included (they are labels of the CTC head too).
        posterior: (T', V) log-probabilities.
        duration: of the audio in seconds.
    """
    path = forced_align(posterior, [t.id for t in tokens]) if posterior is not None else None
    if path is None:
        starts, ends = even_times(len(tokens), duration)
    else:
        starts, ends = shifted_times(*raw_times(path), duration)
    return [
        Token(t.id, t.text, t.probability, start, max(start, end))
        for t, start, end in zip(tokens, starts, ends, strict=True)
    ]


def _run_probabilities(log_probs: NDArray[np.float32], path: NDArray[np.int64]) -> list[float]:
    """Best posterior of each aligned token within its run of frames."""
    chances: list[float] = []
    previous = 0
    for frame, label in enumerate(path.tolist()):
        if label:
            chance = float(np.exp(log_probs[frame, label]))
            if label == previous:
                chances[-1] = max(chances[-1], chance)
            else:
                chances.append(chance)
        previous = label
    return chances


def _written_units(text: str) -> list[str]:
    """Words by white space; Chinese characters one by one, with the marks that follow them."""
    units: list[str] = []
    for stretch in text.split():
        fresh = True
        for character in stretch:
            if fresh or _is_han(character) or (_is_han(units[-1][0]) and character.isalnum()):
                units.append(character)
            else:
                units[-1] += character
            fresh = False
    return units


def _is_han(character: str) -> bool:
    return "\u3400" <= character <= "\u4dbf" or "\u4e00" <= character <= "\u9fff"


def _joined_or_failed(parts: list[tuple[float, Any]], source: Any) -> Recognition | Failure:
    for _, answer in parts:
        if isinstance(answer, ModelError):
            return Failure(describe(source), answer, "asr")
    return joined(parts)


def _load_ctc(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> CtcHead | None:
    from vermilion.nn.ctc import CtcHead

    state = {k.removeprefix("ctc."): v for k, v in checkpoint.state.items() if k.startswith("ctc.")}
    if not state:
        return None  # a first-generation checkpoint has no CTC head
    head = CtcHead(checkpoint.arg("d_model"), checkpoint.arg("odim"))
    load_strict(head, state, checkpoint.path, dtype=dtype)
    return head.to(device).eval()


def _load_lm(folder: str | Path | None, device: torch.device, vocabulary: int) -> LstmLanguageModel | None:
    from vermilion.decoding.lm import load_language_model

    if folder is None:
        return None
    network = load_language_model(folder)
    if network.fc.out_features != vocabulary:
        raise CheckpointError(f"{folder} scores {network.fc.out_features} tokens, the recogniser has {vocabulary}")
    return network.to(device)
