"""An opened recording."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vermilion.audio.arrays import to_float32
from vermilion.audio.features import SAMPLE_RATE


@dataclass(frozen=True)
class Recording:
    """One channel, or the mix, of a recording at 16 kHz."""

    name: str
    """what messages call it"""
    samples: NDArray[np.float32] | NDArray[np.int16]
    """(n,) float32 in [-1, 1], or int16; a read-only memory map if the recording is long"""
    channel: int | None = None
    """number of the channel, None for a mix"""
    warnings: list[str] = field(default_factory=list)
    """what was wrong with the source but did not prevent reading"""

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return len(self.samples) / SAMPLE_RATE

    def slice(self, start: float, end: float) -> NDArray[np.float32]:
        """Return the samples between two times.

        Args:
            start: seconds; times are rounded to the nearest sample (the published code truncates).
            end: seconds; times outside the recording are moved to its edges.

        Returns:
            (n,) float32 in [-1, 1].
        """
        first, last = (min(max(0, round(t * SAMPLE_RATE)), len(self.samples)) for t in (start, end))
        return to_float32(self.samples[first:last])

    def close(self) -> None:
        """Drop the samples; the temporary file of a long recording goes with them. May be called twice."""
        object.__setattr__(self, "samples", np.zeros(0, dtype=self.samples.dtype))
