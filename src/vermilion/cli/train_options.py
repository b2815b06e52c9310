"""Options that the commands of `vermilion train` share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from vermilion.cli.console import Terminal
from vermilion.cli.groups import subcommand
from vermilion.cli.options import OUTPUT
from vermilion.training.augment import AugmentOptions, SpecAugmentOptions
from vermilion.training.options import DataOptions, TrainingOptions
from vermilion.training.skipping import FILE

SHOWN = 10
"""recordings that are named at the end"""

if TYPE_CHECKING:
    from vermilion.training.loop import Outcome

TRAINING = Group.create_ordered("Training")
DATA = Group.create_ordered("Data")
AUGMENTATION = Group.create_ordered("Augmentation")

Dev = Annotated[Path | None, Parameter(help="Held-out recordings, for validation; no default.")]
Training = Annotated[TrainingOptions, Parameter(name="*", group=TRAINING)]
Data = Annotated[DataOptions, Parameter(name="*", group=DATA)]
Augmentation = Annotated[AugmentOptions, Parameter(name="augment", group=AUGMENTATION)]
Masks = Annotated[SpecAugmentOptions, Parameter(name="masks", group=AUGMENTATION)]
JsonOutcome = Annotated[
    bool,
    Parameter(name="--json", negative="", show_default=False, group=OUTPUT, help="The outcome as JSON on stdout."),
]


recipe = subcommand
"""wraps a recipe's command so that its help ends with examples and exit codes"""


def ended(terminal: Terminal, outcome: Outcome, training: TrainingOptions, json: bool) -> None:
    """Say how a training ended; of several processes one does."""
    if not outcome.main:
        return
    if json:
        found: dict[str, Any] = {"step": outcome.step, "finished": outcome.finished, **outcome.validation}
        terminal.json({**found, "skipped": len(outcome.skipped), "output_dir": str(training.output_dir)})
    elif outcome.finished:
        terminal.say(f"finished after {outcome.step} steps: the model lies in {training.output_dir / 'model'}")
    if outcome.skipped:
        names = ", ".join(outcome.skipped[:SHOWN])
        more = f" and {len(outcome.skipped) - SHOWN} more" if len(outcome.skipped) > SHOWN else ""
        terminal.warn(f"{len(outcome.skipped)} left out: {names}{more}; {training.output_dir / FILE} says why")
    if not outcome.finished:
        terminal.warn(f"interrupted after {outcome.step} steps; the same command goes on from there")
