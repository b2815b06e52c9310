"""An hour in which nobody speaks: music, effects and animals, coloured noise, hum, clicks, silence.

Recordings of 60 s at three levels. Effects and animals are chosen by name, so that no human voice is among them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import timeline
from timeline import RATE, Samples, Take

SECONDS = 60.0
LEVELS = (-16.0, -24.0, -34.0)
"""dB of a recording relative to full scale, in turn"""
MUSIC, EFFECTS = 30, 15
HEDGEWARS = """
blowtorch drillgun flamethrower landgun minigun molotov mortar plane rcplane rubberduck_water rubberduck_die
rubberduck_drop sinegun steam steps beewater bee cake2 explosion hammer pickhammer splash ropeshot shotgunfire gun
frozen_hog_impact ufo egg warp portalshot portalopen whipcrack Droplet1 Droplet2 Droplet3 airmine_impact melonimpact
mineimpact minetick graveimpact grenadeimpact jetpackboost parachute planewater TARDIS ice_beam ice_beam_idle
sniperreload shotgunreload shutterclick beep lasersight
"""
WESNOTH = """
ambient/birds1 ambient/birds2 ambient/birds3 ambient/campfire ambient/morning ambient/night ambient/ship
ambient/wardrums cave-in rumble explosion fuse lightning thunderstick gold dragonstick axe club mace sword-1 torch
melee-fire horn-signals/horn-1 horn-signals/horn-4 wolf-growl-1 wolf-growl-2 wolf-growl-3 wolf-growl-4 wolf-hit-1
wolf-hit-2 wolf-hit-3 wolf-die-1 wolf-die-2 wolf-die-3 gryphon-shriek-1 gryphon-shriek-2 gryphon-hit-1 gryphon-hit-2
gryphon-hit-3 gryphon-die-1 bat-hit-1 bat-hit-2 bat-hit-3 bat-hit-4 horse-hit-1 horse-hit-2 horse-hit-3 horse-die
tusker-charge tusker-hit tusker-die drake-hit-1 drake-hit-2 drake-hit-3 drake-die yeti-hit yeti-die crossbow flail
magic-missile-1 magic-holy-1 magic-dark pincers claws bite
"""
ANIMALS = ("tt-monkeys",)
"""of asterisk's prompts: screaming monkeys, for which Whisper-base wrote English sentences"""


@dataclass(frozen=True)
class Sound:
    """A recording of the set."""

    name: str
    condition: str
    samples: Samples


def hour(music: Sequence[tuple[str, Samples]], effects: Sequence[Samples], animals: Samples) -> list[Sound]:
    """Make the recordings.

    Args:
        music: (name, samples) of pieces of at least 60 s.
        effects: short sounds.
        animals: a longer recording of animals.
    """
    rng = np.random.default_rng(16)
    found = [("music", music[i % len(music)][1]) for i in range(MUSIC)]
    found += [("effects", _effects(effects, rng)) for _ in range(EFFECTS - 1)]
    found.append(("effects", _effects([animals], rng)))
    found += [("noise", make(rng)) for make in NOISES]
    loud = [_at(samples, LEVELS[i % len(LEVELS)]) for i, (_, samples) in enumerate(found)]
    sounds = [(condition, samples) for (condition, _), samples in zip(found, loud, strict=True)]
    sounds += [("silence", make(rng).astype(np.float32)) for make in SILENCES]
    return [Sound(f"{condition}-{i:02}", condition, samples) for i, (condition, samples) in enumerate(sounds)]


def _at(samples: Samples, level: float) -> Samples:
    loud = timeline.at_level(samples, [(0.0, len(samples) / RATE)], level)
    return np.asarray(loud / max(1.0, float(np.abs(loud).max()) / 0.98), dtype=np.float32)


def _effects(pieces: Sequence[Samples], rng: np.random.Generator) -> Samples:
    """Sounds one after the other with pauses of up to 1.5 s."""
    order = [pieces[i] for _ in range(1 + 200 // len(pieces)) for i in rng.permutation(len(pieces))]
    take = Take(np.zeros(0, np.float32))
    parts: list[Samples] = []
    while sum(map(len, parts)) < SECONDS * RATE:
        piece = order[len(parts) // 2 % len(order)]
        parts += [
            timeline.at_level(piece, timeline.active(piece)),
            np.zeros(int(rng.uniform(0, 1.5) * RATE), np.float32),
        ]
    return np.concatenate([take.samples, *parts])[: round(SECONDS * RATE)]


def _coloured(kind: str) -> Callable[[np.random.Generator], Samples]:
    return lambda rng: timeline.noise(kind, round(SECONDS * RATE), rng)


def _swelling(rng: np.random.Generator) -> Samples:
    """Pink noise that comes and goes at the rate of syllables, the hardest of these for a detector."""
    noise = timeline.noise("pink", round(SECONDS * RATE), rng)
    return np.asarray(noise * (0.1 + np.sin(np.pi * 4 * _time()) ** 2), dtype=np.float32)


def _hum(mains: float) -> Callable[[np.random.Generator], Samples]:
    """A mains hum with harmonics under a little hiss."""

    def make(rng: np.random.Generator) -> Samples:
        tones = sum(np.sin(2 * np.pi * mains * k * _time()) / k for k in range(1, 9))
        return np.asarray(tones + 0.02 * rng.standard_normal(len(_time())), dtype=np.float32)

    return make


def _clicks(rng: np.random.Generator) -> Samples:
    """Clicks at random times, as of an old record or a keyboard."""
    out = 0.001 * rng.standard_normal(len(_time()))
    decay = np.exp(-np.arange(80) / 12)
    for at in rng.integers(0, len(out) - 80, 300):
        out[at : at + 80] += decay * rng.standard_normal(80)
    return np.asarray(out, dtype=np.float32)


def _tones(rng: np.random.Generator) -> Samples:
    """A telephone that rings, then keys: pairs of tones."""
    on = (_time() % 1.0) < 0.4
    low, high = rng.choice((697, 770, 852, 941), 60), rng.choice((1209, 1336, 1477), 60)
    second = _time().astype(int)
    return np.asarray(
        on * (np.sin(2 * np.pi * low[second] * _time()) + np.sin(2 * np.pi * high[second] * _time())), dtype=np.float32
    )


def _sweep(rng: np.random.Generator) -> Samples:
    """A siren: a tone between 400 and 1600 Hz with harmonics."""
    phase = 2 * np.pi * np.cumsum(1000 + 600 * np.sin(2 * np.pi * _time() / 3)) / RATE
    return np.asarray(sum(np.sin(k * phase) / k for k in (1, 2, 3)), dtype=np.float32)


def _time() -> np.ndarray:
    return np.arange(round(SECONDS * RATE)) / RATE


NOISES = (
    _coloured("white"), _coloured("pink"), _coloured("brown"), _swelling, _hum(50), _hum(60), _clicks, _tones, _sweep,
    _coloured("pink"),
)  # fmt: skip
SILENCES: tuple[Callable[[np.random.Generator], np.ndarray], ...] = (
    lambda _: np.zeros(len(_time())),
    lambda rng: rng.integers(-1, 2, len(_time())) / 32768,
    lambda rng: 10 ** (-75 / 20) * rng.standard_normal(len(_time())),
    lambda rng: 10 ** (-60 / 20) * rng.standard_normal(len(_time())),
    lambda rng: 0.1 + 10 ** (-80 / 20) * rng.standard_normal(len(_time())),
)
"""digital zero, its last bit, the hiss of a quiet room and of a noisy input, a constant offset"""
