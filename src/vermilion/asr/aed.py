"""FireRedASR2-AED: Conformer encoder, Transformer decoder, CTC head for times (SPEC sections 3 to 7)."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from vermilion.asr.alignment import BLANK, even_times, forced_align, raw_times, shifted_times
from vermilion.asr.long_form import joined, pieces_of
from vermilion.asr.tokenizer import Tokenizer
from vermilion.asr.words import SPECIAL, text_of, words_of
from vermilion.audio import FeatureExtractor, describe, load_audio
from vermilion.checkpoints.prepared import load_network
from vermilion.checkpoints.reader import Checkpoint, read_checkpoint, require_files
from vermilion.decoding.ctc import greedy_path
from vermilion.decoding.options import DecodingOptions
from vermilion.encoding import (
    AcousticFront,
    Utterance,
    load_decoder,
    load_encoder,
    read_utterances,
)
from vermilion.errors import AudioError, CheckpointError, ModelError, OptionsError
from vermilion.runtime import Runtime
from vermilion.transcript import Failure, Hypothesis, Recognition, Token, Word

if TYPE_CHECKING:
    from torch import Tensor

    from vermilion.audio import AudioInput
    from vermilion.decoding.beam import BeamHypothesis
    from vermilion.nn.ctc import CtcHead
    from vermilion.nn.decoder import TransformerDecoder
    from vermilion.nn.lstm_lm import LstmLanguageModel

LANGUAGES = frozenset({"zh", "en"})
"""languages that FireRedASR2 was trained for; zh with all its dialect groups"""
NEVER_EMITTED = ("<blank>", "<pad>", "<sos>", "<eos>")
"""the published search can emit these; a pad then hides itself from all later steps"""
FRAME_SAMPLES = 400
"""samples of the first feature frame"""
PIECE_SECONDS = 60.0
"""longest piece that is encoded at once for an alignment"""
NOT_FINITE = "damaged weights, or values too large for this precision: try float32"


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

        Raises:
            CheckpointError: a special id is outside the vocabulary.
        """
        self.front, self.decoder, self.ctc, self.tokenizer, self.lm = front, decoder, ctc, tokenizer, lm
        self.sos, self.eos, self.pad = special
        self.name = "FireRedASR2-AED"
        self.languages = LANGUAGES
        vocabulary = tokenizer.vocabulary
        if not all(0 <= i < len(vocabulary) for i in special):
            raise CheckpointError(f"start, end and padding have ids {special}, the vocabulary {len(vocabulary)} tokens")
        never = {i for i, t in enumerate(vocabulary) if t in NEVER_EMITTED} | {BLANK, self.pad, self.sos}
        self._forbidden = never - {self.eos}  # some vocabularies share one id for start and end
        self._silent = {i for i, t in enumerate(vocabulary) if t in SPECIAL}

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, device: str = "cpu", precision: str = "float32", lm_dir: str | Path | None = None
    ) -> AedRecognizer:
        """Load a FireRedASR2-AED folder (model.pth.tar, cmvn.ark, dict.txt, train_bpe1000.model).

        Args:
            folder: model folder in the published layout.
            device: torch device.
            precision: "float32", "bfloat16", "float16", "int8" or "auto" (`Runtime.of`); scores are float32 always.
            lm_dir: folder of an external language model.

        Raises:
            CheckpointError: files or weights are missing or do not fit.
            OptionsError: the device or precision is not available.
        """
        path = require_files(folder, ["cmvn.ark", "dict.txt"])
        runtime = Runtime.of(device, precision)
        checkpoint = read_checkpoint(path)
        tokenizer = Tokenizer.from_folder(path)
        if len(tokenizer.vocabulary) != checkpoint.arg("odim"):
            lines = len(tokenizer.vocabulary)
            raise CheckpointError(f"{path}: dict.txt has {lines} tokens, the model {checkpoint.arg('odim')}")
        extractor = FeatureExtractor.from_cmvn(path / "cmvn.ark")
        front = AcousticFront(extractor, load_encoder(checkpoint, runtime), runtime)
        decoder = load_decoder(checkpoint, "decoder.", len(tokenizer.vocabulary), runtime)
        special = (int(checkpoint.arg("sos_id")), int(checkpoint.arg("eos_id")), int(checkpoint.arg("pad_id")))
        ctc = _load_ctc(checkpoint, runtime)
        return cls(front, decoder, ctc, tokenizer, special, _load_lm(lm_dir, runtime, len(tokenizer.vocabulary)))

    @property
    def vocabulary(self) -> list[str]:
        """Token strings by id."""
        return self.tokenizer.vocabulary

    def recognize(
        self, recordings: Sequence[AudioInput], /, options: DecodingOptions | None = None
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
        if options.search in ("ctc", "rescore"):
            self._require_ctc_search(options)
        read = read_utterances(recordings, "asr")
        pieces = [pieces_of(u.samples, options.max_segment_seconds) if isinstance(u, Utterance) else [] for u in read]

        def work(batch: list[Utterance], encoded: Tensor, lengths: Tensor) -> list[Recognition]:
            return self._decode(batch, encoded, lengths, options)

        flat = [Utterance(samples) for cut in pieces for _, samples in cut]
        answers = iter(self.front.run(flat, work, lambda _: self._nothing()))
        results: list[Recognition | Failure] = []
        for source, item, cut in zip(recordings, read, pieces, strict=True):
            if isinstance(item, Failure):
                results.append(item)
                continue
            parts = [(start / 16000, next(answers)) for start, _ in cut]
            results.append(_joined_or_failed(parts, source))
        return results

    def _require_ctc_search(self, options: DecodingOptions) -> None:
        if self.ctc is None:
            raise OptionsError(f"{self.name} was loaded from a checkpoint without a CTC head: use beam or greedy")
        if options.lm_weight > 0:
            raise OptionsError(f"the search {options.search!r} uses no language model: use beam or greedy with one")

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
        spelled = self.tokenizer.spell(text)
        if all(i == self.tokenizer.unknown for word in spelled for i in word.ids):
            raise OptionsError(f"the text to align has no word that {self.name} can spell")
        samples = load_audio(audio)
        log_probs = self.ctc_log_probs(samples)
        path = forced_align(log_probs, [i for word in spelled for i in word.ids])
        if path is None:
            count = sum(len(word.ids) for word in spelled)
            raise AudioError(
                f"{describe(audio)} ({len(samples) / 16000:.2f} s) is too short for a text of {count} tokens"
            )
        starts, ends = shifted_times(*raw_times(path), len(samples) / 16000)
        chances = _run_probabilities(log_probs, path)
        words, first = [], 0
        for word in spelled:
            last = first + len(word.ids)
            confidence = sum(chances[first:last]) / len(word.ids)
            words.append(Word(word.text, starts[first], max(starts[first], ends[last - 1]), confidence))
            first = last
        return words

    def encode(self, recordings: Sequence[AudioInput]) -> tuple[Tensor, Tensor]:
        """Encode recordings as one batch, without cutting any.

        Returns:
            (N, T', d) encoder output, 40 ms per frame, and (N,) valid frames.

        Raises:
            AudioError: a recording cannot be read or is shorter than one frame of 25 ms.
        """
        utterances = [Utterance(load_audio(source)) for source in recordings]
        for source, utterance in zip(recordings, utterances, strict=True):
            if len(utterance.samples) < FRAME_SAMPLES:
                raise AudioError(f"{describe(source)} is shorter than one frame (25 ms): there is nothing to encode")
        return self.front.encode(utterances)

    def ctc_log_probs(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """CTC posteriors of a recording: (T', V) log-probabilities, 40 ms per row; long audio goes in pieces.

        Raises:
            OptionsError: the model has no CTC head.
            ModelError: the network failed.
        """
        if self.ctc is None:
            raise OptionsError(f"{self.name} was loaded from a checkpoint without a CTC head, which alignment needs")
        ctc = self.ctc

        def work(batch: list[Utterance], encoded: Tensor, lengths: Tensor) -> list[NDArray[np.float32]]:
            _check_finite(encoded, lengths)
            return _log_probs(ctc, encoded, lengths)

        # pieces lie on the grid of encoder frames, so their rows follow each other without a gap
        pieces = [Utterance(piece) for _, piece in pieces_of(samples, PIECE_SECONDS)]
        rows = self.front.run(pieces, work, lambda _: np.zeros((0, len(self.vocabulary)), dtype=np.float32))
        found = []
        for row in rows:
            if isinstance(row, ModelError):
                raise row
            found.append(row)
        return np.concatenate(found)

    def _decode(
        self, batch: list[Utterance], encoded: Tensor, lengths: Tensor, options: DecodingOptions
    ) -> list[Recognition]:
        _check_finite(encoded, lengths)
        posteriors: Sequence[NDArray[np.float32] | None] = [None] * len(batch)
        if self.ctc is not None and (options.timestamps or options.search != "beam"):
            posteriors = _log_probs(self.ctc, encoded, lengths)
        found = self._search(encoded, lengths, options, posteriors)
        if not all(math.isfinite(h.confidence) for hypotheses in found for h in hypotheses):
            raise RuntimeError(f"the decoder's scores are not finite ({NOT_FINITE})")
        return [
            self._recognition(hypotheses, utterance.duration, posterior, options.timestamps)
            for hypotheses, utterance, posterior in zip(found, batch, posteriors, strict=True)
        ]

    def _search(
        self,
        encoded: Tensor,
        lengths: Tensor,
        options: DecodingOptions,
        posteriors: Sequence[NDArray[np.float32] | None],
    ) -> list[list[BeamHypothesis]]:
        """Run the search that the options name; without a CTC head only the decoder's own are possible."""
        from vermilion.decoding import beam, draft, rescoring
        from vermilion.decoding.lm import LanguageModelScorer

        sos, eos, forbidden = self.sos, self.eos, self._forbidden
        lm = LanguageModelScorer(self.lm, options.lm_weight) if self.lm is not None and options.lm_weight > 0 else None
        known = [p for p in posteriors if p is not None]
        if options.search == "ctc":
            return [[_ctc_hypothesis(p, {*forbidden, eos})] for p in known]
        if options.search == "rescore":
            return rescoring.rescored_search(
                self.decoder, encoded, lengths, options, known, sos=sos, eos=eos, forbidden=forbidden
            )
        if options.search == "greedy" and lm is None and known:
            drafts = [greedy_path(p, {*forbidden, eos}).ids for p in known]
            return draft.drafted_greedy_search(
                self.decoder, encoded, lengths, options, drafts, sos=sos, eos=eos, forbidden=forbidden
            )
        if options.search == "greedy":
            options = replace(options, beam_size=1, nbest=1)
        return beam.beam_search(self.decoder, encoded, lengths, options, sos=sos, eos=eos, forbidden=forbidden, lm=lm)

    def _recognition(
        self, found: list[BeamHypothesis], duration: float, posterior: NDArray[np.float32] | None, timestamps: bool
    ) -> Recognition:
        best = found[0]
        tokens = self._tokens(best)
        if timestamps:
            tokens = timed(tokens, posterior, duration)
        # of all hypotheses only the best is aligned; the others' tokens have no times
        readings = [tokens, *(self._tokens(h) for h in found[1:])]
        shown = [[t for t in reading if t.id not in self._silent] for reading in readings]
        alternatives = [Hypothesis(self._text(h), h.confidence, ts) for h, ts in zip(found, shown, strict=True)]
        return Recognition(
            text=self._text(best),
            confidence=best.confidence,
            tokens=shown[0],
            words=words_of(tokens) if timestamps else [],
            alternatives=alternatives,
            model=self.name,
        )

    def _nothing(self) -> Recognition:
        """The recognition of less than one frame of audio."""
        return Recognition("", 0.0, alternatives=[Hypothesis("", 0.0)], model=self.name)

    def _tokens(self, hypothesis: BeamHypothesis) -> list[Token]:
        pairs = zip(hypothesis.ids, hypothesis.probabilities, strict=True)
        return [Token(i, self.tokenizer.vocabulary[i], p) for i, p in pairs]

    def _text(self, hypothesis: BeamHypothesis) -> str:
        return text_of(self.tokenizer.vocabulary[i] for i in hypothesis.ids)


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
    # only where tokens are spread by less than a millisecond each can rounding have brought them out of order
    starts = np.minimum.accumulate(starts[::-1])[::-1].tolist()
    return [
        Token(t.id, t.text, t.probability, start, max(start, end))
        for t, start, end in zip(tokens, starts, ends, strict=True)
    ]


def _ctc_hypothesis(posterior: NDArray[np.float32], forbidden: Collection[int]) -> BeamHypothesis:
    from vermilion.decoding.beam import BeamHypothesis

    path = greedy_path(posterior, forbidden)
    return BeamHypothesis(path.ids, path.probabilities, path.score, True)


def _log_probs(ctc: CtcHead, encoded: Tensor, lengths: Tensor) -> list[NDArray[np.float32]]:
    """(T', V) CTC log-probabilities of each utterance, its valid frames only."""
    import torch

    with torch.inference_mode():  # one by one: the scores of a long batch would fill the memory
        return [ctc(row[:n]).cpu().numpy() for row, n in zip(encoded, lengths.tolist(), strict=True)]


def _check_finite(encoded: Tensor, lengths: Tensor) -> None:
    """Refuse to search in what is not a number.

    Raises:
        RuntimeError: as torch's own faults, which the front reports for the item concerned.
    """
    if not all(bool(row[:n].isfinite().all()) for row, n in zip(encoded, lengths.tolist(), strict=True)):
        raise RuntimeError(f"the encoder's output is not finite ({NOT_FINITE})")


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


def _joined_or_failed(parts: list[tuple[float, Any]], source: Any) -> Recognition | Failure:
    for _, answer in parts:
        if isinstance(answer, ModelError):
            return Failure(describe(source), answer, "asr")
    return joined(parts)


def _load_ctc(checkpoint: Checkpoint, runtime: Runtime) -> CtcHead | None:
    from vermilion.nn.ctc import CtcHead

    if not any(key.startswith("ctc.") for key in checkpoint.state):
        return None  # a first-generation checkpoint has no CTC head
    width, vocabulary = int(checkpoint.arg("d_model")), int(checkpoint.arg("odim"))
    return cast("CtcHead", load_network(lambda: CtcHead(width, vocabulary), checkpoint, "ctc.", runtime))


def _load_lm(folder: str | Path | None, runtime: Runtime, vocabulary: int) -> LstmLanguageModel | None:
    from vermilion.decoding.lm import load_language_model

    if folder is None:
        return None
    network = load_language_model(folder)
    if network.fc.out_features != vocabulary:
        raise CheckpointError(f"{folder} scores {network.fc.out_features} tokens, the recogniser has {vocabulary}")
    return network.to(runtime.device)
