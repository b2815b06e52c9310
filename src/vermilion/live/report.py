"""How a live session did: delays, partial words, failures."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

KEPT = 4096
"""newest delays that are kept: a session may last for ever"""


@dataclass(frozen=True)
class Delay:
    """Seconds, of the newest occasions; None without any."""

    median: float | None
    p95: float | None

    @classmethod
    def of(cls, values: deque[float]) -> Delay:
        """Summarise."""
        if not values:
            return cls(None, None)
        half, most = np.percentile(list(values), [50, 95]).tolist()
        return cls(half, most)


@dataclass(frozen=True)
class LiveReport:
    """What happened in a session so far."""

    seconds: float
    """audio"""
    utterances: int
    failures: int
    partials: int
    first_partial: Delay
    """from the arrival of an utterance's first sample to its first shown words"""
    partial: Delay
    """from the arrival of the newest sample that a partial has heard"""
    final: Delay
    """from the arrival of an utterance's last sample to its text, the silence that ends it included"""
    shown_words: int
    """words that partials showed"""
    changed_words: int
    """those that were taken back, replaced, or differ in the final text"""
    guessed: int
    """finals whose decode began before the silence was complete"""
    real_time_factor: float
    """seconds of the networks per second of audio, voice activity left out"""

    @property
    def changed_share(self) -> float:
        """Share of shown words that were later changed."""
        return self.changed_words / self.shown_words if self.shown_words else 0.0


@dataclass
class Timings:
    """Collects what a report needs."""

    first_delays: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    partial_delays: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    final_delays: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    utterances: int = 0
    partials: int = 0
    failures: int = 0
    shown: int = 0
    changed: int = 0
    guessed: int = 0
    cost: float = 0.0

    def report(self, seconds: float) -> LiveReport:
        """Sum up."""
        return LiveReport(
            seconds,
            self.utterances,
            self.failures,
            self.partials,
            Delay.of(self.first_delays),
            Delay.of(self.partial_delays),
            Delay.of(self.final_delays),
            self.shown,
            self.changed,
            self.guessed,
            self.cost / seconds if seconds else 0.0,
        )
