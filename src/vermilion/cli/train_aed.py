"""`vermilion train aed`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from vermilion.cli.console import INTERRUPTED, OK, Terminal
from vermilion.cli.options import Quiet
from vermilion.cli.steps import training_bar
from vermilion.cli.train_options import Augmentation, Data, Dev, JsonOutcome, Masks, Training, ended, recipe
from vermilion.training.augment import AugmentOptions, SpecAugmentOptions
from vermilion.training.options import AedOptions, DataOptions, TokenOptions, TrainingOptions

EXAMPLES = """Examples:
  vermilion train aed train.jsonl --dev dev.jsonl --output-dir asr
  vermilion train aed train.jsonl --output-dir asr --preset xs --precision
    bfloat16 --gradient-checkpointing --plain-steps 5000
  vermilion train aed mine.jsonl --init FireRedASR2-AED --output-dir tuned
    --learning-rate 1e-5 --warmup-steps 100 --steps 1000
  vermilion train aed mine.jsonl --init FireRedASR2-AED --lora-rank 16
    --output-dir tuned --learning-rate 3e-4 --steps 1000

A manifest has one recording a line:
  {"audio_filepath": "a.wav", "duration": 2.5, "text": "hello 世界"}
The finished model lies in OUTPUT_DIR/model, checkpoints, metrics.jsonl and
loss.png beside it. Transcribe with it:
  vermilion transcribe talk.wav --models OUTPUT_DIR/model"""

AED = Group.create_ordered("Recogniser")
TOKENS = Group.create_ordered("Vocabulary")


def aed(
    manifest: Annotated[Path, Parameter(help="Recordings with texts: JSON lines, or a Kaldi folder.")],
    /,
    *,
    dev: Dev = None,
    options: Annotated[AedOptions, Parameter(name="*", group=AED)] = AedOptions(),  # noqa: B008 - frozen
    training: Training = TrainingOptions(),  # noqa: B008 - frozen
    data: Data = DataOptions(),  # noqa: B008 - frozen
    tokens: Annotated[TokenOptions, Parameter(name="*", group=TOKENS)] = TokenOptions(),  # noqa: B008 - frozen
    augment: Augmentation = AugmentOptions(),  # noqa: B008 - frozen
    masks: Masks = SpecAugmentOptions(),  # noqa: B008 - frozen
    json: JsonOutcome = False,
    quiet: Quiet = False,
) -> int:
    """Train or fine-tune the speech recogniser (FireRedASR2-AED)."""
    from vermilion.training.aed import train_aed

    terminal = Terminal(quiet)
    with training_bar(terminal) as report:
        outcome = train_aed(
            manifest,
            dev=dev,
            options=options,
            training=training,
            data=data,
            tokens=tokens,
            augment=augment,
            masks=masks,
            report=report,
        )
    ended(terminal, outcome, training, json)
    return OK if outcome.finished else INTERRUPTED


train_aed_app = recipe(aed, EXAMPLES)
