"""Text → the tokens that error rates count; three normalisations by name, three units."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import TYPE_CHECKING, Literal, get_args

from vermilion.errors import OptionsError, missing

if TYPE_CHECKING:
    from collections.abc import Callable

Normalisation = Literal["report", "whisper-english", "whisper-basic", "raw"]
NORMALISATIONS: tuple[Normalisation, ...] = get_args(Normalisation)
"""report = the published scoring tool's; whisper-… = the two of Whisper's paper; raw = the text as it is written"""
Unit = Literal["mixed", "character", "word"]
UNITS: tuple[Unit, ...] = get_args(Unit)
"""mixed = a Chinese or Japanese character, or a word of any other script; character; word = between blanks"""
MOST_SPELLED = 5
"""so many single letters in a row are one spelled word; more are a recitation of letters"""
_TAG = re.compile(r"<[^<>]*>")
_WIDE = (
    ("\u2e80", "\u2fdf"),  # radicals
    ("\u3005", "\u3007"),  # 々〆〇
    ("\u3021", "\u3029"),
    ("\u3031", "\u303c"),
    ("\u3040", "\u30ff"),  # hiragana, katakana
    ("\u3100", "\u312f"),  # zhuyin
    ("\u31a0", "\u31bf"),
    ("\u31f0", "\u31ff"),
    ("\u3400", "\u4dbf"),
    ("\u4e00", "\u9fff"),
    ("\uf900", "\ufaff"),
    ("\uff66", "\uff9f"),  # katakana of half width
    ("\U0001b000", "\U0001b16f"),
    ("\U00020000", "\U0003fffd"),
)
"""scripts of which every character is a token (not Hangul, which is written in words)"""
_WIDE_CLASS = "".join(f"{first}-{last}" for first, last in _WIDE)
_TOKEN = re.compile(f"[{_WIDE_CLASS}]|[^{_WIDE_CLASS}\\s]+")


def tokens(text: str, normalisation: Normalisation = "report", unit: Unit = "mixed") -> list[str]:
    """Cut a text into the tokens that errors are counted in.

    Args:
        text: reference or hypothesis.
        normalisation: "report": `<…>` tags away, upper case, punctuation and symbols deleted, spelled letters (A B C)
            joined; "whisper-english", "whisper-basic": Whisper's normalisers; "raw": nothing is changed.
        unit: "mixed" gives the report's CER of Chinese and WER of English; "character" the CER of any language;
            "word" the WER.

    Returns:
        Tokens; empty if nothing is left of the text.

    Raises:
        OptionsError: an unknown normalisation or unit.
        MissingDependencyError: Whisper's normalisers need the extra `evaluation`.
    """
    if normalisation not in NORMALISATIONS or unit not in UNITS:
        known = f"{', '.join(NORMALISATIONS)} and {', '.join(UNITS)}"
        raise OptionsError(f"normalisation {normalisation!r} with unit {unit!r} is none of {known}")
    plain = _NORMALISERS[normalisation](text)
    if unit == "character":
        return [c for c in plain if not c.isspace()]
    found = plain.split() if unit == "word" else _TOKEN.findall(plain)
    return _spelled(found) if normalisation == "report" else found


def normalised(text: str, normalisation: Normalisation = "report") -> str:
    """The text that `tokens` cuts, for people to look at."""
    return " ".join(tokens(text, normalisation))


def is_single(character: str) -> bool:
    """Tell whether a character is a token of its own: Chinese, kana, zhuyin."""
    return any(first <= character <= last for first, last in _WIDE)


def is_mark(character: str) -> bool:
    """Tell whether a character is punctuation or a symbol (Unicode categories P and S)."""
    return unicodedata.category(character)[0] in "PS"


def _report(text: str) -> str:
    plain = _TAG.sub("", text).replace("▁", " ").upper()
    return "".join(c for c in plain if not is_mark(c))


def _raw(text: str) -> str:
    return text


def _whisper_english(text: str) -> str:
    return _whisper("english")(text)


def _whisper_basic(text: str) -> str:
    return _whisper("basic")(text)


_NORMALISERS: dict[str, Callable[[str], str]] = {
    "report": _report,
    "whisper-english": _whisper_english,
    "whisper-basic": _whisper_basic,
    "raw": _raw,
}


@cache
def _whisper(which: str) -> Callable[[str], str]:
    try:
        from whisper_normalizer.basic import BasicTextNormalizer
        from whisper_normalizer.english import EnglishTextNormalizer
    except ImportError as error:
        raise missing("Whisper's normalisers are not installed", "evaluation") from error
    made: Callable[[str], str] = EnglishTextNormalizer() if which == "english" else BasicTextNormalizer()
    return made


def _spelled(found: list[str]) -> list[str]:
    """Join runs of two to five single Latin letters: W I F I → WIFI."""
    out: list[str] = []
    run: list[str] = []
    for token in [*found, ""]:
        if len(token) == 1 and "A" <= token <= "Z":
            run.append(token)
            continue
        out.extend(["".join(run)] if 2 <= len(run) <= MOST_SPELLED else run)
        run = []
        out.append(token)
    return out[:-1]
