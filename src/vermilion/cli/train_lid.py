"""`vermilion train lid`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from vermilion.cli.console import INTERRUPTED, OK, Terminal
from vermilion.cli.options import Quiet
from vermilion.cli.steps import training_bar
from vermilion.cli.train_options import Augmentation, Data, Dev, JsonOutcome, Masks, Training, ended, recipe
from vermilion.training.augment import AugmentOptions, SpecAugmentOptions
from vermilion.training.options import DataOptions, LidOptions, TrainingOptions

EXAMPLES = """Examples:
  vermilion train lid speech.jsonl --encoder asr/model --output-dir lid
  vermilion train lid speech.jsonl --dev dev.jsonl --encoder asr/model
    --encoder-layers 6 --decoder-layers 2 --output-dir lid

A manifest has one recording a line, with its language:
  {"audio_filepath": "a.wav", "duration": 2.5, "lang": "en"}
  {"audio_filepath": "b.wav", "duration": 4.0, "lang": "zh yue"}
The finished model lies in OUTPUT_DIR/model."""

LID = Group.create_ordered("Language identifier")


def lid(
    manifest: Annotated[Path, Parameter(help="Recordings with languages: JSON lines, or a Kaldi folder.")],
    /,
    *,
    dev: Dev = None,
    options: Annotated[LidOptions, Parameter(name="*", group=LID)] = LidOptions(),  # noqa: B008 - frozen
    training: Training = TrainingOptions(),  # noqa: B008 - frozen
    data: Data = DataOptions(),  # noqa: B008 - frozen
    augment: Augmentation = AugmentOptions(),  # noqa: B008 - frozen
    masks: Masks = SpecAugmentOptions(),  # noqa: B008 - frozen
    json: JsonOutcome = False,
    quiet: Quiet = False,
) -> int:
    """Train the language identifier, its encoder taken from a recogniser."""
    from vermilion.training.lid import train_lid

    terminal = Terminal(quiet)
    with training_bar(terminal) as report:
        outcome = train_lid(
            manifest,
            dev=dev,
            options=options,
            training=training,
            data=data,
            augment=augment,
            masks=masks,
            report=report,
        )
    ended(terminal, outcome, training, json)
    return OK if outcome.finished else INTERRUPTED


train_lid_app = recipe(lid, EXAMPLES)
