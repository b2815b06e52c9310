"""The step that every recipe repeats: batches → gradients → update, with logs, checkpoints, validation and a clean end.

A recipe is a flat function: `begin`, build data and network, `train`, publish. Everything random in the data must be
decided by (seed, epoch, item), so that the place in the data and torch's random state say how a training goes on.
"""

from __future__ import annotations

import json
import math
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from vermilion.errors import MissingDependencyError, OptionsError, TrainingError
from vermilion.runtime import default_threads, set_threads
from vermilion.training.averaging import ExponentialAverage, mean_of_checkpoints
from vermilion.training.checkpoints import (
    TrainingCheckpoint,
    load_trained_state,
    random_state,
    read_training_checkpoint,
    set_random_state,
    trained_state,
    training_checkpoints,
    write_training_checkpoint,
)
from vermilion.training.log import MetricsLog, Report, TrainingProgress, draw_curve
from vermilion.training.options import MAY_CHANGE, TrainingOptions
from vermilion.training.schedules import learning_rate

if TYPE_CHECKING:
    from accelerate import Accelerator

Losses = Mapping[str, Tensor]
"""scalars by name: "loss" is trained on, all are logged"""
Batches = Callable[[int, int], Iterable[tuple[int, int, Any]]]
"""(epoch, index) of the first batch → (epoch, index, batch) without end, in an order that is always the same"""
_MIXED = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}


@dataclass
class Run:
    """What belongs to the process: its options, its device, its number among others."""

    options: TrainingOptions
    accelerator: Accelerator
    report: Report = lambda _: None
    """told of the progress"""

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


@dataclass(frozen=True)
class Outcome:
    """How a training ended; the network holds the final (averaged) weights if it finished."""

    step: int
    finished: bool
    """False: it was interrupted and saved; the same command goes on"""
    validation: dict[str, float] = field(default_factory=dict)
    """last validation"""


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
        raise MissingDependencyError('training needs: pip install "vermilion[training]"') from error
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
    return Run(options, accelerator, report or (lambda _: None))


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

    Returns:
        How it ended. Files: checkpoints/, metrics.jsonl, loss.png.

    Raises:
        TrainingError: the loss is no number, or the checkpoint is that of another training.
    """
    loop = _Loop(run, network, loss, optimizer or adamw(network, run.options), _plain(settings or {}))
    step, epoch, index = loop.resume()
    with ExitStack() as stack:
        stop = stack.enter_context(stop_requested())
        if run.accelerator.is_main_process:
            loop.log = MetricsLog(run.options.output_dir, step, run.options.tensorboard)
            stack.callback(loop.log.close)
        return loop.go(step, epoch, index, batches, stop, validate, before_step)


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


class _Loop:
    """State of one call of `train`."""

    def __init__(
        self,
        run: Run,
        network: nn.Module,
        loss: Callable[[nn.Module, Any], Losses],
        optimizer: torch.optim.Optimizer,
        settings: dict[str, Any],
    ) -> None:
        self.run, self.options, self.accelerator = run, run.options, run.accelerator
        self.network, self.loss = network, loss
        self.wrapped, self.optimizer = self.accelerator.prepare(network.to(run.device), optimizer)
        self.average = ExponentialAverage(network, self.options.ema_decay) if self.options.ema_decay else None
        kept = {f.name: getattr(self.options, f.name) for f in fields(self.options) if f.name not in MAY_CHANGE}
        self.settings = _plain({**settings, **kept, "world": run.world})
        self.log: MetricsLog | None = None
        self.seconds = 0.0
        self.since = _Means()

    # -- going on ------------------------------------------------------------------------------------------------

    def resume(self) -> tuple[int, int, int]:
        """Load the newest checkpoint: (step, epoch, index)."""
        found = training_checkpoints(self.options.output_dir)
        if not found:
            if self.run.world > 1:
                torch.manual_seed(self.options.seed + self.run.rank)  # dropout differs from process to process
            return 0, 0, 0
        state = read_training_checkpoint(found[-1])
        self._check_settings(state.settings, found[-1])
        load_trained_state(self.network, state.weights, found[-1])
        self.optimizer.load_state_dict(state.optimizer)
        if self.average is not None and state.average is not None:
            self.average.load_state_dict(state.average)
        if self.accelerator.scaler is not None and state.scaler:
            self.accelerator.scaler.load_state_dict(state.scaler)
        set_random_state(state.random_states[self.run.rank])
        self.seconds = state.seconds
        return state.step, state.epoch, state.index

    def _check_settings(self, saved: Mapping[str, Any], source: Path) -> None:
        changed = list(_differences(saved, self.settings))
        if changed:
            was = ", ".join(f"{name} was {before!r} and is {now!r}" for name, before, now in changed)
            raise TrainingError(f"{source} belongs to another training ({was}): use its options or another output_dir")

    def save(self, step: int, epoch: int, index: int) -> None:
        """Write a checkpoint; all processes take part."""
        self.tell(step, "saving")
        states = _from_all(random_state(), self.run.world)
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler
            checkpoint = TrainingCheckpoint(
                step,
                epoch,
                index,
                weights=trained_state(self.network),
                optimizer=self.optimizer.state_dict(),
                average=self.average.state_dict() if self.average is not None else None,
                scaler=scaler.state_dict() if scaler is not None else {},
                random_states=states,
                settings=self.settings,
                seconds=self.seconds,
            )
            keep = max(self.options.keep, self.options.average_last)
            write_training_checkpoint(self.options.output_dir, checkpoint, keep)
        self.accelerator.wait_for_everyone()

    # -- steps ---------------------------------------------------------------------------------------------------

    def go(
        self,
        step: int,
        epoch: int,
        index: int,
        batches: Batches,
        stop: threading.Event,
        validate: Callable[[nn.Module], Mapping[str, float]] | None,
        before_step: Callable[[int], None] | None,
    ) -> Outcome:
        """Step by step to the end."""
        options = self.options
        saved, validated, found = step, -1, {}
        stream = iter(batches(epoch, index)) if step < options.steps else iter(())
        self.tell(step, "training")
        halted = False
        while step < options.steps and not (halted := self._any(stop.is_set())) and not self._any(self._late()):
            if before_step is not None:
                before_step(step)
            epoch, index = self._update(stream, step)
            step += 1
            if step % options.log_every == 0:
                self._write_log(step, epoch)
            if validate is not None and options.validate_every and step % options.validate_every == 0:
                validated, found = step, self._validate(validate, step)
            if step % options.save_every == 0:
                saved = step
                self.save(step, epoch, index)
        if step > saved:
            self.save(step, epoch, index)
        if not halted:
            self._settle()
            if validate is not None and (validated < step or options.average_last):
                found = self._validate(validate, step, final=True)
        if self.accelerator.is_main_process:
            draw_curve(options.output_dir)
        self.accelerator.wait_for_everyone()
        return Outcome(step, not halted, found)

    def _update(self, stream: Iterator[tuple[int, int, Any]], step: int) -> tuple[int, int]:
        """One update out of `accumulation` batches → the place of the next batch."""
        began = time.perf_counter()
        self.wrapped.train()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.options, step) * group.get("scale", 1.0)
        losses: list[Losses] = []
        parts = list(islice(stream, self.options.accumulation))
        if not parts:
            raise TrainingError("there are no batches left to train on: the data must come again and again")
        epoch, index, _ = parts[-1]
        for number, (_, _, batch) in enumerate(parts, 1):
            last = number == len(parts)
            with nullcontext() if last else self.accelerator.no_sync(self.wrapped):
                with self.accelerator.autocast():
                    found = self.loss(self.wrapped, batch)
                self.accelerator.backward(found["loss"] / len(parts))
            losses.append({name: value.detach() for name, value in found.items()})
        norm = self.accelerator.clip_grad_norm_(self.wrapped.parameters(), self.options.clip_norm or math.inf)
        self._check(losses, norm, step, (epoch, index))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(step + 1)
        took = time.perf_counter() - began
        self.seconds += took
        self.since.add(losses, float(norm), took)
        self.tell(step + 1, "training")
        return epoch, index + 1

    def _check(self, losses: list[Losses], norm: Tensor, step: int, place: tuple[int, int]) -> None:
        """Stop before a broken gradient destroys the weights; float16's scaler skips such steps by itself."""
        values = [float(found["loss"]) for found in losses]
        if not all(map(math.isfinite, values)):
            what = f"the loss is {values}"
        elif not math.isfinite(float(norm)) and self.accelerator.scaler is None:
            what = "the gradient is not finite"
        else:
            return
        raise TrainingError(
            f"{what} at step {step + 1} (epoch {place[0]}, batch {place[1]}): lower learning_rate or clip_norm, "
            "lengthen warmup_steps, or train in float32; the last checkpoint is intact"
        )

    def _validate(
        self, validate: Callable[[nn.Module], Mapping[str, float]], step: int, *, final: bool = False
    ) -> dict[str, float]:
        self.tell(step, "validating")
        began = time.perf_counter()
        self.network.eval()
        average = nullcontext() if final or self.average is None else self.average.applied()
        with torch.no_grad(), average, self.accelerator.autocast():
            found = {f"valid_{name}": float(value) for name, value in validate(self.network).items()}
        if self.log is not None:
            self.log.write(step, found)
        self.seconds += time.perf_counter() - began
        self.tell(step, ", ".join(f"{name} {value:.4g}" for name, value in found.items()))
        return found

    def _settle(self) -> None:
        """Put the weights that are published into the network."""
        if self.average is not None:
            self.average.copy_to_network()
        elif self.options.average_last > 1:
            files = training_checkpoints(self.options.output_dir)[-self.options.average_last :]
            load_trained_state(self.network, mean_of_checkpoints(files), files[-1])
        self.network.eval()

    def _write_log(self, step: int, epoch: int) -> None:
        values = self.since.take()
        rate = learning_rate(self.options, step - 1)
        if self.log is not None:
            self.log.write(step, {**values, "learning_rate": rate, "epoch": epoch, "hours": self.seconds / 3600})

    def tell(self, step: int, what: str) -> None:
        """Report progress."""
        if self.accelerator.is_main_process:
            self.run.report(TrainingProgress(step, self.options.steps, self.since.last, self.since.rate, what))

    def _late(self) -> bool:
        return 0 < self.options.max_hours * 3600 <= self.seconds

    def _any(self, here: bool) -> bool:
        """Whether something holds on any process: all must stop at the same step."""
        if self.run.world == 1:
            return here
        flag = torch.tensor(float(here), device=self.run.device)
        return bool(self.accelerator.reduce(flag, reduction="sum") > 0)


@dataclass
class _Means:
    """Means of losses since the last line of the log."""

    sums: dict[str, float] = field(default_factory=dict)
    count: int = 0
    seconds: float = 0.0
    last: float = math.nan
    """mean loss when a step was last added"""
    rate: float = 0.0
    """steps per second then"""

    def add(self, losses: list[Losses], norm: float, seconds: float) -> None:
        """Take one step."""
        found = {name: sum(float(x[name]) for x in losses) / len(losses) for name in losses[0]}
        for name, value in {**found, "gradient_norm": norm}.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.count += 1
        self.seconds += seconds
        self.last, self.rate = self.sums["loss"] / self.count, self.count / max(self.seconds, 1e-9)

    def take(self) -> dict[str, float]:
        """The means; begins again."""
        found = {name: value / self.count for name, value in self.sums.items()}
        found["steps_per_second"] = self.count / max(self.seconds, 1e-9)
        self.sums, self.count, self.seconds = {}, 0, 0.0
        return found


@contextmanager
def stop_requested() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set; a second SIGINT interrupts at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def handle(number: int, _: Any) -> None:
        if event.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        event.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _from_all(value: Any, world: int) -> list[Any]:
    if world == 1:
        return [value]
    from accelerate.utils import gather_object

    return list(gather_object([value]))


def _differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield settings that have changed, nested ones by their own names; one that is new has its old default."""
    for name in sorted(saved.keys() & now.keys()):
        before, after = saved[name], now[name]
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _differences(before, after)
        elif before != after and name not in MAY_CHANGE:
            yield name, before, after


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they look after having been written and read: options become dictionaries, tuples lists."""
    unfolded = {k: asdict(v) if is_dataclass(v) and not isinstance(v, type) else v for k, v in settings.items()}
    with suppress(TypeError):
        return cast(dict[str, Any], json.loads(json.dumps(unfolded, default=str)))
    raise TrainingError("settings of a training must be plain values")
