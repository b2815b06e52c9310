"""SubRip, WebVTT and Advanced SubStation Alpha: subtitles written and read back."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from vermilion.errors import FormatError
from vermilion.formats.content import Entry, channel_label
from vermilion.formats.subtitles import Cue, SubtitleOptions, cues
from vermilion.transcript import Transcript

VTT_HEADER = "WEBVTT\n"
_TIME = re.compile(r"(?:(\d+):)?(\d+):(\d+)[.,](\d{1,3})")
_ASS_COLOURS = ("&H00FFFFFF", "&H0000FFFF", "&H00FFFF00", "&H0000FF00", "&H00FF80FF", "&H0080C0FF")  # &HAABBGGRR
_JOINER = "\u2060"  # a word joiner after a backslash keeps \N, \n and \h from meaning something
_ASS_HEADER = """[Script Info]
ScriptType: v4.00+
WrapStyle: 2
ScaledBorderAndShadow: yes
PlayResX: 1280
PlayResY: 720

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, \
StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding
"""
_ASS_STYLE = "Style: {name},Arial,44,{colour},&H000000FF,&H00000000,&H80000000,0,0,0,0,100,100,0,0,1,2,1,2,40,40,36,1\n"
_ASS_EVENTS = "\n[Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"


def render_srt(transcript: Transcript, options: SubtitleOptions | None = None) -> str:
    """Write SubRip: numbered from 1, one blank line between entries, `[Ch 1]` before the text of a channel.

    SubRip has no escapes: an arrow `-->` in the text, which would read as a time line, becomes `→`.
    """
    return "\n".join(srt_entry(number, cue) for number, cue in enumerate(cues(transcript, options), 1))


def srt_entry(number: int, cue: Cue) -> str:
    """One entry of a SubRip file; a blank line belongs between two."""
    text = "\n".join(_labelled(cue)).replace("-->", "→")
    return f"{number}\n{_stamp(cue.start_ms, ',')} --> {_stamp(cue.end_ms, ',')}\n{text}\n"


def render_vtt(transcript: Transcript, options: SubtitleOptions | None = None) -> str:
    """Write WebVTT; a channel's cues carry a voice tag `<v Ch 1>`."""
    return "\n".join([VTT_HEADER, *(vtt_entry(cue) for cue in cues(transcript, options))])


def vtt_entry(cue: Cue) -> str:
    """One cue of a WebVTT file; a blank line belongs between two."""
    text = "\n".join(html.escape(line, quote=False) for line in cue.lines)
    voice = f"<v {channel_label(cue.channel)}>" if cue.channel is not None else ""
    return f"{_stamp(cue.start_ms, '.')} --> {_stamp(cue.end_ms, '.')}\n{voice}{text}\n"


def render_ass(transcript: Transcript, options: SubtitleOptions | None = None) -> str:
    """Write Advanced SubStation Alpha (times in 10 ms); channels have a style and a name of their own.

    Braces are escaped as libass, ffmpeg, mpv and VLC understand it.
    """
    found = cues(transcript, options, step_ms=10)
    channels = sorted({c.channel for c in found if c.channel is not None})
    names: dict[int | None, str] = {None: "Default", **{c: channel_label(c) for c in channels}}
    styles = "".join(
        _ASS_STYLE.format(name=name, colour=_ASS_COLOURS[0 if c is None else c % len(_ASS_COLOURS)])
        for c, name in names.items()
    )
    events = []
    for cue in found:
        name = names[cue.channel]
        text = "\\N".join(map(_ass_escaped, _labelled(cue)))
        voice = "" if cue.channel is None else name
        times = f"{_ass_stamp(cue.start_ms)},{_ass_stamp(cue.end_ms)}"
        events.append(f"Dialogue: 0,{times},{name},{voice},0,0,0,,{text}\n")
    return _ASS_HEADER + styles + _ASS_EVENTS + "".join(events)


def parse_srt(text: str) -> list[Entry]:
    """Read SubRip; the lines of an entry stay apart."""
    return [Entry(body, start, end) for body, start, end in _blocks(text)]


def parse_vtt(text: str) -> list[Entry]:
    """Read WebVTT; tags are dropped, escapes resolved."""
    return [Entry(html.unescape(re.sub(r"<[^>]*>", "", body)), start, end) for body, start, end in _blocks(text)]


def parse_ass(text: str) -> list[Entry]:
    """Read the dialogue of Advanced SubStation Alpha as `render_ass` wrote it.

    Raises:
        FormatError: a dialogue line lacks fields or times.
    """
    entries = []
    for line in text.split("\n"):
        if not line.startswith("Dialogue:"):
            continue
        fields = line.split(",", 9)
        times = [_TIME.fullmatch(f.strip()) for f in fields[1:3]]
        if len(fields) < 10 or times[0] is None or times[1] is None:
            raise FormatError(f"this is not a dialogue line of an ASS file: {line[:80]!r}")
        entries.append(Entry(_ass_plain(fields[9].rstrip("\r")), _seconds(times[0]), _seconds(times[1])))
    return entries


def _labelled(cue: Cue) -> tuple[str, ...]:
    if cue.channel is None:
        return cue.lines
    return f"[{channel_label(cue.channel)}] {cue.lines[0]}", *cue.lines[1:]


def _stamp(ms: int, point: str) -> str:
    return f"{ms // 3600000:02d}:{ms // 60000 % 60:02d}:{ms // 1000 % 60:02d}{point}{ms % 1000:03d}"


def _ass_stamp(ms: int) -> str:
    return f"{ms // 3600000}:{ms // 60000 % 60:02d}:{ms // 1000 % 60:02d}.{ms % 1000 // 10:02d}"


def _ass_escaped(text: str) -> str:
    return text.replace("\\", "\\" + _JOINER).replace("{", "\\{").replace("}", "\\}")


def _ass_plain(text: str) -> str:
    lines = re.sub(r"(?<!\\)\{[^}]*\}", "", text).replace("\\N", "\n")
    return lines.replace("\\{", "{").replace("\\}", "}").replace("\\" + _JOINER, "\\")


def _seconds(match: re.Match[str]) -> float:
    hours, minutes, seconds, fraction = match.groups()
    whole = int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds)
    return (whole * 1000 + int(fraction.ljust(3, "0"))) / 1000


def _blocks(text: str) -> Iterator[tuple[str, float, float]]:
    """Yield (text, start, end) of the blocks of a SubRip or WebVTT file that have a time line."""
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").strip("\n")
    for block in re.split(r"\n[ \t]*\n\s*", lines):
        rows = block.split("\n")
        for i, row in enumerate(rows[:2]):  # the time line is the first, or follows a number or name
            before, arrow, after = row.partition("-->")
            start, end = _TIME.fullmatch(before.strip()), _TIME.match(after.strip())
            if arrow and start and end:
                yield "\n".join(rows[i + 1 :]), _seconds(start), _seconds(end)
                break
