"""Channels → one: the mean of those that carry sound, one of them where they cancel each other out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from vermilion.audio.decode import Block, Warn

_STEP_SECONDS = 0.5
"""how often channels are compared"""
_LEAST_SECONDS = 0.1
"""shorter pieces say too little"""
_SILENT = 1e-9
"""mean square of what carries nothing"""
_QUIET = 0.01
"""a channel that is 20 dB below the loudest carries nothing that the loudest does not"""
_CANCELLED = 0.5
"""share of the energy that unrelated channels would keep; less of it means that they cancel each other out"""
_WORTH_SAYING = 0.5
"""seconds"""
_RAMP_SECONDS = 0.01
"""weights change over this time, so that nothing clicks"""


def mixed(blocks: Iterator[Block], warn: Warn) -> Iterator[Block]:
    """Mix every block down to one channel.

    Yields:
        (rate, (n, 1)); blocks with one channel as they are.
    """
    mixer = _Mixer()
    for rate, block in blocks:
        if block.shape[1] == 1:
            yield rate, block
            continue
        step = max(1, round(_STEP_SECONDS * rate))
        for start in range(0, len(block), step):
            yield rate, mixer.mix(block[start : start + step], rate)
    if mixer.cancelled >= _WORTH_SAYING:
        warn(
            f"its channels cancel each other out (opposite phase) for {mixer.cancelled:.1f} seconds; "
            "the loudest one was used there"
        )


class _Mixer:
    """Weights of the channels, which follow what they carry."""

    def __init__(self) -> None:
        self.weights: NDArray[np.float32] = np.zeros(0, np.float32)
        self.cancelled = 0.0
        """seconds"""

    def mix(self, block: NDArray[np.float32], rate: float) -> NDArray[np.float32]:
        """(n, channels) → (n, 1)."""
        count = block.shape[1]
        before = self.weights if len(self.weights) == count else np.full(count, 1 / count, np.float32)
        self.weights = self._weights(block, rate, before) if len(block) >= _LEAST_SECONDS * rate else before
        if np.allclose(self.weights, 1 / count) and np.allclose(before, 1 / count):
            mean: NDArray[np.float32] = block.mean(axis=1, keepdims=True)
            return mean
        ramp = np.minimum(np.arange(len(block), dtype=np.float32) / (_RAMP_SECONDS * rate), 1.0)[:, None]
        found: NDArray[np.float32] = ((before + (self.weights - before) * ramp) * block).sum(axis=1, keepdims=True)
        return found

    def _weights(self, block: NDArray[np.float32], rate: float, before: NDArray[np.float32]) -> NDArray[np.float32]:
        energies = np.square(block, dtype=np.float64).mean(axis=0)
        loudest = float(energies.max())
        if loudest <= _SILENT:
            return before
        active = energies >= _QUIET * loudest
        mean = block[:, active].mean(axis=1)
        kept = float(np.square(mean, dtype=np.float64).mean())
        if active.sum() > 1 and kept < _CANCELLED * loudest / active.sum():
            self.cancelled += len(block) / rate
            active = np.arange(len(energies)) == energies.argmax()
        shares: NDArray[np.float32] = (active / active.sum()).astype(np.float32)
        return shares
