"""The adapter functions of the golden checker: thin calls into the library, one file per room beside this one.

Where an adapter re-applies a published quirk (SPEC section 14) to our right answer, the line says which.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from audio_adapter import features  # noqa: E402
from punc_adapter import load_punc, punc_length_limit, punc_text_fix  # noqa: E402
