"""One evaluation from end to end: systems over sets, figures, table, report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vermilion.errors import OptionsError
from vermilion.evaluation.journal import Answer, Journal
from vermilion.evaluation.report import ReportOptions, write_report
from vermilion.evaluation.results import Evaluation, ScoringOptions
from vermilion.evaluation.running import Step, run
from vermilion.evaluation.scoring import evaluated
from vermilion.evaluation.sets import NamedSet
from vermilion.evaluation.tables import Line, Published, lines, read_recordings
from vermilion.evaluation.tasks import Task


@dataclass(frozen=True)
class Plan:
    """What happens around the runs."""

    output_dir: Path | None = None
    """for the journals and the report; None = nothing is kept"""
    overwrite: bool = False
    """forget an earlier run's answers"""
    against: Path | None = None
    """output folder of an earlier run, with which this one is compared"""
    scoring: ScoringOptions = field(default_factory=ScoringOptions)
    report: ReportOptions = field(default_factory=ReportOptions)
    published: Published = field(default_factory=dict)
    """others' figures, shown beside ours"""


@dataclass(frozen=True)
class Outcome:
    """What came out."""

    evaluations: tuple[Evaluation, ...]
    lines: tuple[Line, ...]
    files: tuple[Path, ...]

    @property
    def failures(self) -> int:
        """Recordings without an answer, of all systems."""
        return sum(s.failures for e in self.evaluations for s in e.sets)


@dataclass(frozen=True)
class System:
    """A system to evaluate."""

    name: str
    """as the user asked for it; also the folder of its results where there are several"""
    build: Callable[[], Task]
    """loads it"""
    about: Mapping[str, Any]
    """every option that changes answers"""


def evaluate(
    systems: Sequence[System],
    sets: Sequence[NamedSet],
    plan: Plan | None = None,
    progress: Callable[[str, Step], None] = lambda _, __: None,
) -> Outcome:
    """Ask systems about the same sets, one after another, and put their figures side by side.

    Args:
        systems: loaded one at a time, in order.
        sets: the recordings and references.
        plan: output, scoring, comparison.
        progress: told the system's name and how far it has come.

    Raises:
        OptionsError: no systems or sets, two systems of one name, or results of other options in the output folder.
        ManifestError: a line lacks the reference that the task needs.
        CheckpointError: a model is missing.
        FormatError: an output cannot be written.
    """
    plan = plan or Plan()
    names = [s.name for s in systems]
    if not systems or not sets or len(set(names)) < len(names):
        raise OptionsError(f"an evaluation needs sets, and systems of different names, not {names}")
    found = []
    for system in systems:
        folder = plan.output_dir
        if folder is not None and len(systems) > 1:
            folder = folder / "".join(c if c.isalnum() or c in "-_." else "-" for c in system.name)
        task = system.build()
        about = {"task": task.kind, "system": task.system, **system.about}
        with Journal(folder, about, overwrite=plan.overwrite, reads_reference=task.reads_reference) as journal:
            answers = run(task, sets, journal, lambda step, name=system.name: progress(name, step))  # type: ignore[misc]
        evaluation = evaluated(task.kind, task.system, sets, answers, plan.scoring)
        if folder is not None and len(systems) > 1:  # so that a later run can be compared with each of them
            reported([evaluation], system.about, replace(plan, output_dir=folder, against=None))
        found.append(evaluation)
        del task
    return reported(_distinct(found, names), systems[0].about, plan)


def scored(sets: Sequence[NamedSet], answers: Mapping[str, Mapping[str, Sequence[Answer]]], plan: Plan) -> Outcome:
    """The same for texts that systems wrote earlier: answers by the system's name, then by the set's."""
    found = [evaluated("asr", name, sets, given, plan.scoring) for name, given in answers.items()]
    return reported(found, {"systems": ", ".join(answers)}, replace(plan, report=replace(plan.report, audio=False)))


def reported(evaluations: Sequence[Evaluation], about: Mapping[str, Any], plan: Plan) -> Outcome:
    """Lay out evaluations and write the report, if there is a folder for it."""
    against = read_recordings(plan.against, evaluations[0]) if plan.against is not None else None
    found = lines(evaluations, plan.published, against)
    files: list[Path] = []
    if plan.output_dir is not None:
        plan.output_dir.mkdir(parents=True, exist_ok=True)
        more = {"compared with": plan.against} if plan.against else {}
        files = write_report(plan.output_dir, evaluations, found, {**about, **_plain(plan), **more}, plan.report)
    return Outcome(tuple(evaluations), tuple(found), tuple(files))


def _plain(plan: Plan) -> dict[str, Any]:
    from vermilion import __version__

    return {**vars(plan.scoring), "vermilion": __version__}


def _distinct(evaluations: Sequence[Evaluation], names: Sequence[str]) -> list[Evaluation]:
    """Systems that call themselves the same go by what the user called them."""
    own = [e.system for e in evaluations]
    if len(set(own)) == len(own):
        return list(evaluations)
    return [replace(e, system=f"{e.system} ({name})") for e, name in zip(evaluations, names, strict=True)]
