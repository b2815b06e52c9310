"""`vermilion evaluate vad`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from vermilion.cli.console import Terminal
from vermilion.cli.evaluation import SCORING, Manifests, Results, Systems, run, sets_of, show, task
from vermilion.cli.options import Json, ModelsOption, Quiet, Voice
from vermilion.errors import OptionsError
from vermilion.vad import EventOptions

EXAMPLES = """Examples:
  vermilion evaluate vad test.jsonl -o out
  vermilion evaluate vad test.jsonl --system vermilion --system silero
  vermilion evaluate vad test.jsonl --events

A line has "segments": [[start, end], ...] in seconds; with --events it has
"events": {"speech": [[start, end], ...], "music": ...}. Frames last 10 ms."""


def vad(
    manifests: Manifests,
    /,
    *,
    events: Annotated[bool, Parameter(negative="", show_default=False, help="Speech, singing and music.")] = False,
    threshold: Annotated[float, Parameter(group=SCORING, help="Of the frame figures.")] = 0.5,
    system: Systems = None,
    models: ModelsOption = "auto",
    voice: Voice = Voice(),  # noqa: B008 - frozen
    results: Results = Results(),  # noqa: B008 - frozen
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Voice activity (or events) against exact labels: AUC, F1, FAR, MR, segments."""
    from vermilion.evaluation.results import ScoringOptions
    from vermilion.evaluation.systems import OWN, detectors, event_detectors

    terminal = Terminal(quiet)
    if events and system not in (None, [OWN]):
        raise OptionsError("only vermilion tells events apart; leave --system or --events out")
    systems = event_detectors(models, EventOptions()) if events else detectors(system or [OWN], models, voice.plain())
    plan = results.plan(ScoringOptions(threshold=threshold))
    return show(terminal, run(terminal, systems, sets_of(manifests, results), plan), results, json)


evaluate_vad_app = task(vad, EXAMPLES)
