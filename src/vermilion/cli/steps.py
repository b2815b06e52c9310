"""The progress bar of trainings: steps done of steps in all, loss, speed, time left, the last remark."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vermilion.cli.console import Terminal
from vermilion.cli.progress import clock

if TYPE_CHECKING:
    from vermilion.training.log import Report, TrainingProgress


@contextmanager
def training_bar(terminal: Terminal) -> Iterator[Report]:
    """Draw a bar on stderr; without a terminal remarks (validations) are written, and a line a minute."""
    if terminal.quiet or not terminal.err.is_terminal:
        yield Lines(terminal)
        return
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.fields[pace]}"))
    with Bar(*columns, console=terminal.err, transient=True, redirect_stdout=False, redirect_stderr=False) as bar:
        task = bar.add_task("starting", total=None, pace="")

        def show(progress: TrainingProgress) -> None:
            _remark(terminal, progress)
            what = progress.what if progress.what in _STATES else "training"
            bar.update(task, description=what, total=progress.steps, completed=progress.step, pace=_pace(progress))

        yield show


class Lines:
    """Remarks, and how far the training is once a minute."""

    def __init__(self, terminal: Terminal, clock: Callable[[], float] = time.monotonic) -> None:
        """Take where lines go, and what tells the time in seconds."""
        self.terminal, self.clock = terminal, clock
        self.said = clock()

    def __call__(self, progress: TrainingProgress) -> None:
        """Take a step."""
        _remark(self.terminal, progress)
        now = self.clock()
        if progress.what == "training" and now - self.said >= EVERY_SECONDS:
            self.said = now
            self.terminal.say(f"step {_pace(progress)}")


EVERY_SECONDS = 60.0
"""between lines of a training that nobody watches"""
_STATES = ("training", "validating", "saving")


def _remark(terminal: Terminal, progress: TrainingProgress) -> None:
    if progress.what not in _STATES:
        terminal.say(f"step {progress.step}: {progress.what}" if progress.step else progress.what)


def _pace(progress: TrainingProgress) -> str:
    pace = f"{progress.step:,} of {progress.steps:,}"
    if not math.isnan(progress.loss):
        pace += f" · loss {progress.loss:.3f}"
    if progress.rate:
        left = (progress.steps - progress.step) / progress.rate
        pace += f" · {progress.rate:.2g} steps/s · {clock(left)} left"
    return pace
