"""What the commands of `vermilion data` share: options, the progress bar, the end of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from vermilion.cli.console import FAILED, OK, Terminal
from vermilion.cli.options import OUTPUT
from vermilion.errors import ManifestError
from vermilion.manifests import Utterance

_SHOWN = 10
"""failures that are written out"""

Manifest = Annotated[Path, Parameter(help="JSON lines, WeNet's list, a Kaldi folder, or lhotse's cuts.jsonl.")]
Folder = Annotated[Path, Parameter(name=["--output-dir", "-o"], group=OUTPUT, help="Folder for what is written.")]
Processes = Annotated[int, Parameter(help="How many processes work; 0 = the cores that this process may use.")]
JsonSummary = Annotated[
    bool,
    Parameter(name="--json", negative="", show_default=False, group=OUTPUT, help="The summary as JSON on stdout."),
]


def workers(processes: int) -> int:
    """The number of processes that an option means."""
    from vermilion.runtime import usable_cores

    return processes or usable_cores()


@contextmanager
def items_bar(terminal: Terminal, doing: str, total: int | None = None) -> Iterator[Callable[[int, str], None]]:
    """Draw a bar on stderr; silent without a terminal.

    Yields:
        What is called with the number of items that are done and what was done last.
    """
    if terminal.quiet or not terminal.err.is_terminal:
        yield lambda done, what: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=terminal.err, transient=True, redirect_stdout=False, redirect_stderr=False) as bar:
        task = bar.add_task(doing, total=total)
        yield lambda done, what: bar.update(task, completed=done)


def read_lines(manifest: Path, failures: list[tuple[str, str]], *, distinct: bool = False) -> list[Utterance]:
    """All entries of a manifest; lines that are none are noted and left out.

    Args:
        manifest: see `iterate_any`.
        failures: gets a name and what is wrong, for each line that is left out.
        distinct: of several lines with one id only the first is taken.

    Raises:
        ManifestError: there is no entry.
    """
    from vermilion.training.conversion import iterate_any

    lines = iterate_any(manifest, lambda number, fault: failures.append((f"line {number}", str(fault))))
    found = list(lines) if not distinct else list(_distinct(lines, failures))
    if not found:
        raise ManifestError(f"{manifest} lists no recording" + (f" ({failures[0][1]})" if failures else ""))
    return found


def _distinct(lines: Iterable[Utterance], failures: list[tuple[str, str]]) -> Iterator[Utterance]:
    seen: set[str] = set()
    for line in lines:
        if line.id in seen:
            failures.append((line.id, f"the id was there before: {line.audio}"))
            continue
        seen.add(line.id)
        yield line


def told(terminal: Terminal, failures: Sequence[tuple[str, str]]) -> int:
    """Say what failed, the first few in full, and return the exit code."""
    for name, message in failures[:_SHOWN]:
        terminal.fail(f"{name}: {message}")
    if len(failures) > _SHOWN:
        terminal.fail(f"and {len(failures) - _SHOWN} more")
    return FAILED if failures else OK


def hours(seconds: float) -> str:
    """`5400` → `1.50 h`, `90` → `1.5 min`."""
    return f"{seconds / 3600:.2f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"
