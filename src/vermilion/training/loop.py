"""The step that every recipe repeats: batches → gradients → update, with logs, checkpoints, validation and a clean end.

A recipe is a flat function: `begin`, build data and network, `train`, publish. Everything random in the data must be
decided by (seed, epoch, item), so that the place in the data and torch's random state say how a training goes on.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import nn

from vermilion.errors import OptionsError, TrainingError, missing
from vermilion.runtime import default_threads, set_threads
from vermilion.training.checkpoints import training_checkpoints
from vermilion.training.log import MetricsLog, Report
from vermilion.training.options import TrainingOptions
from vermilion.training.run import Batches, Losses, Outcome, Run
from vermilion.training.settings import plain
from vermilion.training.skipping import Skips
from vermilion.training.stepping import Loop
from vermilion.training.stopping import stop_requested

__all__ = ["Batches", "Losses", "Outcome", "Run", "adamw", "begin", "train"]

_MIXED = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}


def begin(options: TrainingOptions, report: Report | None = None) -> Run:
    """Set seeds, threads and device. Call it before the network is built.

    Raises:
        MissingDependencyError: accelerate is not installed.
        OptionsError: the device is not there.
        TrainingError: the output folder cannot be used.
    """
    try:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState, PartialState
    except ImportError as error:
        raise missing("training needs accelerate", "training") from error
    if options.device == "cuda" and not torch.cuda.is_available():
        raise OptionsError("device is cuda, but there is no GPU that torch can use: take cpu or auto")
    if not options.resume and training_checkpoints(options.output_dir):
        raise TrainingError(f"{options.output_dir} holds a training already: resume it, or give another output_dir")
    try:
        options.output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"cannot use the folder {options.output_dir}: {error}") from error
    if "WORLD_SIZE" not in os.environ and PartialState._shared_state:
        AcceleratorState._reset_state(reset_partial_state=True)  # a training before this one in the same process
    accelerator = Accelerator(mixed_precision=_MIXED[options.precision], cpu=options.device == "cpu")
    set_threads(options.threads or default_threads(int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    for seed in (torch.manual_seed, random.seed, np.random.seed):
        seed(options.seed)  # the same everywhere: all processes must build the same network
    skips = Skips(options.output_dir, options.max_bad_share)
    if accelerator.is_main_process and not training_checkpoints(options.output_dir):
        skips.forget()
    return Run(options, accelerator, report or (lambda _: None), skips)


def train(
    run: Run,
    network: nn.Module,
    loss: Callable[[nn.Module, Any], Losses],
    batches: Batches,
    *,
    validate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    before_step: Callable[[int], None] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    settings: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
) -> Outcome:
    """Train until the last step, going on from the newest checkpoint of the output folder.

    Args:
        run: of `begin`.
        network: float32, on any device; parameters without gradients are frozen and not saved.
        loss: (network, batch) → losses; "loss" is the mean over the batch that is minimised. Call the network that
            is passed (it may be wrapped), and its `forward` for everything that needs gradients.
        batches: from a place on, on this process (`BucketBatches.positions` has this form).
        validate: (network in evaluation mode, without gradients) → numbers by name, "loss" among them if there is one.
        before_step: called with the number of updates done, for what changes in the course of a training.
        optimizer: None = AdamW (`adamw`). A group's "scale" multiplies its learning rate.
        settings: what else must not change between the parts of a training: plain values or options.
        data: numbers and digest of the data: where they differ from the checkpoint's, that is said.

    Returns:
        How it ended. Files: checkpoints/, metrics.jsonl, loss.png, skipped.jsonl.

    Raises:
        TrainingError: the loss is no number, or the checkpoint is that of another training. Whatever ends a training,
            what was learnt so far is saved.
    """
    loop = Loop(run, network, loss, optimizer or adamw(network, run.options), plain(settings or {}), plain(data or {}))
    loop.resume()
    with ExitStack() as stack:
        stop = stack.enter_context(stop_requested())
        if run.accelerator.is_main_process:
            loop.log = MetricsLog(run.options.output_dir, loop.step, run.options.tensorboard)
            stack.callback(loop.log.close)
        return loop.go(batches, stop, validate, before_step)


def adamw(network: nn.Module, options: TrainingOptions) -> torch.optim.AdamW:
    """The usual optimiser: matrices decay, biases, norms and embeddings' vectors of one dimension do not."""
    trained = [p for p in network.parameters() if p.requires_grad]
    if not trained:
        raise TrainingError("all weights of the network are frozen: there is nothing to train")
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=options.learning_rate, betas=(0.9, 0.98), eps=1e-9, fused=True)
