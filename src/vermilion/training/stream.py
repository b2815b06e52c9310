"""A manifest of any size → batches: block after block of its lines, deterministic, resumable, shared by processes."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from vermilion.audio import FeatureExtractor
from vermilion.errors import TrainingError
from vermilion.manifests import Utterance
from vermilion.training.augment import Augmenter, AugmentOptions, SpecAugmentOptions
from vermilion.training.batches import Position
from vermilion.training.lines import Block, Lines, Usable
from vermilion.training.options import DataOptions
from vermilion.training.skipping import Skips
from vermilion.training.speech import SpeechBatch, SpeechData, prepared

_BATCHES = 1 << 24
"""more than a block has: a place in an epoch is block x this + batch"""

Encode = Callable[[Sequence[Utterance]], list[list[int]]]
"""token ids of utterances; none where an utterance cannot be used"""


def spoken_lines(path: str | Path, options: DataOptions, skips: Skips) -> Lines:
    """The lines of a manifest that have a text.

    Raises:
        ManifestError: it cannot be read.
        TrainingError: too few lines can be used.
    """
    judge = Usable(options.min_seconds, options.max_seconds, lambda u: "" if u.text else "without a text")
    return Lines(path, judge, buffer=options.buffer, skips=skips)


class SpeechStream:
    """Lines of a manifest and how they become tokens → batches; everything random comes from (seed, epoch, line)."""

    def __init__(
        self,
        lines: Lines,
        encode: Encode,
        extractor: FeatureExtractor,
        options: DataOptions,
        *,
        seed: int = 0,
        augment: AugmentOptions | None = None,
        masks: SpecAugmentOptions | None = None,
        padding: int = 2,
        repeats: Callable[[Utterance], int] = lambda _: 1,
        skips: Skips | None = None,
    ) -> None:
        """Take the data.

        Args:
            lines: of one manifest.
            encode: token ids.
            extractor: features.
            options: limits and batch sizes.
            seed: of order and augmentation.
            augment: what is done to the sound; None = nothing.
            masks: SpecAugment; None = none. `masking` turns it on and off.
            padding: id behind the end of tokens.
            repeats: how often an utterance comes in an epoch.
            skips: is told of recordings that cannot be read.

        Raises:
            TrainingError: nothing is left, or an utterance is larger than a batch.
        """
        self.lines, self.encode, self.extractor, self.options = lines, encode, extractor, options
        self.seed, self.padding, self.repeats, self.skips = seed, padding, repeats, skips or Skips()
        self.augmenter = Augmenter(augment) if augment is not None else None
        self.masks, self._masking = masks, masks is not None
        self._recent: deque[SpeechData] = deque(maxlen=2)
        self.untold: Counter[str] = Counter()
        """why lines of the first block are left out though they could be used: what no token stands for"""
        first = self._data(lines.block(0, 0, seed), counting=True)
        if first is None:
            raise TrainingError(f"no line of {lines.path} has a token to learn: check its texts")
        first.batches(seed)  # complains about lengths
        self._check_longest()
        self._whole = first if lines.in_memory else None

    @property
    def masking(self) -> bool:
        """Whether SpecAugment is on."""
        return self._masking

    @masking.setter
    def masking(self, on: bool) -> None:
        self._masking = on
        for data in self._recent:
            data.masking = on

    def training(
        self, device: torch.device, rank: int = 0, world: int = 1
    ) -> Callable[[int, int], Iterator[tuple[int, int, SpeechBatch]]]:
        """What `train` takes: batches without end from a place on.

        A place is (epoch, block and batch in one number); one that the data do not reach stands for the next block.
        """
        return lambda epoch, index: prepared(self._places(epoch, index, rank, world), device)

    def once(self, device: torch.device) -> Iterator[SpeechBatch]:
        """All utterances once, from short to long in each block: for validation."""
        places = (
            (data, Position(0, index, items))
            for data in map(self._data, self._blocks())
            if data is not None
            for index, items in enumerate(data.batches(0, shuffle=False).epoch(0))
        )
        return (batch for _, _, batch in prepared(places, device, stand_ins=False))

    def summary(self) -> str:
        """What there is and what is left out, for people."""
        left = self.lines.left_out + self.untold
        reasons = ", ".join(f"{count:,} {why}" for why, count in left.most_common())
        held = "" if self.lines.in_memory else f", {self.lines.buffer:,} lines at a time"
        size = f"{self.lines.count - self.untold.total():,} utterances, {self.lines.seconds / 3600:.2f} h{held}"
        return size + (f"; left out: {reasons}" if reasons else "")

    def _places(self, epoch: int, index: int, rank: int, world: int) -> Iterator[tuple[SpeechData, Position]]:
        number, first = divmod(index, _BATCHES)
        while True:
            while number < self.lines.blocks:
                data, seed = self._block(epoch, number)
                if data is not None:
                    batches = data.batches(seed, rank, world).epoch(epoch)
                    for at in range(first, len(batches)):
                        yield data, Position(epoch, number * _BATCHES + at, batches[at])
                number, first = number + 1, 0
            epoch, number = epoch + 1, 0

    def _block(self, epoch: int, number: int) -> tuple[SpeechData | None, int]:
        """Data of a block (None: there are no tokens in it), and the seed of their order."""
        if self._whole is not None:
            return self._whole, self.seed
        return self._data(self.lines.block(number, epoch, self.seed)), self.seed * 1_000_003 + number

    def _blocks(self) -> Iterator[Block]:
        return (self.lines.block(number, None) for number in range(self.lines.blocks))

    def _data(self, block: Block, counting: bool = False) -> SpeechData | None:
        tokens = self.encode(block.utterances)
        if counting:
            self.untold.update("without a token" for ids in tokens if not ids)
        often = [(i, k) for i, u in enumerate(block.utterances) if tokens[i] for k in range(self.repeats(u))]
        if not often:
            return None
        data = SpeechData(
            [block.utterances[i] for i, _ in often],
            [tokens[i] for i, _ in often],
            self.extractor,
            self.options,
            seed=self.seed,
            augment=self.augmenter,
            masks=self.masks,
            padding=self.padding,
            seconds=[block.seconds[i] for i, _ in often],
            numbers=None if self.lines.in_memory else [block.numbers[i] + (k << 40) for i, k in often],
            skips=self.skips,
        )
        data.masking = self.masking
        self._recent.append(data)
        return data

    def _check_longest(self) -> None:
        stretch = self.augmenter.longest if self.augmenter is not None else 1.0
        frames = int(100 * self.lines.longest * stretch) + 1
        if frames > self.options.max_frames:
            raise TrainingError(
                f"{self.lines.path} has an utterance of {self.lines.longest:.1f} s, {frames} frames, and a batch may "
                f"have {self.options.max_frames}: raise max_frames or leave out long ones (max_seconds)"
            )
