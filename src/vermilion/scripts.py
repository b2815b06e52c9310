"""Where text may be cut: between which characters, and what is a word in scripts that are written without spaces.

Chinese and Japanese are cut beside every character. Thai, Lao, Burmese and Khmer are cut between syllables: never after
a vowel that is written before its consonant, nor before a vowel, tone or final consonant of what precedes it.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from itertools import pairwise

SYLLABIC = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x0F00, 0x0FFF),  # Tibetan
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x1AAF),  # Tai Le, New Tai Lue, Khmer symbols, Tai Tham
    (0xA9E0, 0xA9FF),  # Burmese, extended
    (0xAA60, 0xAADF),  # Burmese, extended; Tai Viet
)
"""scripts that are written without spaces between words and cut between syllables"""
_SINGLE = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff\u3005\u3040-\u30ff]")
_LEADING = frozenset("เแโใไເແໂໃໄ\uaab5\uaab6\uaab9\uaabb\uaabc\u19b5\u19b6\u19b7\u19ba")
"""vowels that are written before the consonant that they follow in speech"""
_FOLLOWING = frozenset("ฯะาำๅๆຯະາຳຽໆ\u17d7\u1a6d\uaab1\uaaba\uaabd\uaac0\uaac2\uaa70") | frozenset(
    map(chr, [*range(0x19B0, 0x19B5), 0x19B8, 0x19B9, *range(0x19BB, 0x19CA)])
)
"""letters, to Unicode, that belong to what precedes them"""
_STACKERS = frozenset("\u1039\u17d2\u1a60")
"""signs that put the next consonant below the one before"""
_ZERO_WIDTH_SPACE = "\u200b"
_TSHEG = frozenset("\u0f0b\u0f0d\u0f0e\u0f0f\u0f11\u0f14")
"""marks behind a Tibetan syllable"""


_TONES = "่-๋່-໋"


def _abugida(consonant: str, leading: str, mark: str, following: str, glide: str, short: str, silent: str) -> str:
    """Pattern of a Thai or Lao syllable: an approximation that prefers too long a syllable to a part of one."""
    vowelled = f"[{mark}{following}]"
    bare = f"(?!{vowelled})"
    second, vowel = glide[:3], glide[3]  # ร ล ว make clusters, อ is the vowel of the consonant before it
    cluster = f"[{consonant}](?:[{second}](?={vowelled})|{vowel}{bare})"
    onset = f"[{leading}]?[{consonant}](?:[{second}](?={vowelled}))?"
    needed = f"(?:(?<=[{short}])|(?<=[{short}][{_TONES}]))[{consonant}]{bare}"
    coda = f"(?:{needed}|(?!{cluster})[{consonant}]{bare})?"
    lone = f"(?:[{consonant}](?![{mark}{following}{consonant}]))?"
    return f"{onset}[{mark}]*[{following}]*(?:[{glide[2:]}]{bare})?{coda}(?:{silent})*{lone}"


_THAI = _abugida("ก-ฮ", "เ-ไ", "ัิ-ฺ็-๋ํ๎", "ะาำๅ", "รลวอย", "ั็", "[ก-ฮ]{1,2}[ิุ]?์")
_LAO = _abugida("ກ-ຮໜ-ໟ", "ເ-ໄ", "ັິ-ຼ່-໋ໍ", "ະາຳຽ", "ຣລວອຍ", "ັົ", "[ກ-ຮ]{1,2}໌")
_BURMESE = (
    "[\u1000-\u102a\u103f\u104e](?:\u1039[\u1000-\u1021])*[\u102b-\u1038\u103b-\u103e\u103a]*"
    "(?:[\u1000-\u1021]\u1037?\u103a\u1037?\u1038?(?:\u1039[\u1000-\u1021][\u102b-\u103e]*)?"
    "|[\u1000-\u1021](?:\u1039[\u1000-\u1021])+[\u102b-\u103e]*)*"
)
_KHMER_MARKS = "\u17b4-\u17d1\u17dd"
_KHMER = (
    f"[\u1780-\u17b3](?:\u17d2[\u1780-\u17b3])*[{_KHMER_MARKS}]*"
    f"(?:[\u1780-\u17a2](?![\u17d2{_KHMER_MARKS}])[\u17cb\u17cc\u17cd]?)?"
    f"(?:[\u1780-\u17a2][\u17cb-\u17cd])*"
)
_SYLLABLE = re.compile(f"{_THAI}|{_LAO}|{_BURMESE}|{_KHMER}")


def is_single(character: str) -> bool:
    """Tell whether a character is a word of its own: Chinese characters, kana."""
    return _SINGLE.match(character) is not None


def is_syllabic(character: str) -> bool:
    """Tell whether a character belongs to a script without spaces that is cut between syllables: Thai, Khmer …"""
    return any(first <= ord(character) <= last for first, last in SYLLABIC)


def may_cut(text: str, i: int) -> bool:
    """Tell whether text may be cut before index `i`: never within what readers see as one sign or syllable.

    Whether a line or a word should end there (spaces, punctuation, scripts with spaces) is for the caller to say.
    """
    left, right = text[i - 1], text[i]
    if _is_attached(left, right):
        return False
    if not (is_syllabic(left) and is_syllabic(right)):
        return True
    if "\u0f00" <= left <= "\u0fff" and "\u0f00" <= right <= "\u0fff":
        return left in _TSHEG and right not in _TSHEG
    if left.isdecimal() and right.isdecimal():
        return False
    return i in _syllable_starts(text)


def words_of(text: str) -> list[str]:
    """Cut text into words with the spaces before them: Chinese and Japanese by character, Thai and such by syllable.

    Punctuation stays with the word before it. The pieces put together are the text.
    """
    edges = [0, *(i for i in range(1, len(text)) if begins_word(text, i)), len(text)]
    return [text[a:b] for a, b in pairwise(edges) if a < b]


def begins_word(text: str, i: int) -> bool:
    """Tell whether a word, with the spaces before it, begins at index `i` > 0."""
    left, right = text[i - 1], text[i]
    if left.isspace():
        return False  # it began at the spaces
    if right.isspace():
        following = text[i:].lstrip()
        return bool(following)
    if not right.isalnum() or not may_cut(text, i):
        return False
    return any(is_single(c) or is_syllabic(c) for c in (_letter_before(text, i), right))


def _letter_before(text: str, i: int) -> str:
    """The last letter or digit of the word that ends at `i`: marks and quotes behind it do not count."""
    for character in reversed(text[:i]):
        if character.isalnum() or character.isspace():
            return character
    return " "


def _is_attached(left: str, right: str) -> bool:
    """Whether two characters make one visible sign: combining marks, emoji sequences, vowels around a consonant."""
    if unicodedata.category(right) in {"Mn", "Mc", "Me", "Cf"} or 0x1F3FB <= ord(right) <= 0x1F3FF:
        return True
    if left in _LEADING or left in _STACKERS:
        return not right.isspace()
    joiner = unicodedata.category(left) == "Cf" and left != _ZERO_WIDTH_SPACE  # which is written where a word ends
    return joiner or right in _FOLLOWING


@lru_cache(maxsize=512)
def _syllable_starts(text: str) -> frozenset[int]:
    """Indices at which a syllable begins, or which no syllable covers."""
    inside = {i for found in _SYLLABLE.finditer(text) for i in range(found.start() + 1, found.end())}
    return frozenset(range(len(text))) - inside
