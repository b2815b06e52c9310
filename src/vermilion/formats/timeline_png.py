"""The timeline as a picture: rows of a fixed length, one under the other."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vermilion.formats.content import channel_label
from vermilion.formats.timeline import (
    EVENT_LABELS,
    FRAME_RATE,
    SAMPLE_RATE,
    Timeline,
    clock,
    envelope,
    pooled,
)
from vermilion.formats.width import char_width, clean, display_width
from vermilion.transcript import Event

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, DPI = 16.0, 110  # inches, dots per inch
_LEFT, _RIGHT, _HEADER, _FOOTER, _GAP = 1.0, 0.2, 0.72, 0.55, 0.5  # inches
_ROW_SECONDS, _MAX_ROWS = 20.0, 20
_FONT, _LANES = 8.5, 3  # points; staggered lines of words
_COLUMN = _FONT / 72 * 0.56  # inches that a Latin letter takes on average; a Chinese character takes 1.8 of it
_INK, _MUTED, _WAVE = "#20242a", "#68707c", "#8a94a3"
COLOURS = {"speech": "#2f7ed8", "singing": "#c2489b", "music": "#d98a00"}
LANGUAGE_COLOURS = ("#cfe3f7", "#fbdcc0", "#d3ecd2", "#e6d9f2", "#f7d4da", "#d5eeee", "#ece7c6", "#dedede")
_CJK_FONTS = (
    "Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN", "Noto Sans CJK JP",
    "Noto Sans CJK TC", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback", "PingFang SC",
    "Hiragino Sans GB", "Heiti SC", "STHeiti", "Microsoft YaHei", "SimHei", "SimSun", "Arial Unicode MS", "Unifont",
)  # fmt: skip
_CJK_FILES = ("notosanscjk", "notosanssc", "sourcehansans", "wqy-", "droidsansfallback", "msyh", "simhei", "pingfang")
_WORLD_FONTS = ("Noto Sans", "Noto Sans Arabic", "Noto Sans Devanagari", "Noto Sans Thai", "Noto Sans Hebrew")


@dataclass(frozen=True)
class _Lane:
    """A horizontal band of a row; all rows have the same."""

    name: str
    top: float
    """inches below the row's upper edge"""
    height: float
    channel: int | None = None


@dataclass(frozen=True)
class _Label:
    """A text at a time, drawn if there is room."""

    text: str
    start: float
    confidence: float | None


def render_picture(timeline: Timeline, kind: str) -> bytes:
    """Draw the timeline with matplotlib, without its global state.

    Args:
        timeline: what to show.
        kind: "png" or "svg".

    Returns:
        The file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fonts, chinese = _fonts()
    lanes = _lanes(timeline)
    height = lanes[-1].top + lanes[-1].height
    seconds = _row_seconds(timeline.duration)
    rows = max(1, int(np.ceil(timeline.duration / seconds - 1e-6)))
    total = _HEADER + rows * (height + _GAP) + _FOOTER
    figure = Figure(figsize=(WIDTH, total), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    drawn = wanted = 0
    for row in range(rows):
        bottom = total - _HEADER - (row + 1) * (height + _GAP) + _GAP
        box = (_LEFT / WIDTH, bottom / total, (WIDTH - _LEFT - _RIGHT) / WIDTH, height / total)
        axes = figure.add_axes(box)
        a, b = _draw_row(axes, timeline, lanes, row * seconds, seconds, fonts)
        drawn, wanted = drawn + a, wanted + b
    _draw_frame(figure, timeline, total, fonts, _remarks(timeline, drawn, wanted, chinese))
    return _printed(figure, kind)


def _printed(figure: Figure, kind: str) -> bytes:
    """Bytes of the picture; matplotlib's remarks on fonts (a weight or a script that one lacks) are not repeated."""
    out, log = io.BytesIO(), logging.getLogger("matplotlib.font_manager")
    log.addFilter(_no_record)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph")
            figure.savefig(out, format=kind)
    finally:
        log.removeFilter(_no_record)
    return out.getvalue()


def _no_record(record: logging.LogRecord) -> bool:
    return False


def _fonts() -> tuple[list[str], bool]:
    """Font families in the order in which characters are looked up, and whether one has Chinese."""
    from matplotlib import font_manager

    known = {font.name for font in font_manager.fontManager.ttflist}
    chinese = next((name for name in _CJK_FONTS if name in known), None)
    if chinese is None:  # matplotlib's list may be older than the fonts of this machine
        for path in font_manager.findSystemFonts():
            name = path.replace("\\", "/").rsplit("/", 1)[-1].lower()
            if name.startswith(_CJK_FILES):
                font_manager.fontManager.addfont(path)
                chinese = font_manager.FontProperties(fname=path).get_name()
                break
    others = [name for name in _WORLD_FONTS if name in known]
    return ["DejaVu Sans", *([chinese] if chinese else []), *others], chinese is not None


def _row_seconds(duration: float) -> float:
    if duration <= _ROW_SECONDS * 1.25:
        return duration
    if duration <= _ROW_SECONDS * _MAX_ROWS:
        return _ROW_SECONDS
    steps = (30, 60, 120, 300, 600, 900, 1800, 3600)
    return float(next((s for s in steps if duration <= s * _MAX_ROWS), duration / _MAX_ROWS))


def _lanes(timeline: Timeline) -> list[_Lane]:
    heights: list[tuple[str, float, int | None]] = []
    if timeline.samples is not None:
        heights.append(("waveform", 0.75, None))
    if timeline.curves:
        heights.append(("probability", 0.42, None))
    present = {e.label for e in timeline.events}
    heights += [
        (label, 0.16, None) for label in [*EVENT_LABELS, *sorted(present - {*EVENT_LABELS})] if label in present
    ]
    if timeline.languages:
        heights.append(("language", 0.2, None))
    for channel in _channels(timeline):
        suffix = "" if channel is None else f" {channel_label(channel).lower()}"
        heights.append((f"words{suffix}" if timeline.words else f"text{suffix}", 0.09 + _LANES * 0.17, channel))
    lanes, top = [], 0.0
    for name, height, channel in heights:
        lanes.append(_Lane(name, top, height, channel))
        top += height + 0.05
    return lanes


def _channels(timeline: Timeline) -> list[int | None]:
    found = sorted({s.channel for s in timeline.sentences if s.channel is not None})
    return [*found] or [None]


def _draw_row(
    axes: Axes, timeline: Timeline, lanes: Sequence[_Lane], start: float, seconds: float, fonts: list[str]
) -> tuple[int, int]:
    """Draw the stretch from `start`; return how many texts were drawn, and how many there are."""
    end = min(start + seconds, timeline.duration)
    height = lanes[-1].top + lanes[-1].height
    axes.set_xlim(start, start + seconds)
    axes.set_ylim(height, 0)
    _style(axes, lanes, start, end, seconds, fonts)
    drawn = wanted = 0
    for lane in lanes:
        if lane.name == "waveform":
            _draw_wave(axes, timeline, lane, start, end, seconds)
        elif lane.name == "probability":
            _draw_curves(axes, timeline, lane, start, end, seconds)
        elif lane.name == "language":
            _draw_languages(axes, timeline, lane, start, end, seconds, fonts)
        elif lane.name.startswith(("words", "text")):
            a, b = _draw_words(axes, timeline, lane, start, end, seconds, fonts)
            drawn, wanted = drawn + a, wanted + b
        else:
            _draw_events(axes, timeline, lane, start, end)
    return drawn, wanted


def _style(axes: Axes, lanes: Sequence[_Lane], start: float, end: float, seconds: float, fonts: list[str]) -> None:
    step = next((s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600) if seconds / s <= 22), 1800)
    ticks = np.arange(np.ceil(start / step - 1e-9) * step, end + step * 0.01, step)
    axes.set_xticks(list(ticks), [clock(t) if step >= 1 else f"{t:.1f}" for t in ticks])
    axes.set_yticks([x.top + x.height / 2 for x in lanes], [x.name for x in lanes])
    axes.tick_params(length=0, labelsize=7.5, labelcolor=_MUTED, labelfontfamily=fonts)
    axes.xaxis.grid(True, color="#e6e8ec", linewidth=0.6)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _draw_wave(axes: Axes, timeline: Timeline, lane: _Lane, start: float, end: float, seconds: float) -> None:
    if timeline.samples is None:
        return
    piece = timeline.samples[int(start * SAMPLE_RATE) : int(np.ceil(end * SAMPLE_RATE))]
    per = max(1, int(seconds * SAMPLE_RATE / ((WIDTH - _LEFT - _RIGHT) * DPI)))
    extremes = envelope(piece, per)
    loudest = max(0.1, _peak(timeline))
    middle, half = lane.top + lane.height / 2, lane.height / 2
    x = start + (np.arange(len(extremes)) + 0.5) * per / SAMPLE_RATE
    low, high = (middle - extremes[:, i] / loudest * half for i in (0, 1))
    axes.fill_between(x, low, high, color=_WAVE, linewidth=0.4)


def _peak(timeline: Timeline) -> float:
    """A loud sample of the recording (of at most 4 million looked at), so that all rows share one scale."""
    if timeline.samples is None or not len(timeline.samples):
        return 0.0
    some = np.asarray(timeline.samples[:: max(1, len(timeline.samples) // 4_000_000)], np.float32)
    scale = 1 / 32768 if timeline.samples.dtype.kind in "iu" else 1.0
    return float(np.percentile(np.abs(np.nan_to_num(some, posinf=0, neginf=0)), 99.9)) * scale * 1.15


def _draw_curves(axes: Axes, timeline: Timeline, lane: _Lane, start: float, end: float, seconds: float) -> None:
    per = max(1, int(seconds * FRAME_RATE / ((WIDTH - _LEFT - _RIGHT) * DPI)))
    bottom = lane.top + lane.height
    for level, width in ((0.0, 0.6), (0.5, 0.4), (1.0, 0.4)):
        axes.hlines(bottom - level * lane.height, start, end, color="#d4d8de", linewidth=width)
    for label, curve in timeline.curves.items():
        first = int(start * FRAME_RATE)
        values = pooled(curve[first : int(np.ceil(end * FRAME_RATE)) + 1], per)
        x = (first + (np.arange(len(values)) + 0.5) * per) / FRAME_RATE
        axes.plot(x, bottom - values * lane.height, color=COLOURS[label], linewidth=1.0, clip_on=True)
        if label == "speech":
            axes.fill_between(x, bottom, bottom - values * lane.height, color=COLOURS[label], alpha=0.12, linewidth=0)


def _draw_events(axes: Axes, timeline: Timeline, lane: _Lane, start: float, end: float) -> None:
    spans = _clipped([e for e in timeline.events if e.label == lane.name], start, end)
    colour = COLOURS.get(lane.name, _MUTED)
    bars = [(e.start, e.end - e.start) for e in spans]
    axes.broken_barh(bars, (lane.top + 0.02, lane.height - 0.04), facecolor=colour, linewidth=0)


def _draw_languages(
    axes: Axes, timeline: Timeline, lane: _Lane, start: float, end: float, seconds: float, fonts: list[str]
) -> None:
    labels = list(dict.fromkeys(e.label for e in timeline.languages))
    for span in _clipped(timeline.languages, start, end):
        colour = LANGUAGE_COLOURS[labels.index(span.label) % len(LANGUAGE_COLOURS)]
        axes.broken_barh([(span.start, span.end - span.start)], (lane.top, lane.height), facecolor=colour, linewidth=0)
        if _inches(span.label) + 0.08 < (span.end - span.start) / _seconds_per_inch(seconds):
            middle = lane.top + lane.height / 2
            _text(axes, span.start + 0.04 * _seconds_per_inch(seconds), middle, span.label, _INK, fonts)


def _draw_words(
    axes: Axes, timeline: Timeline, lane: _Lane, start: float, end: float, seconds: float, fonts: list[str]
) -> tuple[int, int]:
    """Bars where the words are, coloured by confidence, and as many texts under them as find room in three lines."""
    words = [w for w in timeline.words if lane.channel is None or (w.channel or 0) == lane.channel]
    words = [w for w in words if start <= w.start < start + seconds]
    if words:
        bars = [(w.start, max(w.end - w.start, 0.0)) for w in words]
        shades = [shade(w.confidence) for w in words]
        edge = "white" if seconds <= 60 else "none"
        axes.broken_barh(bars, (lane.top, 0.07), facecolors=shades, edgecolor=edge, linewidth=0.5)
    labels = [_Label(clean(w.text), w.start, w.confidence) for w in words]
    if not timeline.words or seconds > 45:  # too dense for words: whole sentences, cut off where the next one begins
        spoken = [s for s in timeline.sentences if lane.channel is None or (s.channel or 0) == lane.channel]
        labels = [_Label(s.text, s.start, None) for s in spoken if start <= s.start < start + seconds]
        return _draw_staggered(axes, labels, lane, start, seconds, fonts, cut=True), len(labels)
    return _draw_staggered(axes, labels, lane, start, seconds, fonts, cut=False), len(labels)


def _draw_staggered(
    axes: Axes, labels: Sequence[_Label], lane: _Lane, start: float, seconds: float, fonts: list[str], *, cut: bool
) -> int:
    """Write each text in the first of the lines that is free at its time; leave out what finds no room."""
    per_inch, drawn = _seconds_per_inch(seconds), 0
    free = [start] * _LANES
    for i, label in enumerate(labels):
        text, right = label.text, start + seconds
        if cut and i + _LANES < len(labels):
            right = min(right, labels[i + _LANES].start)
        if cut:
            text = _shortened(text, int((right - label.start) / per_inch / _COLUMN) - 1)
        needed = (_inches(text) + (0.01 if display_width(text[-1:]) == 2 else 0.04)) * per_inch
        x = min(label.start, max(start, start + seconds + 0.1 * per_inch - needed))
        k = next((k for k in range(_LANES) if free[k] <= x + 1e-9), None)
        if not text or k is None:
            continue
        free[k] = x + needed
        y = lane.top + 0.09 + (k + 0.5) * 0.17
        _text(axes, x, y, text, text_shade(label.confidence), fonts)
        drawn += 1
    return drawn


def _inches(text: str) -> float:
    return sum(0.9 * char_width(c) if char_width(c) == 2 else char_width(c) for c in text) * _COLUMN


def _shortened(text: str, columns: int) -> str:
    if display_width(text) <= columns:
        return text
    used = 0
    for i, character in enumerate(text):
        used += display_width(character)
        if used > columns - 1:
            return text[:i].rstrip() + "…" if i >= 2 else ""
    return text


def _text(axes: Axes, x: float, y: float, text: str, colour: str, fonts: list[str]) -> None:
    # parse_math: a dollar sign in speech is a dollar sign
    axes.text(x, y, text, color=colour, fontsize=_FONT, fontfamily=fonts, va="center", ha="left", parse_math=False)


def shade(confidence: float | None) -> str:
    """Colour of a word's bar: green when sure, over yellow to red; grey when unknown."""
    if confidence is None or not np.isfinite(confidence):
        return "#b4bac3"
    steps = ((0.9, "#4caf78"), (0.75, "#a6cf63"), (0.6, "#f2c84b"), (0.4, "#f0893c"))
    return next((colour for level, colour in steps if confidence >= level), "#d43d3d")


def text_shade(confidence: float | None) -> str:
    """Colour of a word: ink, and a dark orange or red where the recogniser was unsure."""
    if confidence is None or not np.isfinite(confidence) or confidence >= 0.6:
        return _INK
    return "#b45309" if confidence >= 0.4 else "#b91c1c"


def _draw_frame(figure: Figure, timeline: Timeline, total: float, fonts: list[str], remarks: list[str]) -> None:
    left = 0.2 / WIDTH

    def line(y: float, text: str, size: float, colour: str, weight: str = "normal") -> None:
        style = {"fontsize": size, "color": colour, "fontfamily": fonts, "fontweight": weight, "parse_math": False}
        figure.text(left, y / total, text, fontdict=None, **style)

    line(total - 0.32, clean(timeline.title), 14, _INK, "bold")
    line(total - 0.54, clean(timeline.subtitle), 8.5, _MUTED)
    x = left
    legend = [
        ("sure", shade(1)),
        ("≥ 0.75", shade(0.8)),
        ("≥ 0.6", shade(0.65)),
        ("≥ 0.4", shade(0.5)),
        ("unsure", shade(0)),
    ]
    figure.text(x, 0.3 / total, "word confidence", fontsize=8, color=_MUTED, va="center")
    x += 1.05 / WIDTH
    for name, colour in legend:
        figure.text(x, 0.3 / total, "■", fontsize=11, color=colour, va="center")
        figure.text(x + 0.15 / WIDTH, 0.3 / total, name, fontsize=8, color=_MUTED, va="center")
        x += 0.65 / WIDTH
    line(0.1, "   ".join(remarks), 7.5, _MUTED)


def _remarks(timeline: Timeline, drawn: int, wanted: int, chinese: bool) -> list[str]:
    remarks = []
    if drawn < wanted:
        remarks.append(f"{wanted - drawn} of {wanted} texts had no room: the HTML timeline shows all of them.")
    needs = any(display_width(s.text) > len(s.text) for s in timeline.sentences)
    if needs and not chinese:
        remarks.append("No font with Chinese characters was found: install Noto Sans CJK or WenQuanYi Zen Hei.")
    if timeline.notes:
        more = f" (and {len(timeline.notes) - 1} more)" if len(timeline.notes) > 1 else ""
        remarks.append(_shortened(clean(timeline.notes[0]), 120) + more)
    return remarks


def _clipped(spans: Sequence[Event], start: float, end: float) -> list[Event]:
    inside = [Event(s.label, max(s.start, start), min(s.end, end)) for s in spans]
    return [s for s in inside if s.end > s.start]


def _seconds_per_inch(seconds: float) -> float:
    return seconds / (WIDTH - _LEFT - _RIGHT)
