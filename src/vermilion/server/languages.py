"""Names of languages, as OpenAI's verbose answers write them, and codes as clients write them."""

from __future__ import annotations

from collections.abc import Collection

from vermilion.errors import UnsupportedLanguageError

_TABLE = """
af afrikaans, am amharic, ar arabic, as assamese, ast asturian, az azerbaijani, ba bashkir, be belarusian, bg bulgarian,
bn bengali, bo tibetan, br breton, bs bosnian, ca catalan, ceb cebuano, ckb central kurdish, cs czech, cy welsh,
da danish, de german, el greek, en english, es spanish, et estonian, eu basque, fa persian, ff fulah, fi finnish,
fo faroese, fr french, ga irish, gl galician, gu gujarati, ha hausa, haw hawaiian, he hebrew, hi hindi, hr croatian,
ht haitian creole, hu hungarian, hy armenian, id indonesian, ig igbo, is icelandic, it italian, iw hebrew, ja japanese,
jw javanese, ka georgian, kk kazakh, km khmer, kn kannada, ko korean, ku kurdish, ky kyrgyz, la latin, lb luxembourgish,
ln lingala, lo lao, lt lithuanian, lv latvian, mg malagasy, mi maori, mk macedonian, ml malayalam, mn mongolian,
mr marathi, ms malay, mt maltese, my myanmar, ne nepali, nl dutch, nn nynorsk, no norwegian, oc occitan, or odia,
pa punjabi, pl polish, ps pashto, pt portuguese, ro romanian, ru russian, sa sanskrit, sd sindhi, si sinhala, sk slovak,
sl slovenian, sn shona, so somali, sq albanian, sr serbian, su sundanese, sv swedish, sw swahili, ta tamil, te telugu,
tg tajik, th thai, tk turkmen, tl tagalog, tr turkish, tt tatar, ug uyghur, uk ukrainian, ur urdu, uz uzbek,
vi vietnamese, wo wolof, xh xhosa, yi yiddish, yo yoruba, yue cantonese, zh chinese, zu zulu
"""
NAMES = {code: name for code, _, name in (entry.strip().partition(" ") for entry in _TABLE.split(","))}
CODES = {name: code for code, name in reversed(NAMES.items())} | {"mandarin": "zh", "burmese": "my"}


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
    wanted = (value or "").strip().lower()
    if wanted in ("", "auto"):
        return None
    language, _, dialect = (CODES.get(wanted) or wanted).replace("_", "-").partition(" ")
    code = language.split("-")[0]
    if not (code.isascii() and code.isalpha() and 2 <= len(code) <= 3 and len(dialect) <= 20):
        raise UnsupportedLanguageError(f"{wanted[:40]!r} is no language code; write it as in ISO 639, such as en or zh")
    if known is not None and code not in known:
        raise UnsupportedLanguageError(
            f"this server does not recognise {wanted[:40]!r}; it knows {', '.join(sorted(known))}"
        )
    return f"{code} {dialect}" if dialect else code
