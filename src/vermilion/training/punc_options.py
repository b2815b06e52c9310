"""Options of the recipe for punctuation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vermilion.errors import OptionsError


@dataclass(frozen=True)
class PunctuatorOptions:
    """Which network is trained on which windows."""

    init: Path | None = None
    """Folder to start from: a published FireRedPunc, or a Hugging Face BERT. Its sizes and vocabulary are kept."""
    hidden: int = 256
    """Width of a fresh encoder."""
    layers: int = 4
    """Its layers."""
    heads: int = 4
    """Its attention heads."""
    feed_forward: int = 1024
    """Width of its feed-forward layers."""
    positions: int = 512
    """Longest sequence that it reads, [CLS] included."""
    pieces: int = 3000
    """WordPieces of a fresh vocabulary besides the single characters."""
    min_count: int = 2
    """Characters of a fresh vocabulary that occur less often are unknown."""
    dropout: float = 0.1
    """Share of everything that a layer adds, and of attention, that is dropped in training."""
    batch_words: int = 4096
    """Words (or Chinese characters) of a batch."""
    longest_window: int = 160
    """Words of the longest window."""
    shortest_window: int = 4
    """Words of the shortest."""
    sentence_start: float = 0.8
    """Share of the windows that begin where a sentence does."""
    sentence_end: float = 0.6
    """Share of the windows that end where a sentence does: speech is often cut elsewhere."""
    validation_windows: int = 400
    """Windows of held-out text for validation, always the same; 0 = no validation."""
    half: bool = False
    """Publish matrices in float16: half the size."""
    bert_weights: bool = True
    """Write the encoder's weights into its Hugging Face folder too: the published code looks for some there."""

    def __post_init__(self) -> None:
        """Check the domain.

        Raises:
            OptionsError: a value is out of its domain.
        """
        for name in ("hidden", "layers", "heads", "feed_forward", "min_count", "batch_words", "shortest_window"):
            if getattr(self, name) < 1:
                raise OptionsError(f"{name} is {getattr(self, name)}; at least 1 is needed")
        if self.hidden % self.heads:
            raise OptionsError(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads})")
        if self.positions < 2 or self.pieces < 0 or self.validation_windows < 0:
            raise OptionsError("positions must be at least 2; pieces and validation_windows cannot be negative")
        if not self.shortest_window <= self.longest_window < self.positions:
            raise OptionsError("longest_window must lie from shortest_window to below positions")
        for name in ("dropout", "sentence_start", "sentence_end"):
            if not 0 <= getattr(self, name) <= 1:
                raise OptionsError(f"{name} is {getattr(self, name)}; it must lie between 0 and 1")
