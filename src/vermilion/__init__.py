"""Vermilion: any recording in, a structured transcript out."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public names by the room that owns them; resolved on first use so that `import vermilion` stays light.
_HOMES = {
    "Pipeline": "vermilion.pipeline",
    "PipelineOptions": "vermilion.pipeline",
    "load": "vermilion.loading",
    "Transcript": "vermilion.transcript",
    "Failure": "vermilion.transcript",
    "Sentence": "vermilion.transcript",
    "Word": "vermilion.transcript",
    "Span": "vermilion.transcript",
    "VermilionError": "vermilion.errors",
}

if TYPE_CHECKING:
    from vermilion.errors import VermilionError
    from vermilion.loading import load
    from vermilion.pipeline import Pipeline, PipelineOptions
    from vermilion.transcript import Failure, Sentence, Span, Transcript, Word

__all__ = [
    "Failure",
    "Pipeline",
    "PipelineOptions",
    "Sentence",
    "Span",
    "Transcript",
    "VermilionError",
    "Word",
    "__version__",
    "load",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vermilion' has no attribute '{name}'")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
