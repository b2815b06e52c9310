"""G.711: the two ways in which telephones write a sample in 8 bits (ITU-T G.711)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def _ulaw() -> NDArray[np.int16]:
    code = ~np.arange(256, dtype=np.uint8)
    exponent, mantissa = (code >> 4 & 7).astype(np.int32), (code & 15).astype(np.int32)
    magnitude = ((mantissa << 3) + 132 << exponent) - 132
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def _alaw() -> NDArray[np.int16]:
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    exponent, mantissa = (code >> 4 & 7).astype(np.int32), (code & 15).astype(np.int32)
    first = (mantissa << 4) + 8
    magnitude = np.where(exponent == 0, first, first + 256 << np.maximum(exponent - 1, 0))
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)


TABLES = {"audio/pcmu": _ulaw(), "audio/pcma": _alaw()}


def expand(data: bytes, kind: str) -> bytes:
    """Bytes of `audio/pcmu` or `audio/pcma` → little-endian 16-bit samples."""
    return TABLES[kind][np.frombuffer(data, np.uint8)].astype("<i2").tobytes()
