"""What the evaluating commands share: options, the progress bar, how results are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Group, Parameter

from vermilion.cli.console import EXIT_CODES, FAILED, OK, Terminal
from vermilion.cli.options import MODELS, OUTPUT
from vermilion.cli.progress import clock

if TYPE_CHECKING:
    from vermilion.evaluation.results import ScoringOptions
    from vermilion.evaluation.running import Step
    from vermilion.evaluation.session import Outcome, Plan, System
    from vermilion.evaluation.sets import NamedSet

SCORING = Group.create_ordered("Scoring")

Manifests = Annotated[
    list[str],
    Parameter(help="Test sets: manifests (JSON lines or Kaldi folders), also as NAME=path."),
]
Systems = Annotated[
    list[str] | None,
    Parameter(
        name="--system",
        group=MODELS,
        help="Who is asked: vermilion (the default), or a peer, as NAME or NAME=MODEL; may be repeated.",
    ),
]


@Parameter(name="*", group=OUTPUT)
@dataclass(frozen=True)
class Results:
    """Where results go and what they are compared with."""

    output_dir: Annotated[Path | None, Parameter(name=["--output-dir", "-o"])] = None
    """Folder for answers, report.html, summary.json and pictures; a killed run goes on there."""
    overwrite: Annotated[bool, Parameter(negative="", show_default=False)] = False
    """Forget the answers that are there."""
    against: Path | None = None
    """Output folder of an earlier evaluation, with which this one is compared, recording by recording."""
    group: list[str] | None = None
    """A macro average, as NAME=SET,SET; may be repeated."""
    show: int = 0
    """Print so many recordings with the most errors."""
    examples: int = 20
    """So many of them in the report."""
    audio: bool = True
    """They can be played in the report."""

    def plan(self, scoring: ScoringOptions | None = None, **more: Any) -> Plan:
        """The same as the library knows it."""
        from vermilion.evaluation.report import ReportOptions
        from vermilion.evaluation.results import ScoringOptions
        from vermilion.evaluation.session import Plan

        report = ReportOptions(self.examples, self.audio)
        return Plan(self.output_dir, self.overwrite, self.against, scoring or ScoringOptions(), report, **more)


@Parameter(name="*", group=SCORING)
@dataclass(frozen=True)
class Text:
    """How texts are compared."""

    normalisation: Literal["report", "whisper-english", "whisper-basic", "raw"] = "report"
    """report = upper case, no punctuation, spelled letters joined; whisper-... = Whisper's; raw = as it is written."""
    unit: Literal["mixed", "character", "word"] = "mixed"
    """What is counted: mixed = Chinese and Japanese characters and the words of other scripts."""

    def scoring(self) -> ScoringOptions:
        """The same as the library knows it."""
        from vermilion.evaluation.results import ScoringOptions

        return ScoringOptions(normalisation=self.normalisation, unit=self.unit)


def task(function: Callable[..., int], examples: str) -> App:
    """A sub-command."""
    app = App(
        name=function.__name__.removeprefix("evaluate_"),
        help_epilogue=f"{examples}\n\n{EXIT_CODES}",
        help_format="plaintext",
        default_parameter=Parameter(negative_iterable=()),
        result_action="return_value",
    )
    app.default(function)
    return app


def run(terminal: Terminal, systems: Sequence[System], sets: Sequence[NamedSet], plan: Plan) -> Outcome:
    """Evaluate with a progress bar."""
    from vermilion.evaluation.session import evaluate

    with _bar(terminal, sum(len(s.utterances) for s in sets)) as progress:
        return evaluate(systems, sets, plan, progress)


def sets_of(manifests: Sequence[str], results: Results, *, texts: bool = False) -> list[NamedSet]:
    """Read the test sets; of `texts` lines need no recording."""
    from vermilion.evaluation.sets import read_sets

    return read_sets(manifests, results.group or (), texts=texts)


def show(terminal: Terminal, outcome: Outcome, results: Results, json: bool) -> int:
    """Print the table, the worst recordings, and where the report is; returns the exit code."""
    from vermilion.evaluation.report import PAGE
    from vermilion.evaluation.tables import as_dict, table

    if json:
        for line in outcome.lines:
            terminal.json(as_dict(line))
    else:
        terminal.show(table(outcome.evaluations, outcome.lines))
        for evaluation in outcome.evaluations if results.show > 0 else ():
            _worst(terminal, evaluation, results.show)
    for remark in dict.fromkeys(r for evaluation in outcome.evaluations for r in evaluation.remarks):
        terminal.warn(remark)
    page = next((f for f in outcome.files if f.name == PAGE), None)
    if page is not None:
        terminal.say(f"report: {page}")
    if outcome.failures:
        terminal.fail(f"{outcome.failures} recordings have no answer: {_first_failure(outcome)}")
    return FAILED if outcome.failures else OK


def _first_failure(outcome: Outcome) -> str:
    rows = (r for e in outcome.evaluations for s in e.sets for r in s.rows if r.failed)
    first = next(rows)
    return f"{first.utterance.id}: {first.failed}"


def _worst(terminal: Terminal, evaluation: Any, limit: int) -> None:
    from rich.text import Text as Styled

    from vermilion.evaluation.alignment_view import terminal as aligned
    from vermilion.evaluation.report import worst

    for name, row in worst(evaluation, limit):
        terminal.show(Styled(f"\n{name}  {row.utterance.id}  {row.errors:.3g} of {row.length:.3g}", style="bold"))
        terminal.show(aligned(row.steps) if row.steps else Styled(f"said  {row.said}\nheard {row.heard}"))


@contextmanager
def _bar(terminal: Terminal, total: int) -> Iterator[Callable[[str, Step], None]]:
    """A bar on a terminal; elsewhere a remark where a run goes on."""
    remarked: set[str] = set()

    def remark(system: str, step: Step) -> None:
        if step.resumed and system not in remarked:
            remarked.add(system)
            terminal.say(f"{system}: going on; {step.resumed} of {step.total} recordings were done")

    if terminal.quiet or not terminal.err.is_terminal:
        yield remark
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    text = TextColumn("{task.description}", markup=False)
    bar = Progress(
        SpinnerColumn(), text, BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[audio]}"),
        TimeRemainingColumn(), console=terminal.err, transient=True, redirect_stdout=False, redirect_stderr=False,
    )  # fmt: skip
    line = bar.add_task("loading", total=total, audio="")

    def report(system: str, step: Step) -> None:
        remark(system, step)
        audio = f"{clock(step.audio_seconds)} of audio" if step.audio_seconds else ""
        bar.update(line, description=f"{system}: {step.set_name}", completed=step.done, audio=audio)

    with bar:
        yield report
