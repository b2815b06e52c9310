"""Names of systems → what `session.evaluate` runs: ours by `vermilion.loading`, others by `evaluation.peers`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from vermilion import loading
from vermilion.errors import CheckpointError, OptionsError
from vermilion.evaluation.session import System
from vermilion.evaluation.tasks import (
    AlignmentTask,
    EventTask,
    LanguageTask,
    PipelineTask,
    PunctuationTask,
    RecognitionTask,
    Task,
    VoiceActivityTask,
)

if TYPE_CHECKING:
    from vermilion.pipeline import PipelineOptions
    from vermilion.vad import EventOptions, VadOptions

OWN = "vermilion"


@dataclass(frozen=True)
class Named:
    """A system as the user asks for it."""

    text: str
    """"vermilion", "silero", "funasr=a/folder" """

    @property
    def name(self) -> str:
        """The system."""
        return self.text.partition("=")[0]

    @property
    def model(self) -> str | None:
        """Its model, None = the usual one."""
        return self.text.partition("=")[2] or None

    @property
    def own(self) -> bool:
        """Whether it is ours.

        Raises:
            OptionsError: ours with a model.
        """
        if self.name == OWN and self.model is not None:
            raise OptionsError(f"{self.text}: the models of {OWN} are chosen by --models")
        return self.name == OWN

    def peer(self) -> dict[str, Any]:
        """What the journal notes of a system that is not ours."""
        return {"peer": self.name, "model": self.model}


def recognisers(
    names: Sequence[str], models: str, options: PipelineOptions, *, known_language: bool = False, kind: str = "asr"
) -> list[System]:
    """Recognisers, for error rates or (kind "timestamps") for the times of their words."""

    def build(named: Named) -> Task:
        from vermilion.evaluation import peers

        if named.own:
            recognizer = loading.load_recognizer(models, options=options)
        else:
            recognizer = peers.recognizer(named.name, named.model)
        return RecognitionTask(recognizer, options.decoding, known_language, kind)

    own = _hardware(models, options) | {
        "decoding": asdict(options.decoding),
        "recognizer": options.recognizer,
        "llm": asdict(options.llm),
        "calibration": options.calibration,
    }
    told = {"known_language": known_language}
    return [
        System(n.text, lambda n=n: build(n), (own if n.own else n.peer()) | told)  # type: ignore[misc]
        for n in map(Named, names)
    ]


def aligners(models: str, options: PipelineOptions) -> list[System]:
    """Ours, which gives the words of the known text their times."""

    def build() -> Task:
        aligner: Any = loading.load_recognizer(models, options=options)
        if not hasattr(aligner, "align"):
            raise CheckpointError("the recogniser cannot align; FireRedASR2-AED can (vermilion pull fireredasr2-aed)")
        return AlignmentTask(aligner)

    return [System(OWN, build, _hardware(models, options) | {"known_text": True})]


def detectors(names: Sequence[str], models: str, options: VadOptions) -> list[System]:
    """Voice activity detectors."""

    def build(named: Named) -> Task:
        from vermilion.evaluation import peers

        own = named.own
        return VoiceActivityTask(
            loading.load_detector(models, options=options) if own else peers.detector(named.name, named.model)
        )

    own = {"models": models, "vad": asdict(options)}
    return [System(n.text, lambda n=n: build(n), own if n.own else n.peer()) for n in map(Named, names)]  # type: ignore[misc]


def event_detectors(models: str, options: EventOptions) -> list[System]:
    """Ours, for speech, singing and music."""
    about = {"models": models, "events": asdict(options)}
    return [System(OWN, lambda: EventTask(loading.load_event_detector(models, options=options)), about)]


def identifiers(names: Sequence[str], models: str, options: PipelineOptions) -> list[System]:
    """Language identifiers."""

    def build(named: Named) -> Task:
        from vermilion.evaluation import peers

        if named.own:
            return LanguageTask(loading.load_identifier(models, options=options))
        return LanguageTask(peers.identifier(named.name, named.model))

    own = _hardware(models, options)
    return [System(n.text, lambda n=n: build(n), own if n.own else n.peer()) for n in map(Named, names)]  # type: ignore[misc]


def restorers(models: str, options: PipelineOptions) -> list[System]:
    """Ours, for marks."""
    about = _hardware(models, options)
    return [System(OWN, lambda: PunctuationTask(loading.load_restorer(models, options=options)), about)]


def pipelines(models: str, options: PipelineOptions, vad: VadOptions) -> list[System]:
    """Ours, for whole transcripts."""
    about = {"models": models, "options": asdict(options), "vad": asdict(vad)}
    return [System(OWN, lambda: PipelineTask(loading.load(models, options=options, vad=vad)), about)]


def _hardware(models: str, options: PipelineOptions) -> dict[str, Any]:
    return {"models": models, "device": options.device, "precision": options.precision}
