"""`vermilion evaluate timestamps`."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from cyclopts import Parameter

from vermilion.cli.console import Terminal
from vermilion.cli.evaluation import Manifests, Results, Systems, run, sets_of, show, task
from vermilion.cli.options import Hardware, Json, ModelsOption, Quiet, Search
from vermilion.errors import OptionsError

EXAMPLES = """Examples:
  vermilion evaluate timestamps test.jsonl -o out
  vermilion evaluate timestamps test.jsonl --align     the text is known

A line has "words": [[word, start, end], ...] in seconds (and "text" for
--align). Words are matched by alignment; Chinese words score the edges of
their first and last characters."""


def timestamps(
    manifests: Manifests,
    /,
    *,
    align: Annotated[
        bool, Parameter(negative="", show_default=False, help="Align the known text instead of recognising.")
    ] = False,
    system: Systems = None,
    models: ModelsOption = "auto",
    search: Search = Search(),  # noqa: B008 - frozen
    hardware: Hardware = Hardware(),  # noqa: B008 - frozen
    results: Results = Results(),  # noqa: B008 - frozen
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Distance of word times from true ones."""
    from vermilion.evaluation.systems import OWN, aligners, recognisers

    terminal = Terminal(quiet)
    options = replace(hardware.apply(), decoding=replace(search.plain(), timestamps=True))
    if align and system not in (None, [OWN]):
        raise OptionsError("only vermilion aligns a known text; leave --system or --align out")
    chosen = system or [OWN]
    systems = aligners(models, options) if align else recognisers(chosen, models, options, kind="timestamps")
    return show(terminal, run(terminal, systems, sets_of(manifests, results), results.plan()), results, json)


evaluate_timestamps_app = task(timestamps, EXAMPLES)
