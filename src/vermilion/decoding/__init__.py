"""Search over a decoder's scores; used by asr and lid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vermilion.decoding.options import DecodingOptions

if TYPE_CHECKING:
    from vermilion.decoding.beam import BeamHypothesis, beam_search

__all__ = ["BeamHypothesis", "DecodingOptions", "beam_search"]


def __getattr__(name: str) -> Any:
    if name in ("BeamHypothesis", "beam_search"):  # torch is loaded only by those who search
        from vermilion.decoding import beam

        return getattr(beam, name)
    raise AttributeError(f"module 'vermilion.decoding' has no attribute '{name}'")
