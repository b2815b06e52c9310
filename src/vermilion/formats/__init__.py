"""Writers keyed by extension, and readers that give back what was written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from vermilion.errors import FormatError
from vermilion.formats.content import Entry, check_times
from vermilion.formats.files import write_atomically
from vermilion.formats.json_text import append_jsonl, parse_json, parse_jsonl, render_json, render_jsonl, render_txt
from vermilion.formats.subtitle_files import parse_ass, parse_srt, parse_vtt, render_ass, render_srt, render_vtt
from vermilion.formats.subtitles import Cue, SubtitleOptions, cues
from vermilion.formats.tabular import parse_ctm, parse_rttm, parse_tsv, render_ctm, render_rttm, render_tsv
from vermilion.formats.textgrid import TextGridOptions, parse_textgrid, render_textgrid
from vermilion.formats.timeline import plot
from vermilion.transcript import Transcript

__all__ = [
    "FORMATS",
    "PICTURES",
    "Cue",
    "Entry",
    "FormatOptions",
    "SubtitleOptions",
    "TextGridOptions",
    "append_jsonl",
    "cues",
    "format_of",
    "parse_textgrid",
    "plot",
    "read",
    "render",
    "save",
    "write_atomically",
]

FORMATS = ("json", "jsonl", "txt", "srt", "vtt", "ass", "tsv", "ctm", "rttm", "TextGrid")
PICTURES = ("png", "svg", "html")
_NAMES = {name.lower(): name for name in FORMATS + PICTURES}


@dataclass(frozen=True)
class FormatOptions:
    """Options of all formats that have any."""

    subtitles: SubtitleOptions = field(default_factory=SubtitleOptions)
    """srt, vtt, ass"""
    textgrid: TextGridOptions = field(default_factory=TextGridOptions)


AnyOptions = FormatOptions | SubtitleOptions | TextGridOptions

_WRITERS: dict[str, Callable[[Transcript, FormatOptions], str]] = {
    "json": lambda t, o: render_json(t),
    "jsonl": lambda t, o: render_jsonl(t),
    "txt": lambda t, o: render_txt(t),
    "srt": lambda t, o: render_srt(t, o.subtitles),
    "vtt": lambda t, o: render_vtt(t, o.subtitles),
    "ass": lambda t, o: render_ass(t, o.subtitles),
    "tsv": lambda t, o: render_tsv(t),
    "ctm": lambda t, o: render_ctm(t),
    "rttm": lambda t, o: render_rttm(t),
    "TextGrid": lambda t, o: render_textgrid(t, o.textgrid),
}
_READERS: dict[str, Callable[[str], Transcript | list[Transcript] | list[Entry] | dict[str, list[Entry]]]] = {
    "json": parse_json,
    "jsonl": parse_jsonl,
    "srt": parse_srt,
    "vtt": parse_vtt,
    "ass": parse_ass,
    "tsv": parse_tsv,
    "ctm": parse_ctm,
    "rttm": parse_rttm,
    "TextGrid": parse_textgrid,
}


def format_of(path: str | Path) -> str:
    """Return the format that a file name's extension (or a format's own name) stands for; case does not matter.

    Raises:
        FormatError: the extension is not a known one.
    """
    name = Path(path).suffix[1:] or str(path)
    if name.lower() not in _NAMES:
        known = ", ".join(FORMATS + PICTURES)
        raise FormatError(f"{name!r} is not a format that can be written; known are {known}")
    return _NAMES[name.lower()]


def render(transcript: Transcript, format: str, options: AnyOptions | None = None) -> str:
    """Return a transcript as the text of a file.

    Args:
        transcript: what was found in a recording.
        format: one of `FORMATS`.
        options: options of the format; those of other formats are not used.

    Raises:
        FormatError: the format is unknown, or a time in the transcript is not a finite number.
    """
    name = _NAMES.get(format.lower().lstrip("."))
    if name not in _WRITERS:
        raise FormatError(f"{format!r} is not a text format; known are {', '.join(FORMATS)}")
    check_times(transcript)
    return _WRITERS[name](transcript, _gathered(options))


def save(
    transcript: Transcript, path: str | Path, format: str | None = None, options: AnyOptions | None = None
) -> Path:
    """Write a transcript to a file that appears whole or not at all.

    Args:
        transcript: what was found in a recording.
        path: target; missing folders are created.
        format: one of `FORMATS` or `PICTURES` (a timeline, without the waveform: see `plot`); None takes the extension.
        options: options of the format.

    Returns:
        The path written.

    Raises:
        FormatError: the format is unknown, the transcript cannot be written in it, or the file cannot be written.
    """
    name = format_of(path) if format is None else format_of(format)
    if name in PICTURES:
        return plot(transcript, path, format=name)
    return write_atomically(path, render(transcript, name, options))


def read(
    path: str | Path, format: str | None = None
) -> Transcript | list[Transcript] | list[Entry] | dict[str, list[Entry]]:
    """Read a file that `save` wrote.

    Returns:
        json: a Transcript; jsonl: a list of them; TextGrid: a list of entries by tier; otherwise a list of entries
        (text, start and end in seconds): cues, sentences, words or segments.

    Raises:
        FormatError: the format is unknown or holds no times (txt), or the file is malformed or cannot be read.
    """
    name = format_of(path) if format is None else format_of(format)
    if name not in _READERS:
        raise FormatError(f"{name} cannot be read back; use one of {', '.join(_READERS)}")
    try:
        text = Path(path).read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"cannot read {path}: {error}") from error
    return _READERS[name](text)


def _gathered(options: AnyOptions | None) -> FormatOptions:
    if isinstance(options, SubtitleOptions):
        return FormatOptions(subtitles=options)
    if isinstance(options, TextGridOptions):
        return FormatOptions(textgrid=options)
    return options or FormatOptions()
