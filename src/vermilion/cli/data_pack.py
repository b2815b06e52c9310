"""`vermilion data pack`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from vermilion.cli.console import Terminal
from vermilion.cli.data_options import (
    Folder,
    JsonSummary,
    Manifest,
    Processes,
    hours,
    items_bar,
    read_lines,
    told,
    workers,
)
from vermilion.cli.groups import subcommand
from vermilion.cli.options import Quiet
from vermilion.training.shards import pack

EXAMPLES = """Examples:
  vermilion data pack train.jsonl --output-dir shards
  vermilion data pack train.jsonl --output-dir shards --per-shard 5000
  vermilion train aed shards/index.jsonl --output-dir asr

A shard holds 000000042.flac and 000000042.json for each utterance, as
WebDataset has them. Run it again to go on after an interruption. What cannot
be read, and all but the first line of an id, is reported and left out; exit
code 1 then."""


def pack_command(
    manifest: Manifest,
    /,
    *,
    output_dir: Folder,
    per_shard: Annotated[int, Parameter(help="Utterances of a shard.")] = 1000,
    seed: Annotated[int, Parameter(help="Decides the order of utterances.")] = 0,
    shuffle: Annotated[bool, Parameter(help="Shuffle; without, utterances stay in their order.")] = True,
    processes: Processes = 0,
    json: JsonSummary = False,
    quiet: Quiet = False,
) -> int:
    """Pack recordings into tar shards."""
    terminal = Terminal(quiet)
    failures: list[tuple[str, str]] = []
    utterances = read_lines(manifest, failures, distinct=True)
    total = -(-len(utterances) // max(per_shard, 1))
    with items_bar(terminal, "packing shards", total) as progress:
        packed = pack(
            utterances,
            output_dir,
            per_shard=per_shard,
            seed=seed if shuffle else None,
            processes=workers(processes),
            report=progress,
        )
    failures += packed.failures
    if json:
        facts = {"shards": packed.shards, "utterances": packed.utterances, "seconds": packed.seconds}
        terminal.json({"index": str(packed.index), **facts, "failures": len(failures)})
    else:
        terminal.say(
            f"{packed.utterances} utterances, {hours(packed.seconds)} in {packed.shards} shards; {packed.index}"
        )
    return told(terminal, failures)


pack_app = subcommand(pack_command, EXAMPLES)
