"""`vermilion data cmvn`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from vermilion.cli.console import Terminal
from vermilion.cli.data_options import JsonSummary, Manifest, Processes, hours, items_bar, told, workers
from vermilion.cli.groups import subcommand
from vermilion.cli.options import Quiet
from vermilion.training.cmvn import accumulate
from vermilion.training.conversion import iterate_any

EXAMPLES = """Examples:
  vermilion data cmvn train.jsonl cmvn.ark
  vermilion data cmvn shards/index.jsonl cmvn.ark --processes 8

The file is that of the published models; `vermilion train` makes its own
where none is given. What cannot be read is reported and left out; exit code 1
then."""


def cmvn_command(
    manifest: Manifest,
    target: Annotated[Path, Parameter(help="The file to write.")],
    /,
    *,
    processes: Processes = 0,
    json: JsonSummary = False,
    quiet: Quiet = False,
) -> int:
    """Compute the mean and variance of features (cmvn.ark)."""
    terminal = Terminal(quiet)
    failures: list[tuple[str, str]] = []
    lines = iterate_any(manifest, lambda number, fault: failures.append((f"line {number}", str(fault))))
    with items_bar(terminal, "adding up") as progress:
        found = accumulate(lines, workers(processes), progress)
    failures += found.failures
    code = told(terminal, failures)
    found.write(target)
    if json:
        facts = {"utterances": found.utterances, "frames": found.frames, "failures": len(failures)}
        terminal.json({"cmvn": str(target), **facts})
    else:
        terminal.say(f"{found.utterances} utterances, {hours(found.frames / 100)} in {target}")
    return code


cmvn_app = subcommand(cmvn_command, EXAMPLES)
