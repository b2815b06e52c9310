"""Options of the search, shared by every recogniser."""

from __future__ import annotations

from dataclasses import dataclass

from vermilion.errors import OptionsError

SEARCHES = ("beam", "greedy", "rescore", "ctc")


@dataclass(frozen=True)
class DecodingOptions:
    """How a recogniser searches (SPEC section 5; the defaults are those of the published library)."""

    beam_size: int = 3
    """hypotheses kept per utterance"""
    search: str = "beam"
    """"beam" is the published search; "greedy" gives its answer for a beam of one in a few passes of the decoder,
    drafted by the CTC head; "rescore" lets the decoder choose among the CTC head's texts in one pass; "ctc" takes the
    CTC head's best path and runs no decoder"""
    nbest: int = 1
    """hypotheses returned, at most `beam_size`"""
    max_tokens: int = 0
    """limit on new tokens; 0 = one per encoder frame of the utterance itself"""
    softmax_smoothing: float = 1.25
    """temperature that divides the logits"""
    length_penalty: float = 0.6
    """exponent of the length normalisation; 0 = none"""
    eos_penalty: float = 1.0
    """factor on the end token's log-probability: above 1 longer, below 1 shorter"""
    lm_weight: float = 0.0
    """weight of the external language model; 0 = not used"""
    timestamps: bool = True
    """align tokens and return word times"""
    max_segment_seconds: float = 60.0
    """longer audio is cut at its quietest points and joined again (the model's advised limit)"""

    def __post_init__(self) -> None:
        if self.search not in SEARCHES:
            raise OptionsError(f"search must be one of {', '.join(SEARCHES)}, not {self.search!r}")
        if self.beam_size < 1:
            raise OptionsError(f"beam_size must be at least 1, not {self.beam_size}")
        if not 1 <= self.nbest <= self.beam_size:
            raise OptionsError(f"nbest must lie between 1 and beam_size ({self.beam_size}), not {self.nbest}")
        if self.nbest > 1 and self.search in ("greedy", "ctc"):
            raise OptionsError(
                f"the search {self.search!r} has one hypothesis: nbest must be 1, or search beam or rescore"
            )
        if self.max_tokens < 0:
            raise OptionsError(f"max_tokens must not be negative, got {self.max_tokens}")
        if self.softmax_smoothing <= 0:
            raise OptionsError(f"softmax_smoothing must be positive, not {self.softmax_smoothing}")
        if self.eos_penalty <= 0:
            raise OptionsError(f"eos_penalty must be positive, not {self.eos_penalty}")
        if self.length_penalty < 0 or self.lm_weight < 0:
            raise OptionsError("length_penalty and lm_weight must not be negative")
        if self.max_segment_seconds < 1:
            raise OptionsError(f"max_segment_seconds must be at least 1, not {self.max_segment_seconds}")
