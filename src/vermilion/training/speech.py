"""Batches of features and token ids; shared by the recipes of recogniser, CTC head and language identifier."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vermilion.audio import SAMPLE_RATE, FeatureExtractor, num_frames
from vermilion.errors import AudioError, ManifestError, TrainingError
from vermilion.manifests import Utterance
from vermilion.training.augment import Augmenter, AugmentOptions, SpecAugmentOptions, spec_augment
from vermilion.training.batches import BatchOptions, BucketBatches, Position
from vermilion.training.cmvn import accumulate
from vermilion.training.lines import Lines, seconds_of
from vermilion.training.options import DataOptions
from vermilion.training.skipping import Skips

_SOUND, _MASKS, _STAND_IN = 2, 3, 6
"""tell the generators of an example's sound, of its masks and of its stand-ins apart"""
_AHEAD = 3
"""batches that are prepared ahead"""
_STAND_INS = 20
"""utterances that are tried in place of a batch of which none can be read"""


@dataclass(frozen=True)
class SpeechBatch:
    """Padded features and token ids of some utterances."""

    features: Tensor
    """(N, T, 80) float32, zeros behind the end"""
    lengths: Tensor
    """(N,) frames"""
    tokens: Tensor
    """(N, L) int64, `padding` behind the end"""
    token_lengths: Tensor
    """(N,)"""
    items: list[int]
    """numbers of the utterances"""

    def to(self, device: torch.device) -> SpeechBatch:
        """The same on a device."""
        moved = [x.to(device, non_blocking=True) for x in (self.features, self.lengths, self.tokens)]
        return SpeechBatch(moved[0], moved[1], moved[2], self.token_lengths.to(device, non_blocking=True), self.items)


class Prepared(NamedTuple):
    """What became of a recording."""

    features: NDArray[np.float32] | None
    """(T, 80); None = it cannot be used"""
    fault: str = ""
    """why"""
    others: tuple[tuple[str, str, str], ...] = ()
    """recordings of noise or rooms that could not be read: id, what is wrong, path"""


@dataclass(frozen=True)
class FrontEnd:
    """Recording → features; everything random comes from (seed, epoch, number). Other processes get a copy."""

    extractor: FeatureExtractor
    augmenter: Augmenter | None
    seed: int

    def __call__(self, utterance: Utterance, epoch: int, number: int) -> Prepared:
        """Read, augment, transform."""
        try:
            samples = utterance.load(max_seconds=None)
            if self.augmenter is not None:
                samples = self.augmenter(samples, np.random.default_rng([_SOUND, self.seed, epoch, number]))
            features = self.extractor(samples)
        except (AudioError, ManifestError) as error:
            return Prepared(None, str(error), self._others())
        if not len(features):
            return Prepared(None, f"{utterance.audio} has no whole frame of 25 ms", self._others())
        return Prepared(features, "", self._others())

    def _others(self) -> tuple[tuple[str, str, str], ...]:
        return self.augmenter.faults() if self.augmenter is not None else ()


class SpeechData:
    """Utterances and their token ids → batches; everything random comes from (seed, epoch, utterance)."""

    def __init__(
        self,
        utterances: Sequence[Utterance],
        tokens: Sequence[list[int]],
        extractor: FeatureExtractor,
        options: DataOptions,
        *,
        seed: int = 0,
        augment: AugmentOptions | Augmenter | None = None,
        masks: SpecAugmentOptions | None = None,
        padding: int = 2,
        seconds: Sequence[float] | None = None,
        numbers: Sequence[int] | None = None,
        skips: Skips | None = None,
    ) -> None:
        """Take the data; utterances too short, too long or without tokens are left out (`left_out`).

        Args:
            utterances: of one manifest.
            tokens: ids of each.
            extractor: features.
            options: limits and batch sizes.
            seed: of order and augmentation.
            augment: what is done to the sound; None = nothing.
            masks: SpecAugment; None = none. `masking` turns it on and off.
            padding: id behind the end of tokens.
            seconds: of each, where they are known.
            numbers: what the randomness of each is drawn from; None = its place among those that are used.
            skips: is told of recordings that cannot be read.

        Raises:
            TrainingError: nothing is left.
        """
        seconds = [seconds_of(u) for u in utterances] if seconds is None else seconds
        fit = [
            i
            for i, (s, ids) in enumerate(zip(seconds, tokens, strict=True))
            if options.min_seconds <= s <= options.max_seconds and ids
        ]
        if not fit:
            raise TrainingError(
                f"none of {len(utterances)} utterances has a text and lasts {options.min_seconds} to "
                f"{options.max_seconds} s: check the manifest, or min_seconds and max_seconds"
            )
        self.left_out = len(utterances) - len(fit)
        self.utterances = [utterances[i] for i in fit]
        self.tokens = [tokens[i] for i in fit]
        self.numbers = range(len(fit)) if numbers is None else [numbers[i] for i in fit]
        self.options, self.seed, self.padding = options, seed, padding
        self.skips = skips or Skips()
        augmenter = Augmenter(augment) if isinstance(augment, AugmentOptions) else augment
        self.front_end = FrontEnd(extractor, augmenter, seed)
        self.masks, self.masking = masks, masks is not None
        longest = augmenter.longest if augmenter is not None else 1.0
        self.lengths = [max(1, num_frames(int(seconds[i] * longest * SAMPLE_RATE) + 1)) for i in fit]

    def __len__(self) -> int:
        return len(self.utterances)

    def features(self, epoch: int, item: int) -> NDArray[np.float32]:
        """Features of an utterance in an epoch, (T, 80) float32.

        Raises:
            AudioError: it cannot be read.
        """
        found = self.front_end(self.utterances[item], epoch, self.numbers[item])
        if found.features is None:
            raise AudioError(found.fault)
        return found.features

    def batch(self, epoch: int, items: Sequence[int], features: Sequence[NDArray[np.float32]]) -> SpeechBatch:
        """Pad utterances to a batch, with masks if they are on."""
        rows = list(features)
        if self.masking and self.masks is not None:
            rows = [
                spec_augment(row, np.random.default_rng([_MASKS, self.seed, epoch, self.numbers[item]]), self.masks)
                for row, item in zip(rows, items, strict=True)
            ]
        return SpeechBatch(
            torch.nn.utils.rnn.pad_sequence([torch.from_numpy(row) for row in rows], batch_first=True),
            torch.tensor([len(row) for row in rows]),
            torch.nn.utils.rnn.pad_sequence(
                [torch.tensor(self.tokens[i]) for i in items], batch_first=True, padding_value=self.padding
            ),
            torch.tensor([len(self.tokens[i]) for i in items]),
            list(items),
        )

    def batches(self, seed: int, rank: int = 0, world: int = 1, *, shuffle: bool = True) -> BucketBatches:
        """Batches of one process; without shuffling from short to long."""
        options = BatchOptions(buckets=self.options.buckets, shuffle=shuffle)
        budget = (self.options.max_frames, self.options.max_items)
        return BucketBatches(self.lengths, *budget, seed=seed, options=options, rank=rank, world=world)

    def training(
        self, device: torch.device, rank: int = 0, world: int = 1
    ) -> Callable[[int, int], Iterator[tuple[int, int, SpeechBatch]]]:
        """What `train` takes: batches without end from a place on."""
        batches = self.batches(self.seed, rank, world)
        places = batches.positions
        return lambda epoch, index: prepared(((self, place) for place in places(epoch, index)), device)

    def once(self, device: torch.device) -> Iterator[SpeechBatch]:
        """All utterances once, from short to long: for validation."""
        places = ((self, Position(0, i, items)) for i, items in enumerate(self.batches(0, shuffle=False).epoch(0)))
        return (batch for _, _, batch in prepared(places, device, stand_ins=False))

    def usable(self, place: Position, found: Sequence[Prepared]) -> tuple[list[int], list[NDArray[np.float32]]]:
        """The items of a batch that can be used, and their features; the others are noted.

        Raises:
            TrainingError: too large a share of the recordings is bad.
        """
        items, features = [], []
        for item, one in zip(place.items, found, strict=True):
            for other in one.others:
                self.skips.note(*other)
            if one.features is None:
                self.skips.add(self.utterances[item], one.fault, len(self))
                continue
            items.append(item)
            features.append(one.features)
        self.skips.used(len(items))
        return items, features

    def stand_in(self, place: Position) -> tuple[list[int], list[NDArray[np.float32]]]:
        """An utterance in place of a batch of which none can be used: all processes must have a batch at each step.

        Raises:
            TrainingError: none of several can be used either.
        """
        rng = np.random.default_rng([_STAND_IN, self.seed, place.epoch, place.index])
        for item in rng.permutation(len(self))[:_STAND_INS].tolist():
            found = self.front_end(self.utterances[item], place.epoch, self.numbers[item])
            if found.features is not None:
                return [item], [found.features]
        self.skips.refuse()
        raise TrainingError("no recording can be used")


Places = Iterable[tuple[SpeechData, Position]]


def prepared(places: Places, device: torch.device, *, stand_ins: bool = True) -> Iterator[tuple[int, int, SpeechBatch]]:
    """Compute features ahead; masks are put on when a batch is used, so that they can be switched.

    Args:
        places: the data that each batch is of, and which.
        device: where batches go.
        stand_ins: a batch of which nothing can be read is replaced; False = it is left out.

    Raises:
        TrainingError: too many recordings are bad, or a process died.
    """
    source = iter(places)
    waiting: deque[tuple[SpeechData, Position, list[Future[Prepared]]]] = deque()
    with _Pool() as pool:

        def more() -> None:
            data, place = next(source, (None, None))
            if data is not None and place is not None:
                jobs = [pool.start(data, place.epoch, item) for item in place.items]
                waiting.append((data, place, jobs))

        for _ in range(_AHEAD):
            more()
        try:
            while waiting:
                data, place, jobs = waiting.popleft()
                items, features = data.usable(place, [job.result() for job in jobs])
                more()
                if not items and stand_ins:
                    items, features = data.stand_in(place)
                if items:
                    yield place.epoch, place.index, data.batch(place.epoch, items, features).to(device)
        except BrokenProcessPool as error:
            raise TrainingError(f"a process that prepares data ended early ({error}): try fewer") from error
        finally:
            for _, _, jobs in waiting:
                for job in jobs:
                    job.cancel()


class _Pool:
    """Threads, or processes where the options say so; started with the first job, whose front end all jobs share."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | ProcessPoolExecutor | None = None

    def start(self, data: SpeechData, epoch: int, item: int) -> Future[Prepared]:
        """Begin to prepare an utterance; a process is sent its line and nothing else."""
        job = (data.utterances[item], epoch, data.numbers[item])
        if self._pool is None:
            self._pool = _started(data)
        if isinstance(self._pool, ThreadPoolExecutor):
            return self._pool.submit(data.front_end, *job)
        return self._pool.submit(_prepared, *job)

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True)


def _started(data: SpeechData) -> ThreadPoolExecutor | ProcessPoolExecutor:
    if not data.options.processes:
        return ThreadPoolExecutor(max(1, data.options.workers), thread_name_prefix="features")
    # spawn: a process that runs threads (torch, progress bars) must not be forked
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(data.options.processes, context, _take_front_end, (data.front_end,))


_front_ends: list[FrontEnd] = []
"""in a process that prepares data: how it does"""


def _take_front_end(front_end: FrontEnd) -> None:
    _front_ends[:] = [front_end]


def _prepared(utterance: Utterance, epoch: int, number: int) -> Prepared:
    return _front_ends[0](utterance, epoch, number)


def read_cmvn_or_compute(place: Path, lines: Lines, skips: Skips, seed: int = 0, most: int = 2000) -> FeatureExtractor:
    """The statistics at a place; computed from (at most so many) utterances if there are none yet.

    Raises:
        TrainingError: none of these utterances can be read.
    """
    if not place.exists():
        chosen = lines.sample(most, seed)
        found = accumulate(chosen)
        audio = {u.id: u.audio for u in chosen}
        for id, why in found.failures:
            skips.note(id, why, audio[id])
        if not found.utterances:
            skips.failed = skips.tried = len(found.failures)
            skips.refuse()
        found.write(place)
    return FeatureExtractor.from_cmvn(place)


def mean_losses(found: Iterable[tuple[int, Mapping[str, Tensor]]]) -> dict[str, float]:
    """Mean of the losses of batches, weighted by the number in front of each; empty where there is no batch."""
    sums: dict[str, float] = {}
    total = 0
    for weight, losses in found:
        total += weight
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + weight * float(value)
    return {name: value / total for name, value in sums.items()}
