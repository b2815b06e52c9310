"""`vermilion data convert`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from vermilion.cli.console import Terminal
from vermilion.cli.data_options import JsonSummary, Manifest, Processes, hours, items_bar, told, workers
from vermilion.cli.groups import subcommand
from vermilion.cli.options import Quiet
from vermilion.manifests import write_manifest
from vermilion.training.conversion import iterate_any, measured

if TYPE_CHECKING:
    from vermilion.manifests import Utterance

EXAMPLES = """Examples:
  vermilion data convert kaldi/train train.jsonl --measure
  vermilion data convert cuts.jsonl.gz train.jsonl      (needs the extra lhotse)
  vermilion data convert cuts.jsonl.gz train.jsonl --whole

Lines that cannot be taken are reported and left out; exit code 1 then."""


def convert_command(
    source: Manifest,
    target: Annotated[Path, Parameter(help="The manifest to write, JSON lines.")],
    /,
    *,
    measure: Annotated[bool, Parameter(negative="", help="Decode recordings whose duration is not given.")] = False,
    whole: Annotated[bool, Parameter(negative="", help="One line per cut, not one per supervision.")] = False,
    processes: Processes = 0,
    json: JsonSummary = False,
    quiet: Quiet = False,
) -> int:
    """Write any manifest as JSON lines: WeNet, Kaldi, lhotse."""
    terminal = Terminal(quiet)
    failures: list[tuple[str, str]] = []
    source_lines = iterate_any(
        source, lambda number, fault: failures.append((f"line {number}", str(fault))), whole=whole
    )
    seconds, unknown = 0.0, 0

    def kept() -> Iterator[Utterance]:
        nonlocal seconds, unknown
        pairs = measured(source_lines, workers(processes)) if measure else ((u, "") for u in source_lines)
        with items_bar(terminal, "converting") as progress:
            for done, (utterance, fault) in enumerate(pairs, 1):
                progress(done, utterance.id)
                if fault:
                    failures.append((utterance.id, fault))
                    continue
                seconds += utterance.duration or 0.0
                unknown += utterance.duration is None
                yield utterance

    count = write_manifest(target, kept())
    if json:
        facts = {"utterances": count, "seconds": seconds, "without_duration": unknown, "failures": len(failures)}
        terminal.json({"manifest": str(target), **facts})
    else:
        more = f"; {unknown} have no duration (--measure)" if unknown else ""
        terminal.say(f"{count} utterances, {hours(seconds)} in {target}{more}")
    return told(terminal, failures)


convert_app = subcommand(convert_command, EXAMPLES)
