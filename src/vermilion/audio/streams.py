"""Which of several audio streams of a file is used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from vermilion.errors import AudioError, OptionsError

if TYPE_CHECKING:
    from av import AudioStream

ALL = "all"
_LANGUAGES = {
    "en": "eng", "zh": "zho chi", "de": "deu ger", "fr": "fra fre", "es": "spa", "ja": "jpn", "ko": "kor", "ru": "rus",
    "it": "ita", "pt": "por", "nl": "nld dut", "pl": "pol", "tr": "tur", "ar": "ara", "hi": "hin", "cs": "ces cze",
    "sv": "swe", "da": "dan", "no": "nor nob nno", "fi": "fin", "el": "ell gre", "he": "heb", "hu": "hun",
    "ro": "ron rum", "sk": "slk slo", "uk": "ukr", "vi": "vie", "th": "tha", "id": "ind", "ms": "msa may",
    "fa": "fas per", "bg": "bul", "hr": "hrv", "ca": "cat", "yue": "yue",
}  # fmt: skip
"""codes of two letters → the codes of three letters that containers store"""


def check_stream(stream: str) -> str:
    """Return a choice of stream in the form that readers take.

    Raises:
        OptionsError: it is neither a number from 1, a language, nor "all".
    """
    text = str(stream).strip().lower()
    if text.isdigit() and int(text) < 1:
        raise OptionsError(f"stream is {stream!r}; streams are counted from 1")
    if text and not text.isdigit() and not text.replace("-", "").isalpha():
        raise OptionsError(f"stream is {stream!r}; it can be a number from 1, a language such as en, or all")
    return text


def check_single(stream: str, name: str) -> None:
    """Refuse the second stream of a file that has one.

    Raises:
        AudioError: there is no such stream.
    """
    if stream.isdigit() and int(stream) > 1:
        raise AudioError(f"cannot read {name}: it has 1 audio stream, not {stream}")


def order_of(streams: Sequence[AudioStream], stream: str, name: str) -> list[AudioStream]:
    """The streams to try in turn: those that were asked for, or the one that players take and then the others.

    Raises:
        AudioError: there is no such stream, or none that can be decoded.
    """
    usable = [s for s in streams if s.codec_context is not None]
    if not usable:
        raise AudioError(f"cannot read {name}: no decoder for its audio codec")
    if not stream:
        return sorted(usable, key=lambda s: not _is_default(s))
    if stream.isdigit():
        chosen = [s for s in streams[int(stream) - 1 : int(stream)] if s in usable]
    else:
        chosen = [s for s in usable if _speaks(s, stream)]
        if not chosen and len(streams) == 1 and language_of(usable[0]) in ("", "und"):
            chosen = usable  # nothing to choose from
    if not chosen:
        found = ", ".join(f"{i} ({language_of(s) or 'no language'})" for i, s in enumerate(streams, 1))
        raise AudioError(f"cannot read {name}: it has no audio stream {stream}; there are {found}")
    return chosen[:1]


def language_of(stream: Any) -> str:
    """The language that a stream is tagged with, in small letters; empty if there is none."""
    return str(stream.metadata.get("language") or "").strip().lower()


def _is_default(stream: Any) -> bool:
    return bool(int(stream.disposition) & 1)


def _speaks(stream: Any, wanted: str) -> bool:
    tagged, short = language_of(stream), wanted.split("-")[0]
    return bool(tagged) and (tagged in (wanted, short) or tagged.split("-")[0] == short or _same(tagged, short))


def _same(tagged: str, short: str) -> bool:
    groups = [{two, *three.split()} for two, three in _LANGUAGES.items()]
    return any(tagged.split("-")[0] in group and short in group for group in groups)


def count_streams(handle: BinaryIO) -> int:
    """How many audio streams a file has; 0 where it cannot be told."""
    from vermilion.audio.ffmpeg import opened

    handle.seek(0)
    container = opened(handle)
    if container is None:
        return 0
    try:
        return len(container.streams.audio)
    finally:
        container.close()


def others(source: Any) -> range:
    """Numbers of all streams of a file that has several and can be read again; empty otherwise."""
    from vermilion.audio.source import is_file, open_binary

    seekable = getattr(source, "seekable", None)
    if not is_file(source) or (hasattr(source, "read") and not (seekable is not None and seekable())):
        return range(0)
    try:
        with open_binary(source) as handle:
            count = count_streams(handle)
    except AudioError:
        return range(0)
    return range(1, count + 1) if count > 1 else range(0)
