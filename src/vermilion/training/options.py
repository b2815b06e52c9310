"""The options that every recipe shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vermilion.errors import OptionsError

MAY_CHANGE = frozenset(
    {"output_dir", "device", "threads", "log_every", "save_every", "keep", "validate_every", "average_last"}
    | {"tensorboard", "resume", "retune", "max_hours", "steps", "workers", "processes", "half", "max_bad_share"}
)
"""options that may change when a training goes on from a checkpoint; all others must stay as they were"""
TUNABLE = frozenset({"learning_rate", "warmup_steps", "schedule", "clip_norm", "weight_decay", "precision"})
"""options that may change too where `retune` says so"""


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
    retune: bool = False
    """Go on with another learning rate, warm-up, schedule, clip_norm, weight_decay or precision than before."""
    max_bad_share: float = 0.1
    """Recordings that cannot be read are skipped and listed in skipped.jsonl; a larger share of them ends the
    training; 1 = never."""
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
        if not 0 <= self.max_bad_share <= 1:
            raise OptionsError(f"max_bad_share is {self.max_bad_share}; it must lie from 0 to 1")
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


@dataclass(frozen=True)
class DataOptions:
    """Which utterances are used and how they are batched."""

    max_frames: int = 8000
    """Frames (10 ms) of a batch, padding counted."""
    max_items: int = 256
    """Utterances of a batch."""
    max_seconds: float = 30.0
    """Longer utterances are left out."""
    min_seconds: float = 0.1
    """Shorter utterances are left out."""
    buckets: int = 30
    """Groups of similar length: more mean less padding and less chance."""
    workers: int = 2
    """Threads that read, augment and compute features ahead."""
    processes: int = 0
    """Processes that do it instead (for GPUs, which threads cannot keep busy); 0 = threads."""
    buffer: int = 100_000
    """Lines of a manifest that are held in memory at a time; larger manifests are read in stretches, in another order
    in each epoch."""

    def __post_init__(self) -> None:
        """Check the domain.

        Raises:
            OptionsError: a value is out of its domain.
        """
        for name in ("max_frames", "max_items", "buckets", "buffer"):
            if getattr(self, name) < 1:
                raise OptionsError(f"{name} is {getattr(self, name)}; at least 1 is needed")
        if min(self.workers, self.processes) < 0:
            raise OptionsError("workers and processes cannot be negative")
        if not 0 <= self.min_seconds < self.max_seconds:
            raise OptionsError(f"utterances of {self.min_seconds} to {self.max_seconds} s are none at all")


@dataclass(frozen=True)
class TokenOptions:
    """What becomes a token."""

    pieces: int = 1000
    """Pieces of the English vocabulary, single letters included."""
    min_count: int = 1
    """Characters that occur less often are unknown."""

    def __post_init__(self) -> None:
        """Check the domain.

        Raises:
            OptionsError: a value is out of its domain.
        """
        if self.pieces < 1 or self.min_count < 1:
            raise OptionsError("pieces and min_count must be at least 1")


@dataclass(frozen=True)
class AedSizes:
    """Sizes of the networks."""

    d_model: int
    n_head: int
    n_layers_enc: int
    n_layers_dec: int
    kernel_size: int = 33


PRESETS: Mapping[str, AedSizes] = {
    "mini": AedSizes(160, 4, 10, 4, 15),
    "xs": AedSizes(512, 8, 12, 12),
    "s": AedSizes(768, 12, 16, 16),
    "m": AedSizes(1024, 16, 16, 16),
    "l": AedSizes(1280, 20, 16, 16),
}
"""mini: for two cores; the others as reported, 140 M to 1.1 B parameters (arXiv 2501.14350, table 1)"""


@dataclass(frozen=True)
class AedOptions:
    """What is trained and how."""

    preset: Literal["mini", "xs", "s", "m", "l"] = "mini"
    """Size: mini (9 M parameters, for small data and CPUs), xs (140 M), s (410 M), m (730 M), l (1.1 B, the published
    size). Not used with --init."""
    width: int = 0
    """Another width of all layers than the preset's; 0 = the preset's."""
    heads: int = 0
    """Another number of attention heads."""
    encoder_layers: int = 0
    """Another number of encoder layers."""
    decoder_layers: int = 0
    """Another number of decoder layers."""
    init: Path | None = None
    """Folder of a published model to start from (fine-tuning): its sizes, tokens and statistics are kept."""
    lora_rank: int = 0
    """With --init: train low-rank additions of this rank to all matrices and nothing else; 0 = train all weights."""
    lora_alpha: float = 32.0
    """Strength of the additions: they are scaled by alpha / rank."""
    ctc_weight: float = 0.3
    """Share of the CTC loss, which also gives word times; 0 = no CTC head (`vermilion train ctc` adds one later)."""
    label_smoothing: float = 0.1
    """Share of the target probability that is spread over all tokens."""
    dropout: float = 0.1
    """Dropout of everything that a layer adds, and of attention."""
    plain_steps: int = 0
    """Progressive regularisation: so many first steps without dropout and SpecAugment, which lets the network find
    the alignment sooner."""
    mask: bool = True
    """SpecAugment."""
    half: bool = False
    """Publish matrices in float16: half the size."""

    def __post_init__(self) -> None:
        """Check the domain.

        Raises:
            OptionsError: a value is out of its domain.
        """
        for name in ("ctc_weight", "label_smoothing", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise OptionsError(f"{name} is {getattr(self, name)}; it must lie from 0 to below 1")
        if self.preset not in PRESETS:
            raise OptionsError(f"preset is {self.preset!r}; there are {', '.join(PRESETS)}")
        if self.lora_rank < 0 or self.plain_steps < 0:
            raise OptionsError("lora_rank and plain_steps cannot be negative")
        if min(self.width, self.heads, self.encoder_layers, self.decoder_layers) < 0:
            raise OptionsError("sizes cannot be negative")
        if self.sizes.d_model % (2 * self.sizes.n_head):
            raise OptionsError(f"width {self.sizes.d_model} must be an even multiple of heads ({self.sizes.n_head})")
        if self.lora_rank and self.init is None:
            raise OptionsError("lora_rank needs --init: low-rank additions change a model that is trained already")

    @property
    def sizes(self) -> AedSizes:
        """Sizes of a network that is trained from scratch."""
        preset = PRESETS[self.preset]
        return AedSizes(
            self.width or preset.d_model,
            self.heads or preset.n_head,
            self.encoder_layers or preset.n_layers_enc,
            self.decoder_layers or preset.n_layers_dec,
            preset.kernel_size,
        )


@dataclass(frozen=True)
class CtcOptions:
    """How a CTC head is trained for a recogniser that stays as it is."""

    fresh: bool = False
    """Begin with a new head though the model has one."""


@dataclass(frozen=True)
class LidOptions:
    """How a language identifier is trained."""

    encoder: Path | None = None
    """Folder of a recogniser (or language identifier) whose encoder, sizes and statistics are taken; without, a
    preset's encoder starts from nothing."""
    encoder_layers: int = 0
    """Take only so many first layers of it; 0 = all."""
    decoder_layers: int = 2
    """Layers of the new decoder."""
    freeze_encoder: bool = False
    """Train the decoder alone."""
    preset: Literal["mini", "xs", "s", "m", "l"] = "mini"
    """Size of an encoder that starts from nothing."""
    balance: float = 0.5
    """How far rare languages are repeated: 0 = as the data are, 1 = all languages equally often."""
    most_repeats: int = 10
    """An utterance is repeated at most so often in an epoch."""
    label_smoothing: float = 0.1
    """Share of the target probability that is spread over all labels."""
    dropout: float = 0.1
    """Dropout of everything that a layer adds, and of attention."""
    mask: bool = True
    """SpecAugment."""
    half: bool = False
    """Publish matrices in float16: half the size."""

    def __post_init__(self) -> None:
        """Check the domain.

        Raises:
            OptionsError: a value is out of its domain.
        """
        for name in ("label_smoothing", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise OptionsError(f"{name} is {getattr(self, name)}; it must lie from 0 to below 1")
        if not 0 <= self.balance <= 1:
            raise OptionsError(f"balance is {self.balance}; it must lie from 0 to 1")
        if self.encoder_layers < 0 or self.decoder_layers < 1 or self.most_repeats < 1:
            raise OptionsError("encoder_layers cannot be negative, decoder_layers and most_repeats must be at least 1")
        if self.preset not in PRESETS:
            raise OptionsError(f"preset is {self.preset!r}; there are {', '.join(PRESETS)}")
        if self.freeze_encoder and self.encoder is None:
            raise OptionsError("freeze_encoder needs --encoder: an encoder that starts from nothing must be trained")
