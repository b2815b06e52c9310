"""One call of `train`, step by step: updates, logs, checkpoints, validation, and what is done about errors."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, fields
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from vermilion.errors import TrainingError
from vermilion.training.averaging import ExponentialAverage, mean_of_checkpoints
from vermilion.training.checkpoints import (
    TrainingCheckpoint,
    load_trained_state,
    random_state,
    read_training_checkpoint,
    reason,
    set_random_state,
    trained_state,
    training_checkpoints,
    write_training_checkpoint,
)
from vermilion.training.log import MetricsLog, TrainingProgress, draw_curve
from vermilion.training.options import MAY_CHANGE
from vermilion.training.run import Batches, Losses, Outcome, Run
from vermilion.training.schedules import learning_rate
from vermilion.training.settings import check_settings, data_change, plain


class _NotFinite(TrainingError):
    """A loss or gradient is no number; the weights are as they were before."""


class Loop:
    """The state of a training."""

    def __init__(
        self,
        run: Run,
        network: nn.Module,
        loss: Callable[[nn.Module, Any], Losses],
        optimizer: torch.optim.Optimizer,
        settings: dict[str, Any],
        data: dict[str, Any],
    ) -> None:
        self.run, self.options, self.accelerator = run, run.options, run.accelerator
        self.network, self.loss = network, loss
        self.wrapped, self.optimizer = self.accelerator.prepare(network.to(run.device), optimizer)
        self.average = ExponentialAverage(network, self.options.ema_decay) if self.options.ema_decay else None
        kept = {f.name: getattr(self.options, f.name) for f in fields(self.options) if f.name not in MAY_CHANGE}
        self.settings = plain({**settings, **kept, "world": run.world})
        self.data = data
        self.log: MetricsLog | None = None
        self.seconds = 0.0
        self.since = _Means()
        self.step = self.epoch = self.index = 0
        """updates done, and the place of the next batch"""
        self.saved = 0
        """step of the newest checkpoint"""
        self.random: dict[str, Any] = {}
        """random state after that many updates"""

    # -- going on ------------------------------------------------------------------------------------------------

    def resume(self) -> None:
        """Load the newest checkpoint, if there is one."""
        self._describe()
        found = training_checkpoints(self.options.output_dir)
        if not found:
            if self.run.world > 1:
                torch.manual_seed(self.options.seed + self.run.rank)  # dropout differs from process to process
            return
        state = read_training_checkpoint(found[-1])
        changed = check_settings(state.settings, self.settings, found[-1], self.options.retune)
        load_trained_state(self.network, state.weights, found[-1])
        self._load_optimizer(state.optimizer)
        if self.average is not None and state.average is not None:
            self.average.load_state_dict(state.average)
        if self.accelerator.scaler is not None and state.scaler:
            self.accelerator.scaler.load_state_dict(state.scaler)
        self._load_random(state)
        self.seconds = state.seconds
        self.since = _Means(**state.means)
        self.step, self.epoch, self.index = state.step, state.epoch, state.index
        self.saved = state.step
        for remark in (f"going on after step {state.step}", changed, data_change(state.data, self.data)):
            self.run.say(remark)

    def _describe(self) -> None:
        """Say what is trained where."""
        sizes = [sum(p.numel() for p in self.network.parameters() if p.requires_grad or not only) for only in (0, 1)]
        trained = "" if sizes[0] == sizes[1] else f", {sizes[1] / 1e6:.2f} M of them trained"
        more = f", {self.run.world} processes" if self.run.world > 1 else ""
        where = f"{self.run.device}, {torch.get_num_threads()} threads, {self.options.precision}{more}"
        self.run.say(f"network: {sizes[0] / 1e6:.2f} M parameters{trained}; {where}")

    def _load_optimizer(self, state: dict[str, Any]) -> None:
        """Load moments; the decay is today's, the learning rate is set at each step."""
        decays = [group["weight_decay"] for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state)
        for group, decay in zip(self.optimizer.param_groups, decays, strict=True):
            group["weight_decay"] = decay

    def _load_random(self, state: TrainingCheckpoint) -> None:
        own = state.random_states[self.run.rank] if self.run.rank < len(state.random_states) else None
        if own is None:  # saved after an error, when this process could not be asked
            torch.manual_seed(self.options.seed + self.run.rank + state.step)
        else:
            set_random_state(own)

    def save(self) -> None:
        """Write a checkpoint; all processes take part."""
        self.tell("saving")
        states = _from_all(random_state(), self.run.world)
        if self.accelerator.is_main_process:
            self._write(states, max(self.options.keep, self.options.average_last))
        self.saved = self.step
        self.accelerator.wait_for_everyone()

    def rescue(self) -> str:
        """Save alone after an error: other processes may be gone. What came of it, for people."""
        if self.step <= self.saved or not self.accelerator.is_main_process:
            return ""
        states: list[dict[str, Any] | None] = [None] * self.run.world
        states[self.run.rank] = self.random
        try:
            self._write(states, max(self.options.keep, self.options.average_last) + 1)
        except TrainingError as error:
            return f"the {self.step - self.saved} steps since the last checkpoint are lost: {error}"
        self.saved = self.step
        return "the training is saved as it was before the error; the same command goes on"

    def _write(self, states: list[dict[str, Any] | None], keep: int) -> None:
        scaler = self.accelerator.scaler
        checkpoint = TrainingCheckpoint(
            self.step,
            self.epoch,
            self.index,
            weights=trained_state(self.network),
            optimizer=self.optimizer.state_dict(),
            average=self.average.state_dict() if self.average is not None else None,
            scaler=scaler.state_dict() if scaler is not None else {},
            random_states=states,
            settings=self.settings,
            seconds=self.seconds,
            means=vars(self.since),
            data=self.data,
        )
        write_training_checkpoint(self.options.output_dir, checkpoint, keep)

    # -- steps ---------------------------------------------------------------------------------------------------

    def go(
        self,
        batches: Batches,
        stop: threading.Event,
        validate: Callable[[nn.Module], Mapping[str, float]] | None,
        before_step: Callable[[int], None] | None,
    ) -> Outcome:
        """Step by step to the end; whatever goes wrong, what was learnt is saved first."""
        try:
            halted, found = self._go(batches, stop, validate, before_step)
        except _NotFinite as error:
            remark = self.rescue()
            raise TrainingError(f"{error}: {self._advice()}" + (f"; {remark}" if "lost" in remark else "")) from None
        except (Exception, KeyboardInterrupt):
            self.tell(self.rescue())
            raise
        if self.accelerator.is_main_process:
            self._draw()
        self.accelerator.wait_for_everyone()
        skipped = tuple(self.run.skips.listed()) if self.accelerator.is_main_process else ()
        return Outcome(self.step, not halted, found, skipped, bool(self.accelerator.is_main_process))

    def _go(
        self,
        batches: Batches,
        stop: threading.Event,
        validate: Callable[[nn.Module], Mapping[str, float]] | None,
        before_step: Callable[[int], None] | None,
    ) -> tuple[bool, dict[str, float]]:
        """Whether it was halted, and the last validation."""
        options = self.options
        validated, found = -1, dict[str, float]()
        stream = iter(batches(self.epoch, self.index)) if self.step < options.steps else iter(())
        self.tell("training")
        halted = False
        while self.step < options.steps and not (halted := self._any(stop.is_set())) and not self._any(self._late()):
            if before_step is not None:
                before_step(self.step)
            self.epoch, self.index = self._update(stream, self.step)
            self.step += 1
            self.random = random_state()
            if self.step % options.log_every == 0:
                self._write_log()
            if validate is not None and options.validate_every and self.step % options.validate_every == 0:
                validated, found = self.step, self._validate(validate)
            if self.step % options.save_every == 0:
                self.save()
        if self.step > self.saved:
            self.save()
        if not halted:
            self._settle()
            if validate is not None and (validated < self.step or options.average_last):
                found = self._validate(validate, final=True)
        return halted, found

    def _draw(self) -> None:
        """Draw the curve; a full disk does not cost the model."""
        try:
            draw_curve(self.options.output_dir)
        except OSError as error:
            self.tell(f"loss.png could not be written: {reason(error, self.options.output_dir)}")

    def _advice(self) -> str:
        """How a training whose loss is no number goes on."""
        rate = f"--learning-rate {self.options.learning_rate / 10:g}"
        other = "--clip-norm 1, longer --warmup-steps or --precision float32"
        found = training_checkpoints(self.options.output_dir)
        if not found:
            return f"nothing is saved yet; give the command again with {rate}, {other}"
        back = "the one before" if len(found) > 1 else "the beginning"
        return (
            f"give the same command with --retune and {rate} (or {other}) to go on from {found[-1]}; delete that file "
            f"first to go on from {back}"
        )

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
        self.tell("training", 1)
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
        raise _NotFinite(f"{what} at step {step + 1} (epoch {place[0]}, batch {place[1]})")

    def _validate(
        self, validate: Callable[[nn.Module], Mapping[str, float]], *, final: bool = False
    ) -> dict[str, float]:
        self.tell("validating")
        began = time.perf_counter()
        self.network.eval()
        average = nullcontext() if final or self.average is None else self.average.applied()
        with torch.no_grad(), average, self.accelerator.autocast():
            found = {f"valid_{name}": float(value) for name, value in validate(self.network).items()}
        if self.log is not None:
            self.log.write(self.step, found)
        self.seconds += time.perf_counter() - began
        self.tell(", ".join(f"{name} {value:.4g}" for name, value in found.items()))
        return found

    def _settle(self) -> None:
        """Put the weights that are published into the network."""
        if self.average is not None:
            self.average.copy_to_network()
        elif self.options.average_last > 1:
            files = training_checkpoints(self.options.output_dir)[-self.options.average_last :]
            load_trained_state(self.network, mean_of_checkpoints(files), files[-1])
        self.network.eval()

    def _write_log(self) -> None:
        values = self.since.take()
        rate = learning_rate(self.options, self.step - 1)
        more = {"learning_rate": rate, "epoch": self.epoch, "hours": self.seconds / 3600}
        if self.log is not None:
            self.log.write(self.step, {**values, **more})

    def tell(self, what: str, ahead: int = 0) -> None:
        """Report progress; `ahead` counts updates that are not counted yet."""
        if self.accelerator.is_main_process and what:
            since, step = self.since, self.step + ahead
            self.run.report(TrainingProgress(step, self.options.steps, since.last, since.rate, what))

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


def _from_all(value: Any, world: int) -> list[Any]:
    if world == 1:
        return [value]
    from accelerate.utils import gather_object

    return list(gather_object([value]))
