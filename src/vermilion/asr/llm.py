"""FireRedASR2-LLM. Not part of this version: the name is here so that code written for it fails with advice."""

from __future__ import annotations

from pathlib import Path

from vermilion.errors import MissingDependencyError

MISSING = "FireRedASR2-LLM is not part of this version of Vermilion; use FireRedASR2-AED (--recognizer aed) or Whisper"


class LlmRecognizer:
    """Encoder, adapter and Qwen2 (SPEC section 12); refuses to load until it is built."""

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: str = "cpu", precision: str = "float32") -> LlmRecognizer:
        """Refuse.

        Raises:
            MissingDependencyError: always; the message names the recognisers that exist.
        """
        raise MissingDependencyError(MISSING)
