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
    """(P, look back + 1 + look ahead), oldest frame first"""
    look_back: int
    look_ahead: int
    toeplitz: Array = field(init=False)
    """(P, BLOCK + look back + look ahead, BLOCK): the filter as one small matrix per channel"""

    def __post_init__(self) -> None:
        width = self.taps.shape[1]
        self.toeplitz = np.zeros((len(self.taps), BLOCK + width - 1, BLOCK), dtype=np.float32)
        for i in range(BLOCK):
            self.toeplitz[:, i : i + width, i] = self.taps

    def __call__(self, x: Array) -> Array:
        """(T, P) → (T, P); frames outside the signal are zero."""
        frames, channels = x.shape
        blocks = -(-frames // BLOCK)
        padded = np.zeros((channels, blocks * BLOCK + self.taps.shape[1] - 1), dtype=np.float32)
        padded[:, self.look_back : self.look_back + frames] = x.T
        filtered: Array = _blocked(padded, self.toeplitz, blocks)[:, :frames].T
        return filtered

    def causal(self, x: Array, past: Array) -> tuple[Array, Array]:
        """(T, P) after (look back, P) past inputs → (T, P) and the new past."""
        signal = np.concatenate([past, x])
        if len(x) <= 4:  # a live stream: one frame at a time
            rows = [np.einsum("kp,pk->p", signal[i : i + self.taps.shape[1]], self.taps) for i in range(len(x))]
            return np.stack(rows), signal[len(x) :]
        blocks = -(-len(x) // BLOCK)
        padded = np.zeros((x.shape[1], blocks * BLOCK + self.taps.shape[1] - 1), dtype=np.float32)
        padded[:, : len(signal)] = signal.T
        filtered: Array = _blocked(padded, self.toeplitz, blocks)[:, : len(x)].T
        return filtered, signal[len(x) :]


def _blocked(padded: Array, toeplitz: Array, blocks: int) -> Array:
    """Filter each channel by matrix products over overlapping blocks: (P, T + taps − 1) → (P, blocks·BLOCK)."""
    width = toeplitz.shape[1]
    s = padded.strides
    windows = np.lib.stride_tricks.as_strided(padded, (len(padded), blocks, width), (s[0], BLOCK * s[1], s[1]))
    filtered: Array = np.matmul(windows, toeplitz).reshape(len(padded), -1)
    return filtered


class Dfsmn:
    """The network; immutable, so many streams can share it."""

    def __init__(self, config: DfsmnConfig, state: Mapping[str, Array]) -> None:
        """Take the weights by their published keys (exactly `config.keys()`)."""
        self.config = config
        w = {k: np.ascontiguousarray(v, dtype=np.float32) for k, v in state.items()}
        self._first = (w["dfsmn.fc1.0.weight"].T, w["dfsmn.fc1.0.bias"])
        self._second = (w["dfsmn.fc2.0.weight"].T, w["dfsmn.fc2.0.bias"])
        names = ["dfsmn.fsmn1", *(f"dfsmn.fsmns.{i}.fsmn" for i in range(config.R - 1))]
        self._memories = [self._memory(w, name) for name in names]
        self._blocks = [
            (
                w[f"dfsmn.fsmns.{i}.fc1.0.weight"].T,
                w[f"dfsmn.fsmns.{i}.fc1.0.bias"],
                w[f"dfsmn.fsmns.{i}.fc2.weight"].T,
            )
            for i in range(config.R - 1)
        ]
        self._dense = [(w[f"dfsmn.dnns.{3 * i}.weight"].T, w[f"dfsmn.dnns.{3 * i}.bias"]) for i in range(config.M)]
        self._out = (w["out.weight"].T, w["out.bias"])

    def _memory(self, w: Mapping[str, Array], name: str) -> _Memory:
        c = self.config
        taps = np.zeros((c.P, c.look_back + 1 + c.look_ahead), dtype=np.float32)
        taps[:, : c.look_back + 1 : c.S1] = w[f"{name}.lookback_filter.weight"][:, 0]
        if c.N2:
            taps[:, c.look_back + c.S2 :: c.S2] = w[f"{name}.lookahead_filter.weight"][:, 0]
        taps[:, c.look_back] += 1.0  # y = x + filter(x)
        return _Memory(taps, c.look_back, c.look_ahead)

    @property
    def context(self) -> tuple[int, int]:
        """Frames before and after a frame that its probability depends on."""
        return self.config.R * self.config.look_back, self.config.R * self.config.look_ahead

    def __call__(self, features: Array) -> Array:
        """Probabilities of a whole signal: (T, idim) → (T, odim)."""
        if len(features) == 0:
            return np.zeros((0, self.config.odim), dtype=np.float32)
        x = self._memories[0](self._project(features))
        for block, memory in zip(self._blocks, self._memories[1:], strict=True):
            x = x + memory(_narrow(x, block))
        return self._classify(x)

    def start(self) -> list[Array]:
        """Empty state of a stream: the past inputs of each memory."""
        return [np.zeros((self.config.look_back, self.config.P), dtype=np.float32) for _ in self._memories]

    def stream(self, features: Array, state: Sequence[Array]) -> tuple[Array, list[Array]]:
        """Probabilities of the next frames of a stream and its new state; only for a causal network."""
        if len(features) == 0:
            return np.zeros((0, self.config.odim), dtype=np.float32), list(state)
        new = []
        x, past = self._memories[0].causal(self._project(features), state[0])
        new.append(past)
        for block, memory, before in zip(self._blocks, self._memories[1:], state[1:], strict=True):
            y, past = memory.causal(_narrow(x, block), before)
            new.append(past)
            x = x + y
        return self._classify(x), new

    def _project(self, features: Array) -> Array:
        return _relu(_relu(features @ self._first[0] + self._first[1]) @ self._second[0] + self._second[1])

    def _classify(self, x: Array) -> Array:
        for weight, bias in self._dense:
            x = _relu(x @ weight + bias)
        logits = x @ self._out[0] + self._out[1]
        tail = np.exp(-np.abs(logits))  # no overflow on either side
        probabilities: Array = np.where(logits >= 0, 1 / (1 + tail), tail / (1 + tail)).astype(np.float32)
        return probabilities


def _relu(x: Array) -> Array:
    return np.maximum(x, 0, out=x)


def _narrow(x: Array, block: tuple[Array, Array, Array]) -> Array:
    wide, bias, narrow = block
    return _relu(x @ wide + bias) @ narrow
