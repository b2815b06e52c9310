"""Batches of similar length under a budget of padded frames; deterministic, resumable at any batch, split over
processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vermilion.errors import OptionsError, TrainingError

_EPOCH = 1
"""tells the generator of an epoch's order apart from others made of the same seed"""


class Position(NamedTuple):
    """One batch and where it stands; what a resumed run begins with is the next position."""

    epoch: int
    index: int  # type: ignore[assignment]  # a tuple has a method of this name, which nobody needs here
    """batches of this epoch that come before it, on this process"""
    items: list[int]
    """indices into `lengths`"""


@dataclass(frozen=True)
class BatchOptions:
    """How items are grouped."""

    buckets: int = 30
    """groups of similar length, of equal size; items are shuffled inside a group. More: less padding, less chance"""
    shuffle: bool = True
    """False: ascending lengths, the same batches in every epoch (validation)"""
    ascending_epochs: int = 0
    """so many first epochs go from short to long batches, which steadies the beginning of a training"""

    def __post_init__(self) -> None:
        """Check the domain.

        Raises:
            OptionsError: a value is out of its domain.
        """
        if self.buckets < 1:
            raise OptionsError(f"buckets is {self.buckets}; at least 1 is needed")
        if self.ascending_epochs < 0:
            raise OptionsError(f"ascending_epochs is {self.ascending_epochs}; it cannot be negative")


class BucketBatches:
    """Batches of item indices: each item once per epoch, padded size under a budget, order from (seed, epoch)."""

    def __init__(
        self,
        lengths: Sequence[int],
        max_frames: int,
        max_items: int = 1 << 30,
        *,
        seed: int = 0,
        options: BatchOptions = BatchOptions(),
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """Take the lengths of all items.

        Args:
            lengths: frames of each item (for the loader of `examples`, `Examples.lengths`).
            max_frames: largest number of frames of a batch, padding counted: items x longest.
            max_items: largest number of items of a batch.
            seed: with the epoch, decides the order.
            options: how items are grouped.
            rank: number of this process.
            world: how many processes there are; all get equally many batches, of similar lengths at each step.

        Raises:
            TrainingError: there are no items, or one alone is over the budget.
            OptionsError: a number is out of its domain.
        """
        if max_frames < 1 or max_items < 1:
            raise OptionsError(f"a batch of {max_items} items and {max_frames} frames cannot hold anything")
        if not 0 <= rank < world:
            raise OptionsError(f"rank {rank} is not one of {world} processes (0 to {world - 1})")
        self.lengths = np.asarray(lengths, dtype=np.int64)
        _check(self.lengths, max_frames)
        self.max_frames, self.max_items = max_frames, max_items
        self.seed, self.options, self.rank, self.world = seed, options, rank, world
        self._last: tuple[int, list[list[int]]] | None = None

    def epoch(self, number: int) -> list[list[int]]:
        """The batches of an epoch for this process, in order; do not change the lists.

        Over all processes each item comes once. Only where there are fewer items than the next multiple of `world`
        needs batches do some come twice.
        """
        if number < 0:
            raise OptionsError(f"epoch {number} does not exist; the first is 0")
        if self._last is None or self._last[0] != number:
            self._last = (number, [step[self.rank] for step in self._steps(number)])
        return self._last[1]

    def positions(self, start_epoch: int = 0, start_index: int = 0) -> Iterator[Position]:
        """Yield batches without end, from a place on.

        Args:
            start_epoch: epoch to begin in.
            start_index: batches of that epoch to leave out; its number of batches means the next epoch's beginning.

        Raises:
            TrainingError: the epoch has fewer batches: the data, budget or number of processes are not those of the
                run that is resumed.
        """
        epoch, first = start_epoch, start_index
        if not 0 <= first <= len(self.epoch(epoch)):
            raise TrainingError(
                f"cannot resume at batch {first} of epoch {epoch}, which has {len(self.epoch(epoch))}: "
                "resume with the same data, batch budget and number of processes"
            )
        while True:
            batches = self.epoch(epoch)
            for at in range(first, len(batches)):
                yield Position(epoch, at, batches[at])
            epoch, first = epoch + 1, 0

    def _steps(self, number: int) -> list[list[list[int]]]:
        """The epoch as steps of one batch per process."""
        rng = np.random.default_rng([_EPOCH, self.seed, number])
        batches = self._pack(self._order(rng))
        batches = _divisible(batches, self.world)
        steps = [batches[i : i + self.world] for i in range(0, len(batches), self.world)]
        if self.options.shuffle:
            if number >= self.options.ascending_epochs:
                steps = [steps[i] for i in rng.permutation(len(steps))]
            steps = [[step[i] for i in rng.permutation(self.world)] for step in steps]
        return steps

    def _order(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Items from short to long, shuffled inside each bucket."""
        if not self.options.shuffle:
            return np.argsort(self.lengths, kind="stable")
        mixed = rng.permutation(len(self.lengths))
        order = mixed[np.argsort(self.lengths[mixed], kind="stable")]  # equal lengths in chance order
        return np.concatenate([rng.permutation(part) for part in np.array_split(order, self.options.buckets)])

    def _pack(self, order: NDArray[np.int64]) -> list[list[int]]:
        """Fill batches one after the other."""
        batches: list[list[int]] = []
        longest = 0
        for item, length in zip(order.tolist(), self.lengths[order].tolist(), strict=True):
            longest = max(longest, length)
            if not batches or len(batches[-1]) == self.max_items or longest * (len(batches[-1]) + 1) > self.max_frames:
                batches.append([])
                longest = length
            batches[-1].append(item)
        return batches


def _check(lengths: NDArray[np.int64], max_frames: int) -> None:
    if not len(lengths):
        raise TrainingError("there is nothing to train on: the list of items is empty")
    if lengths.min() < 0:
        raise TrainingError(f"an item has {lengths.min()} frames")
    over = int((lengths > max_frames).sum())
    if over:
        raise TrainingError(
            f"{over} of {len(lengths)} items are longer than a whole batch may be (the longest has {lengths.max()} "
            f"frames, max_frames is {max_frames}): raise max_frames or leave out long items (max_seconds)"
        )


def _divisible(batches: list[list[int]], world: int) -> list[list[int]]:
    """Make the number of batches a multiple of `world`: halve the largest, or repeat some if all hold one item."""
    batches = list(batches)
    while len(batches) % world:
        at = max(range(len(batches)), key=lambda i: len(batches[i]))
        batch = batches[at]
        half = len(batch) // 2
        if half:
            batches[at : at + 1] = [batch[:half], batch[half:]]
        else:
            batches += batches[: world - len(batches) % world]
    return batches
