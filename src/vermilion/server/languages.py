"""Names of languages, as OpenAI's verbose answers write them, and what clients write for a language."""

from __future__ import annotations

from collections.abc import Collection

from vermilion.errors import UnsupportedLanguageError
from vermilion.languages import AUTO, LANGUAGES, base, canonical
from vermilion.languages import name_of as label_name

_OPENAI = {"my": "myanmar", "nn": "nynorsk"}
"""where Whisper's name is another than FireRedLID's"""
_FURTHER = {"he": "hebrew", "bo": "tibetan", "yue": "cantonese"}
"""codes of clients that are dialect groups, or older codes, to FireRedLID"""
NAMES = {code: _OPENAI.get(code, label_name(code).lower()) for code in LANGUAGES} | _FURTHER


def name_of(code: str | None) -> str:
    """`en` → `english`; a code without a name stays as it is."""
    return NAMES.get(code or "", code or "unknown")


def code_of(value: str | None, known: Collection[str] | None) -> str | None:
    """Read the language that a client gives.

    Args:
        value: `en`, `en-US`, `English`, `zh mandarin` (with a dialect group); None or "" or "auto" = not known.
        known: codes that are recognised; None = any.

    Raises:
        UnsupportedLanguageError: nobody here recognises it.
    """
    wanted = (value or "").strip()
    if wanted.lower() in ("", AUTO):
        return None
    label = canonical(wanted)
    if known is not None and base(label) not in known:
        raise UnsupportedLanguageError(
            f"this server does not recognise {wanted[:40]!r}; it knows {', '.join(sorted(known))}"
        )
    return label
