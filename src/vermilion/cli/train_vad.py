"""`vermilion train vad`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from vermilion.cli.console import INTERRUPTED, OK, Terminal
from vermilion.cli.options import Quiet
from vermilion.cli.steps import training_bar
from vermilion.cli.train_options import AUGMENTATION, JsonOutcome, Training, ended, recipe
from vermilion.training.mixes import MixAugmentOptions, MixOptions
from vermilion.training.options import TrainingOptions
from vermilion.training.stretches import TrimOptions
from vermilion.training.vad_options import DetectorOptions

EXAMPLES = """Examples:
  vermilion train vad --speech speech.jsonl --music music.jsonl
    --noise noise.jsonl --output-dir vad
  vermilion train vad --kind stream --speech zh.jsonl en.jsonl
    --noise noise.jsonl --output-dir stream --teacher FireRedVAD/VAD
  vermilion train vad --kind events --speech speech.jsonl
    --singing singing.jsonl --music music.jsonl --noise noise.jsonl
    --output-dir events
  vermilion train vad --speech mine.jsonl --noise factory.jsonl
    --init FireRedVAD/VAD --output-dir tuned --learning-rate 1e-4

Recordings are mixed on the fly, so labels need no work: a manifest line is
  {"audio_filepath": "a.wav", "duration": 2.5}
with "set": "train" or "dev" if you wish, and "segments": [[0.2, 1.4]] where
the rule that finds the sound in a clip by its level would be wrong.
The finished model lies in OUTPUT_DIR/model. Use it:
  vermilion vad talk.wav --models OUTPUT_DIR/model"""

DETECTOR = Group.create_ordered("Detector")
SOUNDS = Group.create_ordered("Recordings")
MIXES = Group.create_ordered("Mixes")


def vad(
    *,
    speech: Annotated[list[Path], Parameter(group=SOUNDS, consume_multiple=True, help="Manifests of speech.")],
    singing: Annotated[
        list[Path] | None,
        Parameter(group=SOUNDS, consume_multiple=True, help="Of singing; none: it is made out of speech (events)."),
    ] = None,
    music: Annotated[list[Path] | None, Parameter(group=SOUNDS, consume_multiple=True, help="Of music.")] = None,
    noise: Annotated[list[Path] | None, Parameter(group=SOUNDS, consume_multiple=True, help="Of noise.")] = None,
    options: Annotated[DetectorOptions, Parameter(name="*", group=DETECTOR)] = DetectorOptions(),  # noqa: B008
    training: Training = TrainingOptions(),  # noqa: B008 - frozen
    mix: Annotated[MixOptions, Parameter(name="mix", group=MIXES)] = MixOptions(),  # noqa: B008 - frozen
    trim: Annotated[TrimOptions, Parameter(name="trim", group=MIXES)] = TrimOptions(),  # noqa: B008 - frozen
    augment: Annotated[MixAugmentOptions, Parameter(name="augment", group=AUGMENTATION)] = MixAugmentOptions(),  # noqa: B008 - frozen
    json: JsonOutcome = False,
    quiet: Quiet = False,
) -> int:
    """Train a detector: speech, speech in a stream, or speech, singing and music (FireRedVAD)."""
    from vermilion.training.vad import train_detector

    terminal = Terminal(quiet)
    with training_bar(terminal) as report:
        outcome = train_detector(
            {"speech": speech, "singing": singing or [], "music": music or [], "noise": noise or []},
            options=options,
            training=training,
            mix=mix,
            augment=augment,
            trim=trim,
            report=report,
        )
    ended(terminal, outcome, training, json)
    return OK if outcome.finished else INTERRUPTED


train_vad_app = recipe(vad, EXAMPLES)
