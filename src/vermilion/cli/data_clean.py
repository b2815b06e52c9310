"""`vermilion data clean`."""

from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from vermilion.cli.console import OK, Terminal
from vermilion.cli.data_options import JsonSummary, Manifest, Processes, hours, items_bar, workers
from vermilion.cli.groups import subcommand
from vermilion.cli.options import OUTPUT, Quiet
from vermilion.cli.reading import rows_table
from vermilion.training.checking import FAULTS, CheckOptions
from vermilion.training.cleaning import CleanOptions, clean

if TYPE_CHECKING:
    from vermilion.training.cleaning import Cleaned

EXAMPLES = """Examples:
  vermilion data clean dirty.jsonl clean.jsonl
  vermilion data clean dirty.jsonl clean.jsonl --report left-out.jsonl
  vermilion data clean noises.jsonl clean.jsonl --no-texts
  vermilion data clean kaldi/train clean.jsonl --keep silent --keep language
  vermilion data clean dirty.jsonl clean.jsonl --no-audio   only what is quick

Left out is what `vermilion data check` finds: lines that are no entries, ids
and stretches that were there before, recordings that are missing, unreadable,
damaged or silent, texts that are empty, odd or too long, unknown languages.
Wrong durations are put right. --keep KIND lets lines with such a fault stay.

Exit code 0: the clean manifest is written, however much was left out (--json
counts it); 1: nothing was left."""


def clean_command(
    manifest: Manifest,
    target: Annotated[Path, Parameter(help="The manifest to write, JSON lines; may be the same file.")],
    /,
    *,
    options: Annotated[CleanOptions, Parameter(name="*")] = CleanOptions(),  # noqa: B008 - frozen
    checks: Annotated[CheckOptions, Parameter(name="*")] = CheckOptions(),  # noqa: B008 - frozen
    report: Annotated[
        Path | None, Parameter(group=OUTPUT, help="Write what was left out and why to this file, as JSON lines.")
    ] = None,
    processes: Processes = 0,
    json: JsonSummary = False,
    quiet: Quiet = False,
) -> int:
    """Write a manifest without what is wrong with it."""
    terminal = Terminal(quiet)
    with items_bar(terminal, "checking") as progress:
        found = clean(manifest, target, options, checks, workers(processes), progress)
    if report is not None:
        _write(report, found)
    if json:
        facts = {"lines": found.lines, "utterances": found.utterances, "seconds": found.seconds}
        left = {"left_out": len(found.left_out), "faults": found.counts(), "fixed": len(found.fixed)}
        terminal.json({"manifest": str(target), **facts, **left})
    else:
        _show(terminal, found, target, report)
    return OK


def _write(report: Path, found: Cleaned) -> None:
    report.parent.mkdir(parents=True, exist_ok=True)
    with report.open("w", encoding="utf-8") as out:
        for did, faults in (("left out", found.left_out), ("put right", found.fixed)):
            for fault in faults:
                out.write(json_text.dumps({**fault.to_dict(), "done": did}, ensure_ascii=False) + "\n")


def _show(terminal: Terminal, found: Cleaned, target: Path, report: Path | None) -> None:
    fixed = f"; {len(found.fixed)} durations put right" if found.fixed else ""
    terminal.say(f"{found.utterances} of {found.lines} lines, {hours(found.seconds)} in {target}{fixed}")
    if found.left_out:
        first = {fault.kind: f"{fault.id}: {fault.detail}" for fault in reversed(found.left_out)}
        rows = [[str(count), FAULTS[kind], first[kind]] for kind, count in found.counts().items()]
        terminal.show(rows_table(("left out", "why", "first"), rows))
        if report is None:
            terminal.say("--report FILE writes each of them to a file")


clean_app = subcommand(clean_command, EXAMPLES)
