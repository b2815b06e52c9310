"""`vermilion data check`."""

from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from vermilion.cli.console import FAILED, OK, Terminal
from vermilion.cli.data_options import JsonSummary, Manifest, Processes, hours, items_bar, workers
from vermilion.cli.groups import subcommand
from vermilion.cli.options import OUTPUT, Quiet
from vermilion.cli.reading import rows_table
from vermilion.training.checking import FAULTS, CheckOptions, check

if TYPE_CHECKING:
    from vermilion.training.checking import Check

EXAMPLES = """Examples:
  vermilion data check train.jsonl
  vermilion data check train.jsonl --report bad.jsonl   each fault, one a line
  vermilion data check noises.jsonl --no-texts          recordings of no speech
  vermilion data check train.jsonl --no-audio           only what is quick

Exit code 1 means that something is wrong."""


def check_command(
    manifest: Manifest,
    /,
    *,
    options: Annotated[CheckOptions, Parameter(name="*")] = CheckOptions(),  # noqa: B008 - frozen
    report: Annotated[
        Path | None, Parameter(group=OUTPUT, help="Write each fault to this file, as JSON lines.")
    ] = None,
    processes: Processes = 0,
    json: JsonSummary = False,
    quiet: Quiet = False,
) -> int:
    """Find what is wrong with a manifest and its recordings."""
    terminal = Terminal(quiet)
    with items_bar(terminal, "checking") as progress:
        found = check(manifest, options, workers(processes), progress)
    if report is not None:
        report.parent.mkdir(parents=True, exist_ok=True)
        rows = (json_text.dumps(fault.to_dict(), ensure_ascii=False) + "\n" for fault in found.faults)
        report.write_text("".join(rows), encoding="utf-8")
    if json:
        terminal.json(found.to_dict())
    else:
        _show(terminal, found)
        if found.faults and report is None:
            terminal.say("--report FILE writes each fault to a file; vermilion data clean a manifest without them")
    return FAILED if found.faults else OK


def _show(terminal: Terminal, found: Check) -> None:
    total = sum(found.durations)
    people = f", {found.speakers} speakers" if found.speakers else ""
    terminal.write(f"{found.lines} lines, {hours(total)}{people}, {found.texts} different texts")
    rows = [[name or "-", hours(seconds)] for name, seconds in sorted(found.languages.items(), key=lambda x: -x[1])]
    if any(name != "-" for name, _ in rows):
        terminal.show(rows_table(("language", "audio"), rows))
    if found.durations:
        most = max(count for _, count, _ in found.histogram())
        bars = [[r, str(n), hours(s), "█" * round(30 * n / most)] for r, n, s in found.histogram() if n]
        terminal.show(rows_table(("seconds", "utterances", "audio", ""), bars))
    if found.faults:
        first = {fault.kind: f"{fault.id}: {fault.detail}" for fault in reversed(found.faults)}
        faults = [[str(count), FAULTS[kind], first[kind]] for kind, count in found.counts().items()]
        terminal.show(rows_table(("faults", "what", "first"), faults))


check_app = subcommand(check_command, EXAMPLES)
