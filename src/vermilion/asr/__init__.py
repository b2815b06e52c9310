"""Speech recognition: recognisers, alignment, tokenisers."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vermilion.decoding.options import DecodingOptions

if TYPE_CHECKING:
    from vermilion.asr.aed import AedRecognizer
    from vermilion.asr.alignment import forced_align
    from vermilion.asr.llm import LlmRecognizer
    from vermilion.asr.whisper import WhisperRecognizer

__all__ = ["AedRecognizer", "DecodingOptions", "LlmRecognizer", "WhisperRecognizer", "forced_align"]

_HOMES = {
    "AedRecognizer": "vermilion.asr.aed",
    "LlmRecognizer": "vermilion.asr.llm",
    "WhisperRecognizer": "vermilion.asr.whisper",
    "forced_align": "vermilion.asr.alignment",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vermilion.asr' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
