"""`vermilion models check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from vermilion.checkpoints.inspection import ModelReport, inspect
from vermilion.cli.console import FAILED, OK, USAGE, Terminal
from vermilion.cli.groups import subcommand
from vermilion.cli.options import Json
from vermilion.cli.reading import size
from vermilion.errors import CheckpointError
from vermilion.runtime import free_memory

EXAMPLES = """Examples:
  vermilion models check path/to/pretrained_models     every model below it
  vermilion models check FireRedLID FireRedPunc
  vermilion models check FireRedASR2-LLM --json

Weights are not loaded and nothing in a file is run.
Exit code 1: some model will not run."""


def check_command(
    folders: Annotated[list[Path], Parameter(help="Model folders, or folders of them.", negative_iterable=())],
    /,
    *,
    json: Json = False,
) -> int:
    """Say what model folders hold, what is wrong, and whether they run."""
    terminal = Terminal()
    code, looked = OK, False
    for folder in folders:
        try:
            reports = inspect(folder)
        except CheckpointError as error:  # the other folders are worth looking at all the same
            terminal.fail(str(error))
            code = FAILED
            continue
        looked = True
        for report in reports:
            _show(terminal, report, json)
            code = code if report.runs else FAILED
    return code if looked else USAGE


def _show(terminal: Terminal, report: ModelReport, json: bool) -> None:
    if json:
        terminal.json(report.to_dict())
        return
    for line in lines_of(report):
        terminal.write(line)


def lines_of(report: ModelReport) -> list[str]:
    """The report for people: a headline, then what is worth knowing."""
    lines = [f"{report.folder}: {report.model or 'no model that Vermilion knows'}"]
    if report.sizes:
        lines.append("  sizes: " + ", ".join(f"{name} {value}" for name, value in report.sizes.items()))
    lines += [f"  {_release(report)}"] if report.files else []
    lines += [f"  note: {remark}" for remark in report.remarks]
    lines += [f"  problem: {problem}" for problem in report.problems]
    return [*lines, f"  {verdict(report)}"]


def verdict(report: ModelReport) -> str:
    """Whether it will run, and in how much memory."""
    if not report.runs:
        return "will not run"
    needs = ", ".join(f"{size(count)} in {precision}" for precision, count in report.memory.items())
    free = free_memory()
    here = f"; {size(free)} are free here" if free is not None else ""
    return f"will run: {report.parameters / 1e6:,.1f} million weights, which take {needs}{here}"


def _release(report: ModelReport) -> str:
    known = [file for file in report.files if file.release is not None]
    same = [file for file in known if file.release == "release"]
    count, total = len(report.files), size(sum(file.size for file in report.files))
    if not known:
        return f"{count} files, {total}; of no release that is known here"
    if len(same) == len(known):
        return f"{count} files, {total}; sizes and hashes are those of the published release"
    return f"{count} files, {total}; {len(same)} of {len(known)} have size and hash of the published release"


check_app = subcommand(check_command, EXAMPLES)
