"""`vermilion evaluate`: one sub-command per task, each in a file of its own."""

from __future__ import annotations

from cyclopts import App, Parameter

from vermilion.cli.console import EXIT_CODES

SUBCOMMANDS = {
    "asr": "Error rates of recognised text, from recordings or from two files of texts.",
    "vad": "Voice activity (or events) against exact labels: AUC, F1, FAR, MR, segments.",
    "lid": "Accuracy of language identification, with its confusions.",
    "punc": "Precision, recall and F1 of restored punctuation.",
    "timestamps": "Distance of word times from true ones.",
    "pipeline": "Whole transcripts: text, and what else the lines have references for.",
    "table": "A table of the report: ours beside the published figures.",
}
"""what `vermilion evaluate --help` says; equal to the first line of each docstring in `vermilion.cli.evaluate_NAME`"""

EXAMPLES = """Examples:
  vermilion evaluate asr test.jsonl --output-dir out
  vermilion evaluate asr --ref ref.txt --hyp hyp.txt
  vermilion evaluate vad test.jsonl --system vermilion --system silero
  vermilion evaluate lid fleurs.jsonl --against earlier

A line of a manifest names a recording and what is true of it: text, lang,
segments [[start, end], ...], words [[word, start, end], ...]. With
--output-dir a killed run goes on when the same command is given again.

vermilion evaluate TASK --help explains a task, with examples."""


def _build() -> App:
    app = App(
        name="evaluate",
        help="Measure the modules, and other systems, on test sets with references.",
        help_epilogue=f"{EXAMPLES}\n\n{EXIT_CODES}",
        help_format="plaintext",
        default_parameter=Parameter(negative_iterable=()),
        result_action="return_value",
    )
    for name, summary in SUBCOMMANDS.items():
        app.command(f"vermilion.cli.evaluate_{name}:evaluate_{name}_app", name=name, help=summary)
    return app


evaluate = _build()
