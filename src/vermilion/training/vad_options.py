"""Options of the recipe for detectors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vermilion.errors import OptionsError


@dataclass(frozen=True)
class DetectorOptions:
    """Which detector is trained and how."""

    kind: Literal["vad", "stream", "events"] = "vad"
    """vad: speech, with look-ahead; stream: speech, causal; events: speech, singing and music."""
    batch: int = 16
    """Mixes of a batch."""
    workers: int = 2
    """Processes that mix; 0 = the training process itself. A GPU needs as many as there are cores."""
    init: Path | None = None
    """Folder of a published detector of the same kind to start from (fine-tuning): its sizes and statistics are
    kept."""
    teacher: Path | None = None
    """Folder of a detector with as many outputs whose probabilities are learned too (distillation)."""
    teacher_weight: float = 0.5
    """Share of the teacher in the targets; the rest are the labels."""
    cmvn: Path | None = None
    """Statistics of features (cmvn.ark); without, they are computed from mixes."""
    statistics_mixes: int = 200
    """Mixes from which statistics and the balance of the classes are computed."""
    validation_mixes: int = 60
    """Mixes of held-out recordings for validation, always the same; 0 = no validation."""
    positive_weight: float = 0.0
    """How much more a frame with sound counts than one without; 0 = so that both count the same in all."""
    singing_is_speech: bool = True
    """For vad and stream: singing is to be found as well, as the published detectors do."""
    dropout: float = 0.05
    """Share of hidden units that are dropped in training."""
    blocks: int = 8
    """Memory blocks (R)."""
    layers: int = 1
    """Layers after them (M)."""
    hidden: int = 256
    """Hidden width (H)."""
    projection: int = 128
    """Width of the memories (P)."""
    look_back: int = 20
    """Frames that a memory sees, the current one included (N1)."""
    look_ahead: int = 20
    """Frames that a memory sees ahead (N2); stream has none."""

    def __post_init__(self) -> None:
        """Check the domain.

        Raises:
            OptionsError: a value is out of its domain.
        """
        if self.kind not in ("vad", "stream", "events"):
            raise OptionsError(f"kind is {self.kind!r}; there are vad, stream, events")
        for name in ("batch", "statistics_mixes", "blocks", "hidden", "projection", "look_back"):
            if getattr(self, name) < 1:
                raise OptionsError(f"{name} is {getattr(self, name)}; at least 1 is needed")
        for name in ("workers", "validation_mixes", "positive_weight", "layers", "look_ahead"):
            if getattr(self, name) < 0:
                raise OptionsError(f"{name} is {getattr(self, name)}; it cannot be negative")
        if not 0 <= self.teacher_weight <= 1 or not 0 <= self.dropout < 1:
            raise OptionsError("teacher_weight must lie between 0 and 1, dropout from 0 to below 1")
