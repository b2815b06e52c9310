"""Batches of features and token ids; shared by the recipes of recogniser, CTC head and language identifier."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vermilion.audio import SAMPLE_RATE, FeatureExtractor, num_frames
from vermilion.audio.cmvn import write_matrix
from vermilion.errors import TrainingError
from vermilion.manifests import Utterance
from vermilion.training.augment import Augmenter, AugmentOptions, SpecAugmentOptions, spec_augment
from vermilion.training.batches import BatchOptions, BucketBatches, Position
from vermilion.training.options import DataOptions

_SOUND, _MASKS = 2, 3
"""tell the generators of an example's sound and of its masks apart"""


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
        augment: AugmentOptions | None = None,
        masks: SpecAugmentOptions | None = None,
        padding: int = 2,
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

        Raises:
            TrainingError: nothing is left.
        """
        seconds = [seconds_of(u) for u in utterances]
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
        self.extractor, self.options, self.seed, self.padding = extractor, options, seed, padding
        self.augmenter = Augmenter(augment) if augment is not None else None
        self.masks, self.masking = masks, masks is not None
        longest = self.augmenter.longest if self.augmenter is not None else 1.0
        self.lengths = [max(1, num_frames(int(seconds[i] * longest * SAMPLE_RATE) + 1)) for i in fit]

    def __len__(self) -> int:
        return len(self.utterances)

    @property
    def hours(self) -> float:
        """Hours of audio, as it is augmented at the slowest."""
        return sum(self.lengths) / 360_000

    def features(self, epoch: int, item: int) -> NDArray[np.float32]:
        """Features of an utterance in an epoch, (T, 80) float32."""
        samples = self.utterances[item].load(max_seconds=None)
        if self.augmenter is not None:
            samples = self.augmenter(samples, np.random.default_rng([_SOUND, self.seed, epoch, item]))
        features = self.extractor(samples)
        if not len(features):
            raise TrainingError(f"{self.utterances[item].audio} has no whole frame of 25 ms: check its duration")
        return features

    def batch(self, epoch: int, items: Sequence[int], features: Sequence[NDArray[np.float32]]) -> SpeechBatch:
        """Pad utterances to a batch, with masks if they are on."""
        rows = list(features)
        if self.masking and self.masks is not None:
            rows = [
                spec_augment(row, np.random.default_rng([_MASKS, self.seed, epoch, item]), self.masks)
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

    def training(
        self, device: torch.device, rank: int = 0, world: int = 1
    ) -> Callable[[int, int], Iterator[tuple[int, int, SpeechBatch]]]:
        """What `train` takes: batches without end from a place on."""
        batches = BucketBatches(
            self.lengths,
            self.options.max_frames,
            self.options.max_items,
            seed=self.seed,
            options=BatchOptions(buckets=self.options.buckets),
            rank=rank,
            world=world,
        )
        return lambda epoch, index: self._walk(batches.positions(epoch, index), device)

    def once(self, device: torch.device) -> Iterator[SpeechBatch]:
        """All utterances once, from short to long: for validation."""
        options = BatchOptions(shuffle=False)
        batches = BucketBatches(self.lengths, self.options.max_frames, self.options.max_items, options=options)
        places = iter([Position(0, i, items) for i, items in enumerate(batches.epoch(0))])
        return (batch for _, _, batch in self._walk(places, device))

    def _walk(self, places: Iterator[Position], device: torch.device) -> Iterator[tuple[int, int, SpeechBatch]]:
        """Compute features ahead in threads; masks are put on when a batch is used, so that they can be switched."""
        with ThreadPoolExecutor(max(1, self.options.workers), thread_name_prefix="features") as pool:
            waiting: deque[tuple[Position, list[Future[NDArray[np.float32]]]]] = deque()

            def more() -> None:
                place = next(places, None)
                if place is not None:
                    jobs = [pool.submit(self.features, place.epoch, item) for item in place.items]
                    waiting.append((place, jobs))

            for _ in range(3):
                more()
            try:
                while waiting:
                    place, jobs = waiting.popleft()
                    found = [job.result() for job in jobs]
                    more()
                    yield place.epoch, place.index, self.batch(place.epoch, place.items, found).to(device)
            finally:
                for _, jobs in waiting:
                    for job in jobs:
                        job.cancel()


def seconds_of(utterance: Utterance) -> float:
    """Duration of an utterance; where the manifest does not say it, the file is asked."""
    if utterance.duration is not None:
        return utterance.duration
    import soundfile

    try:
        return float(soundfile.info(utterance.audio).duration) - utterance.offset
    except (RuntimeError, OSError):
        return len(utterance.load()) / SAMPLE_RATE


def read_cmvn_or_compute(
    place: Path, utterances: Sequence[Utterance], seed: int = 0, most: int = 2000
) -> FeatureExtractor:
    """The statistics at a place; computed from (at most so many) utterances if there are none yet."""
    if not place.exists():
        chosen = np.random.default_rng(seed).permutation(len(utterances))[:most]
        write_cmvn(place, [utterances[i] for i in sorted(chosen.tolist())])
    return FeatureExtractor.from_cmvn(place)


def write_cmvn(place: Path, utterances: Sequence[Utterance]) -> None:
    """Accumulate statistics of features and write them as a Kaldi matrix (SPEC section 1)."""
    plain = FeatureExtractor(np.zeros(80), np.ones(80))
    sums = np.zeros((2, 81))
    for utterance in utterances:
        features = plain.log_mel(utterance.load()).astype(np.float64)
        sums[0, :80] += features.sum(0)
        sums[1, :80] += np.square(features).sum(0)
        sums[0, 80] += len(features)
    write_matrix(place, sums)


def mean_losses(found: Iterable[tuple[int, Mapping[str, Tensor]]]) -> dict[str, float]:
    """Mean of the losses of batches, weighted by the number in front of each."""
    sums: dict[str, float] = {}
    total = 0
    for weight, losses in found:
        total += weight
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + weight * float(value)
    return {name: value / total for name, value in sums.items()}
