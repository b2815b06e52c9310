"""`vermilion train llm`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from vermilion.cli.console import INTERRUPTED, OK, Terminal
from vermilion.cli.options import Quiet
from vermilion.cli.steps import training_bar
from vermilion.cli.train_options import Augmentation, Data, Dev, JsonOutcome, Masks, Training, ended, recipe
from vermilion.training.augment import AugmentOptions, SpecAugmentOptions
from vermilion.training.llm_options import LlmTrainingOptions
from vermilion.training.options import DataOptions, TrainingOptions

EXAMPLES = """Examples:
  vermilion train llm mine.jsonl --init FireRedASR2-LLM --output-dir tuned
    --freeze-encoder --learning-rate 5e-5 --warmup-steps 100 --steps 1000
    --precision bfloat16 --gradient-checkpointing
  vermilion train llm train.jsonl --dev dev.jsonl --encoder FireRedASR2-AED
    --qwen Qwen2-7B-Instruct --output-dir llm --learning-rate 1e-4
    --precision bfloat16 --gradient-checkpointing --accumulation 4

A manifest has one recording a line:
  {"audio_filepath": "a.wav", "duration": 2.5, "text": "hello 世界"}
Punctuation and case of the texts are taken out: the model writes none.
The finished model lies in OUTPUT_DIR/model, with a link to the language
model (--copy-qwen: a copy). Transcribe with it:
  vermilion transcribe talk.wav --models OUTPUT_DIR/model"""

LLM = Group.create_ordered("Recogniser")


def llm(
    manifest: Annotated[Path, Parameter(help="Recordings with texts: JSON lines, or a Kaldi folder.")],
    /,
    *,
    dev: Dev = None,
    options: Annotated[LlmTrainingOptions, Parameter(name="*", group=LLM)] = LlmTrainingOptions(),  # noqa: B008
    training: Training = TrainingOptions(),  # noqa: B008 - frozen
    data: Data = DataOptions(),  # noqa: B008 - frozen
    augment: Augmentation = AugmentOptions(),  # noqa: B008 - frozen
    masks: Masks = SpecAugmentOptions(),  # noqa: B008 - frozen
    json: JsonOutcome = False,
    quiet: Quiet = False,
) -> int:
    """Train or fine-tune the recogniser with a language model (FireRedASR2-LLM)."""
    from vermilion.training.llm import train_llm

    terminal = Terminal(quiet)
    with training_bar(terminal) as report:
        outcome = train_llm(
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


train_llm_app = recipe(llm, EXAMPLES)
