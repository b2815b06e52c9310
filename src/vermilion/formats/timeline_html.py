"""The timeline as one self-contained page: zoom, scroll, hover; dark or light as the reader's system is."""

from __future__ import annotations

import base64
import html
import json
import math
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vermilion.formats.content import channel_label
from vermilion.formats.timeline import EVENT_LABELS, FRAME_RATE, SAMPLE_RATE, Timeline, clock, envelope, pooled
from vermilion.formats.width import clean
from vermilion.transcript import Sentence

_BUCKETS = 360_000  # 10 ms each up to an hour; longer recordings get coarser ones


def render_html(timeline: Timeline) -> str:
    """Return the page; it loads nothing from anywhere."""
    template = resources.files("vermilion.formats").joinpath("timeline.html").read_text("utf-8")
    parts = {
        "{{title}}": html.escape(clean(timeline.title)),
        "{{subtitle}}": html.escape(clean(timeline.subtitle)),
        "{{notes}}": "".join(f"<li>{html.escape(clean(n))}</li>" for n in timeline.notes),
        "{{sentences}}": "".join(map(_sentence, timeline.sentences)),
        "{{data}}": _script_safe(json.dumps(_data(timeline), ensure_ascii=False, allow_nan=False)),
    }
    # one pass from the template's own markers: a transcript that spells "{{data}}" stays text
    page, rest = "", template
    while rest:
        hits = [(rest.index(marker), marker) for marker in parts if marker in rest]
        at, marker = min(hits, default=(len(rest), ""))
        page += rest[:at] + parts.get(marker, "")
        rest = rest[at + len(marker) :]
    return page


def _data(timeline: Timeline) -> dict[str, Any]:
    present = {e.label for e in timeline.events}
    labels = [x for x in [*EVENT_LABELS, *sorted(present - {*EVENT_LABELS})] if x in present]
    return {
        "duration": timeline.duration,
        "wave": _wave(timeline),
        "curves": {label: _curve(values) for label, values in timeline.curves.items()},
        "events": {label: [[e.start, e.end] for e in timeline.events if e.label == label] for label in labels},
        "languages": [[e.start, e.end, clean(e.label)] for e in timeline.languages],
        "channels": sorted({s.channel for s in timeline.sentences if s.channel is not None}),
        "words": [
            [w.start, w.end, clean(w.text), _number(w.confidence), w.channel, clean(w.language)] for w in timeline.words
        ],
        "sentences": [[s.start, s.end, s.text, s.channel] for s in timeline.sentences],
    }


def _wave(timeline: Timeline) -> dict[str, Any] | None:
    """Loudest sample of every bucket as a byte."""
    if timeline.samples is None:
        return None
    per = max(SAMPLE_RATE // 100, -(-len(timeline.samples) // _BUCKETS))
    peaks = np.abs(envelope(timeline.samples, per)).max(1, initial=0)
    loudest = max(0.05, float(np.percentile(peaks, 99.9))) if len(peaks) else 1.0
    return {"step": per / SAMPLE_RATE, "data": _bytes(np.minimum(peaks / loudest, 1))}


def _curve(values: NDArray[np.float32]) -> dict[str, Any]:
    per = max(1, -(-len(values) // _BUCKETS))
    return {"step": per / FRAME_RATE, "data": _bytes(pooled(values, per))}


def _bytes(values: NDArray[Any]) -> str:
    """Values in [0, 1] as bytes in base 64."""
    return base64.b64encode(np.round(values * 255).astype(np.uint8).tobytes()).decode("ascii")


def _number(value: float | None) -> float | None:
    return round(float(value), 3) if value is not None and math.isfinite(value) else None


def _sentence(sentence: Sentence) -> str:
    where = f"<i>{channel_label(sentence.channel)}</i>" if sentence.channel is not None else ""
    language = html.escape(" ".join(filter(None, (sentence.language, sentence.dialect))))
    return (
        f'<li data-t="{sentence.start:.3f}"><button type="button">{clock(sentence.start)}</button>{where}'
        f'<span dir="auto">{html.escape(sentence.text)}</span><em>{language}</em></li>\n'
    )


def _script_safe(text: str) -> str:
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
