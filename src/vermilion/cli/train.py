"""`vermilion train`: one sub-command per module, each in a file of its own."""

from __future__ import annotations

from cyclopts import App, Parameter

from vermilion.cli.console import EXIT_CODES

SUBCOMMANDS = {
    "aed": "Train or fine-tune the speech recogniser (FireRedASR2-AED).",
    "ctc": "Train a CTC head for a recogniser, which stays as it is: word times.",
    "lid": "Train the language identifier, its encoder taken from a recogniser.",
    "llm": "Train or fine-tune the recogniser with a language model (FireRedASR2-LLM).",
    "vad": "Train a detector: speech, speech in a stream, or speech, singing and music (FireRedVAD).",
    "punc": "Train or fine-tune the punctuation restorer (FireRedPunc).",
}
"""what `vermilion train --help` says; equal to the first line of each docstring in `vermilion.cli.train_NAME`"""

EXAMPLES = """Examples:
  vermilion train aed train.jsonl --dev dev.jsonl --output-dir asr --preset xs
  vermilion train ctc asr/model train.jsonl --output-dir ctc
  vermilion train lid languages.jsonl --encoder asr/model --output-dir lid

A killed training goes on when the same command is given again. Several GPUs:
  accelerate launch --multi-gpu -m vermilion train aed ...

vermilion train MODULE --help explains a recipe, with examples."""


def _build() -> App:
    app = App(
        name="train",
        help="Train the modules: recogniser, CTC head, language identifier and more.",
        help_epilogue=f"{EXAMPLES}\n\n{EXIT_CODES}",
        help_format="plaintext",
        default_parameter=Parameter(negative_iterable=()),
        result_action="return_value",
    )
    for name, summary in SUBCOMMANDS.items():
        app.command(f"vermilion.cli.train_{name}:train_{name}_app", name=name, help=summary)
    return app


train = _build()
