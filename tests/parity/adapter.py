"""The adapter functions of the golden checker: thin calls into the library, one file per room beside this one.

Where an adapter re-applies a published quirk (SPEC section 14) to our right answer, the line says which.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from asr_adapter import ctc_times, load_asr
from audio_adapter import features
from errors_adapter import word_errors
from lid_adapter import load_lid
from llm_adapter import load_llm
from punc_adapter import load_punc, punc_length_limit, punc_text_fix
from system_adapter import load_system, run_cli
from vad_adapter import load_mvad, load_stream_vad, load_vad, stream_postprocess, vad_postprocess

__all__ = [
    "ctc_times",
    "features",
    "load_asr",
    "load_lid",
    "load_llm",
    "load_mvad",
    "load_punc",
    "load_stream_vad",
    "load_system",
    "load_vad",
    "punc_length_limit",
    "punc_text_fix",
    "run_cli",
    "stream_postprocess",
    "vad_postprocess",
    "word_errors",
]
