"""Deep feed-forward sequential memory network of FireRedVAD, in numpy (SPEC section 9).

It is small (0.6 M parameters): numpy runs it as fast as torch and starts without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

BLOCK = 64
"""frames that one row of the blocked convolution covers"""
SHORT = 32
"""frames of a stream up to which a plain sum over the taps is faster"""
LIVE_ROOM = 64
"""frames of a live stream between two moves of its past"""
CHUNK = 512
"""frames whose wide activations stay in a core's cache"""


@dataclass(frozen=True)
class DfsmnConfig:
    """Sizes, by the names that the checkpoints use."""

    idim: int = 80
    R: int = 8
    """memory blocks"""
    M: int = 1
    """feed-forward layers after them"""
    H: int = 256
    """hidden width"""
    P: int = 128
    """projection width"""
    N1: int = 20
    """look-back taps, the current frame included"""
    S1: int = 1
    """look-back stride"""
    N2: int = 20
    """look-ahead taps; 0 = causal"""
    S2: int = 1
    """look-ahead stride"""
    odim: int = 1

    @property
    def look_back(self) -> int:
        """Frames before a frame that one memory sees."""
        return (self.N1 - 1) * self.S1

    @property
    def look_ahead(self) -> int:
        """Frames after a frame that one memory sees."""
        return self.N2 * self.S2

    def keys(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor of the state dictionary."""
        shapes: dict[str, tuple[int, ...]] = {
            "dfsmn.fc1.0.weight": (self.H, self.idim),
            "dfsmn.fc1.0.bias": (self.H,),
            "dfsmn.fc2.0.weight": (self.P, self.H),
            "dfsmn.fc2.0.bias": (self.P,),
            **self._memory("dfsmn.fsmn1"),
        }
        for i in range(self.R - 1):
            shapes |= {
                f"dfsmn.fsmns.{i}.fc1.0.weight": (self.H, self.P),
                f"dfsmn.fsmns.{i}.fc1.0.bias": (self.H,),
                f"dfsmn.fsmns.{i}.fc2.weight": (self.P, self.H),
                **self._memory(f"dfsmn.fsmns.{i}.fsmn"),
            }
        for i in range(self.M):
            shapes[f"dfsmn.dnns.{3 * i}.weight"] = (self.H, self.P if i == 0 else self.H)
            shapes[f"dfsmn.dnns.{3 * i}.bias"] = (self.H,)
        shapes["out.weight"] = (self.odim, self.H if self.M else self.P)
        shapes["out.bias"] = (self.odim,)
        return shapes

    def _memory(self, prefix: str) -> dict[str, tuple[int, ...]]:
        taps: dict[str, tuple[int, ...]] = {f"{prefix}.lookback_filter.weight": (self.P, 1, self.N1)}
        if self.N2:
            taps[f"{prefix}.lookahead_filter.weight"] = (self.P, 1, self.N2)
        return taps


@dataclass
class _Memory:
    """A finite impulse response per channel, the skip of the current frame included."""

    taps: Array
    """(look back + 1 + look ahead, P), oldest frame first"""
    look_back: int
    toeplitz: Array = field(init=False)
    """(P, BLOCK + taps − 1, BLOCK): the filter as one small matrix per channel"""

    def __post_init__(self) -> None:
        width, channels = self.taps.shape
        self.toeplitz = np.zeros((channels, BLOCK + width - 1, BLOCK), dtype=np.float32)
        for i in range(BLOCK):
            self.toeplitz[:, i : i + width, i] = self.taps.T

    def __call__(self, x: Array) -> Array:
        """(P, T) → (P, T); frames outside the signal are zero."""
        channels, frames = x.shape
        padded = np.zeros((channels, _whole(frames) + len(self.taps) - 1), dtype=np.float32)
        padded[:, self.look_back : self.look_back + frames] = x
        return self._blocked(padded)[:, :frames]

    def causal(self, signal: Array, count: int) -> Array:
        """(N, look back + count, P) past and new frames of N streams → (N, count, P)."""
        n, length, channels = signal.shape
        if count == 1:
            newest: Array = np.einsum("nwp,wp->np", signal, self.taps)[:, None]
            return newest
        if count <= SHORT:
            s = signal.strides
            windows = np.ndarray((n, count, len(self.taps), channels), np.float32, signal, 0, (s[0], s[1], s[1], s[2]))
            short: Array = np.einsum("nkwp,wp->nkp", windows, self.taps)
            return short
        rows = np.zeros((n, channels, _whole(count) + len(self.taps) - 1), dtype=np.float32)
        rows[:, :, :length] = signal.transpose(0, 2, 1)
        return np.stack([self._blocked(row)[:, :count].T for row in rows])

    def _blocked(self, padded: Array) -> Array:
        """Filter each channel by matrix products over overlapping blocks: (P, T + taps − 1) → (P, T).

        The blocks are copied: a matrix library takes no overlapping rows, and numpy's own product is 20 times slower.
        """
        width = self.toeplitz.shape[1]
        blocks = (padded.shape[1] - width) // BLOCK + 1
        s = padded.strides
        windows = np.ndarray((len(padded), blocks, width), np.float32, padded, 0, (s[0], BLOCK * s[1], s[1])).copy()
        filtered: Array = np.matmul(windows, self.toeplitz).reshape(len(padded), -1)
        return filtered


def _whole(frames: int) -> int:
    """Frames of the blocks that so many fill."""
    return -(-frames // BLOCK) * BLOCK


class LiveState:
    """One live stream: past inputs of each memory in buffers that are moved once in a while, and room to work in."""

    def __init__(self, config: DfsmnConfig) -> None:
        """Begin in silence."""
        self.look_back = config.look_back
        self.end = self.look_back
        self.past = np.zeros((config.R, self.look_back + LIVE_ROOM, config.P), dtype=np.float32)
        self.hidden = np.empty(config.H, dtype=np.float32)
        self.products = np.empty((self.look_back + 1, config.P), dtype=np.float32)

    def rewind(self, past: Sequence[Array] | None = None) -> None:
        """Move the past to the front of the buffers; a new past may be given, (1, look back, P) each."""
        for i, buffer in enumerate(self.past):
            buffer[: self.look_back] = buffer[self.end - self.look_back : self.end] if past is None else past[i][0]
        self.end = self.look_back


class Dfsmn:
    """The network; immutable, so many streams can share it."""

    def __init__(self, config: DfsmnConfig, state: Mapping[str, Array]) -> None:
        """Take the weights by their published keys (exactly `config.keys()`)."""
        self.config = config
        w = {k: np.ascontiguousarray(v, dtype=np.float32) for k, v in state.items()}
        self._first = (w["dfsmn.fc1.0.weight"], w["dfsmn.fc1.0.bias"])
        self._second = (w["dfsmn.fc2.0.weight"], w["dfsmn.fc2.0.bias"])
        names = ["dfsmn.fsmn1", *(f"dfsmn.fsmns.{i}.fsmn" for i in range(config.R - 1))]
        self._memories = [self._memory(w, name) for name in names]
        self._blocks = [
            (w[f"dfsmn.fsmns.{i}.fc1.0.weight"], w[f"dfsmn.fsmns.{i}.fc1.0.bias"], w[f"dfsmn.fsmns.{i}.fc2.weight"])
            for i in range(config.R - 1)
        ]
        self._dense = [(w[f"dfsmn.dnns.{3 * i}.weight"], w[f"dfsmn.dnns.{3 * i}.bias"]) for i in range(config.M)]
        self._out = (w["out.weight"], w["out.bias"])

    def _memory(self, w: Mapping[str, Array], name: str) -> _Memory:
        c = self.config
        taps = np.zeros((c.look_back + 1 + c.look_ahead, c.P), dtype=np.float32)
        taps[: c.look_back + 1 : c.S1] = w[f"{name}.lookback_filter.weight"][:, 0].T
        if c.N2:
            taps[c.look_back + c.S2 :: c.S2] = w[f"{name}.lookahead_filter.weight"][:, 0].T
        taps[c.look_back] += 1.0  # y = x + filter(x)
        return _Memory(taps, c.look_back)

    @property
    def context(self) -> tuple[int, int]:
        """Frames before and after a frame that its probability depends on."""
        return self.config.R * self.config.look_back, self.config.R * self.config.look_ahead

    def __call__(self, features: Array) -> Array:
        """Probabilities of a whole signal: (T, idim) → (T, odim)."""
        if len(features) == 0:
            return np.zeros((0, self.config.odim), dtype=np.float32)
        # one row per channel: the memories filter along rows, and nothing is transposed on the way
        x = self._memories[0](_chunked(features.T, self.config.P, self._first, self._second))
        for (wide, bias, narrow), memory in zip(self._blocks, self._memories[1:], strict=True):
            x = x + memory(_chunked(x, self.config.P, (wide, bias), (narrow, None)))
        return self._classify(x.T)

    def start(self, streams: int = 1) -> list[Array]:
        """Empty state of streams: the past inputs of each memory, (streams, look back, P)."""
        shape = (streams, self.config.look_back, self.config.P)
        return [np.zeros(shape, dtype=np.float32) for _ in self._memories]

    def stream(self, features: Array, state: Sequence[Array]) -> tuple[Array, list[Array]]:
        """Probabilities of the next frames of streams; only for a causal network.

        Args:
            features: (N, K, idim), as many frames of each stream.
            state: from `start`, or what the call before returned.

        Returns:
            (N, K, odim) and the new state.
        """
        n, count = features.shape[:2]
        if n * count == 0:
            return np.zeros((n, count, self.config.odim), dtype=np.float32), list(state)
        new = []
        rows = features.reshape(n * count, -1)
        x = _layer(_layer(rows, *self._first), *self._second)
        for i, (memory, past) in enumerate(zip(self._memories, state, strict=True)):
            if i:
                wide, bias, narrow = self._blocks[i - 1]
                before, x = x, _layer(x, wide, bias) @ narrow.T
            signal = np.concatenate([past, x.reshape(n, count, -1)], axis=1)
            y = memory.causal(signal, count).reshape(n * count, -1)
            new.append(signal[:, count:])
            x = y + before if i else y
        return self._classify(x).reshape(n, count, -1), new

    def advance(self, features: Array, live: LiveState) -> Array:
        """Probabilities of the next frames of one live stream: (K, idim) → (K, odim); only for a causal network."""
        if len(features) == 1:
            return self._step(features[0], live)
        back = slice(live.end - live.look_back, live.end)
        probabilities, past = self.stream(features[None], [buffer[None, back] for buffer in live.past])
        live.rewind(past)
        newest: Array = probabilities[0]
        return newest

    def _step(self, frame: Array, live: LiveState) -> Array:
        """One frame, with as few steps of Python as possible: they cost more than the arithmetic."""
        if live.end == live.past.shape[1]:
            live.rewind()
        window = slice(live.end - live.look_back, live.end + 1)
        hidden, total = live.hidden, None
        for i, memory in enumerate(self._memories):
            wide, bias = self._blocks[i - 1][:2] if i else self._first
            np.dot(wide, frame if total is None else total, out=hidden)
            hidden += bias
            np.maximum(hidden, 0, out=hidden)
            newest = live.past[i, live.end]
            np.dot(self._blocks[i - 1][2] if i else self._second[0], hidden, out=newest)
            if not i:
                newest += self._second[1]
                np.maximum(newest, 0, out=newest)
            np.multiply(live.past[i, window], memory.taps, out=live.products)
            filtered = np.add.reduce(live.products, axis=0)
            total = filtered if total is None else total + filtered
        live.end += 1
        return self._classify(np.asarray(total)[None])

    def _classify(self, x: Array) -> Array:
        for weight, bias in self._dense:
            x = _layer(x, weight, bias)
        logits = x @ self._out[0].T + self._out[1]
        probabilities: Array = 1 / (1 + np.exp(-np.maximum(logits, -80)))  # below, the exponential would overflow
        return probabilities


def _layer(x: Array, weight: Array, bias: Array) -> Array:
    """(T, in) → (T, out) with ReLU."""
    y: Array = x @ weight.T
    y += bias
    np.maximum(y, 0, out=y)
    return y


def _chunked(x: Array, outputs: int, wide: tuple[Array, Array], narrow: tuple[Array, Array | None]) -> Array:
    """Two layers on (in, T), a stretch of frames at a time: (outputs, T); ReLU after each layer that has a bias."""
    y = np.empty((outputs, x.shape[1]), dtype=np.float32)
    for first in range(0, x.shape[1], CHUNK):
        hidden = wide[0] @ x[:, first : first + CHUNK]
        hidden += wide[1][:, None]
        np.maximum(hidden, 0, out=hidden)
        part = y[:, first : first + CHUNK]
        part[:] = narrow[0] @ hidden
        if narrow[1] is not None:
            part += narrow[1][:, None]
            np.maximum(part, 0, out=part)
    return y
