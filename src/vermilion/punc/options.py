"""Options of the punctuation restorer."""

from __future__ import annotations

from dataclasses import dataclass

from vermilion.errors import OptionsError


@dataclass(frozen=True)
class PunctuationOptions:
    """How marks are chosen."""

    sentence_max_length: int = -1
    """longest stretch without a mark (a Chinese character counts 1, a Latin letter or digit ½); ≤ 0: no limit"""
    window_overlap: int = 128
    """tokens that neighbouring windows of a long text share; 0 is the published cut without context"""
    batch_tokens: int = 8192
    """tokens that run through the network together, padding included; bounds memory, never changes results"""

    def __post_init__(self) -> None:
        """Check the domains."""
        if self.window_overlap < 0:
            raise OptionsError(f"window_overlap is {self.window_overlap}; it must be 0 or more")
        if self.batch_tokens < 1:
            raise OptionsError(f"batch_tokens is {self.batch_tokens}; it must be 1 or more")
