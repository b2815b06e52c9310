"""The evaluation as one self-contained page, with its pictures also as PNG files, and as JSON."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from io import BytesIO
from pathlib import Path
from typing import Any

from vermilion.errors import FormatError, VermilionError
from vermilion.evaluation.alignment_view import markup
from vermilion.evaluation.plots import pictures
from vermilion.evaluation.results import Evaluation, Row
from vermilion.evaluation.tables import Line, as_dict, cells, columns, write_recordings
from vermilion.formats.width import clean

PAGE, SUMMARY = "report.html", "summary.json"
TITLES = {
    "asr": "Speech recognition",
    "vad": "Voice activity",
    "events": "Speech, singing, music",
    "lid": "Language identification",
    "punc": "Punctuation",
    "timestamps": "Word times",
    "pipeline": "Whole transcripts",
}
SHOWN_FAILURES = 50


@dataclass(frozen=True)
class ReportOptions:
    """What the page holds."""

    examples: int = 20
    """recordings with the most errors that are shown, per system"""
    audio: bool = True
    """they can be played: their sound is part of the page"""
    audio_seconds: float = 30.0
    """of each so much"""


def write_report(
    folder: Path,
    evaluations: Sequence[Evaluation],
    lines: Sequence[Line],
    about: Mapping[str, Any],
    options: ReportOptions | None = None,
) -> list[Path]:
    """Write `report.html`, `summary.json`, the pictures, and what every recording adds (per system).

    Args:
        folder: is there already.
        evaluations: of one task.
        lines: the table.
        about: how it was run, for people.
        options: of the page.

    Returns:
        The files.

    Raises:
        FormatError: a file cannot be written.
    """
    drawn = pictures(evaluations)
    summary = {"task": evaluations[0].kind, "about": dict(about), "lines": [as_dict(line) for line in lines]}
    try:
        files = [_written(folder / f"{name}.png", picture) for name, picture in drawn.items()]
        page = render(evaluations, lines, about, drawn, options)
        files.append(_written(folder / PAGE, page.encode("utf-8")))
        text = json.dumps(summary, ensure_ascii=False, indent=1, default=str, allow_nan=False)
        files.append(_written(folder / SUMMARY, (text + "\n").encode()))
        if len(evaluations) == 1:
            files.append(write_recordings(folder, evaluations[0]))
    except OSError as error:
        raise FormatError(f"cannot write the report to {folder}: {error}") from error
    return files


def render(
    evaluations: Sequence[Evaluation],
    lines: Sequence[Line],
    about: Mapping[str, Any],
    drawn: Mapping[str, bytes],
    options: ReportOptions | None = None,
) -> str:
    """Return the page; it loads nothing from anywhere and runs no script."""
    options = options or ReportOptions()
    first = evaluations[0]
    recordings = sum(len(s.rows) for s in first.sets)
    seconds = sum(s.audio_seconds for s in first.sets)
    sound = f", {_clock(seconds)} of audio" if seconds else ""
    parts = {
        "{{title}}": safe(f"{TITLES.get(first.kind, first.kind)}: {', '.join(e.system for e in evaluations)}"),
        "{{subtitle}}": safe(f"{recordings} recordings{sound} in {', '.join(s.name for s in first.sets)}"),
        "{{table}}": _table(evaluations, lines),
        "{{notes}}": safe(_notes(evaluations, lines)),
        "{{plots}}": _plots(drawn),
        "{{examples}}": "".join(_examples(e, options, several=len(evaluations) > 1) for e in evaluations),
        "{{failures}}": _failures(evaluations),
        "{{about}}": "".join(f"<dt>{safe(k)}</dt><dd>{safe(v)}</dd>" for k, v in about.items()),
    }
    return filled(resources.files("vermilion.evaluation").joinpath("report.html").read_text("utf-8"), parts)


def _clock(seconds: float) -> str:
    """Hours and minutes, or seconds."""
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"


def filled(template: str, parts: Mapping[str, str]) -> str:
    """Put parts for markers, in one pass: a text that spells a marker stays text."""
    page, rest = "", template
    while rest:
        hits = [(rest.index(marker), marker) for marker in parts if marker in rest]
        at, marker = min(hits, default=(len(rest), ""))
        page += rest[:at] + parts.get(marker, "")
        rest = rest[at + len(marker) :]
    return page


def safe(value: object) -> str:
    """Text of any origin as HTML text."""
    return html.escape(clean(str(value)))


def worst(evaluation: Evaluation, limit: int) -> list[tuple[str, Row]]:
    """Recordings with the most errors, and their set; those without any are left out."""
    rows = [(s.name, r) for s in evaluation.sets for r in s.rows if r.errors > 0 and not r.failed]
    return sorted(rows, key=lambda row: (-row[1].errors, row[1].utterance.id))[:limit]


def _table(evaluations: Sequence[Evaluation], lines: Sequence[Line]) -> str:
    head = "".join(f"<th>{safe(c)}</th>" for c in columns(evaluations, lines))
    rows = []
    for line in lines:
        kind = "macro" if line.macro else ""
        kind += " published" if line.published else ""
        rows.append(f'<tr class="{kind}">' + "".join(f"<td>{safe(c)}</td>" for c in cells(evaluations, lines, line)))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _notes(evaluations: Sequence[Evaluation], lines: Sequence[Line]) -> str:
    compared = evaluations[0].compared.name
    notes = [f"Intervals: {compared}, bootstrap over recordings."] if any(line.interval for line in lines) else []
    if any(line.difference for line in lines):
        notes.append(f"Difference: {compared} less the other system's on the same recordings; p by random swaps.")
    if any(line.macro for line in lines):
        notes.append("Macro averages give every set the same weight; counts are added up.")
    if any(line.published for line in lines):
        notes.append("Published figures are others' own, not measured here.")
    return " ".join(notes)


def _plots(drawn: Mapping[str, bytes]) -> str:
    if not drawn:
        return ""
    coded = {name: base64.b64encode(data).decode("ascii") for name, data in drawn.items()}
    figures = (
        f'<figure><img alt="{safe(name)}" src="data:image/png;base64,{data}"></figure>' for name, data in coded.items()
    )
    return f'<h2>Curves</h2><div class="plots">{"".join(figures)}</div>'


def _examples(evaluation: Evaluation, options: ReportOptions, *, several: bool) -> str:
    found = worst(evaluation, options.examples)
    if not found:
        return ""
    items = "".join(_example(evaluation, name, row, options) for name, row in found)
    of = f": {safe(evaluation.system)}" if several else ""
    key = ""
    if any(row.steps for _, row in found):
        names = {"substitute": "substituted", "delete": "deleted", "insert": "inserted"}
        key = '<p class="key">' + "".join(f'<b class="{k}">{v}</b>' for k, v in names.items()) + "</p>"
    return f"<h2>Most errors{of}</h2>{key}<ol>{items}</ol>"


def _example(evaluation: Evaluation, name: str, row: Row, options: ReportOptions) -> str:
    unit = evaluation.compared.unit
    much = f"{row.errors:.3f} s over {row.length:.0f}" if unit == "s" else f"{row.errors:.0f} of {row.length:.0f}"
    head = f"<header><strong>{safe(row.utterance.id)}</strong><span>{safe(name)}</span><span>{much}</span></header>"
    if row.steps:
        text = markup(row.steps)
    else:
        text = (
            f'<div class="said" dir="auto">{safe(row.said)}</div><div class="heard" dir="auto">{safe(row.heard)}</div>'
        )
    sound = player(row, options.audio_seconds) if options.audio and evaluation.kind != "punc" else ""
    return f"<li>{head}{text}{sound}</li>"


def player(row: Row, most_seconds: float) -> str:
    """An audio player with the sound in it; nothing if the recording cannot be read any more."""
    import soundfile

    out = BytesIO()
    try:
        samples = row.utterance.load()[: int(most_seconds * 16000)]
        soundfile.write(out, samples, 16000, format="MP3")
    except (VermilionError, soundfile.LibsndfileError, OSError):
        return ""
    data = base64.b64encode(out.getvalue()).decode("ascii")
    return f'<audio controls preload="metadata" src="data:audio/mpeg;base64,{data}"></audio>'


def _failures(evaluations: Sequence[Evaluation]) -> str:
    rows = [(e.system, s.name, r) for e in evaluations for s in e.sets for r in s.rows if r.failed]
    if not rows:
        return ""
    items = "".join(
        f"<li><header><strong>{safe(r.utterance.id)}</strong><span>{safe(name)}</span><span>{safe(system)}</span></header>"
        f'<div class="failed">{safe(r.failed)}</div></li>'
        for system, name, r in rows[:SHOWN_FAILURES]
    )
    more = f'<p class="soft">and {len(rows) - SHOWN_FAILURES} more</p>' if len(rows) > SHOWN_FAILURES else ""
    return f"<h2>Failed</h2><ol>{items}</ol>{more}"


def _written(path: Path, data: bytes) -> Path:
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    part.replace(path)
    return path
