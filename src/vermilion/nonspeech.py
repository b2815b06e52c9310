"""Segments that hold no speech: what the event detector hears in them, and how far the recogniser doubts its own text.

The limits were chosen on benchmarks/real (RESULTS.md there, "Nobody speaks"), so that an hour of music, noise and
silence gives no words and as little as possible of the recordings of speech is lost. Neither witness is believed alone:
an event detector overlooks speech under loud music, and a recogniser doubts much that is said in languages it knows
badly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vermilion.flags import MUSIC, NO_SPEECH, SINGING

if TYPE_CHECKING:
    from vermilion.assembly import Unit
    from vermilion.transcript import EventResult, Recognition, Span

OnSound = Literal["keep", "mark", "drop"]
OnNoise = Literal["keep", "drop"]
HALF = 0.5
"""share of a segment from which it is mostly music or singing"""
LITTLE = 0.15
"""share of speech below which a segment is believed to hold none"""
MUCH = 0.8
"""share of speech from which the event detector is taken for sure"""
UNSURE = -0.97
"""mean log-probability of tokens below which a recogniser doubts its text (what Whisper-base wrote for sounds lies at
-0.99 and below, but for the buzz of a bee; so does speech in languages that it took for others)"""
UNSURE_SUNG = -0.75
"""the same where the event detector hears singing as well: a buzz of one pitch is that to it, and words to Whisper"""
SILENCE_LIKELY, UNSURE_SILENT = 0.45, -0.45
"""a probability of silence that is not seen for clean speech (Whisper's stays below 0.22, that of a CTC head that knows
the language too), and the log-probability below which text is doubted then"""
SILENT, SILENT_LITTLE = 0.27, 0.12
"""the recogniser's own probability of silence from which doubted text is dropped; the second where the event detector
is not sure of speech either"""


@dataclass(frozen=True)
class Shares:
    """How much of a segment each event takes, in [0, 1]; they may overlap."""

    speech: float
    singing: float
    music: float


@dataclass(frozen=True)
class SoundPolicy:
    """What becomes of segments with music, singing and noise."""

    on_music: OnSound = "mark"
    on_singing: OnSound = "mark"
    on_noise: OnNoise = "drop"

    @property
    def needs_events(self) -> bool:
        """Whether it matters what the event detector hears."""
        return (self.on_music, self.on_singing, self.on_noise) != ("keep", "keep", "keep")

    def refused(self, shares: Shares | None) -> list[str]:
        """Flags of a segment that need not be recognised, because such segments are to give no words; else nothing."""
        kind = _kind(shares)
        return [NO_SPEECH, kind] if kind and self._choice(kind) == "drop" else []

    def marks(self, shares: Shares | None) -> list[str]:
        """Flags of a segment whose text stays."""
        if shares is None:
            return []
        sung = shares.singing > max(HALF, shares.speech) and self.on_singing != "keep"
        played = shares.music > HALF and self.on_music != "keep"
        return [flag for flag, holds in ((MUSIC, played), (SINGING, sung)) if holds]

    def doubted(self, recognition: Recognition, shares: Shares | None) -> bool:
        """Tell whether a text was most likely invented for a segment in which nobody speaks."""
        if self._choice(_kind(shares)) == "keep" or not recognition.text.strip():
            return False
        certainty = log_probability(recognition)
        if certainty is None:
            return False
        if recognition.log_probability is None and certainty < UNSURE_SILENT and _hears_no_speech(shares):
            return True  # such recognisers are sure of speech: below that lies what they say of music
        silent = (recognition.no_speech or 0.0) >= SILENCE_LIKELY
        sung = shares is not None and shares.singing >= LITTLE
        if certainty >= (UNSURE_SILENT if silent else UNSURE_SUNG if sung else UNSURE):
            return False
        if recognition.no_speech is None:
            return shares is not None and shares.speech < HALF
        spoken = shares is None or (shares.speech >= MUCH and not sung)
        return recognition.no_speech >= (SILENT if spoken else SILENT_LITTLE)

    def _choice(self, kind: str) -> str:
        return {MUSIC: self.on_music, SINGING: self.on_singing}.get(kind, self.on_noise)


def _hears_no_speech(shares: Shares | None) -> bool:
    """Whether the event detector hears hardly any speech, or music with some that it is not sure of."""
    return shares is not None and (shares.speech < LITTLE or (shares.music > HALF and shares.speech < MUCH))


def shares_of(result: EventResult, span: Span) -> Shares:
    """How much of a segment each event takes."""
    length = max(span.duration, 1e-9)
    speech, singing, music = (
        sum(max(0.0, min(s.end, span.end) - max(s.start, span.start)) for s in result.spans.get(label, ())) / length
        for label in ("speech", "singing", "music")
    )
    return Shares(speech, singing, music)


def log_probability(recognition: Recognition) -> float | None:
    """Mean natural logarithm of the tokens' probabilities; None if the recogniser does not tell."""
    if recognition.log_probability is not None or not recognition.tokens:
        return recognition.log_probability
    return sum(math.log(max(t.probability, 1e-9)) for t in recognition.tokens) / len(recognition.tokens)


def silence_warning(units: Iterable[Unit]) -> list[str]:
    """A sentence about segments that gave no words because nobody seems to speak in them."""
    dropped = [unit for unit in units if NO_SPEECH in unit.flags]
    if not dropped:
        return []
    parts = [f"{name} {_seconds(found):.1f} s" for name, found in _by_sound(dropped).items() if found]
    what = ", ".join(parts)
    return [f"nobody seems to speak in {_seconds(dropped):.1f} s that were taken for speech ({what}): no words there"]


def _by_sound(units: Sequence[Unit]) -> dict[str, list[Unit]]:
    kinds = [(unit, next((f for f in (SINGING, MUSIC) if f in unit.flags), "noise")) for unit in units]
    return {name: [unit for unit, kind in kinds if kind == name] for name in (MUSIC, SINGING, "noise")}


def _seconds(units: Sequence[Unit]) -> float:
    return sum(unit.span.duration for unit in units)


def _kind(shares: Shares | None) -> str:
    """`singing`, `music`, or nothing where it is neither, or where people speak as well."""
    if shares is None:
        return ""
    if shares.singing > max(HALF, shares.speech):
        return SINGING
    return MUSIC if shares.music > HALF and shares.speech < LITTLE else ""
