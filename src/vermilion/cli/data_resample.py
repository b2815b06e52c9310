"""`vermilion data resample`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

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
from vermilion.manifests import write_manifest
from vermilion.training.resampling import resample

if TYPE_CHECKING:
    from vermilion.manifests import Utterance

EXAMPLES = """Examples:
  vermilion data resample all.jsonl --output-dir flac
  vermilion data resample talks.jsonl -o flac --processes 8

Each utterance becomes flac/ID.flac, stretches of long recordings are cut out;
flac/manifest.jsonl lists them. Run it again to go on after an interruption.
What cannot be read is reported and left out; exit code 1 then."""


def resample_command(
    manifest: Manifest,
    /,
    *,
    output_dir: Folder,
    processes: Processes = 0,
    json: JsonSummary = False,
    quiet: Quiet = False,
) -> int:
    """Write recordings as 16 kHz mono FLAC."""
    terminal = Terminal(quiet)
    failures: list[tuple[str, str]] = []
    utterances = read_lines(manifest, failures)
    seconds, kept = 0.0, 0

    def written() -> Iterator[Utterance]:
        nonlocal seconds, kept
        with items_bar(terminal, "resampling", len(utterances)) as progress:
            for done, result in enumerate(resample(utterances, output_dir, workers(processes)), 1):
                progress(done, result.utterance.id)
                kept += result.kept
                if result.failure:
                    failures.append((result.utterance.id, result.failure))
                else:
                    seconds += result.utterance.duration or 0.0
                    yield result.utterance

    target = output_dir / "manifest.jsonl"
    count = write_manifest(target, written())
    if json:
        facts = {"utterances": count, "seconds": seconds, "kept": kept, "failures": len(failures)}
        terminal.json({"manifest": str(target), **facts})
    else:
        terminal.say(f"{count} utterances, {hours(seconds)} in {target}; {kept} were there already")
    return told(terminal, failures)


resample_app = subcommand(resample_command, EXAMPLES)
