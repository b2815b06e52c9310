"""`vermilion train punc`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from vermilion.cli.console import INTERRUPTED, OK, Terminal
from vermilion.cli.options import Quiet
from vermilion.cli.steps import training_bar
from vermilion.cli.train_options import JsonOutcome, Training, ended, recipe
from vermilion.training.options import TrainingOptions
from vermilion.training.punc_options import PunctuatorOptions
from vermilion.training.punc_text import NoiseOptions

EXAMPLES = """Examples:
  vermilion train punc text.txt --output-dir punc
  vermilion train punc zh.txt en.jsonl --dev dev.txt --output-dir punc
    --layers 6 --hidden 384 --heads 6 --feed-forward 1536 --half
  vermilion train punc mine.txt --init FireRedPunc --output-dir tuned
    --learning-rate 2e-5 --warmup-steps 100 --steps 1000
  vermilion train punc text.txt --init bert-base-chinese --output-dir punc
    --learning-rate 5e-5

Any punctuated text will do: a line is a paragraph, an empty line parts what
does not belong together; .jsonl files have {"text": "..."} on each line.
The finished model lies in OUTPUT_DIR/model. Use it:
  vermilion punctuate "你好今天天气怎么样" --models OUTPUT_DIR/model"""

PUNCTUATION = Group.create_ordered("Punctuation")
NOISE = Group.create_ordered("Errors of a recogniser")


def punc(
    *texts: Annotated[Path, Parameter(help="Punctuated text: plain, or JSON lines.")],
    dev: Annotated[
        list[Path] | None, Parameter(consume_multiple=True, help="Held-out text; none: a twentieth.")
    ] = None,
    options: Annotated[PunctuatorOptions, Parameter(name="*", group=PUNCTUATION)] = PunctuatorOptions(),  # noqa: B008
    training: Training = TrainingOptions(),  # noqa: B008 - frozen
    noise: Annotated[NoiseOptions, Parameter(name="noise", group=NOISE)] = NoiseOptions(),  # noqa: B008 - frozen
    json: JsonOutcome = False,
    quiet: Quiet = False,
) -> int:
    """Train or fine-tune the punctuation restorer (FireRedPunc)."""
    from vermilion.errors import OptionsError
    from vermilion.training.punc import train_punctuation

    if not texts:
        raise OptionsError("no text to train on: name files of punctuated text")
    terminal = Terminal(quiet)
    with training_bar(terminal) as report:
        outcome = train_punctuation(
            texts, dev=dev or [], options=options, training=training, noise=noise, report=report
        )
    ended(terminal, outcome, training, json)
    return OK if outcome.finished else INTERRUPTED


train_punc_app = recipe(punc, EXAMPLES)
