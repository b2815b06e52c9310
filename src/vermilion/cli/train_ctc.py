"""`vermilion train ctc`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from vermilion.cli.console import INTERRUPTED, OK, Terminal
from vermilion.cli.options import Quiet
from vermilion.cli.steps import training_bar
from vermilion.cli.train_options import Augmentation, Data, Dev, JsonOutcome, Training, ended, recipe
from vermilion.training.augment import AugmentOptions
from vermilion.training.options import CtcOptions, DataOptions, TrainingOptions

EXAMPLES = """Examples:
  vermilion train ctc asr/model train.jsonl --dev dev.jsonl --output-dir ctc
  vermilion train ctc FireRedASR2-AED train.jsonl --output-dir ctc --fresh

Encoder and decoder stay as they are, so the texts do not change; the head
gives words their times and drafts for faster searches (--search greedy).
The model with its head lies in OUTPUT_DIR/model."""

CTC = Group.create_ordered("CTC head")


def ctc(
    model: Annotated[Path, Parameter(help="Folder of the recogniser, in the published layout.")],
    manifest: Annotated[Path, Parameter(help="Recordings with texts: JSON lines, or a Kaldi folder.")],
    /,
    *,
    dev: Dev = None,
    options: Annotated[CtcOptions, Parameter(name="*", group=CTC)] = CtcOptions(),  # noqa: B008 - frozen
    training: Training = TrainingOptions(),  # noqa: B008 - frozen
    data: Data = DataOptions(),  # noqa: B008 - frozen
    augment: Augmentation = AugmentOptions(),  # noqa: B008 - frozen
    json: JsonOutcome = False,
    quiet: Quiet = False,
) -> int:
    """Train a CTC head for a recogniser, which stays as it is: word times."""
    from vermilion.training.ctc import train_ctc

    terminal = Terminal(quiet)
    with training_bar(terminal) as report:
        outcome = train_ctc(
            model, manifest, dev=dev, options=options, training=training, data=data, augment=augment, report=report
        )
    ended(terminal, outcome, training, json)
    return OK if outcome.finished else INTERRUPTED


train_ctc_app = recipe(ctc, EXAMPLES)
