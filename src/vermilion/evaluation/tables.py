"""Figures side by side: a line per set and system, macro averages, published figures, paired comparisons."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vermilion.errors import FormatError, OptionsError
from vermilion.evaluation.recognition import macro
from vermilion.evaluation.results import Evaluation, Figure, SetResult
from vermilion.evaluation.significance import Difference, Interval, difference, interval

if TYPE_CHECKING:
    from rich.table import Table

FILE = "recordings.jsonl"
"""what a recording adds to the compared figure, for `--against`"""
AVERAGE = "average"
"""name of the macro average of all sets"""
Published = Mapping[str, Mapping[str, float | Mapping[str, float]]]
"""system → set or group → what others report: the headline figure (a share, not percent), or figures by name"""
PerRecording = Mapping[tuple[str, str], tuple[float, float]]
"""(set, id) → errors, length"""


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    name: str
    """set, group, or the average of all sets"""
    system: str
    figures: Mapping[str, float | None]
    interval: Interval | None = None
    """of the compared figure"""
    difference: Difference | None = None
    """of the compared figure, less that of the system compared with"""
    speed: float | None = None
    """seconds of audio per second of work"""
    failures: int = 0
    macro: bool = False
    """an average of sets, each with the same weight"""
    published: bool = False


def lines(
    evaluations: Sequence[Evaluation], published: Published | None = None, against: PerRecording | None = None
) -> list[Line]:
    """Lay out what systems did on the same sets.

    Args:
        evaluations: of the same sets and task; the others are compared with the first, unless `against` is given.
        published: figures of others for the same sets and groups.
        against: an earlier run's recordings, with which every system is compared.

    Raises:
        OptionsError: evaluations of different tasks or sets; or nothing in common with `against`.
    """
    first, published = evaluations[0], published or {}
    names = [s.name for s in first.sets]
    if any(e.kind != first.kind or [s.name for s in e.sets] != names for e in evaluations):
        raise OptionsError("only evaluations of the same task and sets stand in one table")
    base = against if against is not None else (per_recording(first) if len(evaluations) > 1 else None)
    out: list[Line] = []
    for i, name in enumerate(names):
        out += [_line(e, e.sets[i], base if against is not None or e is not first else None) for e in evaluations]
        out += _published(name, published, first)
    if against is not None and all(line.difference is None for line in out):
        raise OptionsError("the run to compare with has no recording in common with this one")
    groups = list(dict.fromkeys(g for s in first.sets for g in s.groups))
    for group in [*groups, AVERAGE] if len(names) > 1 else groups:
        out += [_average(e, group) for e in evaluations]
        out += _published(group, published, first, macro=True)
    return out


def per_recording(evaluation: Evaluation) -> dict[tuple[str, str], tuple[float, float]]:
    """What every recording adds to the compared figure."""
    return {(s.name, r.utterance.id): (r.errors, r.length) for s in evaluation.sets for r in s.rows}


def write_recordings(folder: Path, evaluation: Evaluation) -> Path:
    """Write what every recording adds, so that a later run can be compared with this one (`--against`)."""
    file = folder / FILE
    with file.open("w", encoding="utf-8") as out:
        head = {"task": evaluation.kind, "system": evaluation.system, "compared": evaluation.compared.name}
        out.write(json.dumps(head, ensure_ascii=False) + "\n")
        for test_set in evaluation.sets:
            for row in test_set.rows:
                line = {"set": test_set.name, "id": row.utterance.id, "errors": row.errors, "length": row.length}
                more = {"failed": row.failed} if row.failed else {}
                texts = {"reference": row.said, "answer": row.heard}
                out.write(json.dumps(line | more | texts, ensure_ascii=False) + "\n")
    return file


def read_recordings(path: str | Path, evaluation: Evaluation) -> dict[tuple[str, str], tuple[float, float]]:
    """Read what an earlier run wrote.

    Args:
        path: its output folder, or the file in it.
        evaluation: of this run, whose task has to be the same.

    Raises:
        FormatError: there is no such file, or it is none of ours.
        OptionsError: it is of another task or figure.
    """
    file = Path(path) / FILE if Path(path).is_dir() else Path(path)
    try:
        head, *rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        found = {(r["set"], r["id"]): (float(r["errors"]), float(r["length"])) for r in rows}
        of = (head["task"], head["compared"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{file} is not what `vermilion evaluate -o` writes: {error}") from error
    if of != (evaluation.kind, evaluation.compared.name):
        raise OptionsError(f"{file} is about {of[0]}, {of[1]}; this is {evaluation.kind}, {evaluation.compared.name}")
    return found


def as_dict(line: Line) -> dict[str, Any]:
    """A line as JSON holds it."""
    more = {
        "interval": asdict(line.interval) if line.interval else None,
        "difference": asdict(line.difference) | {"significant": line.difference.significant}
        if line.difference
        else None,
        "audio_seconds_per_second": line.speed,
        "failures": line.failures or None,
        "macro": line.macro or None,
        "published": line.published or None,
    }
    return {"set": line.name, "system": line.system, "figures": dict(line.figures)} | {
        k: v for k, v in more.items() if v is not None
    }


def columns(evaluations: Sequence[Evaluation], found: Sequence[Line]) -> list[str]:
    """Headings of the table, as many as `cells` gives."""
    first = evaluations[0]
    more = [f"{first.compared.name} {100 * found[0].interval.level:.0f} %"] if found[0].interval else []
    more += ["difference", "p"] if any(line.difference for line in found) else []
    more += ["audio s/s"] if any(line.speed for line in found) else []
    return ["set", "system", *(f.name for f in first.figures), *more, "failed"]


def cells(evaluations: Sequence[Evaluation], found: Sequence[Line], line: Line) -> list[str]:
    """One line as people read it."""
    compared = evaluations[0].compared
    out = [line.name + (" (macro)" if line.macro else ""), line.system + (" (published)" if line.published else "")]
    out += [shown(line.figures.get(f.name), f) for f in evaluations[0].figures]
    if found[0].interval:
        out.append(
            f"{_bare(line.interval.low, compared)}–{_bare(line.interval.high, compared)}" if line.interval else ""
        )
    if any(other.difference for other in found):
        change = line.difference
        out += (
            [f"{'+' if change.value > 0 else ''}{_bare(change.value, compared)}", _p(change.p)] if change else ["", ""]
        )
    if any(other.speed for other in found):
        out.append(f"{line.speed:.3g}" if line.speed else "")
    return [*out, str(line.failures) if line.failures else ""]


def table(evaluations: Sequence[Evaluation], found: Sequence[Line]) -> Table:
    """The table for the terminal; averages stand under a rule."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    out = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for i, heading in enumerate(columns(evaluations, found)):
        out.add_column(heading, justify="left" if i < 2 else "right", overflow="fold")
    for line, after in zip(found, [*found[1:], None], strict=True):
        style = "dim" if line.published else None
        out.add_row(
            *cells(evaluations, found, line), style=style, end_section=bool(after and after.macro and not line.macro)
        )
    return out


def shown(value: float | None, figure: Figure) -> str:
    """A figure with its unit: `4.56 %`, `0.031 s`, `12`."""
    if value is None:
        return "-"
    return _bare(value, figure) + (f" {figure.unit}" if figure.unit else "")


def _bare(value: float, figure: Figure) -> str:
    if figure.unit == "%":
        return f"{100 * value:.2f}"
    return f"{value:.3f}" if figure.unit else f"{value:.0f}"


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _line(evaluation: Evaluation, result: SetResult, base: PerRecording | None) -> Line:
    counted = [r for r in result.rows if r.length or r.errors]
    share = evaluation.compared.unit == "%"
    sure = interval([r.errors for r in counted], [r.length for r in counted], share=share) if counted else None
    shared = [r for r in counted if base is not None and (result.name, r.utterance.id) in base]
    change = None
    if base is not None and shared:
        theirs = [base[result.name, r.utterance.id] for r in shared]
        # references are the same; where a recording failed on one side its length there can be 0
        lengths = [max(r.length, length) for r, (_, length) in zip(shared, theirs, strict=True)]
        change = difference([r.errors for r in shared], [errors for errors, _ in theirs], lengths)
    return Line(result.name, evaluation.system, result.figures, sure, change, result.speed, result.failures)


def _average(evaluation: Evaluation, group: str) -> Line:
    """Macro average over the sets of a group; counts are added up."""
    members = [s for s in evaluation.sets if group == AVERAGE or group in s.groups]
    figures: dict[str, float | None] = {}
    for figure in evaluation.figures:
        values = [v for s in members if (v := s.figures.get(figure.name)) is not None]
        whole = len(values) == len(members)
        figures[figure.name] = (sum(values) if not figure.unit else macro(values)) if whole else None
    audio, seconds = sum(s.audio_seconds for s in members), sum(s.seconds for s in members)
    speed = audio / seconds if audio and seconds else None
    return Line(group, evaluation.system, figures, speed=speed, failures=sum(s.failures for s in members), macro=True)


def _published(name: str, published: Published, first: Evaluation, *, macro: bool = False) -> list[Line]:
    return [
        Line(name, system, _figures(figures[name], first.headline.name), macro=macro, published=True)
        for system, figures in published.items()
        if name in figures
    ]


def _figures(given: float | Mapping[str, float], headline: str) -> Mapping[str, float | None]:
    return dict(given) if isinstance(given, Mapping) else {headline: given}
