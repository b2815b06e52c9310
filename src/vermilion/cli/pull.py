"""`vermilion pull`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from vermilion.checkpoints import catalogue
from vermilion.checkpoints import hub as hubs
from vermilion.checkpoints.hub import PullProgress
from vermilion.checkpoints.inspection import inspect_model
from vermilion.cli.console import FAILED, OK, Terminal, exit_code
from vermilion.cli.models_check import verdict
from vermilion.cli.options import Quiet
from vermilion.errors import VermilionError

EXAMPLES = """Examples:
  vermilion pull FireRedASR2-AED FireRedLID FireRedPunc FireRedVAD
  vermilion pull FireRedPunc --hub modelscope
  vermilion pull FireRedASR2-AED --target pretrained_models
  HF_ENDPOINT=https://a-mirror.example vermilion pull FireRedLID

A download that broke off goes on where it stopped. Hashes are checked.
Honoured: HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE,
MODELSCOPE_CACHE, MODELSCOPE_DOMAIN, MODELSCOPE_API_TOKEN, MODELSCOPE_OFFLINE.
vermilion models lists the names."""


def pull(
    names: Annotated[list[str], Parameter(help="Models, as vermilion models lists them.")],
    /,
    *,
    hub: Annotated[Literal["huggingface", "modelscope"], Parameter(help="Where from.")] = "huggingface",
    target: Annotated[
        Path | None, Parameter(help="Models folder to fill, laid out as published. [default: the hub's own cache]")
    ] = None,
    revision: Annotated[str | None, Parameter(help="Branch, tag or commit.")] = None,
    quiet: Quiet = False,
) -> int:
    """Download models from Hugging Face or ModelScope."""
    terminal = Terminal(quiet)
    code = OK
    entries = [catalogue.entry(name) for name in names]  # a misspelt name ends it before anything is downloaded
    for entry in entries:
        try:
            with _bar(terminal) as report:
                path = hubs.pull(entry.name, hub=hub, target=target, revision=revision, progress=report)
        except VermilionError as error:
            terminal.fail(str(error) if entry.name in str(error) else f"{entry.name}: {error}")
            code = max(code, exit_code(error))
        else:
            terminal.write(f"{entry.name}: {path}")
            code = max(code, _checked(terminal, path))
    return code


def _checked(terminal: Terminal, folder: Path) -> int:
    """Say whether what was fetched will run."""
    report = inspect_model(folder)
    for note in report.remarks:
        terminal.say(f"note: {note}")
    for problem in report.problems:
        terminal.fail(problem)
    terminal.say(verdict(report))
    return OK if report.runs else FAILED


@contextmanager
def _bar(terminal: Terminal) -> Iterator[Callable[[PullProgress], None]]:
    """Bytes, speed and time left of each file; one line per file where there is no terminal."""
    if terminal.quiet or not terminal.err.is_terminal:
        yield _Lines(terminal)
        return
    from rich import progress as bars

    columns = (
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.DownloadColumn(),
        bars.TransferSpeedColumn(),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=terminal.err, redirect_stdout=False, redirect_stderr=False) as bar:
        task = bar.add_task("asking the hub", total=None)

        def report(step: PullProgress) -> None:
            bar.update(task, description=step.file, completed=step.done, total=step.total)

        yield report


class _Lines:
    """Says which file is being fetched, once per file."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self.file = ""

    def __call__(self, step: PullProgress) -> None:
        """Take a step of the download."""
        if step.file != self.file:
            self.file = step.file
            self.terminal.say(f"fetching {step.file} ({step.total / 1e6:.1f} MB in all)")
