"""How fast the engines are, measured while they work."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

MEMORY = 120.0
"""seconds of work after which a measurement has lost most of its weight"""


class Rate:
    """Seconds of audio per second of work, forgetting slowly."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with the speed of sound: 1."""
        self._clock = clock
        self._done = self._spent = 10.0  # worth ten seconds of experience
        self._at_work = 0
        self._since = 0.0

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Somebody waits for the engines."""
        self._advance()
        self._at_work += 1
        try:
            yield
        finally:
            self._advance()
            self._at_work -= 1

    def add(self, seconds: float) -> None:
        """So much audio was finished."""
        self._advance()
        self._done += seconds

    @property
    def value(self) -> float:
        """Seconds of audio per second, at least 0.01."""
        self._advance()
        return max(0.01, self._done / self._spent)

    def _advance(self) -> None:
        now = self._clock()
        spent = now - self._since if self._at_work else 0.0
        self._since = now
        fade = math.exp(-spent / MEMORY)
        self._done *= fade
        self._spent = self._spent * fade + spent
