"""FireRedASR2-AED: Conformer encoder, Transformer decoder, CTC head for times (SPEC sections 3 to 7)."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vermilion.asr.aligner import CtcAligner, load_ctc
from vermilion.asr.alignment import BLANK, even_times, forced_align, raw_times, shifted_times
from vermilion.asr.guarding import AedGuard, Evidence, Rescore
from vermilion.asr.long_form import gathered, pieces_of
from vermilion.asr.tokenizer import Tokenizer
from vermilion.asr.words import SPECIAL, text_of, words_of
from vermilion.audio import FeatureExtractor, describe, load_audio
from vermilion.checkpoints.layout import decoder_layout
from vermilion.checkpoints.reader import read_checkpoint, require_files
from vermilion.decoding.ctc import greedy_path
from vermilion.decoding.guards import token_ceiling
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
from vermilion.errors import AudioError, CheckpointError, OptionsError
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
        self._guard = AedGuard(vocabulary, self._silent)

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
        tokenizer = Tokenizer.from_folder(path, decoder_layout(checkpoint, "decoder.").sizes["vocabulary"])
        extractor = FeatureExtractor.from_cmvn(path / "cmvn.ark")
        front = AcousticFront(extractor, load_encoder(checkpoint, runtime), runtime)
        decoder = load_decoder(checkpoint, "decoder.", runtime)
        special = (int(checkpoint.arg("sos_id")), int(checkpoint.arg("eos_id")), int(checkpoint.arg("pad_id")))
        ctc = load_ctc(checkpoint, runtime)
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
        return gathered(recordings, read, pieces, self.front.run(flat, work, lambda _: self._nothing()))

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
        samples = load_audio(audio)
        duration = len(samples) / 16000
        words = self._aligner().words(text, self.ctc_log_probs(samples), duration)
        if words is None:
            raise AudioError(f"{describe(audio)} ({duration:.2f} s) is too short for the text")
        if not words:
            raise OptionsError(f"the text to align has no word that {self.name} can spell")
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
        return self._aligner().posteriors(samples)

    @property
    def aligner(self) -> CtcAligner | None:
        """Encoder and CTC head, which give texts their times; None where the checkpoint has no such head."""
        return CtcAligner(self.front, self.ctc, self.tokenizer) if self.ctc is not None else None

    def _aligner(self) -> CtcAligner:
        if self.aligner is None:
            raise OptionsError(f"{self.name} was loaded from a checkpoint without a CTC head, which alignment needs")
        return self.aligner

    def _decode(
        self, batch: list[Utterance], encoded: Tensor, lengths: Tensor, options: DecodingOptions
    ) -> list[Recognition]:
        check_finite(encoded, lengths)
        posteriors: Sequence[NDArray[np.float32] | None] = [None] * len(batch)
        if self.ctc is not None and (options.timestamps or options.guards or options.search != "beam"):
            posteriors = list(self._aligner().rows(encoded, lengths))
        limits = _limits(batch, lengths, options)
        found = self._search(encoded, lengths, options, posteriors, limits)
        if not all(math.isfinite(h.confidence) for hypotheses in found for h in hypotheses):
            raise RuntimeError(f"the decoder's scores are not finite ({NOT_FINITE})")
        flags: list[list[str]] = [[] for _ in batch]
        if options.guards:
            for i, utterance in enumerate(batch):
                row = slice(i, i + 1)
                rescore = self._rescore(encoded[row], lengths[row], options, posteriors[i])
                evidence = Evidence.of(utterance.duration, posteriors[i], {*self._forbidden, self.eos})
                guarded = self._guard(found[i][0], evidence, rescore)
                found[i][0], flags[i] = guarded.hypothesis, guarded.flags
        return [
            replace(
                self._recognition(hypotheses, utterance.duration, posterior, options.timestamps),
                flags=remarks,
                no_speech=self._no_speech(posterior),
            )
            for hypotheses, utterance, posterior, remarks in zip(found, batch, posteriors, flags, strict=True)
        ]

    def _no_speech(self, posterior: NDArray[np.float32] | None) -> float | None:
        """How far the CTC head is from being sure of a single label; None without the head."""
        if posterior is None:
            return None
        spoken = [i for i in range(posterior.shape[1]) if i != BLANK and i not in self._silent]
        return 1.0 - float(np.exp(posterior[:, spoken].max()))

    def _rescore(
        self, encoded: Tensor, lengths: Tensor, options: DecodingOptions, posterior: NDArray[np.float32] | None
    ) -> Rescore | None:
        """A second try at one utterance; none where the first was the same."""
        from vermilion.decoding import rescoring

        if posterior is None or options.search in ("ctc", "rescore"):
            return None
        again = replace(options, search="rescore", nbest=1, max_tokens=0)
        special = {"sos": self.sos, "eos": self.eos}

        def rescored() -> BeamHypothesis:
            [[best]] = rescoring.rescored_search(
                self.decoder, encoded, lengths, again, [posterior], **special, forbidden=self._forbidden
            )
            return best

        return rescored

    def _search(
        self,
        encoded: Tensor,
        lengths: Tensor,
        options: DecodingOptions,
        posteriors: Sequence[NDArray[np.float32] | None],
        limits: list[int],
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
                self.decoder, encoded, lengths, options, drafts, sos=sos, eos=eos, forbidden=forbidden, max_steps=limits
            )
        if options.search == "greedy":
            options = replace(options, beam_size=1, nbest=1)
        return beam.beam_search(
            self.decoder, encoded, lengths, options, sos=sos, eos=eos, forbidden=forbidden, lm=lm, max_steps=limits
        )

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


def _limits(batch: Sequence[Utterance], lengths: Tensor, options: DecodingOptions) -> list[int]:
    """Most tokens of each utterance: one per frame, or what anybody can say in its time."""
    limits = [options.max_tokens or n for n in lengths.tolist()]
    if not options.guards:
        return limits
    return [min(n, token_ceiling(u.duration)) for n, u in zip(limits, batch, strict=True)]


def _ctc_hypothesis(posterior: NDArray[np.float32], forbidden: Collection[int]) -> BeamHypothesis:
    from vermilion.decoding.beam import BeamHypothesis

    path = greedy_path(posterior, forbidden)
    return BeamHypothesis(path.ids, path.probabilities, path.score, True)


def _load_lm(folder: str | Path | None, runtime: Runtime, vocabulary: int) -> LstmLanguageModel | None:
    from vermilion.decoding.lm import load_language_model

    if folder is None:
        return None
    network = load_language_model(folder)
    if network.fc.out_features != vocabulary:
        raise CheckpointError(f"{folder} scores {network.fc.out_features} tokens, the recogniser has {vocabulary}")
    return network.to(runtime.device)
