"""FireRedASR2-LLM: Conformer encoder, adapter and Qwen2 (SPEC section 12)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from vermilion.asr.aligner import CtcAligner, load_aligner
from vermilion.asr.language_model import LanguageModel, Lora, load_language_model
from vermilion.asr.long_form import gathered, pieces_of
from vermilion.asr.prompt import prompt_text
from vermilion.asr.words import SPECIAL
from vermilion.checkpoints.prepared import load_network
from vermilion.checkpoints.reader import Checkpoint, read_checkpoint, require_files
from vermilion.encoding import NOT_FINITE, AcousticFront, Utterance, check_finite, load_encoder, read_utterances
from vermilion.errors import CheckpointError, OptionsError
from vermilion.flags import LOW_COVERAGE, RATE_LIMITED, REPETITION, RETRIED
from vermilion.runtime import Runtime
from vermilion.transcript import Failure, Hypothesis, Recognition, Token, Word

if TYPE_CHECKING:
    from torch import Tensor

    from vermilion.audio import AudioInput
    from vermilion.decoding.beam import BeamHypothesis
    from vermilion.decoding.generation import Generated
    from vermilion.decoding.options import DecodingOptions, Weights
    from vermilion.nn.adapter import SpeechAdapter

LANGUAGES = frozenset({"zh", "en"})
"""languages that FireRedASR2 was trained for; zh with all its dialect groups"""
QWEN = "Qwen2-7B-Instruct"
ENCODER_FILE = "asr_encoder.pth.tar"
MOST_SECONDS = 40.0
"""the published advice for the longest utterance"""
SEARCH_FRAMES = (6000, 48_000)
"""padded feature frames whose prompts are answered together, on a CPU and on a GPU"""
FRAME_SECONDS = 0.04
"""of an encoder frame"""
TOKENS_PER_SECOND = 10.0
"""of the language model, which no speech reaches: its tokens hold more than a character or a syllable"""
LOOP_PENALTY = 1.2
"""repetition penalty of the second attempt at an utterance whose text went round in circles"""


class LlmRecognizer:
    """Turns speech into text with a large language model; word times come from FireRedASR2-AED's CTC head."""

    punctuates = False
    languages = LANGUAGES
    name = "FireRedASR2-LLM"

    def __init__(
        self,
        front: AcousticFront,
        adapter: SpeechAdapter,
        model: LanguageModel,
        aligner: CtcAligner | None = None,
        *,
        context: str = "",
    ) -> None:
        """Take the networks (`from_pretrained` reads them from a folder).

        Args:
            front: features and encoder.
            adapter: encoder frames → vectors.
            model: language model.
            aligner: gives the words their times; None = no times.
            context: names and terms that may occur, for the prompt.

        Raises:
            CheckpointError: adapter and language model do not fit.
            OptionsError: the context is too long or holds control tokens.
        """
        self.front, self.adapter, self.model, self.aligner = front, adapter, model, aligner
        self.prompt_ids = model.vocabulary.ids(prompt_text(context))

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        device: str = "cpu",
        precision: str = "float32",
        *,
        weights: Weights = "full",
        merge_lora: bool = True,
        device_map: str | Mapping[str, Any] | None = None,
        aed_dir: str | Path | None = None,
        context: str = "",
    ) -> LlmRecognizer:
        """Load a FireRedASR2-LLM folder (asr_encoder.pth.tar, model.pth.tar, cmvn.ark, Qwen2-7B-Instruct).

        Args:
            folder: model folder in the published layout.
            device: torch device of encoder and adapter, and of the language model without a device map.
            precision: "float32", "bfloat16", "float16", "int8" (CPU) or "auto" (`Runtime.of`).
            weights: "int8" or "int4": the language model's matrices are held so (torchao).
            merge_lora: add the LoRA weights to the matrices once.
            device_map: spread the language model over several GPUs (accelerate).
            aed_dir: FireRedASR2-AED folder, for word times; its encoder runs only if it is another one.
            context: names and terms that may occur, for the prompt.

        Raises:
            CheckpointError: files or weights are missing or do not fit.
            MissingDependencyError: transformers is not installed.
            ModelError: there is not enough memory.
            OptionsError: the device or precision is not available.
        """
        from vermilion.audio import FeatureExtractor

        prompt_text(context)  # refused before anything large is read
        path = require_files(folder, ["cmvn.ark", QWEN])
        runtime = Runtime.of(device, precision)
        encoder, own = read_parts(path)
        model = load_language_model(
            path / QWEN, runtime, lora_of(own), weights=weights, merge_lora=merge_lora, device_map=device_map
        )
        extractor = FeatureExtractor.from_cmvn(path / "cmvn.ark")
        front = AcousticFront(extractor, load_encoder(encoder, runtime), runtime)
        front.search_frames = SEARCH_FRAMES[0 if runtime.device.type == "cpu" else 1]
        adapter = _load_adapter(own, int(encoder.arg("d_model")), model.width, runtime)
        aligner = load_aligner(aed_dir, runtime, (front, encoder)) if aed_dir is not None else None
        return cls(front, adapter, model, aligner, context=context)

    def recognize(
        self, recordings: Sequence[AudioInput], /, options: DecodingOptions | None = None
    ) -> list[Recognition | Failure]:
        """Recognise recordings; batches are formed inside and change no result.

        Args:
            recordings: sources of any length; those above 40 s are cut at quiet points.
            options: search and times.

        Returns:
            One entry per recording, in order; a bad recording is a Failure in its place.

        Raises:
            OptionsError: a search or a language model weight that this recogniser does not have.
        """
        options = checked(options)
        read = read_utterances(recordings, "asr")
        longest = min(options.max_segment_seconds, MOST_SECONDS)
        pieces = [pieces_of(u.samples, longest) if isinstance(u, Utterance) else [] for u in read]

        def work(batch: list[Utterance], encoded: Tensor, lengths: Tensor) -> list[Recognition]:
            return self._decode(batch, encoded, lengths, options)

        flat = [Utterance(samples) for cut in pieces for _, samples in cut]
        answers = self.front.run(flat, work, lambda _: _nothing(self.name))
        return gathered(recordings, read, pieces, answers)

    def speech_vectors(self, encoded: Tensor, lengths: Tensor) -> list[Tensor]:
        """Vectors (S, width) of each utterance; S is half its own number of encoder frames."""
        import torch

        with torch.inference_mode():
            # in float32: the language model's vectors are small, but sums on the way to them may not be
            vectors = self.adapter(encoded.float())
        counts = [n // self.adapter.rate for n in lengths.tolist()]
        place = self.model.device
        return [v[:n].to(place) for v, n in zip(vectors, counts, strict=True)]

    def prompts(self, speech: Sequence[Tensor]) -> list[Tensor]:
        """The prompt of each utterance as vectors (L, width), its speech in the placeholder's place."""
        import torch

        at = self.prompt_ids.index(self.model.vocabulary.speech)
        with torch.inference_mode():
            table = self.model.embed(torch.tensor(self.prompt_ids, device=self.model.device))
        return [torch.cat([table[:at], vectors.to(table.dtype), table[at + 1 :]]) for vectors in speech]

    def generate(
        self, speech: Sequence[Tensor], options: DecodingOptions, *, stop_loops: bool = True
    ) -> list[Generated]:
        """Search the texts of a batch of utterances; none may be without vectors."""
        from vermilion.decoding.generation import generate

        logits, running = self.model.read(self.prompts(speech))
        limits = [self._limit(vectors, options) for vectors in speech]
        return generate(logits, running, options, end=self.model.vocabulary.end, limits=limits, stop_loops=stop_loops)

    def _limit(self, vectors: Tensor, options: DecodingOptions) -> int:
        """Most new tokens of an utterance: one per vector, or what anybody can say in its time."""
        from vermilion.decoding.guards import token_ceiling

        limit = options.max_tokens or len(vectors)
        seconds = len(vectors) * self.adapter.rate * FRAME_SECONDS
        return min(limit, token_ceiling(seconds, TOKENS_PER_SECOND)) if options.guards else limit

    def _decode(
        self, batch: list[Utterance], encoded: Tensor, lengths: Tensor, options: DecodingOptions
    ) -> list[Recognition]:
        check_finite(encoded, lengths)
        speech = self.speech_vectors(encoded, lengths)
        heard = [i for i, vectors in enumerate(speech) if len(vectors)]
        wanted = options.timestamps or options.guards
        posteriors = self._posteriors(batch, encoded, lengths) if wanted else [None] * len(batch)
        found: list[tuple[list[BeamHypothesis], list[str]]] = [([], []) for _ in batch]
        if heard:
            answers = self._answers([speech[i] for i in heard], [posteriors[i] for i in heard], options)
            for i, answer in zip(heard, answers, strict=True):
                found[i] = answer
        return [
            self._recognition(hypotheses, flags, utterance, posterior, options)
            for (hypotheses, flags), utterance, posterior in zip(found, batch, posteriors, strict=True)
        ]

    def _answers(
        self, speech: list[Tensor], posteriors: list[Any], options: DecodingOptions
    ) -> list[tuple[list[BeamHypothesis], list[str]]]:
        """Search; a loop that the CTC head does not hear gets a second attempt with a penalty, then it is cut."""
        from vermilion.decoding.generation import without_loop

        found = self.generate(speech, options, stop_loops=options.guards)
        flags: list[list[str]] = [[] for _ in found]
        penalty = max(options.repetition_penalty, LOOP_PENALTY)
        tries = {True: (options, False), False: (replace(options, repetition_penalty=penalty), True)}
        looped = [i for i, answer in enumerate(found) if answer.looped]
        honest = [i for i in looped if posteriors[i] is not None and _repeats(posteriors[i])]
        for share in (honest, [i for i in looped if i not in honest]):
            if share:
                again, stop_loops = tries[share is honest]
                retried = self.generate([speech[i] for i in share], again, stop_loops=stop_loops)
                for i, answer in zip(share, retried, strict=True):
                    found[i], flags[i] = answer, [] if share is honest else [RETRIED]
        if not all(math.isfinite(h.confidence) for answer in found for h in answer.hypotheses):
            raise RuntimeError(f"the language model's scores are not finite ({NOT_FINITE})")
        results = []
        for answer, remarks, vectors in zip(found, flags, speech, strict=True):
            hypotheses = answer.hypotheses
            if answer.looped:
                hypotheses = [_shortened(h, len(without_loop(h.ids))) for h in hypotheses]
                remarks = [*remarks, REPETITION]
            elif options.guards and _ran_into(hypotheses[0], self._limit(vectors, options), options.max_tokens):
                remarks = [*remarks, RATE_LIMITED]
            results.append((hypotheses, remarks))
        return results

    def _posteriors(self, batch: list[Utterance], encoded: Tensor, lengths: Tensor) -> list[Any]:
        """CTC posteriors of each utterance; from the same encoding where the encoder is the same."""
        if self.aligner is None:
            return [None] * len(batch)
        if self.aligner.front is self.front:
            return list(self.aligner.rows(encoded, lengths))
        return [self.aligner.posteriors(utterance.samples) for utterance in batch]

    def _recognition(
        self,
        found: list[BeamHypothesis],
        flags: list[str],
        utterance: Utterance,
        posterior: Any,
        options: DecodingOptions,
    ) -> Recognition:
        if not found:
            return _nothing(self.name)
        alternatives = [self._reading(h) for h in found]
        best = alternatives[0]
        words: list[Word] = []
        if options.guards and posterior is not None and not self._is_covered(best.text, posterior):
            flags = [*flags, LOW_COVERAGE]
        if options.timestamps and self.aligner is not None and posterior is not None and best.text:
            timed = self.aligner.words(best.text, posterior, utterance.duration) or []
            written = self.model.vocabulary.text(found[0].ids).lower()
            words = with_confidences(timed, written, self._bytes(found[0]))
        return Recognition(best.text, best.confidence, best.tokens, words, alternatives, model=self.name, flags=flags)

    def _is_covered(self, text: str, posterior: Any) -> bool:
        """Whether text and the recogniser's CTC head agree, as far as its vocabulary spells the text."""
        from vermilion.asr.coverage import coverage

        tokenizer = self.aligner.tokenizer if self.aligner is not None else None
        if tokenizer is None:
            return True
        silent = {i for i, token in enumerate(tokenizer.vocabulary) if token in SPECIAL}
        return coverage(posterior, [i for i in tokenizer.encode(text)[1] if i not in silent], silent).is_healthy

    def _reading(self, hypothesis: BeamHypothesis) -> Hypothesis:
        vocabulary = self.model.vocabulary
        tokens = [
            Token(i, vocabulary.text([i]), p) for i, p in zip(hypothesis.ids, hypothesis.probabilities, strict=True)
        ]
        return Hypothesis(vocabulary.text(hypothesis.ids).strip().lower(), hypothesis.confidence, tokens)

    def _bytes(self, hypothesis: BeamHypothesis) -> list[tuple[int, float]]:
        """UTF-8 bytes and probability of each token."""
        lengths = self.model.vocabulary.byte_lengths(hypothesis.ids)
        return list(zip(lengths, hypothesis.probabilities, strict=True))


def checked(options: DecodingOptions | None) -> DecodingOptions:
    """Options that a language model can follow.

    Raises:
        OptionsError: a search over a CTC head, or an external language model.
    """
    from vermilion.decoding.options import DecodingOptions

    options = options or DecodingOptions()
    if options.search not in ("beam", "greedy"):
        raise OptionsError(f"FireRedASR2-LLM has no search {options.search!r}: use beam or greedy")
    if options.lm_weight > 0:
        raise OptionsError("FireRedASR2-LLM uses no external language model: leave lm_weight at 0")
    return options


def with_confidences(words: list[Word], text: str, tokens: list[tuple[int, float]]) -> list[Word]:
    """Give words the mean probability of the tokens that wrote them.

    Args:
        words: of the text, in order, as they stand in it.
        text: what the tokens wrote, blanks at its ends included.
        tokens: UTF-8 bytes and probability of each.

    Returns:
        The words; with the confidences that they came with where text and tokens differ in length.
    """
    edges, position = [], 0
    for size, chance in tokens:
        edges.append((position, position + size, chance))
        position += size
    if position != len(text.encode()):
        return words
    found, at = [], 0
    for word in words:
        at = max(at, text.find(word.text, at))
        first = len(text[:at].encode())
        last = first + len(word.text.encode())
        at += len(word.text)
        chances = [chance for a, b, chance in edges if a < last and b > first]
        found.append(replace(word, confidence=sum(chances) / len(chances)) if chances else word)
    return found


def read_parts(folder: Path) -> tuple[Checkpoint, Checkpoint]:
    """The encoder's checkpoint and that of adapter and LoRA weights.

    Encoder weights in the second file take the place of those in the first.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    encoder, own = read_checkpoint(folder, ENCODER_FILE), read_checkpoint(folder)
    newer = {key: tensor for key, tensor in own.state.items() if key.startswith("encoder.")}
    if not newer and not any(key.startswith("encoder.") for key in encoder.state):
        raise CheckpointError(
            f"{folder} holds no encoder: neither {ENCODER_FILE} nor {own.path.name} holds encoder.*; fetch it again"
        )
    path = own.path if newer else encoder.path
    return Checkpoint(path, encoder.args, {**encoder.state, **newer}, (encoder.path, own.path)), own


def lora_of(checkpoint: Checkpoint) -> Lora | None:
    """The LoRA weights of `model.pth.tar`, if the model was trained with them."""
    if not checkpoint.args.get("use_lora") or checkpoint.args.get("freeze_llm"):
        return None
    return Lora.of(checkpoint.state, checkpoint.path)


def _load_adapter(checkpoint: Checkpoint, d_model: int, width: int, runtime: Runtime) -> SpeechAdapter:
    from vermilion.nn.adapter import SpeechAdapter

    rate = int(checkpoint.args.get("encoder_downsample_rate", 2))
    if rate < 1:
        raise CheckpointError(f"{checkpoint.path} joins {rate} frames")
    plain = Runtime(runtime.device, "float32")
    network = load_network(lambda: SpeechAdapter(d_model, width, rate), checkpoint, "encoder_projector.", plain)
    return cast("SpeechAdapter", network)


def _repeats(posterior: Any) -> bool:
    """Tell whether the CTC head itself hears something many times in a row."""
    from vermilion.decoding.ctc import greedy_path
    from vermilion.decoding.guards import repetitions

    return bool(repetitions(greedy_path(posterior).ids))


def _ran_into(hypothesis: BeamHypothesis, limit: int, asked: int) -> bool:
    return not hypothesis.finished and len(hypothesis.ids) >= limit and limit != asked


def _shortened(hypothesis: BeamHypothesis, length: int) -> BeamHypothesis:
    return replace(hypothesis, ids=hypothesis.ids[:length], probabilities=hypothesis.probabilities[:length])


def _nothing(name: str) -> Recognition:
    """The recognition of audio too short for a vector."""
    return Recognition("", 0.0, alternatives=[Hypothesis("", 0.0)], model=name)
