"""The options that every recipe shares."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vermilion.errors import OptionsError

TRIED_ANEW = frozenset(
    {"output_dir", "device", "threads", "log_every", "save_every", "keep", "validate_every", "average_last"}
    | {"tensorboard", "resume", "max_hours", "steps"}
)
"""options that may change when a training goes on from a checkpoint; all others must stay as they were"""


@dataclass(frozen=True)
class TrainingOptions:
    """How long, how fast, in which precision; what is written and when."""

    output_dir: Path = Path("training")
    """Folder for checkpoints, logs, the loss curve and the finished model."""
    steps: int = 10_000
    """Updates of the weights in all."""
    max_hours: float = 0.0
    """Finish (average, publish) after so many hours though steps are left; 0 = no limit."""
    learning_rate: float = 1e-3
    """Highest learning rate, reached after the warm-up."""
    warmup_steps: int = 1000
    """Steps over which the learning rate rises from 0."""
    schedule: Literal["inverse-sqrt", "cosine", "linear", "constant"] = "inverse-sqrt"
    """How the learning rate falls afterwards: with the root of the step, or along a cosine or a line to 0 at the last
    step; or not at all."""
    weight_decay: float = 0.01
    """Decay of matrices (AdamW); biases and norms are left alone."""
    accumulation: int = 1
    """Batches whose gradients are summed before each step."""
    clip_norm: float = 5.0
    """Largest norm of the gradient; 0 = no limit."""
    ema_decay: float = 0.0
    """Decay of the moving average of the weights that is validated and published; 0 = none."""
    average_last: int = 0
    """Publish the mean of so many last checkpoints; 0 = the last weights (or their moving average)."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format of the forward and backward pass; weights and their updates stay float32."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them: less memory, a third more time."""
    seed: int = 0
    """Decides everything random; the same seed gives the same training."""
    save_every: int = 1000
    """Steps between checkpoints from which a training goes on; one is written at the end in any case."""
    keep: int = 3
    """How many last checkpoints stay (at least `average_last`)."""
    validate_every: int = 1000
    """Steps between validations; 0 = only at the end."""
    log_every: int = 50
    """Steps between lines of metrics.jsonl; they hold the means since the line before."""
    tensorboard: bool = False
    """Write TensorBoard's event files too."""
    resume: bool = True
    """Go on from the newest checkpoint of the output folder; without, a folder that has one is refused."""
    threads: int = 0
    """Threads of the networks on a CPU; 0 = the cores that this process may use."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto = on the GPU if there is one. `accelerate launch` starts it on several."""

    def __post_init__(self) -> None:
        """Check the domain.

        Raises:
            OptionsError: a value is out of its domain.
        """
        for name in ("steps", "accumulation", "save_every", "keep", "log_every"):
            if getattr(self, name) < 1:
                raise OptionsError(f"{name} is {getattr(self, name)}; at least 1 is needed")
        for name in ("warmup_steps", "weight_decay", "clip_norm", "average_last", "validate_every", "threads", "seed"):
            if getattr(self, name) < 0:
                raise OptionsError(f"{name} is {getattr(self, name)}; it cannot be negative")
        if self.learning_rate <= 0 or self.max_hours < 0:
            raise OptionsError("learning_rate must be above 0 and max_hours not below")
        if not 0 <= self.ema_decay < 1:
            raise OptionsError(f"ema_decay is {self.ema_decay}; it must lie from 0 to below 1")
        if self.ema_decay and self.average_last:
            raise OptionsError("ema_decay and average_last are two ways to average: give one")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise OptionsError(f"{name} is {getattr(self, name)!r}; there are {', '.join(known)}")


_CHOICES = {
    "schedule": ("inverse-sqrt", "cosine", "linear", "constant"),
    "precision": ("float32", "bfloat16", "float16"),
    "device": ("auto", "cpu", "cuda"),
}
