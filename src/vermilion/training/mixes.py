"""Mixes of speech, singing, music and noise on a timeline that is known exactly: samples and labels of frames.

A mix is decided by (seed, epoch, index) alone, so a training that goes on sees what it would have seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vermilion.audio import SAMPLE_RATE
from vermilion.errors import AudioError, ManifestError, OptionsError, TrainingError
from vermilion.manifests import Utterance, iterate_manifest
from vermilion.training.augment import Augmenter, AugmentOptions, change_speed
from vermilion.training.reading import read_stretch
from vermilion.training.singing import sing
from vermilion.training.skipping import Skips
from vermilion.training.stretches import Stretch, TrimOptions, frame_labels, given_stretches, sounding

Samples = NDArray[np.float32]
Kind = Literal["speech", "singing", "music", "noise"]
VOICES: tuple[Kind, Kind] = ("speech", "singing")

_DEV_SHARE = 0.05
"""of the recordings whose manifest names no set"""
_FADE = 400
"""samples over which a stretch of music or noise begins and ends"""
_FLOOR_DB = (-95.0, -60.0)
"""level of the hiss under every mix: digital silence would give the labels away"""
_CLIP_DB = 4.0
_TRIES = 20
"""recordings that are drawn before it is said that none can be read"""
"""clips of a mix differ by so much at most from the mix's level"""


@dataclass(frozen=True)
class MixOptions:
    """What a mix is made of."""

    seconds: float = 12.0
    """Length of every mix."""
    speech: float = 0.85
    """Probability that a mix has speech."""
    singing: float = 0.25
    """Probability that it has singing."""
    music: float = 0.35
    """Probability that it has music."""
    noise: float = 0.6
    """Probability that it has noise."""
    overlap: float = 0.1
    """Probability that a second voice talks over the others."""
    made_singing: float = 0.5
    """Share of singing that is made out of speech; all of it where no singing is given."""
    gap_seconds: tuple[float, float] = (0.1, 4.0)
    """Pauses between clips; short ones are likelier (log-uniform)."""
    level_db: tuple[float, float] = (-40.0, -14.0)
    """Level of voices in dB of full scale; of music and noise where there is no voice."""
    noise_snr_db: tuple[float, float] = (0.0, 30.0)
    """Level of voices above that of noise."""
    music_snr_db: tuple[float, float] = (-5.0, 20.0)
    """Level of voices above that of music."""

    def __post_init__(self) -> None:
        """Check the domain.

        Raises:
            OptionsError: a value is out of its domain.
        """
        for name in ("speech", "singing", "music", "noise", "overlap", "made_singing"):
            if not 0 <= getattr(self, name) <= 1:
                raise OptionsError(f"{name} is {getattr(self, name)}; it must lie between 0 and 1")
        if not 1 <= self.seconds <= 600:
            raise OptionsError(f"seconds is {self.seconds}; a mix takes from 1 to 600")
        for name in ("gap_seconds", "level_db", "noise_snr_db", "music_snr_db"):
            low, high = getattr(self, name)
            if low > high:
                raise OptionsError(f"{name} is ({low}, {high}); the lower bound comes first")
        if self.gap_seconds[0] <= 0:
            raise OptionsError("pauses (gap_seconds) must be longer than 0")

    @property
    def samples(self) -> int:
        """Samples of a mix."""
        return round(self.seconds * SAMPLE_RATE)


@dataclass(frozen=True)
class MixAugmentOptions(AugmentOptions):
    """What is done to whole mixes, whose levels and noise are mixed already; only clips of voices change speed."""

    volume: float = 0.0
    """Probability of another level."""
    reverb: float = 0.25
    """Probability of a room."""
    noise: float = 0.0
    """Probability of more noise."""
    codecs: tuple[str, ...] = ("mulaw", "alaw", "narrowband")
    """Which codecs: mulaw, alaw, narrowband (8 kHz sampling) and, through FFmpeg and so slower, opus, mp3, g722."""
    low_pass: float = 0.1
    """Probability of dull sound."""


@dataclass(frozen=True)
class Sources:
    """Recordings by kind."""

    speech: list[Utterance] = field(default_factory=list)
    singing: list[Utterance] = field(default_factory=list)
    music: list[Utterance] = field(default_factory=list)
    noise: list[Utterance] = field(default_factory=list)


@dataclass(frozen=True)
class Placed:
    """One sound on the timeline."""

    kind: Kind
    id: str
    start: int
    """sample of the mix with which its first sample is mixed; below 0 if the mix begins inside it"""
    stretches: list[Stretch]
    """where it sounds, in samples of the mix"""


@dataclass(frozen=True)
class Mix:
    """A mix and what it is made of."""

    samples: Samples
    """(n,) float32 in [-1, 1]"""
    placed: list[Placed]

    def stretches(self, kinds: Iterable[Kind]) -> list[Stretch]:
        """Where any of these kinds sounds."""
        wanted = set(kinds)
        return [stretch for sound in self.placed if sound.kind in wanted for stretch in sound.stretches]

    def labels(self, outputs: Sequence[Iterable[Kind]]) -> NDArray[np.float32]:
        """Labels of feature frames.

        Args:
            outputs: the kinds that each output of the network stands for.

        Returns:
            (T, outputs) float32, 0 or 1.
        """
        count = len(self.samples)
        columns = [frame_labels(self.stretches(kinds), count) for kinds in outputs]
        return np.stack(columns, axis=1).astype(np.float32)


def read_sources(
    manifests: Mapping[Kind, Sequence[Path]], part: Literal["train", "dev"], skips: Skips | None = None
) -> Sources:
    """Read the recordings of one part of the data.

    Lines with the key `set` are used if it names the part ("test" is never used). Of the other lines about 5 % of
    each kind (at least one, chosen by their ids) are the dev part and all others the training part; a kind with a
    single recording is used in both.

    Args:
        manifests: by kind.
        part: "train" or "dev".
        skips: is told of lines that are no entries, which are left out.

    Raises:
        ManifestError: one cannot be read.
        TrainingError: one has no entry.
    """
    chosen: dict[str, list[Utterance]] = {}
    for kind, paths in manifests.items():
        lines = [line for path in paths for line in _entries(path, skips or Skips())]
        named = [line for line in lines if line.extra.get("set") == part]
        free = [line for line in lines if line.extra.get("set") is None]
        chosen[kind] = named + _own_part(free, part)
    return Sources(**chosen)


def _entries(path: Path, skips: Skips) -> list[Utterance]:
    found = list(iterate_manifest(path, lambda number, error: skips.note(f"{path.name}, line {number}", str(error))))
    if not found:
        raise TrainingError(f"{path} lists no recording" + (f" ({skips.first[0]})" if skips.first else ""))
    return found


def _own_part(lines: list[Utterance], part: str) -> list[Utterance]:
    if len(lines) < 2:
        return lines
    order = sorted(range(len(lines)), key=lambda i: hashlib.sha256(lines[i].id.encode()).digest())
    dev = set(order[: max(1, round(_DEV_SHARE * len(lines)))])
    return [line for i, line in enumerate(lines) if (i in dev) == (part == "dev")]


class Mixer:
    """Makes mixes."""

    def __init__(
        self,
        sources: Sources,
        options: MixOptions = MixOptions(),
        augment: AugmentOptions = MixAugmentOptions(),
        trim: TrimOptions = TrimOptions(),  # noqa: B008 - frozen
        seed: int = 0,
        skips: Skips | None = None,
    ) -> None:
        """Take the recordings; `skips` is told of those that cannot be read, others are drawn in their place.

        Raises:
            TrainingError: a kind that mixes should have has no recordings.
        """
        self.sources, self.options, self.trim, self.seed = sources, options, trim, seed
        self.skips = skips or Skips()
        self.augmenter = Augmenter(augment)
        for kind in ("speech", "music", "noise"):
            if getattr(options, kind) and not getattr(sources, kind):
                raise TrainingError(f"no recordings of {kind}: give manifests that have some, or probability 0 of it")
        if options.singing and not sources.singing and not sources.speech:
            raise TrainingError("no recordings of singing, nor of speech to make it from")

    def __call__(self, epoch: int, index: int) -> Mix:
        """Make one mix.

        Args:
            epoch: with the index and the seed, decides everything.
            index: number in the epoch.

        Raises:
            TrainingError: too many recordings cannot be read.
        """
        rng = np.random.default_rng([self.seed, epoch, index])
        options = self.options
        mixed = np.zeros(options.samples, dtype=np.float32)
        placed: list[Placed] = []
        level = rng.uniform(*options.level_db)
        present = [kind for kind in VOICES if rng.random() < getattr(options, kind)]
        if present:
            self._place_voices(mixed, placed, present, level, rng)
        for kind, snr in (("music", options.music_snr_db), ("noise", options.noise_snr_db)):
            if rng.random() < getattr(options, kind):
                own = level - rng.uniform(*snr) if present else rng.uniform(*options.level_db)
                placed.append(self._place_background(mixed, kind, own, rng))  # type: ignore[arg-type]
        hiss = np.float32(10 ** (rng.uniform(*_FLOOR_DB) / 20))
        mixed += hiss * rng.standard_normal(len(mixed), dtype=np.float32)
        peak = float(np.abs(mixed).max())
        if peak > 1:
            mixed /= np.float32(peak)
        return Mix(self.augmenter.keep_length(mixed, rng), placed)

    def _place_voices(
        self, mixed: Samples, placed: list[Placed], present: list[Kind], level: float, rng: np.random.Generator
    ) -> None:
        """Clips one after the other with pauses, now and then one more over them; the mix may begin inside a clip."""
        cursor = -round(rng.uniform(-2, 2) * SAMPLE_RATE)
        low, high = np.log(self.options.gap_seconds)
        while cursor < len(mixed):
            kind = present[int(rng.integers(len(present)))]
            name, clip, stretches = self._voice(kind, level + rng.uniform(-_CLIP_DB, _CLIP_DB), rng)
            placed.append(_add(mixed, kind, name, clip, stretches, cursor))
            cursor += len(clip) + round(float(np.exp(rng.uniform(low, high))) * SAMPLE_RATE)
        if "speech" in present and rng.random() < self.options.overlap:
            name, clip, stretches = self._voice("speech", level + rng.uniform(-2 * _CLIP_DB, _CLIP_DB), rng)
            placed.append(_add(mixed, "speech", name, clip, stretches, int(rng.integers(len(mixed)))))

    def _voice(self, kind: Kind, level: float, rng: np.random.Generator) -> tuple[str, Samples, list[Stretch]]:
        """A clip at a level, and where it sounds."""
        given = getattr(self.sources, kind)
        made = kind == "singing" and (not given or (self.sources.speech and rng.random() < self.options.made_singing))
        lines: list[Utterance] = self.sources.speech if made else given
        line = lines[int(rng.integers(len(lines)))]
        line, clip, first, stretches = self._read(line, lines, self.options.samples, rng)
        if stretches is not None:
            stretches = [(a - first, b - first) for a, b in stretches]
        if made:
            clip, stretches = sing(clip, rng), None  # other times now
        speed = self.augmenter.draw_speed(rng)
        if speed != 1.0:
            clip = change_speed(clip, speed)
            stretches = stretches and [(round(a / speed), round(b / speed)) for a, b in stretches]
        if stretches is None:
            stretches = sounding(clip, self.trim)
        stretches = [(max(0, a), min(len(clip), b)) for a, b in stretches if b > 0 and a < len(clip)]
        return line.id, _at_level(clip, stretches, level), stretches

    def _read(
        self, line: Utterance, others: Sequence[Utterance], count: int, rng: np.random.Generator
    ) -> tuple[Utterance, Samples, int, list[Stretch] | None]:
        """Read a stretch of a recording; of one that cannot be read, another is drawn.

        Returns:
            The line that was read, samples, the sample of the recording that they begin with, and where the line says
            that there is sound.

        Raises:
            TrainingError: too many recordings cannot be read.
        """
        for _ in range(_TRIES):
            try:
                clip, first = read_stretch(line, count, rng)
                stretches = given_stretches(line, 1 << 60)
            except (AudioError, ManifestError) as error:
                self.skips.add(line, str(error), len(others))
                line = others[int(rng.integers(len(others)))]
                continue
            self.skips.used()
            return line, clip, first, stretches
        self.skips.refuse()
        raise TrainingError("no recording can be used")

    def _place_background(self, mixed: Samples, kind: Kind, level: float, rng: np.random.Generator) -> Placed:
        """Music or noise: through the whole mix, or in a part of it."""
        lines: list[Utterance] = getattr(self.sources, kind)
        line = lines[int(rng.integers(len(lines)))]
        count, start = len(mixed), 0
        if rng.random() < 0.5:
            count = round(rng.uniform(0.1, 1.0) * len(mixed))
            start = int(rng.integers(len(mixed) - count + 1))
        line, clip, _, _ = self._read(line, lines, count, rng)
        if kind == "noise" and 0 < len(clip) < count and rng.random() < 0.7:
            clip = np.resize(np.roll(clip, -int(rng.integers(len(clip)))), count)  # again and again
        stretches = sounding(clip, TrimOptions(range_db=45.0, gap_seconds=1.0, margin_seconds=0.0))
        clip = _at_level(clip, stretches, level)
        ramp = np.linspace(0, 1, min(_FADE, len(clip) // 2), dtype=np.float32)
        clip[: len(ramp)] *= ramp
        clip[len(clip) - len(ramp) :] *= ramp[::-1]
        return _add(mixed, kind, line.id, clip, stretches, start)


def _at_level(clip: Samples, stretches: Sequence[Stretch], level: float) -> Samples:
    """Scale so that the sounding part has a level in dB of full scale; never a copy of someone else's array."""
    power = sum(float(np.square(clip[a:b], dtype=np.float64).sum()) for a, b in stretches)
    count = sum(b - a for a, b in stretches)
    gain = 10 ** (level / 20) / max(np.sqrt(power / max(count, 1)), 1e-5)
    return clip * np.float32(gain if count else 1.0)


def _add(mixed: Samples, kind: Kind, name: str, clip: Samples, stretches: Sequence[Stretch], start: int) -> Placed:
    """Add a clip to the mix, cut at its ends."""
    first, last = max(0, start), min(len(mixed), start + len(clip))
    if last > first:
        mixed[first:last] += clip[first - start : last - start]
    moved = [(max(0, a + start), min(len(mixed), b + start)) for a, b in stretches]
    return Placed(kind, name, start, [(a, b) for a, b in moved if b > a])
