"""Learning rates as plain functions of the step: nothing to save, nothing to restore."""

from __future__ import annotations

import math

from vermilion.training.options import TrainingOptions


def learning_rate(options: TrainingOptions, step: int) -> float:
    """The learning rate of a step.

    Args:
        options: peak, warm-up, kind of schedule, number of steps.
        step: updates done before this one.

    Returns:
        A linear rise to the peak, then the chosen fall: with the inverse root of the step ("Noam"), or along a cosine
        or a line to 0 after the last step.
    """
    warm = options.warmup_steps
    if step < warm:
        return options.learning_rate * (step + 1) / warm
    left = max(0.0, 1 - (step - warm) / max(1, options.steps - warm))  # 1 → 0
    factor = {
        "inverse-sqrt": math.sqrt(max(1, warm) / max(1, step + 1, warm)),
        "cosine": 0.5 * (1 - math.cos(math.pi * left)),
        "linear": left,
        "constant": 1.0,
    }[options.schedule]
    return options.learning_rate * factor
