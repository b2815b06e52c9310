"""`vermilion data split`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from vermilion.cli.console import Terminal
from vermilion.cli.data_options import Folder, JsonSummary, Manifest, hours, read_lines, told
from vermilion.cli.groups import subcommand
from vermilion.cli.options import Quiet
from vermilion.cli.reading import rows_table
from vermilion.manifests import write_manifest
from vermilion.training.splitting import SplitOptions, split

EXAMPLES = """Examples:
  vermilion data split all.jsonl --output-dir sets
  vermilion data split all.jsonl --output-dir sets --dev 2 --test 2    hours
  vermilion data split all.jsonl --output-dir sets --apart speaker

The sets are sets/train.jsonl, dev.jsonl and test.jsonl. Utterances that share
a speaker, a text or a recording are never divided, so sizes are not exact.
Lines that are no entries are reported and left out; exit code 1 then."""


def split_command(
    manifest: Manifest,
    /,
    *,
    output_dir: Folder,
    options: Annotated[SplitOptions, Parameter(name="*")] = SplitOptions(),  # noqa: B008 - frozen
    json: JsonSummary = False,
    quiet: Quiet = False,
) -> int:
    """Divide into train, dev and test sets that share no speaker and no text."""
    terminal = Terminal(quiet)
    failures: list[tuple[str, str]] = []
    with terminal.working("dividing"):
        found = split(read_lines(manifest, failures), options)
    for name, utterances in found.sets.items():
        write_manifest(output_dir / f"{name}.jsonl", utterances)
    unit = "seconds" if found.measured else "utterances"
    if json:
        sets = {n: {"utterances": len(us), unit: found.size(n)} for n, us in found.sets.items()}
        facts = {"groups": found.groups, "largest": found.largest, "kept_in_train": found.kept}
        terminal.json({"sets": sets, **facts, "failures": len(failures)})
        return told(terminal, failures)
    whole = sum(found.size(name) for name in found.sets)
    rows = [
        [n, str(len(us)), hours(found.size(n)) if found.measured else "-", f"{100 * found.size(n) / whole:.1f} %"]
        for n, us in found.sets.items()
    ]
    terminal.show(rows_table(("set", "utterances", "audio", "share"), rows))
    apart = ", ".join(options.apart) or "line"
    terminal.say(f"{found.groups} groups share no {apart}; the largest has {found.largest} utterances")
    if found.kept:
        terminal.say(f"{found.kept} groups were too large for the set whose turn it was and went to train")
    return told(terminal, failures)


split_app = subcommand(split_command, EXAMPLES)
