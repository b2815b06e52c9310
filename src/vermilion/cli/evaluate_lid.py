"""`vermilion evaluate lid`."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from vermilion.cli.console import Terminal
from vermilion.cli.evaluation import SCORING, Manifests, Results, Systems, run, sets_of, show, task
from vermilion.cli.options import Hardware, Json, ModelsOption, Quiet

EXAMPLES = """Examples:
  vermilion evaluate lid test.jsonl -o out
  vermilion evaluate lid dialects.jsonl --level dialect
  vermilion evaluate lid test.jsonl --system vermilion --system whisper

A line has "lang": "en", "zh yue", "yue", "en-US" and "cmn" are understood."""


def lid(
    manifests: Manifests,
    /,
    *,
    level: Annotated[
        Literal["language", "dialect", "full"],
        Parameter(group=SCORING, help="What has to agree: the language, the Chinese dialect group, or both."),
    ] = "language",
    system: Systems = None,
    models: ModelsOption = "auto",
    hardware: Hardware = Hardware(),  # noqa: B008 - frozen
    results: Results = Results(),  # noqa: B008 - frozen
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Accuracy of language identification, with its confusions."""
    from vermilion.evaluation.results import ScoringOptions
    from vermilion.evaluation.systems import OWN, identifiers

    terminal = Terminal(quiet)
    systems = identifiers(system or [OWN], models, hardware.apply())
    plan = results.plan(ScoringOptions(level=level))
    return show(terminal, run(terminal, systems, sets_of(manifests, results), plan), results, json)


evaluate_lid_app = task(lid, EXAMPLES)
