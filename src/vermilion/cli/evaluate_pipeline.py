"""`vermilion evaluate pipeline`."""

from __future__ import annotations

from vermilion.cli.console import Terminal
from vermilion.cli.evaluation import Manifests, Results, Text, run, sets_of, show, task
from vermilion.cli.options import Hardware, Json, Llm, ModelsOption, Quiet, Search, Stages, Voice

EXAMPLES = """Examples:
  vermilion evaluate pipeline talks.jsonl -o out
  vermilion evaluate pipeline talks.jsonl --no-lid --language en

A line has "text"; where every line also has segments, lang or words, these
are scored too, and marks where the texts have them."""


def pipeline(
    manifests: Manifests,
    /,
    *,
    text: Text = Text(),  # noqa: B008 - frozen
    models: ModelsOption = "auto",
    stages: Stages = Stages(),  # noqa: B008 - frozen
    search: Search = Search(),  # noqa: B008 - frozen
    hardware: Hardware = Hardware(),  # noqa: B008 - frozen
    llm: Llm = Llm(),  # noqa: B008 - frozen
    voice: Voice = Voice(),  # noqa: B008 - frozen
    results: Results = Results(),  # noqa: B008 - frozen
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Whole transcripts: text, and what else the lines have references for."""
    from vermilion.evaluation.systems import pipelines

    terminal = Terminal(quiet)
    systems = pipelines(models, stages.pipeline_options(search, hardware, llm), voice.plain())
    plan = results.plan(text.scoring())
    return show(terminal, run(terminal, systems, sets_of(manifests, results), plan), results, json)


evaluate_pipeline_app = task(pipeline, EXAMPLES)
