"""`vermilion evaluate punc`."""

from __future__ import annotations

from vermilion.cli.console import Terminal
from vermilion.cli.evaluation import Manifests, Results, run, sets_of, show, task
from vermilion.cli.options import Hardware, Json, ModelsOption, Quiet

EXAMPLES = """Examples:
  vermilion evaluate punc texts.jsonl -o out

A line has "text" with its true marks, and an "id" if you wish; the restorer
gets it without them, in lower case. Micro figures count comma, period and
question mark. No recording is needed; one that a line names is not read."""


def punc(
    manifests: Manifests,
    /,
    *,
    models: ModelsOption = "auto",
    hardware: Hardware = Hardware(),  # noqa: B008 - frozen
    results: Results = Results(),  # noqa: B008 - frozen
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Precision, recall and F1 of restored punctuation."""
    from vermilion.evaluation.systems import restorers

    terminal = Terminal(quiet)
    systems = restorers(models, hardware.apply())
    return show(
        terminal, run(terminal, systems, sets_of(manifests, results, texts=True), results.plan()), results, json
    )


evaluate_punc_app = task(punc, EXAMPLES)
