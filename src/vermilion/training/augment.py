"""Augmentation as a list of small functions: samples → samples, features → features.

Each takes an explicit generator, so that an example is decided by (seed, epoch, index) alone. All but `change_speed`
keep the number of samples and the place of every sound, so labels of frames stay right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from vermilion.audio import SAMPLE_RATE
from vermilion.errors import AudioError, ManifestError, OptionsError
from vermilion.manifests import Utterance, read_manifest
from vermilion.training import codecs

Samples = NDArray[np.float32]
"""(n,) float32 mono at 16 kHz in [-1, 1]"""
Step = Callable[[Samples, np.random.Generator], Samples]

_CACHED_RECORDINGS = 64
_LONGEST_ROOM = 1.0
"""seconds of an impulse response that are used"""
_SILENCE = 1e-5
"""signals quieter than this (RMS) have no level that noise could be measured against"""


@dataclass(frozen=True)
class AugmentOptions:
    """What happens to the samples of an example, how often and how strongly. All probabilities 0 = nothing happens."""

    speeds: tuple[float, ...] = (0.9, 1.0, 1.1)
    """one is drawn for each example; (1.0,) = never changed. Pitch changes with it"""
    volume: float = 0.5
    """probability of another level"""
    volume_db: tuple[float, float] = (-12.0, 6.0)
    """range of its gain"""
    reverb: float = 0.2
    """probability of a room"""
    rooms: str | None = None
    """manifest of impulse responses; None = made up on the fly"""
    reverberation_seconds: tuple[float, float] = (0.1, 0.8)
    """range of the time in which the sound of a made-up room falls by 60 dB"""
    noise: float = 0.4
    """probability of added noise"""
    noises: str | None = None
    """manifest of noises, music, other voices; None = coloured noise made up on the fly"""
    snr_db: tuple[float, float] = (0.0, 25.0)
    """range of the ratio of signal to noise"""
    codec: float = 0.15
    """probability of a telephone or low-bitrate codec"""
    codecs: tuple[str, ...] = codecs.NAMES
    """which ones: mulaw, alaw, narrowband (8 kHz sampling) and, through FFmpeg, opus, mp3, g722"""
    low_pass: float = 0.05
    """probability of dull sound"""
    low_pass_hz: tuple[float, float] = (2000.0, 7000.0)
    """range of its edge"""
    clip: float = 0.05
    """probability of overdriven sound"""
    clip_fraction: tuple[float, float] = (0.001, 0.03)
    """range of the share of samples that are cut off"""

    def __post_init__(self) -> None:
        """Check the domain.

        Raises:
            OptionsError: a value is out of its domain.
        """
        for name in ("volume", "reverb", "noise", "codec", "low_pass", "clip"):
            _check_probability(name, getattr(self, name))
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith(("_db", "_hz", "_seconds", "_fraction")) and not value[0] <= value[1]:
                raise OptionsError(f"{field.name} is {value}; give (lowest, highest)")
        if not self.speeds or not all(0.5 <= s <= 2.0 for s in self.speeds):
            raise OptionsError(f"speeds are {self.speeds}; each must lie between 0.5 and 2")
        unknown = set(self.codecs) - set(codecs.NAMES)
        if unknown or not self.codecs:
            raise OptionsError(f"unknown codecs {sorted(unknown)}; there are {', '.join(codecs.NAMES)}")
        if self.low_pass_hz[0] <= 0 or self.reverberation_seconds[0] <= 0:
            raise OptionsError("low_pass_hz and reverberation_seconds must be above 0")

    @classmethod
    def none(cls) -> AugmentOptions:
        """Nothing happens."""
        return cls(speeds=(1.0,), volume=0, reverb=0, noise=0, codec=0, low_pass=0, clip=0)


@dataclass(frozen=True)
class SpecAugmentOptions:
    """Bands and stretches of the features that are blotted out (SpecAugment, arXiv 1904.08779)."""

    frequency_masks: int = 2
    frequency_width: int = 27
    """widest band, in Mel bins"""
    time_masks: int = 2
    time_width: int = 50
    """longest stretch, in frames"""
    time_share: float = 0.2
    """a stretch is never a larger share of the utterance"""

    def __post_init__(self) -> None:
        """Check the domain.

        Raises:
            OptionsError: a value is out of its domain.
        """
        _check_probability("time_share", self.time_share)
        if min(self.frequency_masks, self.frequency_width, self.time_masks, self.time_width) < 0:
            raise OptionsError("numbers and widths of masks cannot be negative")


def _check_probability(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise OptionsError(f"{name} is {value}; it must lie between 0 and 1")


class Augmenter:
    """The steps of some options, each with its probability."""

    def __init__(self, options: AugmentOptions = AugmentOptions()) -> None:
        """Read the manifests that the options name.

        Raises:
            ManifestError: one cannot be read.
        """
        self.options = options
        noises = SoundBank(read_manifest(options.noises)) if options.noises and options.noise else None
        rooms = SoundBank(read_manifest(options.rooms)) if options.rooms and options.reverb else None
        self._banks = [bank for bank in (noises, rooms) if bank is not None]
        self.steps: list[tuple[float, Step]] = [
            (options.volume, partial(change_volume, decibels=options.volume_db)),
            (options.reverb, partial(reverberate, seconds=options.reverberation_seconds, rooms=rooms)),
            (options.noise, partial(add_noise, snr_db=options.snr_db, noises=noises)),
            (options.clip, partial(clip_peaks, fraction=options.clip_fraction)),
            (options.low_pass, partial(low_pass, edge_hz=options.low_pass_hz)),
            (options.codec, partial(codecs.transmit, names=options.codecs)),
        ]

    @property
    def longest(self) -> float:
        """How many times longer an example can become."""
        return 1 / min(self.options.speeds)

    def faults(self) -> tuple[tuple[str, str, str], ...]:
        """Noises and rooms that could not be read since the last call: id, what is wrong, path."""
        return tuple(fault for bank in self._banks for fault in bank.faults())

    def __call__(self, samples: Samples, rng: np.random.Generator) -> Samples:
        """Change samples.

        Args:
            samples: (n,) float32 at 16 kHz; not written to.
            rng: decides everything.

        Returns:
            (m,) float32 in [-1, 1]; m = n / speed.
        """
        return self.keep_length(self.at_speed(samples, rng), rng)

    def at_speed(self, samples: Samples, rng: np.random.Generator) -> Samples:
        """Only the change of speed."""
        return change_speed(samples, self.draw_speed(rng))

    def draw_speed(self, rng: np.random.Generator) -> float:
        """Draw a factor, for callers who stretch labels too."""
        return float(self.options.speeds[rng.integers(len(self.options.speeds))])

    def keep_length(self, samples: Samples, rng: np.random.Generator) -> Samples:
        """Everything but the change of speed: every sound stays where it is."""
        chances, streams = rng.random(len(self.steps)), rng.spawn(len(self.steps))
        for (probability, step), chance, own in zip(self.steps, chances, streams, strict=True):
            if chance < probability and len(samples):
                samples = step(samples, own)
        return np.clip(samples, -1.0, 1.0)


class SoundBank:
    """Recordings of a manifest at random: noises, music, rooms. The last few stay in memory."""

    def __init__(self, utterances: Sequence[Utterance], cached: int = _CACHED_RECORDINGS) -> None:
        """Take the recordings."""
        self.utterances = list(utterances)
        self._load = lru_cache(maxsize=cached)(self._read)
        self._bad: set[int] = set()
        self._faults: list[tuple[str, str, str]] = []

    def _read(self, index: int) -> NDArray[np.int16]:
        utterance = self.utterances[index]
        samples = utterance.load()
        if not len(samples):
            raise AudioError(f"{utterance.audio} holds no samples; take it out of the manifest")
        return np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)

    def __getstate__(self) -> list[Utterance]:
        """For worker processes: they fill a cache of their own."""
        return self.utterances

    def __setstate__(self, utterances: list[Utterance]) -> None:
        self.__init__(utterances)  # type: ignore[misc]

    def faults(self) -> list[tuple[str, str, str]]:
        """Recordings that could not be read since the last call: id, what is wrong, path."""
        found, self._faults = self._faults, []
        return found

    def draw(self, rng: np.random.Generator) -> Samples:
        """Draw a whole recording; in place of one that cannot be read the next one is taken.

        Raises:
            AudioError: none can be read.
        """
        first, count = int(rng.integers(len(self.utterances))), len(self.utterances)
        for index in ((first + i) % count for i in range(count)):
            if index in self._bad:
                continue
            try:
                return self._load(index).astype(np.float32) / np.float32(32768)
            except (AudioError, ManifestError) as error:
                self._bad.add(index)
                self._faults.append((self.utterances[index].id, str(error), self.utterances[index].audio))
        raise AudioError(f"none of the {count} recordings of noises or rooms can be read")

    def stretch(self, count: int, rng: np.random.Generator) -> Samples:
        """Draw so many samples: a stretch of a recording, or a short one again and again."""
        whole = self.draw(rng)
        if len(whole) >= count:
            first = int(rng.integers(len(whole) - count + 1))
            return whole[first : first + count]
        return np.resize(np.roll(whole, -int(rng.integers(len(whole)))), count)


def change_speed(samples: Samples, speed: float) -> Samples:
    """Play faster (speed > 1) or slower: (n,) → (round(n / speed),); pitch changes too."""
    if speed == 1.0 or not len(samples):
        return samples
    import soxr

    wanted = max(1, round(len(samples) / speed))
    return _of_length(soxr.resample(samples, speed * SAMPLE_RATE, SAMPLE_RATE, quality="HQ"), wanted)


def _of_length(samples: NDArray[np.floating], count: int) -> Samples:
    samples = samples[:count].astype(np.float32, copy=False)
    return samples if len(samples) == count else np.pad(samples, (0, count - len(samples)))


def change_volume(samples: Samples, rng: np.random.Generator, *, decibels: tuple[float, float]) -> Samples:
    """Scale by a gain from a range; never so loud that it clips."""
    gain = 10 ** (rng.uniform(*decibels) / 20)
    peak = float(np.abs(samples).max())
    if gain > 1 and peak > 0:
        gain = max(1.0, min(gain, 1 / peak))
    return samples * np.float32(gain)


def add_noise(
    samples: Samples, rng: np.random.Generator, *, snr_db: tuple[float, float], noises: SoundBank | None = None
) -> Samples:
    """Add noise at a ratio from a range; without a bank, coloured noise. Silence stays as it is.

    The mix is scaled down where it would clip.
    """
    count = len(samples)
    noise = coloured_noise(count, rng.uniform(0.0, 2.0), rng) if noises is None else noises.stretch(count, rng)
    level, noise_level = _rms(samples), _rms(noise)
    if level < _SILENCE or noise_level < _SILENCE:
        return samples
    gain = level / noise_level / 10 ** (rng.uniform(*snr_db) / 20)
    return _within_scale(samples + noise * np.float32(gain))


def _rms(samples: Samples) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def _within_scale(samples: Samples) -> Samples:
    peak = float(np.abs(samples).max())
    return samples if peak <= 1 else samples / np.float32(peak)


def coloured_noise(count: int, exponent: float, rng: np.random.Generator) -> Samples:
    """Noise whose power falls with frequency as 1/f^exponent (0 white, 1 pink, 2 brown), (count,), RMS 0.1."""
    size = _fast_size(count)
    spectrum = np.fft.rfft(rng.standard_normal(size, dtype=np.float32))
    frequencies = np.maximum(np.fft.rfftfreq(size, 1 / SAMPLE_RATE), 20.0)  # flat below what one hears
    noise = np.fft.irfft(spectrum * (frequencies ** (-exponent / 2)).astype(np.float32), size)[:count]
    return (noise * (0.1 / max(float(np.sqrt(np.mean(noise**2))), 1e-12))).astype(np.float32)


def _fast_size(count: int) -> int:
    """A length of at least `count` whose Fourier transform is fast: 2, 3 or 5 times a power of two, or one."""
    count = max(count, 2)
    return min(f << max(0, (-(-count // f) - 1).bit_length()) for f in (1, 3, 5))


def reverberate(
    samples: Samples, rng: np.random.Generator, *, seconds: tuple[float, float], rooms: SoundBank | None = None
) -> Samples:
    """Place the sound in a room, at the level it had; the direct sound stays in place, the tail is cut."""
    response = made_up_room(rng.uniform(*seconds), rng) if rooms is None else _from_direct(rooms.draw(rng))
    size = _fast_size(len(samples) + len(response) - 1)
    wet = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(response, size), size)[: len(samples)]
    level, wet_level = _rms(samples), _rms(wet.astype(np.float32))
    if level < _SILENCE or wet_level < 1e-12:
        return samples
    return _within_scale((wet * (level / wet_level)).astype(np.float32))


def _from_direct(response: Samples) -> Samples:
    """Cut what comes before the direct sound, its highest peak."""
    first = int(np.argmax(np.abs(response)))
    return response[first : first + int(_LONGEST_ROOM * SAMPLE_RATE)]


def made_up_room(decay_seconds: float, rng: np.random.Generator) -> Samples:
    """An impulse response: direct sound, some early reflections, a tail of noise that falls by 60 dB in a time.

    Args:
        decay_seconds: that time; rooms have 0.1 to 1.
        rng: decides reflections and tail.

    Returns:
        (k,) float32 that begins with the direct sound, 1.0.
    """
    count = max(64, int(min(decay_seconds, _LONGEST_ROOM) * SAMPLE_RATE))
    time = np.arange(count) / SAMPLE_RATE
    envelope = 10 ** (-3 * time / decay_seconds)
    begin = rng.uniform(0.005, 0.03)  # the tail builds up after the first reflections
    tail = rng.standard_normal(count) * envelope * np.clip(time / begin, 0, 1)
    # energy of direct sound to energy of the tail: near the speaker or far away
    tail *= 10 ** (-rng.uniform(-3, 15) / 20) / max(float(np.sqrt(np.sum(tail**2))), 1e-12)
    reflections = int(rng.integers(3, 12))
    delays = rng.uniform(0.001, 0.05, reflections)
    places = np.minimum((delays * SAMPLE_RATE).astype(int), count - 1)
    strengths = rng.uniform(0.1, 0.6, reflections) * rng.choice([-1.0, 1.0], reflections) * envelope[places]
    np.add.at(tail, places, strengths)
    tail[0] = 1.0
    return tail.astype(np.float32)


def clip_peaks(samples: Samples, rng: np.random.Generator, *, fraction: tuple[float, float]) -> Samples:
    """Cut off the highest peaks, so many of the samples, as an overdriven microphone does."""
    limit = float(np.quantile(np.abs(samples), 1 - rng.uniform(*fraction)))
    return samples if limit < _SILENCE else np.clip(samples, -limit, limit)


def low_pass(samples: Samples, rng: np.random.Generator, *, edge_hz: tuple[float, float]) -> Samples:
    """Take away what lies above an edge from a range, falling over a third of an octave."""
    edge = rng.uniform(*edge_hz)
    size = _fast_size(len(samples) + 1024)  # room for what would wrap around
    frequencies = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    octaves = np.log2(np.maximum(frequencies, 1.0) / edge)
    gain = 0.5 * (1 + np.cos(np.pi * np.clip(3 * octaves, 0, 1)))
    return np.fft.irfft(np.fft.rfft(samples, size) * gain, size)[: len(samples)].astype(np.float32)


def spec_augment(
    features: NDArray[np.float32],
    rng: np.random.Generator,
    options: SpecAugmentOptions = SpecAugmentOptions(),
) -> NDArray[np.float32]:
    """Blot out random bands and stretches with 0, the mean of normalised features (arXiv 1904.08779).

    Args:
        features: (T, 80) float32, normalised; not written to.
        rng: decides the places.
        options: how many and how large.

    Returns:
        (T, 80) float32.
    """
    masked = features.copy()
    frames, bins = features.shape
    for _ in range(options.frequency_masks):
        width = int(rng.integers(min(options.frequency_width, bins) + 1))
        first = int(rng.integers(bins - width + 1))
        masked[:, first : first + width] = 0.0
    longest = min(options.time_width, int(options.time_share * frames))
    for _ in range(options.time_masks):
        width = int(rng.integers(longest + 1))
        first = int(rng.integers(frames - width + 1))
        masked[first : first + width] = 0.0
    return masked
