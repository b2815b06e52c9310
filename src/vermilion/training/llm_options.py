"""Options of the recipe for FireRedASR2-LLM."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vermilion.errors import OptionsError


@dataclass(frozen=True)
class LlmTrainingOptions:
    """Which parts are put together, and what of them is trained."""

    init: Path | None = None
    """Folder of a FireRedASR2-LLM to start from (fine-tuning): encoder, adapter, LoRA weights and language model."""
    encoder: Path | None = None
    """Folder of a recogniser (FireRedASR2-AED or -LLM) whose encoder and statistics are taken; the adapter is new."""
    qwen: Path | None = None
    """Folder of the language model (Qwen2-7B-Instruct or another Qwen2 chat model), with --encoder."""
    freeze_encoder: bool = False
    """Leave the encoder as it is: less memory, and enough for a first stage that only finds the adapter."""
    freeze_llm: bool = False
    """Train no LoRA weights: the language model stays as it is."""
    lora_rank: int = 64
    """Rank of new LoRA weights, on all projections of all layers; those of --init keep theirs. Alpha is 16."""
    lora_dropout: float = 0.05
    """Dropout of what goes into the LoRA weights."""
    dropout: float = 0.1
    """Dropout in the encoder while it is trained."""
    mask: bool = True
    """SpecAugment."""
    half: bool = False
    """Publish matrices in float16: half the size."""
    copy_qwen: bool = False
    """Copy the language model into the finished folder; without, the folder holds a link to it."""

    def __post_init__(self) -> None:
        """Check the domain.

        Raises:
            OptionsError: a value is out of its domain, or the parts are not named.
        """
        if self.init is not None and (self.encoder is not None or self.qwen is not None):
            raise OptionsError("init names a whole model: leave out encoder and qwen")
        if (self.encoder is None) != (self.qwen is None):
            raise OptionsError("a new model needs both encoder (a recogniser's folder) and qwen (a Qwen2 folder)")
        for name in ("dropout", "lora_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise OptionsError(f"{name} is {getattr(self, name)}; it must lie from 0 to below 1")
        if self.lora_rank < 1:
            raise OptionsError(f"lora_rank is {self.lora_rank}; at least 1 is needed (freeze_llm trains none)")
