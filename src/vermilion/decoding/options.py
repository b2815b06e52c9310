"""Options of the search, shared by every recogniser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vermilion.choices import check_choice
from vermilion.errors import OptionsError

Weights = Literal["full", "int8", "int4"]
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
    repetition_penalty: float = 1.0
    """FireRedASR2-LLM: tokens generated before lose by this factor; 1 = none"""
    llm_length_penalty: float = 0.0
    """FireRedASR2-LLM: exponent of the number of tokens that a score is divided by; 0 = none"""
    min_tokens: int = 0
    """FireRedASR2-LLM: fewest new tokens (the published option also counts prompt and speech, and so does nothing)"""
    timestamps: bool = True
    """align tokens and return word times"""
    guards: bool = True
    """cut loops and text faster than speech, decode again what disagrees with the CTC head, flag both; off = the
    published search as it is"""
    max_segment_seconds: float = 60.0
    """longer audio is cut at its quietest points and joined again (the model's advised limit)"""

    def __post_init__(self) -> None:
        check_choice("search", self.search, SEARCHES)
        if self.beam_size < 1:
            raise OptionsError(f"beam_size must be at least 1, not {self.beam_size}")
        if not 1 <= self.nbest <= self.beam_size:
            raise OptionsError(f"nbest must lie between 1 and beam_size ({self.beam_size}), not {self.nbest}")
        if self.nbest > 1 and self.search in ("greedy", "ctc"):
            raise OptionsError(
                f"the search {self.search!r} has one hypothesis: nbest must be 1, or search beam or rescore"
            )
        if self.max_tokens and self.search in ("rescore", "ctc"):
            raise OptionsError(
                f"the search {self.search!r} takes the CTC head's texts as they are: max_tokens must be 0"
            )
        if self.max_tokens < 0:
            raise OptionsError(f"max_tokens must not be negative, got {self.max_tokens}")
        if self.min_tokens < 0 or (self.max_tokens and self.min_tokens > self.max_tokens):
            raise OptionsError(f"min_tokens must lie between 0 and max_tokens, not {self.min_tokens}")
        if self.repetition_penalty <= 0:
            raise OptionsError(f"repetition_penalty must be positive, not {self.repetition_penalty}")
        if self.softmax_smoothing <= 0:
            raise OptionsError(f"softmax_smoothing must be positive, not {self.softmax_smoothing}")
        if self.eos_penalty <= 0:
            raise OptionsError(f"eos_penalty must be positive, not {self.eos_penalty}")
        if self.length_penalty < 0 or self.lm_weight < 0:
            raise OptionsError("length_penalty and lm_weight must not be negative")
        if self.max_segment_seconds < 1:
            raise OptionsError(f"max_segment_seconds must be at least 1, not {self.max_segment_seconds}")


@dataclass(frozen=True)
class LlmOptions:
    """How the recogniser with a large language model is built (SPEC section 12)."""

    engine: Literal["transformers", "vllm"] = "transformers"
    """transformers = in this process; vllm = by vLLM, in this process or behind `url`"""
    url: str = ""
    """address of a vLLM server, such as http://127.0.0.1:8000"""
    weights: Weights = "full"
    """"int8" or "int4": the language model's matrices are held so (torchao)"""
    device_map: str = ""
    """spread the language model over several GPUs: "auto", "balanced" or "sequential" """
    gpus: int = 1
    """GPUs that vLLM spreads the language model over"""
    context: str = ""
    """names and terms that may occur; the model was trained without such a line, so use it with care"""

    def __post_init__(self) -> None:
        check_choice("engine", self.engine, ("transformers", "vllm"))
        check_choice("weights", self.weights, ("full", "int8", "int4"))
        if self.url and self.engine != "vllm":
            raise OptionsError("url is the address of a vLLM server: choose the engine vllm")
        if self.url and self.context:
            raise OptionsError("a vLLM server has a prompt of its own: context works without url only")
        if self.gpus < 1:
            raise OptionsError(f"gpus must be at least 1, not {self.gpus}")
