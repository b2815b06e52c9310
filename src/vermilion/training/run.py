"""What belongs to one process of a training, and how a training ended."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from vermilion.training.log import Report, TrainingProgress
from vermilion.training.options import TrainingOptions
from vermilion.training.skipping import Skips

if TYPE_CHECKING:
    from accelerate import Accelerator

Losses = Mapping[str, Tensor]
"""scalars by name: "loss" is trained on, all are logged"""
Batches = Callable[[int, int], Iterable[tuple[int, int, Any]]]
"""(epoch, index) of the first batch → (epoch, index, batch) without end, in an order that is always the same"""


@dataclass
class Run:
    """What belongs to the process: its options, its device, its number among others."""

    options: TrainingOptions
    accelerator: Accelerator
    report: Report = lambda _: None
    """told of the progress"""
    skips: Skips = field(default_factory=Skips)
    """told of recordings that cannot be used"""

    @property
    def device(self) -> torch.device:
        """Where batches must be."""
        return cast(torch.device, self.accelerator.device)

    @property
    def rank(self) -> int:
        """Number of this process."""
        return int(self.accelerator.process_index)

    @property
    def world(self) -> int:
        """How many processes train together."""
        return int(self.accelerator.num_processes)

    def say(self, text: str) -> None:
        """Remark on what the training begins with."""
        if self.accelerator.is_main_process and text:
            self.report(TrainingProgress(0, self.options.steps, math.nan, 0.0, text))


@dataclass(frozen=True)
class Outcome:
    """How a training ended; the network holds the final (averaged) weights if it finished."""

    step: int
    finished: bool
    """False: it was interrupted and saved; the same command goes on"""
    validation: dict[str, float] = field(default_factory=dict)
    """last validation"""
    skipped: tuple[str, ...] = ()
    """ids of recordings that could not be used, in this and earlier parts; skipped.jsonl says why"""
    main: bool = True
    """whether this process speaks for all"""
