"""Options that the commands of `vermilion train` share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Group, Parameter

from vermilion.cli.console import EXIT_CODES, Terminal
from vermilion.cli.options import OUTPUT
from vermilion.training.augment import AugmentOptions, SpecAugmentOptions
from vermilion.training.options import DataOptions, TrainingOptions

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


def recipe(command: Callable[..., int], examples: str) -> App:
    """Wrap a sub-command so that its help ends with examples and exit codes."""
    app = App(
        name=command.__name__,
        help_epilogue=f"{examples}\n\n{EXIT_CODES}",
        help_format="plaintext",
        default_parameter=Parameter(negative_iterable=()),
        result_action="return_value",
    )
    app.default(command)
    return app


def ended(terminal: Terminal, outcome: Outcome, training: TrainingOptions, json: bool) -> None:
    """Say how a training ended."""
    if json:
        found: dict[str, Any] = {"step": outcome.step, "finished": outcome.finished, **outcome.validation}
        terminal.json({**found, "output_dir": str(training.output_dir)})
    elif outcome.finished:
        terminal.say(f"finished after {outcome.step} steps: the model lies in {training.output_dir / 'model'}")
    if not outcome.finished:
        terminal.warn(f"interrupted after {outcome.step} steps; the same command goes on from there")
