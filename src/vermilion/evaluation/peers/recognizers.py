"""Recognisers and language identifiers of others; each takes a model's folder or name, None = its usual model."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from vermilion.audio import SAMPLE_RATE, describe, load_audio
from vermilion.decoding.options import DecodingOptions
from vermilion.errors import CheckpointError, MissingDependencyError, ModelError, OptionsError, VermilionError
from vermilion.evaluation.peers.detectors import NONE
from vermilion.languages import lenient
from vermilion.lid.labels import LANGUAGES
from vermilion.transcript import Failure, LanguageResult, Recognition, Span, VadResult, Word

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vermilion.audio import AudioInput
    from vermilion.pipeline import LanguageIdentifier, Recognizer

R = TypeVar("R")
SENSE_TAG = re.compile(r"<\|([^|]*)\|>")
SHERPA_FILES = ("encoder", "decoder")


def whisper_recognizer(model: str | None = None) -> Recognizer:
    """Whisper by faster-whisper; a folder in CTranslate2's format, None = the starter set's.

    Raises:
        MissingDependencyError: faster-whisper, or the starter set, is not installed.
    """
    from vermilion.asr.whisper import WhisperRecognizer

    recognizer: Recognizer = WhisperRecognizer.from_pretrained(model)
    return recognizer


def whisper_identifier(model: str | None = None) -> LanguageIdentifier:
    """Whisper's language tokens; a folder in CTranslate2's format, None = the starter set's.

    Raises:
        MissingDependencyError: faster-whisper, or the starter set, is not installed.
    """
    from vermilion.asr.whisper import WhisperRecognizer
    from vermilion.lid.whisper import WhisperLanguageIdentifier

    identifier: LanguageIdentifier = WhisperLanguageIdentifier(WhisperRecognizer.from_pretrained(model))
    return identifier


class FunAsrRecognizer:
    """A recogniser of FunASR (Paraformer unless another is named)."""

    punctuates = False

    def __init__(self, model: str | None = None, device: str = "cpu") -> None:
        """Load it.

        Raises:
            MissingDependencyError: funasr is not installed.
        """
        self._model = funasr(model or "paraformer-zh", device)
        self.name = f"FunASR {Path(model or 'paraformer-zh').name}"

    def recognize(
        self, recordings: Sequence[AudioInput], options: DecodingOptions | None = None, /
    ) -> Sequence[Recognition | Failure]:
        """Recognise each recording by itself; options of the search do not apply."""
        return each(recordings, self._one, "asr")

    def _one(self, samples: NDArray[np.float32]) -> Recognition:
        found = self._model.generate(input=samples, disable_pbar=True)[0]
        text = SENSE_TAG.sub("", found["text"]).strip()
        times = found.get("timestamp") or []
        words = text.split() if len(text.split()) == len(times) else list("".join(text.split()))
        timed = [Word(w, a / 1000, b / 1000) for w, (a, b) in zip(words, times, strict=False)]
        return Recognition(text, 0.0, words=timed if len(words) == len(times) else [], model=self.name)


class FunAsrIdentifier:
    """The language that FunASR's SenseVoice writes before its text."""

    def __init__(self, model: str | None = None, device: str = "cpu") -> None:
        """Load it.

        Raises:
            MissingDependencyError: funasr is not installed.
        """
        self._model = funasr(model or "iic/SenseVoiceSmall", device)
        self.name = f"FunASR {Path(model or 'SenseVoiceSmall').name}"

    def identify(self, recordings: Sequence[AudioInput], /) -> Sequence[LanguageResult | Failure]:
        """Name the language of each recording; the model gives no probability, so the confidence is 0."""
        return each(recordings, self._one, "lid")

    def _one(self, samples: NDArray[np.float32]) -> LanguageResult:
        text = self._model.generate(input=samples, language="auto", disable_pbar=True)[0]["text"]
        return sense_language(text)


def sense_language(text: str) -> LanguageResult:
    """ "<|yue|><|NEUTRAL|>…" → Cantonese; nothing where no tag is a language."""
    tag = next((t for t in SENSE_TAG.findall(text) if t in LANGUAGES or t == "yue"), "")
    return LanguageResult("zh", "yue", 0.0) if tag == "yue" else LanguageResult(tag, None, 0.0)


class FunAsrDetector:
    """FSMN-VAD with FunASR's own decisions."""

    name = "FunASR fsmn-vad"

    def __init__(self, model: str | None = None, device: str = "cpu") -> None:
        """Load it.

        Raises:
            MissingDependencyError: funasr is not installed.
        """
        self._model = funasr(model or "fsmn-vad", device)

    def detect(self, audio: AudioInput, /) -> VadResult:
        """Find the speech; it gives no probabilities.

        Raises:
            AudioError: the recording cannot be read.
        """
        samples = load_audio(audio)
        found = self._model.generate(input=samples, disable_pbar=True)[0]["value"]
        spans = [Span(a / 1000, b / 1000) for a, b in found]
        return VadResult(spans, NONE, len(samples) / SAMPLE_RATE)


def funasr(model: str, device: str) -> Any:
    """A model of FunASR; it downloads by itself unless a folder is named.

    Raises:
        MissingDependencyError: funasr is not installed.
    """
    try:
        from funasr import AutoModel
    except ImportError as error:
        raise MissingDependencyError("FunASR is not installed: pip install funasr") from error
    return AutoModel(model=model, device=device, disable_update=True)


class QwenRecognizer:
    """Qwen3-ASR by its own package, through transformers."""

    punctuates = True

    def __init__(self, model: str | None = None, device: str = "cpu") -> None:
        """Load it.

        Raises:
            MissingDependencyError: qwen-asr is not installed.
        """
        try:
            from qwen_asr import Qwen3ASRModel
        except ImportError as error:
            raise MissingDependencyError("Qwen3-ASR is not installed: pip install qwen-asr") from error
        import torch

        self.name = Path(model or "Qwen3-ASR-1.7B").name
        precision = torch.float32 if device == "cpu" else torch.bfloat16
        self._model = Qwen3ASRModel.from_pretrained(model or "Qwen/Qwen3-ASR-1.7B", dtype=precision, device_map=device)

    def recognize(
        self, recordings: Sequence[AudioInput], options: DecodingOptions | None = None, /
    ) -> Sequence[Recognition | Failure]:
        """Recognise each recording by itself; options of the search do not apply."""
        return each(recordings, self._one, "asr")

    def _one(self, samples: NDArray[np.float32]) -> Recognition:
        found = self._model.transcribe(audio=(samples, SAMPLE_RATE), language=None)[0]
        return Recognition(found.text.strip(), 0.0, language=language_code(found.language), model=self.name)


def language_code(name: str | None) -> str | None:
    """ "Chinese" or "Chinese,English" → "zh": the code of the first language named, None if unknown."""
    return lenient((name or "").partition(",")[0])


class SherpaRecognizer:
    """sherpa-onnx with the FireRedASR model files that its authors distribute, greedy."""

    punctuates = False

    def __init__(self, model: str | None = None, threads: int = 2) -> None:
        """Load a folder with encoder*.onnx, decoder*.onnx and tokens.txt.

        Raises:
            MissingDependencyError: sherpa-onnx is not installed.
            OptionsError: no folder was named.
            CheckpointError: the folder lacks a file.
        """
        try:
            import sherpa_onnx
        except ImportError as error:
            raise MissingDependencyError("sherpa-onnx is not installed: pip install sherpa-onnx") from error
        if model is None:
            raise OptionsError("sherpa-onnx needs the folder of a FireRedASR model (encoder, decoder, tokens.txt)")
        files = sherpa_files(Path(model))
        self.name = f"sherpa-onnx {Path(model).name}"
        self._model = sherpa_onnx.OfflineRecognizer.from_fire_red_asr(**files, num_threads=threads)

    def recognize(
        self, recordings: Sequence[AudioInput], options: DecodingOptions | None = None, /
    ) -> Sequence[Recognition | Failure]:
        """Recognise each recording by itself; options of the search do not apply."""
        return each(recordings, self._one, "asr")

    def _one(self, samples: NDArray[np.float32]) -> Recognition:
        stream = self._model.create_stream()
        stream.accept_waveform(SAMPLE_RATE, samples)
        self._model.decode_stream(stream)
        return Recognition(stream.result.text.strip(), 0.0, model=self.name)


def sherpa_files(folder: Path) -> dict[str, str]:
    """The files of a sherpa-onnx model, the int8 ones where there are both.

    Raises:
        CheckpointError: one is missing.
    """
    found = {}
    for part in SHERPA_FILES:
        candidates = sorted(folder.glob(f"{part}*.onnx"), key=lambda p: (".int8." not in p.name, p.name))
        if not candidates:
            raise CheckpointError(f"{folder} holds no {part}*.onnx")
        found[part] = str(candidates[0])
    if not (folder / "tokens.txt").is_file():
        raise CheckpointError(f"{folder} holds no tokens.txt")
    return {**found, "tokens": str(folder / "tokens.txt")}


def each(recordings: Sequence[AudioInput], work: Callable[[NDArray[np.float32]], R], stage: str) -> list[R | Failure]:
    """Run a peer on each recording; what it cannot read or do stands in its place."""
    results: list[R | Failure] = []
    for source in recordings:
        try:
            results.append(guarded(work, load_audio(source)))
        except VermilionError as error:
            results.append(Failure(describe(source), error, stage))
    return results


def guarded(work: Callable[[NDArray[np.float32]], R], samples: NDArray[np.float32]) -> R:
    """Turn what a peer's library raises into our error.

    Raises:
        ModelError: it failed.
    """
    try:
        return work(samples)
    except (RuntimeError, ValueError, KeyError, IndexError, TypeError) as error:
        raise ModelError(f"the peer failed on {len(samples) / SAMPLE_RATE:.1f} s of audio: {error}") from error
